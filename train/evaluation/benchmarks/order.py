"""ARO, COCO-Order and Flickr-Order: a caption against four shuffles of its words, frozen in a file."""

import json
import random
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from nltk.tokenize import NLTKWordTokenizer

from macco.pipeline.errors import UserError
from macco.pipeline.shuffles import shuffles
from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Judged, Mean
from macco.train.evaluation.manifest import sha256

WORDS: Final = 30


class _Order(Benchmark):
    collection: str

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        frozen = read_json(path)
        if isinstance(frozen, dict):  # as `freeze` writes it; a bare list of items will do
            frozen = frozen["items"]
        for name, row in numbered(frozen):
            captions = tuple(clean(caption) for caption in row["caption_options"])
            yield Item(subset, name, (self.picture(self.collection, row["image"]),), captions)

    def figures(self, judged: Judged) -> dict[str, Mean]:
        return {"precision@1": judged.mean(criterion="lenient"), "precision@1 strict": judged.mean()}


class CocoOrder(_Order):
    """Micro precision at 1. The official argmax gives a tie to the original; the strict figure is beside it."""

    name = "coco_order"
    collection = "coco2014"


class Flickr30kOrder(_Order):
    """The same on Flickr30k's Karpathy test split."""

    name = "flickr30k_order"
    collection = "flickr30k"


def clean(caption: str) -> str:
    """The official preparation: lower case, punctuation to spaces, the first 30 words."""
    words = re.sub(r"\s{2,}", " ", re.sub(r"[.!\"()*#:;~]", " ", caption.lower())).rstrip("\n").strip(" ")
    return " ".join(words.split(" ")[:WORDS])


def freeze(karpathy: Path, out: Path, *, tagger: str, seed: int = 0) -> int:
    """Write the shuffles of a Karpathy test split ([{image, caption: [...]}]) with all that shaped them.

    As in ARO spaCy cuts the words that are tagged, NLTK those of the trigrams: they differ in 1 % of captions.

    tagger: an installed spaCy pipeline, or its folder. Returns the number of items.

    Raises:
        UserError: the pipeline is not installed, or the file is not such a split.
    """
    import spacy

    try:
        nlp: Any = spacy.load(tagger, exclude=["parser", "ner", "lemmatizer"])
    except OSError as error:
        raise UserError(f"no spaCy pipeline {tagger!r}: python -m spacy download {tagger}") from error
    try:
        pairs = [(row["image"], caption) for row in read_json(karpathy) for caption in row["caption"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{karpathy} is no Karpathy split: a list of {{image, caption: [...]}}") from error
    rng = random.Random(seed)
    items = list(_shuffled(nlp, pairs, rng))
    header = {
        "seed": seed,
        "tagger": f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']}",
        "spacy": spacy.__version__,
        "nltk": version("nltk"),
        "source": karpathy.name,
        "source_sha256": sha256(karpathy),
    }
    out.write_text(json.dumps(header | {"items": items}, indent=0, ensure_ascii=False), "utf-8")
    return len(items)


def _shuffled(nlp: Any, pairs: Iterable[tuple[str, str]], rng: random.Random) -> Iterator[dict[str, Any]]:
    images, captions = zip(*pairs, strict=True)
    for image, caption, doc in zip(images, captions, nlp.pipe(captions), strict=True):
        words, tags = [token.text for token in doc], [token.tag_ for token in doc]
        options = shuffles(words, tags, rng, NLTKWordTokenizer().tokenize(caption))
        yield {"image": image, "caption_options": [caption, *options]}
