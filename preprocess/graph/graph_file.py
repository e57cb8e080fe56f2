"""Scene graphs that were made elsewhere: one JSON object a line, of a `caption` or a `sample_id`.

    {"caption": "A red dog on a sofa", "objects": ["dog", {"text": "sofa", "start": 15, "end": 19}],
     "attributes": [["dog", "red"]], "relations": [["dog", "on", "sofa"]]}

An object is its words, or has `text`, and `start` and `end` (characters of the caption) where these are known; an
attribute has `object` and `text`, a relation `subject`, `text` and `object`, or they are lists in that order. Objects
are named by their words or by their place in the list, from 0. Where the characters of a span are other words than its
text, as those of offsets in bytes, it is not taken: the words are looked for. What `macco-prep parse --json` prints is
read, too.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from macco.pipeline.errors import UserError
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept, Span
from macco.preprocess.graph.parser import READING, Parsed, Parser, fault
from macco.preprocess.graph.refusal import CaptionError
from macco.preprocess.graph.triples import ABSENT, AMBIGUOUS, SHARED, Graph, Thing, concepts_of

MISSING: Final = "captions that the file of graphs does not have"
UNREADABLE: Final = "graphs of the file that are none"
GRAPHS: Final = "graphs"
NO_GRAPH: Final = "lines that hold no graph"
NAMES_ALONE: Final = "graphs with a sample_id alone: their words are looked for when the captions are read"
AGAIN: Final = "further graphs of the same caption or sample: the first counts"
MISPLACED: Final = "spans of graphs that are not their words: they are looked for"
NAMED_TWICE: Final = "objects that graphs name by words which several have: the first is taken"
KINDS: Final = (OBJECT, ATTRIBUTE, RELATION)
_WRONG: Final = (LookupError, TypeError, ValueError, OverflowError)  # a graph of other types than it has
_OF_WORDS: Final = (MISPLACED, AMBIGUOUS, SHARED, NAMED_TWICE, ABSENT)


class GraphFile:
    """A `Parser` that looks graphs up: by the sample's name, else by the caption."""

    def __init__(self, path: Path) -> None:
        self._path = path
        keys: list[int] = []
        places: list[int] = []
        for place, line in _lines(path):
            for name in _named(line):
                keys.append(_key(name))
                places.append(place)
        order = np.argsort(
            np.array(keys, np.uint64), kind="stable"
        )  # of two graphs of one caption the first counts
        self._keys, self._places = np.array(keys, np.uint64)[order], np.array(places, np.int64)[order]

    def parse(self, captions: Sequence[str], names: Sequence[str]) -> Parsed:
        """See `Parser`."""
        counts: Counter[str] = Counter()
        with self._path.open("rb") as stream:
            graphs = [self._graph(stream, *one, counts) for one in zip(captions, names, strict=True)]
        return Parsed(graphs, {name: n for name, n in counts.items() if n})

    def _graph(
        self, stream: Any, caption: str, name: str, counts: Counter[str]
    ) -> list[Concept] | CaptionError:
        for key, field in ((name, "sample_id"), (caption, "caption")):
            at = int(np.searchsorted(self._keys, np.uint64(_key((field, key)))))
            if at < len(self._keys) and self._keys[at] == np.uint64(_key((field, key))):
                stream.seek(int(self._places[at]))
                value = json.loads(stream.readline())
                try:
                    return _concepts(value, caption, counts)
                except _WRONG:
                    counts[UNREADABLE] += 1
                    return []
        counts[MISSING] += 1
        return []


def survey(path: Path) -> dict[str, int]:
    """What an extraction would make of a file whose graphs have their captions, by what it is; spans are looked for.

    Raises UserError for a file that is not there.
    """
    counts: Counter[str] = Counter()
    counts.update(dict.fromkeys((GRAPHS, NO_GRAPH, NAMES_ALONE, AGAIN, UNREADABLE), 0))
    counts.update(dict.fromkeys((*(f"{kind}s" for kind in KINDS), *_OF_WORDS), 0))
    seen: set[int] = set()
    for _, line in _lines(_path(str(path))):
        names = dict(_named(line))
        caption, name = names.get("caption"), names.get("sample_id")
        if not names:
            counts[NO_GRAPH] += bool(line.strip())
            continue
        counts[GRAPHS] += 1
        key = _key(("caption", caption or "") if name is None else ("sample_id", name))
        if key in seen:
            counts[AGAIN] += 1
        elif caption is None:
            counts[NAMES_ALONE] += 1
        else:
            try:
                found = _concepts(json.loads(line), caption, counts)
                counts.update(f"{concept.kind}s" for concept in found)
            except _WRONG:
                counts[UNREADABLE] += 1
        seen.add(key)
    return dict(counts)


class GraphFileBackend:
    """What `graphs:FILE` stands for."""

    def check(self, name: str) -> None:
        """Raise UserError unless FILE is there and begins with a graph."""
        path = _path(name)
        if not any(_named(line) for _, line in _lines(path, 100)):
            raise UserError(
                f"{path}: none of the first lines is a graph: JSON objects with caption or sample_id are needed, and "
                "objects, attributes, relations"
            )

    def fingerprint(self, name: str) -> str:
        """Hash of the content."""
        with _path(name).open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        return f"graphs:{digest.hexdigest()}, reading {READING}"

    def load(self, name: str, rules: str) -> Parser:
        """Read the file once, for where its graphs lie."""
        return GraphFile(_path(name))


