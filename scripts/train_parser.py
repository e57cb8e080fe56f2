"""Train the embedded English pipeline: `python scripts/train_parser.py TREEBANKS CAPTIONS OUT`.

TREEBANKS holds en_ewt/ and en_pud/ (Universal Dependencies, CoNLL-U), CAPTIONS is a COCO captions file (only its
words are used, without the images named in tests/data/caption_mentions.jsonl). Treebank sentences and captions of
the grammar are mixed; the captions are drawn anew in each epoch. Runs on one CPU thread.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import spacy
import treebank
from caption_grammar import Grammar
from caption_words import collect
from english_tables import add_rules
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import fix_random_seed, load_config_from_str, minibatch
from thinc.api import Adam, NumpyOps, set_current_ops

MENTIONS = Path(__file__).parent.parent / "tests" / "data" / "caption_mentions.jsonl"
CONFIG = """
[nlp]
lang = "en"
pipeline = ["tok2vec", "tagger", "parser"]
batch_size = 256

[components]

[components.tok2vec]
factory = "tok2vec"

[components.tok2vec.model]
@architectures = "spacy.Tok2Vec.v2"

[components.tok2vec.model.embed]
@architectures = "spacy.MultiHashEmbed.v2"
width = 96
attrs = ["NORM", "PREFIX", "SUFFIX", "SHAPE"]
rows = [4000, 750, 2500, 250]
include_static_vectors = false

[components.tok2vec.model.encode]
@architectures = "spacy.MaxoutWindowEncoder.v2"
width = 96
depth = 4
window_size = 1
maxout_pieces = 2

[components.tagger]
factory = "tagger"
label_smoothing = 0.05

[components.tagger.model]
@architectures = "spacy.Tagger.v2"

[components.tagger.model.tok2vec]
@architectures = "spacy.Tok2VecListener.v1"
width = 96

[components.parser]
factory = "parser"

[components.parser.model]
@architectures = "spacy.TransitionBasedParser.v2"
state_type = "parser"
extra_state_tokens = false
hidden_width = 64
maxout_pieces = 2
use_upper = true

