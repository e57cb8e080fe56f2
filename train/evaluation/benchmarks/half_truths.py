"""Half-truths: a true part of a caption against the same part with something false appended."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.item import Item, text_or_none
from macco.train.evaluation.judged import Judged, Mean, joined

ENTITY: Final = ("object_change", "attribute_change")
RELATION: Final = ("swap", "antonym", "negation", "object", "subject", "attribute")
LEAST: Final = 2  # foils that a relation needs: of all but the attribute's
_EMPTY: Final = {"and", "the", "a", "an", "on", "in", "at", "to", "of"}

Foils = dict[str, str | None]  # by condition; None: the file has no text there


class HalfTruths(Benchmark):
    """The shorter, true text must score above the longer one that is half true. One pair of entities and one relation
    an image: the first in the file that has foils. Figures over all foils, over those of entities, of relations.

    Rule: half_truth_vulnerability.py of the CS-CLIP repository (its foils drawn at random from other images are left
    out: they hang on a seed). It counts how often the longer one is above, so that a tie is no half-truth: "lenient".
    """

    name = "half_truths"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        done: dict[str, set[str]] = {"entity": set(), "relation": set()}
        for number, row in numbered(read_json(path)):
            sample = str(row.get("sample_id", number))
            image = sample.rsplit("_", 1)[0]
            picture = self.picture("coco2014", row["image_path"])
            for kind, find in (("entity", _entity), ("relation", _relation)):
                if image in done[kind] or (found := find(row)) is None:
                    continue
                done[kind].add(image)
                true, foils = found
                for condition, foil in foils.items():
                    yield Item(
                        subset,
                        f"{sample}/{kind}/{condition}",
                        (picture,),
                        (true, foil),
                        f"{kind} {condition}",
                    )

    def figures(self, judged: Judged) -> dict[str, Mean]:
        names = [f"entity {one}" for one in ENTITY] + [f"relation {one}" for one in RELATION]
        found = {}
        for suffix, criterion in (("", "right"), (", lenient", "lenient")):
            parts = {name: judged.mean(category=name, criterion=criterion) for name in names}
            found["all" + suffix] = judged.mean(criterion=criterion)
            for kind in ("entity", "relation"):
                found[kind + suffix] = joined(mean for name, mean in parts.items() if name.startswith(kind))
            found |= {name + suffix: mean for name, mean in parts.items()}
        return found


def _entity(row: Any) -> tuple[str, Foils] | None:
    """The first two entities, the second of which has a foil: "A" against "A and not B"."""
    entities, foils = row["positive_components"], row["negative_components"]
    for first in entities:
        for second in entities:
            changed = {kind: _changed(foils.get(second, []), kind) for kind in ENTITY}
            wrong = {
                kind: _put(f"{_plain(first)} and {{}}", text) for kind, text in changed.items() if text != ""
            }
            if first != second and wrong and _says(first) and _says(second):
                return _plain(first), wrong
    return None


def _relation(row: Any) -> tuple[str, Foils] | None:
    """The first relation with two foils: its subject against the relation with something wrong."""
    entities, foils = row["positive_components"], row["negative_components"]
    for relation in row["relations"]:
        subject, verb, thing = (_plain(relation[key]) for key in ("subject", "relation_type", "object"))
        if not (subject and verb and thing):
            continue
        wrong: Foils = {"swap": f"{thing} {verb} {subject}"}
        for foil in relation.get("negatives", []):
            words = [_plain(foil[key]) for key in ("subject", "relation_type", "object")]
            if foil["change_type"].lower() in ("antonym", "negation") and all(map(_says, words)):
                wrong.setdefault(foil["change_type"].lower(), " ".join(words))
        of_thing, of_subject = (_foils_of(end, entities, foils) for end in (thing, subject))
        if (text := _changed(of_thing, "object_change")) != "":
            wrong["object"] = _put(f"{subject} {verb} {{}}", text)
        if (text := _changed(of_subject, "object_change")) != "":
            wrong["subject"] = _put(f"{{}} {verb} {thing}", text)
        wrong = {condition: text for condition, text in wrong.items() if text is None or _says(text)}
        if len(wrong) < LEAST or not _says(subject):
            continue
        if (text := _changed(of_thing, "attribute_change")) != "":
            wrong["attribute"] = _put(f"{subject} {verb} {{}}", text)
        return subject, wrong
    return None


def _foils_of(end: str, entities: list[str], foils: dict[str, Any]) -> Any:
    """The foils of one end of a relation, or of the first entity that it is a part of."""
    return foils.get(end) or next((foils.get(one, []) for one in entities if end in one.lower()), [])


def _changed(foils: Any, kind: str) -> str | None:
    """The first foil of a kind that says anything; "" where there is none, None where it is no text."""
    texts = (text_or_none(foil["negative"]) for foil in foils if foil["change_type"] == kind)
    return next((text for text in texts if text is None or _says(text)), "")


def _put(frame: str, text: str | None) -> str | None:
    return None if text is None else frame.replace("{}", text.lower())


def _plain(text: str) -> str:
    return text.lower().strip()


def _says(text: str) -> bool:
    """Whether any word is more than a joint."""
    return any(len(word) > 2 and word.lower() not in _EMPTY for word in text.split())
