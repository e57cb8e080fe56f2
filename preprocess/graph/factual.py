"""FACTUAL's parsers: a T5 writes the graph of a sentence as text, "( dog , is , red ) , ( dog , sit on , sofa )"."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from macco.pipeline.errors import UserError
from macco.pipeline.schema import Concept, Status
from macco.preprocess.graph.parser import Parsed, Parser
from macco.preprocess.graph.refusal import CaptionError
from macco.preprocess.graph.sentences import joined, sentences
from macco.preprocess.graph.triples import Graph, Thing, concepts_of

PROMPT: Final = "Generate Scene Graph: "
LIMIT: Final = 200  # tokens that are read, and written, of one sentence
BATCH: Final = 32  # sentences
IS: Final = "is"  # what makes a triple an attribute

_TRIPLE: Final = re.compile(r"\(\s*([^(),]+?)\s*,\s*([^(),]+?)\s*,\s*([^(),]+?)\s*\)")
_HASHED: Final = (".json", ".model", ".safetensors", ".bin")


class Factual:
    """A `Parser` over a T5."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, T5ForConditionalGeneration
        from transformers.utils import logging

        from macco.pipeline.devices import choose_device

        logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, report = T5ForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
        if report["missing_keys"] or report["mismatched_keys"]:
            raise UserError(f"{folder}: the weights do not fit config.json")
        self.device = choose_device("auto", mps="asked")
        self.model = model.eval().to(self.device)

    def parse(self, captions: Sequence[str], names: Sequence[str] = ()) -> Parsed:
        """See `Parser`. A caption with a sentence whose graph cannot be read is a CaptionError."""
        counts: Counter[str] = Counter()
        parts = {caption: sentences(caption) for caption in captions}
        texts = list(dict.fromkeys(text for own in parts.values() for _, text in own))
        written = dict(zip(texts, self._write(texts), strict=True))
        graphs = {caption: self._graph(own, written, counts) for caption, own in parts.items()}
        return Parsed([graphs[caption] for caption in captions], dict(counts))

    def _graph(
        self, parts: list[tuple[int, str]], written: dict[str, str], counts: Counter[str]
    ) -> list[Concept] | CaptionError:
        found = []
        for start, text in parts:
            graph = read_graph(written[text])
            if graph is None:
                shown = written[text][:80]
                return CaptionError(Status.PARSING_FAILED, f"the parser wrote no graph: {shown!r}")
            found.append((start, concepts_of(graph, text, counts)))
        return joined(found)

    def _write(self, texts: Sequence[str]) -> Iterator[str]:
        import torch

        for start in range(0, len(texts), BATCH):
            asked = [PROMPT + text for text in texts[start : start + BATCH]]
            inputs = self.tokenizer(
                asked, max_length=LIMIT, truncation=True, padding=True, return_tensors="pt"
            ).to(self.device)
            with torch.inference_mode():
                ids: Any = self.model.generate(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
                    max_new_tokens=LIMIT, num_beams=1, do_sample=False,
                )  # fmt: skip
            yield from self.tokenizer.batch_decode(ids, skip_special_tokens=True)


class FactualBackend:
    """What `factual:NAME_OR_DIR` stands for."""

    def check(self, name: str) -> None:
        """Raise UserError unless the checkpoint is here."""
        _folder(name)

    def fingerprint(self, name: str) -> str:
        """Hash of weights, configuration and vocabulary."""
        digest = hashlib.blake2b(digest_size=16)
        for file in sorted(_folder(name).iterdir()):
            if file.suffix in _HASHED:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "blake2b").digest())
        return f"factual:{digest.hexdigest()}"

    def load(self, name: str, rules: str) -> Parser:
        """Load the model, onto CUDA where there is one."""
        return Factual(_folder(name))


def read_graph(text: str) -> Graph | None:
    """The graph that a model wrote; None where it is none. "dog:1" is another dog than "dog"."""
    triples = _TRIPLE.findall(text)
    if not triples or _TRIPLE.sub("", text).strip(" ,\t\n"):
        return None
    graph, place = Graph(), dict[str, int]()

    def thing(name: str) -> int:
        if name not in place:
            place[name] = len(graph.objects)
            graph.objects.append(Thing(re.sub(r"\s*:\s*\d+$", "", name)))
        return place[name]

    for subject, words, object_ in triples:
        owner = thing(subject)
        if words == IS:
            graph.objects[owner].attributes.append((object_, None))
        else:
            graph.relations.append((owner, words, thing(object_), None))
    return graph


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        looks_local = name.startswith(("/", ".", "~")) or name.count("/") != 1
        cached = None if looks_local else try_to_load_from_cache(name, "config.json")
        if not isinstance(cached, str):
            hint = "give the folder of a checkpoint" if looks_local else f"hf download {name}"
            raise UserError(f"parser factual:{name} is not here: {hint}")
        folder = Path(cached).parent
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json: give the folder of a T5 checkpoint")
    return folder
