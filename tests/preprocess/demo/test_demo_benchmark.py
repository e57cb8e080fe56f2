"""The demo benchmark: its captions are true and false as they should be, and its figures follow from scores."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.schema import OBJECT, RELATION, Concept
from macco.preprocess.demo import write_benchmark
from macco.preprocess.demo.benchmark import word_orders
from macco.preprocess.demo.changes import DIRECTED, HELD_OUT, SEEN, draw_case
from macco.preprocess.demo.claim import FORMS, Claim, Style, kin
from macco.preprocess.demo.corpus import matching
from macco.preprocess.demo.icons import COLOURS, NAMES, NOUNS
from macco.preprocess.demo.scene import SIDE, Scene, Thing, held_out
from macco.preprocess.graph.scene_graphs import SceneGraphs
from macco.train.evaluation.benchmarks.demo import GROUPS, Demo
from macco.train.evaluation.classification import class_names, open_labelled
from macco.train.evaluation.item import Picture
from macco.train.evaluation.manifest import Places, load_benchmark_manifest
from macco.train.evaluation.registry import pictures_of
from macco.train.evaluation.run import Outcome, run_benchmark
from tests.preprocess.demo.test_demo import digest

IMAGES = 6
CHANGED = ("attribute_swap", "relation_swap", "relation_replace", "attribute_replace", "object_replace")
RELATION_OF = {
    "to the left of": "left of", "on the left of": "left of", "to the right of": "right of",
    "on the right of": "right of", "over": "above", "beneath": "below", "on top of": "on",
    "underneath": "under", "beside": "next to", "far away from": "far from",
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a small test split."""
    folder = tmp_path_factory.mktemp("data")
    write_benchmark(folder / "demo", images=IMAGES, seed=5, split="test")
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_singles() -> Iterator[None]:
    """Drawing eight and four of each noun alone would take most of the tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("macco.preprocess.demo.benchmark.SINGLES", {"train": 2, "test": 1})
        yield


@pytest.fixture(scope="module")
def rows(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "demo" / "items.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def scenes(root: Path) -> dict[str, Scene]:
    """What each image shows."""
    made = {}
    for line in (root / "demo" / "scenes.jsonl").read_text().splitlines():
        row = json.loads(line)
        things = [
            Thing(t["noun"], t["colour"], t["size"], tuple(tuple(box) for box in t["boxes"]))
            for t in row["objects"]
        ]
        made[row["image"]] = Scene(tuple(things), row["noise"])
    return made


def holds(scene: Scene, concepts: Sequence[Concept]) -> bool:
    """Whether a parsed caption is true of a scene: all its objects are there, and so related."""
    boxes = {i: matching(scene, c.phrase or "") for i, c in enumerate(concepts) if c.kind == OBJECT}
    places = {
        i: [n for n, thing in enumerate(scene.things) if set(thing.boxes) & set(found)]
        for i, found in boxes.items()
    }
    related = [
        (c.subject, RELATION_OF.get(c.lemma, c.lemma), c.object) for c in concepts if c.kind == RELATION
    ]
    return all(places.values()) and all(
        any((a, how, b) in scene.relations for a in places[s or 0] for b in places[o or 0])
        for s, how, o in related
    )


def test_captions_are_true_of_their_image_and_false_of_the_other(
    rows: list[dict[str, Any]], scenes: dict[str, Scene]
) -> None:
    """As the scene-graph parser reads them, which knows nothing of how they were made."""
    texts = sorted({row[key] for row in rows for key in ("caption_0", "caption_1") if key in row})
    graphs = dict(zip(texts, SceneGraphs.load("en_caption", "repaired").parse(texts), strict=True))
    for row in rows:
        first, own = scenes[row["image_0"]], graphs[row["caption_0"]]
        assert len([c for c in own if c.kind == RELATION]) == (
            not row["kind"].startswith(("object_a", "object_rem"))
        )
        assert holds(first, own), row
        if "caption_1" in row:
            assert not holds(first, graphs[row["caption_1"]]), row
        if "image_1" in row:
            assert not holds(scenes[row["image_1"]], own), row
        if row["kind"] in CHANGED:
            assert holds(scenes[row["image_1"]], graphs[row["caption_1"]]), row
        if row["kind"].endswith("_swap"):
            words = [sorted(row[key].split()) for key in ("caption_0", "caption_1")]
            assert words[0] == words[1]


def test_a_change_changes_one_thing() -> None:
    for index in range(40):
        case = draw_case(random.Random(f"one/{index}"), SEEN)
        kinds = {kind: change.scene for kind, change in case.changes.items()}
        assert {scene.noise for scene in kinds.values()} == {case.base.noise}
        for kind, scene in kinds.items():
            things = {(t.noun, t.colour) for t in scene.things}
            before = {(t.noun, t.colour) for t in case.base.things}
            assert len(things - before) == {
                "attribute_swap": 2,
                "relation_swap": 0,
                "relation_replace": 0,
            }.get(kind, 1)
            assert [t for t in scene.things[2:] if t in case.base.things] == list(case.base.things[2:])
            if kind.startswith("attribute"):
                assert [t.boxes for t in scene.things] == [t.boxes for t in case.base.things]
            for thing in scene.things:
                assert min(thing.box) >= 0
                assert max(thing.box) <= SIDE
        a, b = case.changes["relation_swap"].after, case.claim
        assert (a.names, a.relation) == (b.names[::-1], b.relation)
        assert case.changes["relation_replace"].after.relation != b.relation
        assert case.changes["object_add"].scene.things[:-1] == case.base.things


def test_groups_keep_their_promise(rows: list[dict[str, Any]], scenes: dict[str, Scene]) -> None:
    def kept(things: Sequence[Thing]) -> bool:
        return any(held_out([(thing.colour, thing.noun) for thing in things]).values())

    for row in rows:
        for scene in [scenes[row[key]] for key in ("image_0", "image_1") if key in row]:
            assert kept(scene.things[:2] if row["group"] == HELD_OUT else scene.things) == (
                row["group"] == HELD_OUT
            )


def test_counts_names_and_files(root: Path, rows: list[dict[str, Any]], scenes: dict[str, Scene]) -> None:
    described = load_benchmark_manifest("demo").files
    assert Counter(f"{row['kind']}/{row['group']}" for row in rows) == dict.fromkeys(described, IMAGES)
    assert {file.items for file in described.values()} == {400}
    there = {str(path.relative_to(root / "demo")) for path in (root / "demo" / "images").iterdir()}
    assert there == set(scenes) == {row[key] for row in rows for key in ("image_0", "image_1") if key in row}
    assert len(there) == 2 * IMAGES * 7
    pictures, absent = pictures_of("demo_retrieval", Places(root))
    assert (len(pictures), absent) == (2 * IMAGES, [])
    assert all(Path(picture.source).is_file() for picture in pictures)
    elsewhere = Places(Path("nowhere"), {"demo": root / "demo"})
    assert all(Path(picture.source).is_file() for picture in pictures_of("demo", elsewhere)[0])
    for split, count in (("test", 1), ("train", 2)):
        alone = open_labelled("demo", Places(root), split)
        assert sorted(class_names(alone)) == sorted(NOUNS)
        assert len(alone) == count * len(NOUNS)


def test_equal_arguments_give_equal_bytes(root: Path, tmp_path: Path) -> None:
    write_benchmark(tmp_path / "again", images=IMAGES, seed=5, split="test")
    assert digest(tmp_path / "again") == digest(root / "demo")
    write_benchmark(tmp_path / "val", images=2, seed=5, split="val")
    groups = {
        json.loads(line)["group"] for line in (tmp_path / "val" / "items.jsonl").read_text().splitlines()
    }
    assert groups == {SEEN}
    assert not set(digest(tmp_path / "val").values()) & {
        value for name, value in digest(root / "demo").items() if name.startswith("images")
    }


def test_word_orders_are_four_others_and_none_says_the_same() -> None:
    for index in range(200):
        rng = random.Random(index)
        style, relation = Style(rng.choice(FORMS), str(index)), rng.choice(DIRECTED)
        colours, nouns = rng.sample(list(COLOURS), 2), rng.sample(list(NOUNS), 2)
        claim = Claim(tuple(zip(colours, nouns, strict=True)), relation)
        caption = style.write(claim)
        options = word_orders(caption, rng)
        assert len({caption.text, *options}) == 5
        assert {tuple(sorted(text.split())) for text in options} == {tuple(sorted(caption.text.split()))}
        rest = [
            [word for word in text.split() if word not in COLOURS and word not in " ".join(NAMES).split()]
            for text in (caption.text, options[0])
        ]
        if not set(caption.text.split()) & {"left", "right", "top", "front"}:
            assert rest[0] == rest[1]  # nouns and adjectives move, nothing else


def test_nouns_that_are_said_of_each_other() -> None:
    assert kin("tree", "palm tree")
    assert kin("palm tree", "tree")
    assert kin("dog", "dog")
    assert [(a, b) for a in NOUNS for b in NOUNS if a < b and kin(a, b)] == [("palm tree", "tree")]


class Oracle:
    """Scores by whether a caption was written for an image; `sign` -1 is its contrary, 0 gives ties alone."""

    def __init__(self, rows: list[dict[str, Any]], sign: int) -> None:
        own = [
            (row[f"image_{i}"], row[f"caption_{i}"])
            for row in rows
            for i in (0, 1)
            if f"caption_{i}" in row and f"image_{i}" in row
        ]
        self.own = {(Path(image).name, caption) for image, caption in own}
        self.sign = sign

    def pairs(self, pictures: Sequence[Picture], captions: Sequence[str]) -> Any:
        names = [Path(picture.source).name for picture in pictures]
        return np.array(
            [self.sign * (pair in self.own) for pair in zip(names, captions, strict=True)], np.float32
        )

    def text_pairs(self, left: Sequence[str], right: Sequence[str]) -> None:
        return None

    def status(self, picture: Picture) -> str:
        return "ok" if Path(picture.source).is_file() else "missing_image"


def score(root: Path, scorer: Oracle) -> Outcome:
    return run_benchmark(scorer, Demo(Places(root)))


@pytest.mark.parametrize(("sign", "percent"), [(1, 100.0), (-1, 0.0), (0, 0.0)])
def test_figures_of_a_perfect_a_contrary_and_a_blind_scorer(
    root: Path, rows: list[dict[str, Any]], sign: int, percent: float
) -> None:
    report = score(root, Oracle(rows, sign)).report
    assert report["statuses"] == {"ok": len(rows)}
    assert {one["percent"] for one in report["figures"]} == {percent}
    assert {one["ties"] for one in report["counts"]} == {0 if sign else IMAGES}
    names = [one["figure"] for one in report["figures"]]
    assert names[0] == "composition seen"
    for group in GROUPS:
        for name in (
            "composition",
            "relation",
            "attribute",
            "order",
            "object",
            "winoground group",
            "object_remove",
        ):
            assert f"{name} {group}" in names
    assert set(load_benchmark_manifest("demo").published) < set(names)


def test_a_list_is_all_that_adding_and_removing_ask(root: Path, rows: list[dict[str, Any]]) -> None:
    perfect = Oracle(rows, 1)
    perfect.own -= {  # of the base captions, it knows the lists alone
        (Path(row["image_0"]).name, row["caption_0"]) for row in rows if row["kind"] == "word_order"
    }
    found = {one["figure"]: one["percent"] for one in score(root, perfect).report["figures"]}
    assert found["composition seen"] == found["winoground group seen"] == 0
    assert found["object_add held_out"] == found["object_remove held_out"] == 100
    assert found["object held_out"] == pytest.approx(200 / 3)


def test_images_that_are_missing_are_counted(root: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "items.jsonl").write_bytes((root / "demo" / "items.jsonl").read_bytes())
    (tmp_path / "demo" / "images").mkdir()
    for group in GROUPS:
        for index in range(IMAGES):
            name = f"images/{group}-{index:05}-base.jpg"
            (tmp_path / "demo" / name).write_bytes((root / "demo" / name).read_bytes())
    report = score(tmp_path, Oracle(rows, 1)).report
    found = {one["figure"]: one["percent"] for one in report["figures"]}
    assert found["order seen"] == 100
    assert found["composition seen"] is None
    assert found["winoground group seen"] is None
    assert report["statuses"] == {"ok": 4 * IMAGES, "missing_image": len(rows) - 4 * IMAGES}


def test_mistakes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--split val or test, not train"):
        write_benchmark(tmp_path / "x", images=1, seed=0, split="train")
    with pytest.raises(UserError, match="choose a new folder"):
        write_benchmark(root / "demo", images=1, seed=0, split="test")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "items.jsonl").write_text('{"id": "0", "kind": "swap", "group": "seen"}\n')
    with pytest.raises(UserError, match="no subset is called swap/seen"):
        Demo(Places(tmp_path)).items()
    with Image.open(next((root / "demo" / "images").iterdir())) as image:
        assert image.size == (SIDE, SIDE)