def _path(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"graphs:{name}: there is no such file; give a .jsonl of scene graphs")
    return path


def _lines(path: Path, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    place = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream):
            if limit is not None and number >= limit:
                return
            yield place, line
            place += len(line)


def _named(line: bytes) -> list[tuple[str, str]]:
    """What a line's graph is known by; nothing for a line that holds none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return []
    if not isinstance(value, dict) or not {"objects", "concepts"} & value.keys():
        return []
    return [(name, value[name]) for name in ("sample_id", "caption") if isinstance(value.get(name), str)]


def _key(name: tuple[str, str]) -> int:
    text = "\0".join((name[0], name[1].strip()))
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


def _concepts(value: dict[str, Any], caption: str, counts: Counter[str]) -> list[Concept]:
    if "concepts" in value:
        return _own(_list(value["concepts"]), caption)
    graph, said = Graph(), Counter[str]()  # what is said of a graph that turns out to be none is not counted
    for one in _list(value["objects"]):
        graph.objects.append(Thing(*_text(one, caption, said)))
    for one in _list(value.get("attributes", [])):
        owner, text, span = _row(one, ("object",), caption, said)
        graph.objects[_object(graph, owner, said)].attributes.append((text, span))
    for one in _list(value.get("relations", [])):
        subject, object_, text, span = _row(one, ("subject", "object"), caption, said)
        begins, ends = (None if end is None else _object(graph, end, said) for end in (subject, object_))
        if begins is not None and begins == ends and isinstance(object_, str):
            ends = graph.other(begins)
        graph.relations.append((begins, text, ends, span))
    counts.update(said)
    return concepts_of(graph, caption, counts)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def _row(one: Any, ends: tuple[str, ...], caption: str, counts: Counter[str]) -> tuple[Any, ...]:
    """What a part of a graph is tied to, its words, and where they stand, if that is said. In a list the words come
    second."""
    if isinstance(one, list):
        first, text, *rest = one
        if len(rest) != len(ends) - 1 or not isinstance(text, str):
            raise TypeError("no such row")
        return first, *rest, text, None
    if not isinstance(one, dict):
        raise TypeError("no row")
    return *(one.get(end) if len(ends) > 1 else one[end] for end in ends), *_text(one, caption, counts)


def _text(one: Any, caption: str, counts: Counter[str]) -> tuple[str, Span | None]:
    """The words of a part of a graph, and where they stand, if that is said and so."""
    if isinstance(one, str):
        return one, None
    text = one["text"]
    if not isinstance(text, str):
        raise TypeError("text is no string")
    if one.get("start") is None or one.get("end") is None:
        return text, None
    start, end = _number(one["start"]), _number(one["end"])
    if not 0 <= start < end <= len(caption) or _plain(caption[start:end]) != _plain(text):
        counts[MISPLACED] += 1
        return text, None
    return text, Span(start, end)


def _plain(words: str) -> list[str]:
    return words.casefold().split()


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise TypeError("no whole number")
    return int(value)


def _span(start: Any, end: Any, caption: str) -> Span:
    span = Span(_number(start), _number(end))
    if not 0 <= span.start < span.end <= len(caption):
        raise ValueError(f"characters {start}:{end} are none of the caption's")
    return span


def _object(graph: Graph, named: Any, counts: Counter[str]) -> int:
    """The place of an object that is named by its place or its words; one that is not listed is put there."""
    if not isinstance(named, str):
        place = _number(named)
        if not 0 <= place < len(graph.objects):
            raise IndexError("no such object")
        return place
    places = [place for place, thing in enumerate(graph.objects) if thing.text == named]
    if places:
        counts[NAMED_TWICE] += len(places) > 1
        return places[0]
    graph.objects.append(Thing(named))
    return len(graph.objects) - 1


def _own(entries: list[dict[str, Any]], caption: str) -> list[Concept]:
    """What `macco-prep parse --json` prints: an entry a span; `head` is found in its spans."""
    spans: dict[int, list[Span]] = {}
    first: dict[int, dict[str, Any]] = {}
    for entry in entries:
        span = _span(entry["start"], entry["end"], caption)
        if caption[span.start : span.end] != entry["text"]:
            raise ValueError("a span's text is another")
        spans.setdefault(entry["id"], []).append(span)
        first.setdefault(entry["id"], entry)
    number = {name: place for place, name in enumerate(sorted(first))}
    found = []
    for name in sorted(first):
        one, own = first[name], tuple(spans[name])
        subject, object_, owner = (
            None if one[end] is None else number[one[end]] for end in ("subject", "object", "owner")
        )
        at = caption.rfind(one["head"], own[0].start, own[-1].end)
        head = Span(at, at + len(one["head"])) if at >= 0 else own[0]
        kind, lemma, denied = one["kind"], one["lemma"], bool(one["denied"])
        found.append(
            Concept(kind, own, lemma, head, one["pos"], one["phrase"], subject, object_, owner, denied)
        )
    if wrong := fault(caption, found):
        raise ValueError(wrong)
    return found
