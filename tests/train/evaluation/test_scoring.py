"""The rules of the other benchmarks, on official files written small and on scores written by hand, with ties."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.manifest import (
    MissingDataError,
    Places,
    known_benchmarks,
    load_benchmark_manifest,
)
from macco.train.evaluation.rules import first_best, two_by_two
from tests.support.ruled import against, figures, run, sql, write
from tests.support.scored import TableScorer

few = st.sampled_from([0.0, 0.25, 0.5])  # few values, so that ties are common


@given(st.lists(st.tuples(few, few, few), min_size=1))
def test_first_best(rows: list[tuple[float, float, float]]) -> None:
    judged = first_best(np.array(rows, dtype=np.float32))
    assert judged["right"].tolist() == [a > b and a > c for a, b, c in rows]
    assert judged["lenient"].tolist() == [a >= b and a >= c for a, b, c in rows]
    assert judged["tie"].tolist() == [a == max(b, c) for a, b, c in rows]


@given(st.lists(st.tuples(few, few, few, few), min_size=1))
def test_two_by_two(rows: list[tuple[float, float, float, float]]) -> None:
    """Image 0 with captions 0 and 1, then image 1 with captions 0 and 1."""
    judged = two_by_two(np.array(rows, dtype=np.float32).reshape(-1, 2, 2))
    text = [a > b and d > c for a, b, c, d in rows]
    image = [a > c and d > b for a, b, c, d in rows]
    assert judged["text"].tolist() == text
    assert judged["image"].tolist() == image
    assert judged["group"].tolist() == [x and y for x, y in zip(text, image, strict=True)]
    assert judged["tie"].tolist() == [a in (b, c) or d in (b, c) for a, b, c, d in rows]


def pairs_file(answers: str, first: int = 0) -> dict[str, Any]:
    return {
        str(i): {"filename": f"{i}.jpg", "caption": f"yes {i}", "negative_caption": f"no {i}"}
        for i in range(first, first + len(answers))
    }


def test_sugarcrepe(tmp_path: Path) -> None:
    answers = {
        "add_obj": "+", "add_att": "+-", "replace_obj": "-", "replace_att": "+", "replace_rel": "+=-",
        "swap_obj": "+-", "swap_att": "=+++",
    }  # fmt: skip
    first = 0
    for subset, letters in answers.items():
        write(tmp_path, "sugarcrepe", subset, pairs_file(letters, first))
        first += len(letters)
    outcome = run(tmp_path, "sugarcrepe", against("".join(answers.values())))
    found = figures(outcome)
    rates = [1, 1 / 2, 0, 1, 1 / 3, 1 / 2, 3 / 4]
    assert found["macro"] == pytest.approx(100 * sum(rates) / 7)
    assert found["micro"] == pytest.approx(100 * 8 / 14)
    assert found["MACCO Rel"] == found["replace_rel"] == pytest.approx(100 / 3)
    assert found["MACCO Att"] == pytest.approx(100 * (1 / 2 + 1 + 3 / 4) / 3)
    assert [one["ties"] for one in outcome.report["counts"]] == [0, 0, 0, 0, 1, 0, 1]
    macro = "SELECT avg(a) FROM (SELECT avg((scores[1] > scores[2])::INT) a FROM items GROUP BY subset)"
    assert 100 * sql(outcome, macro, tmp_path) == pytest.approx(found["macro"])
    recorded = "SELECT avg(answers['right']::INT) FROM items"
    assert 100 * sql(outcome, recorded, tmp_path) == pytest.approx(found["micro"])


def plus_plus(tmp_path: Path) -> None:
    for subset in load_benchmark_manifest("sugarcrepe_pp").files:
        rows = [
            {"filename": f"{i}.jpg", "caption": f"a {i}", "caption2": f"b {i}", "negative_caption": f"n {i}"}
            for i in range(3)
        ]
        write(tmp_path, "sugarcrepe_pp", subset, rows)


IMAGE = [(3, 2, 1), (3, 2, 2), (1, 3, 2)]  # a, b, n: right; a tie; one positive alone is not enough
TEXT = [(2, 1, 2), (3, 1, 2), (3, 2, 4)]  # (a, b), (a, n), (b, n): a tie; right; wrong


def plus_plus_scorer(texts: bool) -> TableScorer:
    image = {(f"{i}.jpg", f"{k} {i}"): IMAGE[i][j] for i in range(3) for j, k in enumerate("abn")}
    pairs = {
        (f"{x} {i}", f"{y} {i}"): TEXT[i][j]
        for i in range(3)
        for j, (x, y) in enumerate([("a", "b"), ("a", "n"), ("b", "n")])
    }
    return TableScorer(image, pairs if texts else None)


def test_sugarcrepe_pp(tmp_path: Path) -> None:
    plus_plus(tmp_path)
    outcome = run(tmp_path, "sugarcrepe_pp", plus_plus_scorer(texts=True))
    found = figures(outcome)
    assert found["image"] == found["text"] == found["swap_att text"] == pytest.approx(100 / 3)
    assert outcome.report["counts"][0]["ties"] == 2
    text = "SELECT avg((text_scores[1] > text_scores[2] AND text_scores[1] > text_scores[3])::INT) FROM items"
    assert 100 * sql(outcome, text, tmp_path) == pytest.approx(found["text"])
    image = "SELECT avg((scores[1] > scores[3] AND scores[2] > scores[3])::INT) FROM items"
    assert 100 * sql(outcome, image, tmp_path) == pytest.approx(found["image"])


def test_a_joint_encoder_has_no_text_figures(tmp_path: Path) -> None:
    plus_plus(tmp_path)
    found = figures(run(tmp_path, "sugarcrepe_pp", plus_plus_scorer(texts=False)))
    assert found["image"] == pytest.approx(100 / 3)
    assert not [name for name in found if "text" in name]


def test_valse(tmp_path: Path) -> None:
    subsets = list(load_benchmark_manifest("valse").files)
    answers = dict.fromkeys(subsets, "+") | {
        "relations": "+-",
        "actant-swap": "=",
        "action-replacement": "+-",
    }
    table: dict[tuple[str, str], float] = {}
    for subset, letters in answers.items():
        rows = {}
        for i, letter in enumerate(letters + "x"):  # the last pair was not confirmed
            votes = {"caption": 1 if letter == "x" else 2, "foil": 1, "other": 0}
            image = f"{subset}_{i}.jpg"
            rows[str(i)] = {
                "dataset": "coco2017", "image_file": image, "caption": "yes", "foil": "no", "mturk": votes,
            }  # fmt: skip
            table |= {(image, "yes"): 0.5, (image, "no"): {"+": 0.4, "-": 0.6}.get(letter, 0.5)}
        write(tmp_path, "valse", subset, rows)
    found = figures(run(tmp_path, "valse", TableScorer(table)))
    assert found["macro"] == pytest.approx(100 * (8 + 0 + 0.5 + 0.5) / 11)
    assert found["micro"] == pytest.approx(100 * (8 + 1 + 1) / 13)
    assert found["MACCO Rel"] == pytest.approx(100 * ((0 + 0.5) / 2 + 0.5) / 2)


def test_valse_finds_each_source(tmp_path: Path) -> None:
    files = {
        "COCO_val2014_1.jpg": "coco/val2014", "COCO_train2014_1.jpg": "coco/train2014",
        "VisualDialog_val2018_1.jpg": "visdial/VisualDialog_val2018", "000000000001.jpg": "coco/val2017",
    }  # fmt: skip
    rows = {
        str(i): {
            "dataset": "coco_2017", "image_file": file, "caption": "", "foil": "",
            "mturk": {"caption": 3, "foil": 0, "other": 0},
        }
        for i, file in enumerate(files)
    }  # fmt: skip
    write(tmp_path, "valse", "relations", rows)
    pictures = [item.pictures[0].source for item in BENCHMARKS["valse"](Places(tmp_path)).items()]
    assert pictures == [str(tmp_path / folder / file) for file, folder in files.items()]


def test_vlchecklist(tmp_path: Path) -> None:
    subsets = list(load_benchmark_manifest("vlchecklist").files)
    table: dict[tuple[str, str], float] = {}
    for subset in subsets:
        count = 3 if subset == "rel action swig" else 1
        texts = {"POS": [f"yes {i}" for i in range(count)], "NEG": [f"no {i}" for i in range(count)]}
        image = f"{subset}.jpg"
        write(tmp_path, "vlchecklist", subset, [[f"deep/er/{image}", texts]])
        wrong = {"att color vg", "rel spatial vg"}
        for i in range(count):
            right = subset not in wrong and i == 0  # SWiG: the first pair right, a tie, a tie
            table |= {(image, f"yes {i}"): 0.5, (image, f"no {i}"): 0.4 if right else 0.5}
    found = figures(run(tmp_path, "vlchecklist", TableScorer(table)))
    assert found["MACCO Rel"] == pytest.approx(100 * ((1 / 3 + 1 + 1) / 3 + 0) / 2)
    assert found["MACCO Rel first pairs"] == pytest.approx(50)
    assert found["MACCO Att"] == found["MACCO Att first pairs"] == pytest.approx(90)


def test_missing_images_are_counted_and_shift_nothing(tmp_path: Path) -> None:
    for number, subset in enumerate(load_benchmark_manifest("sugarcrepe").files):
        write(tmp_path, "sugarcrepe", subset, pairs_file("+-", 2 * number))
    scorer = against("+-" * 7)
    scorer.missing = ["1.jpg", "2.jpg", "3.jpg"]  # the negative of add_obj, all of add_att
    outcome = run(tmp_path, "sugarcrepe", scorer)
    found = figures(outcome)
    assert (found["add_obj"], found["add_att"], found["macro"]) == (100.0, None, None)
    assert [one["used"] for one in outcome.report["counts"]] == [1, 0, 2, 2, 2, 2, 2]
    assert outcome.report["statuses"] == {"ok": 11, "missing_image": 3}
    assert outcome.items.num_rows == 14
    assert outcome.items["scores"].null_count == outcome.items["answers"].null_count == 3


def test_absent_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"add_obj\.json; git clone"):
        run(tmp_path, "sugarcrepe", against(""))
    write(tmp_path, "sugarcrepe", "swap_obj", pairs_file("++"))
    outcome = run(tmp_path, "sugarcrepe", against("++"))
    assert len([note for note in outcome.report["notes"] if "git clone" in note]) == 6
    assert "is not the file of the described checksum" in outcome.report["notes"][-1]
    assert (figures(outcome)["swap_obj"], figures(outcome)["macro"]) == (100.0, None)
    write(tmp_path, "sugarcrepe", "swap_obj", {"0": {"file": "0.jpg"}})
    with pytest.raises(UserError, match="has not the published form"):
        run(tmp_path, "sugarcrepe", against("++"))
    with pytest.raises(UserError, match="names neither"):
        Places(tmp_path, {"nothing": tmp_path})


def test_images_inside_a_benchmark_s_folder_are_found_where_that_was_said_to_be(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    places = Places(tmp_path, {"winoground": elsewhere, "demo": elsewhere})
    assert places.images("winoground_images") == tmp_path / "winoground" / "images"  # not there
    (elsewhere / "images").mkdir(parents=True)
    assert places.images("winoground_images") == elsewhere / "images"
    assert places.images("demo_images") == elsewhere
    assert Places(tmp_path, {"demo_images": tmp_path}).images("demo_images") == tmp_path


def test_every_manifest_is_read_and_every_benchmark_described() -> None:
    collections = Places(Path()).collections
    for name in known_benchmarks():
        manifest = load_benchmark_manifest(name)
        assert manifest.name == name
        assert manifest.images
        assert set(manifest.images) <= set(collections)
    assert set(BENCHMARKS) < set(known_benchmarks())
    assert not set(collections) & set(known_benchmarks())  # --path NAME=DIR must mean one thing
