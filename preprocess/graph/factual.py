"""FACTUAL's parsers: a T5 writes the graph of a sentence as text, "( dog , is , red ) , ( dog , sit on , sofa )".

A fact is three parts; "( city bus )", an object of which nothing is said, is one. The checkpoints whose names end in
"-id" number things of one name ("dog:1") and mark verbs ("v:sit on") and passives ("pv:park on").
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from macco.pipeline.errors import UserError, is_failure
from macco.pipeline.schema import Concept, Status
from macco.preprocess.graph.parser import READING, Parsed, Parser
from macco.preprocess.graph.refusal import CaptionError
from macco.preprocess.graph.sentences import joined, sentences
from macco.preprocess.graph.triples import Graph, Thing, concepts_of

PROMPT: Final = "Generate Scene Graph: "
LIMIT: Final = 200  # tokens that are read, and written, of one sentence: as in the authors' own example
BATCH: Final = 32  # sentences
IS: Final = "is"  # what makes a triple an attribute
NO_FACT: Final = "facts of the parser that are none, or cut short: left out"
CUT: Final = "sentences longer than the parser reads: cut"

_FACT: Final = re.compile(r"\(([^()]*)\)")
_NUMBER: Final = re.compile(r"\s*:\s*\d+$")
_VERB: Final = re.compile(r"^p?v\s*:\s*")
_HASHED: Final = (".json", ".model", ".safetensors", ".bin")


class Factual:
    """A `Parser` over a T5."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, T5ForConditionalGeneration
        from transformers.utils import logging

        from macco.pipeline.devices import choose_device

        logging.disable_progress_bar()
        try:  # what transformers makes of a damaged file may be an error of any kind
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model, report = T5ForConditionalGeneration.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        except BaseException as error:
            if not is_failure(error):
                raise
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise UserError(f"{folder} cannot be read as a T5 ({why}): run hf download again") from error
        if report["missing_keys"] or report["mismatched_keys"]:
            raise UserError(f"{folder}: the weights do not fit config.json")
        self.device = choose_device("auto", mps="asked")
        self.model = model.eval().to(self.device)

    def parse(self, captions: Sequence[str], names: Sequence[str] = ()) -> Parsed:
        """See `Parser`. A caption with a sentence whose graph cannot be read is a CaptionError."""
        counts: Counter[str] = Counter()
        parts = {caption: sentences(caption) for caption in captions}
        texts = list(dict.fromkeys(text for own in parts.values() for _, text in own))
        written = dict(zip(texts, self._write(texts, counts), strict=True))
        graphs = {caption: self._graph(own, written, counts) for caption, own in parts.items()}
        return Parsed([graphs[caption] for caption in captions], {what: n for what, n in counts.items() if n})

    def _graph(
        self, parts: list[tuple[int, str]], written: dict[str, str], counts: Counter[str]
    ) -> list[Concept] | CaptionError:
        found = []
        for start, text in parts:
            graph = read_graph(written[text], counts)
            if graph is None:
                shown = written[text][:80]
                return CaptionError(Status.PARSING_FAILED, f"the parser wrote no graph: {shown!r}")
            found.append((start, concepts_of(graph, text, counts)))
        return joined(found)

    def _write(self, texts: Sequence[str], counts: Counter[str]) -> Iterator[str]:
        import torch

        for start in range(0, len(texts), BATCH):
            asked = [PROMPT + text for text in texts[start : start + BATCH]]
            inputs = self.tokenizer(
                asked, max_length=LIMIT, truncation=True, padding=True, return_tensors="pt"
            ).to(self.device)
            lengths = map(len, self.tokenizer(asked)["input_ids"])
            counts[CUT] += sum(length > LIMIT for length in lengths)
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
        return f"factual:{digest.hexdigest()}, reading {READING}"

    def load(self, name: str, rules: str) -> Parser:
        """Load the model, onto CUDA where there is one."""
        return Factual(_folder(name))


def read_graph(text: str, counts: Counter[str]) -> Graph | None:
    """The graph that a model wrote; None where no fact of it can be read. What is no fact beside others is counted.

    "dog:1" is another dog than "dog".
    """
    facts = [tuple(part.strip() for part in fact.split(",")) for fact in _FACT.findall(text)]
    good = [fact for fact in facts if len(fact) in (1, 3) and all(fact)]
    if not good:
        return None
    counts[NO_FACT] += len(facts) - len(good) + bool(_FACT.sub("", text).strip(" ,\t\n"))
    graph, place = Graph(), dict[str, int]()

    def thing(name: str) -> int:
        if name not in place:
            place[name] = len(graph.objects)
            graph.objects.append(Thing(_NUMBER.sub("", name)))
        return place[name]

    for subject, *rest in dict.fromkeys(good):
        owner = thing(subject)
        if not rest:
            continue
        words, object_ = rest
        if words == IS:
            graph.objects[owner].attributes.append((object_, None))
        else:
            end = thing(object_)
            end = graph.other(end) if end == owner else end
            graph.relations.append((owner, _VERB.sub("", words), end, None))
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
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{folder}/config.json is no configuration: {error}") from error
    if kind != "t5":
        raise UserError(f"{folder} holds a model of the kind {kind}: the parser factual needs a t5")
    return folder