[components.parser.model.tok2vec]
@architectures = "spacy.Tok2VecListener.v1"
width = 96
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("treebanks", type=Path)
    parser.add_argument("captions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--words", type=int, default=2_500_000, help="training words in all; sets the decay of the rate"
    )
    parser.add_argument(
        "--grammar", type=float, default=0.45, help="share of grammar captions among the words"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    set_current_ops(NumpyOps(use_blis=False))  # numpy's OpenBLAS is three times as fast as blis
    fix_random_seed(arguments.seed)
    rng = random.Random(arguments.seed)
    nlp = spacy.util.load_model_from_config(load_config_from_str(CONFIG), auto_fill=True)
    ewt = arguments.treebanks / "en_ewt"
    train = treebank.docs(ewt / "en_ewt-ud-train.conllu", nlp.vocab)
    train += treebank.docs(arguments.treebanks / "en_pud" / "en_pud-ud-test.conllu", nlp.vocab)
    tests = {"dev": treebank.docs(ewt / "en_ewt-ud-dev.conllu", nlp.vocab)}
    tests["test"] = treebank.docs(ewt / "en_ewt-ud-test.conllu", nlp.vocab)
    grammar = Grammar(collect(unseen_captions(arguments.captions)), rng)

    sample = [Example(Doc(nlp.vocab, words=[t.text for t in doc]), doc) for doc in train]
    nlp.initialize(lambda: sample)
    optimizer = Adam(
        0.001, beta1=0.9, beta2=0.999, L2=0.01, L2_is_weight_decay=True, grad_clip=1.0, use_averages=True
    )
    started, seen = time.monotonic(), 0
    losses: dict[str, float] = {}
    for step, batch in enumerate(batches(train, grammar, nlp, arguments.grammar, rng), start=1):
        optimizer.learn_rate = 0.001 * min(1.0, step / 200) * max(0.02, 1.0 - seen / arguments.words)
        nlp.update(batch, drop=0.1, sgd=optimizer, losses=losses)
        seen += sum(len(example) for example in batch)
        if step % 500 == 0:
            minutes = (time.monotonic() - started) / 60
            print(
                f"{step} steps {seen} words {minutes:.1f} min",
                {k: round(v) for k, v in losses.items()},
                flush=True,
            )
            losses.clear()
        if seen >= arguments.words:
            break
    with nlp.use_params(optimizer.averages):
        for name, gold in tests.items():
            print(name, scores(nlp, gold), flush=True)
        add_rules(nlp)
        save(nlp, arguments.out)


def unseen_captions(path: Path) -> list[str]:
    """Captions of the images that the evaluation does not use."""
    lines = MENTIONS.read_text(encoding="utf8").splitlines()
    held_out = {json.loads(line)["image"].rpartition("/")[2] for line in lines}
    annotations = json.loads(path.read_text(encoding="utf8"))["annotations"]
    return [a["caption"] for a in annotations if str(a["image_id"]) not in held_out]


def batches(
    train: list[Doc], grammar: Grammar, nlp: Language, share: float, rng: random.Random
) -> Iterator[list[Example]]:
    """Endless batches of about 800 words, each of treebank sentences and fresh captions."""
    words = sum(map(len, train))
    captions = round(words * share / (1 - share) / 13)
    while True:
        docs = [augment(doc, nlp, rng) for doc in train] + [
            grammar.caption(nlp.vocab) for _ in range(captions)
        ]
        rng.shuffle(docs)
        average = sum(map(len, docs)) / len(docs)
        for batch in minibatch(docs, size=round(800 / average)):
            yield [Example(bare(doc, nlp), doc) for doc in batch]


def augment(doc: Doc, nlp: Language, rng: random.Random) -> Doc:
    """Sometimes lower-case a sentence or drop its final dot: captions often come so."""
    words = [token.text for token in doc]
    end = len(words)
    droppable = (
        end > 2 and words[-1] in {".", "!"} and doc[-1].head.i != doc[-1].i and not list(doc[-1].children)
    )
    if droppable and rng.random() < 0.3:
        end -= 1
    if rng.random() < 0.25:
        words = [word.lower() for word in words]
    return Doc(
        nlp.vocab,
        words=words[:end],
        spaces=[bool(token.whitespace_) for token in doc][:end],
        tags=[token.tag_ for token in doc][:end],
        heads=[token.head.i for token in doc][:end],
        deps=[token.dep_ for token in doc][:end],
    )


def bare(doc: Doc, nlp: Language) -> Doc:
    return Doc(nlp.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc])


def scores(nlp: Language, gold: list[Doc]) -> dict[str, float]:
    """Tagging accuracy and attachment scores on gold tokens."""
    predicted = nlp.pipe((bare(doc, nlp) for doc in gold), batch_size=128)
    examples = [Example(guess, doc) for guess, doc in zip(predicted, gold, strict=True)]
    found = Scorer.score_token_attr(examples, "tag") | Scorer.score_deps(
        examples, "dep", head_attr="head", labels=nlp.get_pipe("parser").labels, ignore_labels=("p", "punct")
    )
    return {key: round(found[key], 4) for key in ("tag_acc", "dep_uas", "dep_las")}


def save(nlp: Language, out: Path) -> None:
    """Write the pipeline and WordNet's notice; words and lemmas need no place in the string table."""
    facts = {"name": "caption", "version": "1.0.0", "license": "CC BY-SA 4.0", "spacy_version": ">=3.8,<3.9"}
    nlp.meta |= facts
    nlp.to_disk(out)
    notice = files("spacy_lookups_data") / "data" / "en_license.txt"
    (out / "LICENSE.wordnet.txt").write_text(notice.read_text(encoding="utf8"), encoding="utf8")
    strings = {label for name in ("tagger", "parser") for label in nlp.get_pipe(name).labels}
    strings |= {"aux", "ROOT", "dep", "", *(string for string in spacy.blank("en").vocab.strings)}
    (out / "vocab" / "strings.json").write_text(
        json.dumps(sorted(strings), ensure_ascii=False), encoding="utf8"
    )


if __name__ == "__main__":
    main()
