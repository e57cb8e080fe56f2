"""Every benchmark's rule, on official files written small and on scores written by hand, with ties."""

import csv
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.shuffles import shuffles
from tests.scored import TableScorer
from train.evaluation.benchmarks import BENCHMARKS
from train.evaluation.benchmarks.order import clean, freeze
from train.evaluation.manifest import MissingDataError, Places, known_benchmarks, load_benchmark_manifest
from train.evaluation.results import write_items
from train.evaluation.rules import first_best, two_by_two
from train.evaluation.run import Outcome, run_benchmark

few = st.sampled_from([0.0, 0.25, 0.5])  # few values, so that ties are common


def write(root: Path, name: str, subset: str, rows: Any) -> None:
    path = root / name / load_benchmark_manifest(name).files[subset].path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def run(root: Path, name: str, scorer: TableScorer) -> Outcome:
    return run_benchmark(scorer, BENCHMARKS[name](Places(root)))


def figures(outcome: Outcome) -> dict[str, float | None]:
    return {one["figure"]: one["percent"] for one in outcome.report["figures"]}


def sql(outcome: Outcome, query: str, folder: Path) -> Any:
    """One number out of the item file, by SQL on the raw scores alone."""
    write_items([outcome.items], folder / "items.parquet")
    return duckdb.sql(query.replace("items", f"'{folder / 'items.parquet'}'")).fetchall()[0][0]


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


def vg(number: int, group: dict[str, Any]) -> dict[str, Any]:
    box = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 3, "bbox_h": 4}
    captions = {"true_caption": f"yes {number}", "false_caption": f"no {number}"}
    return {"image_path": f"{number}.jpg", **captions, **box, **group}


def against(answers: str) -> TableScorer:
    """Item i: right where its letter is +, wrong at -, a tie at =."""
    truth = {(f"{i}.jpg", f"yes {i}"): 0.5 for i in range(len(answers))}
    other = {(f"{i}.jpg", f"no {i}"): {"+": 0.4, "-": 0.6, "=": 0.5}[a] for i, a in enumerate(answers)}
    return TableScorer(truth | other)


def test_aro_relation(tmp_path: Path) -> None:
    names = ["on", "on", "on", "under", "next to", "next to"]
    rows = [vg(i, {"relation_name": name}) for i, name in enumerate(names)]
    write(tmp_path, "aro_relation", "relation", rows)
    outcome = run(tmp_path, "aro_relation", against("+-=+--"))
    found = figures(outcome)
    assert found["macro"] == pytest.approx(100 * (1 / 3 + 1) / 2)  # "next to" holds both ways: not counted
    assert found["micro, all relations"] == pytest.approx(100 * 2 / 6)
    assert outcome.report["counts"] == [
        {"subset": "relation", "used": 6, "in_files": 6, "expected": 23937, "ties": 1}
    ]
    by_sql = sql(
        outcome,
        """SELECT avg(a) FROM (SELECT avg((scores[1] > scores[2])::INT) AS a FROM items
           WHERE category <> 'next to' GROUP BY category)""",
        tmp_path,
    )
    assert 100 * by_sql == pytest.approx(found["macro"])
    crop = BENCHMARKS["aro_relation"](Places(tmp_path)).items()[0].pictures[0].crop
    assert crop == (1, 2, 3, 4)
    assert len(load_benchmark_manifest("aro_relation").lists["symmetric"]) == 157


def test_aro_attribution_counts_classes_in_the_files(tmp_path: Path) -> None:
    pairs = [["red", "big"]] * 25 + [["old", "wet"]] * 26 + [["dry", "new"]] * 24
    write(tmp_path, "aro_attribution", "attribution", [vg(i, {"attributes": a}) for i, a in enumerate(pairs)])
    scorer = against("+" * 5 + "-" * 20 + "+" * 13 + "=" * 13 + "+" * 24)
    assert figures(run(tmp_path, "aro_attribution", scorer))["macro"] == pytest.approx(100 * (0.2 + 0.5) / 2)
    scorer.missing = ["0.jpg"]  # a class of 25 stays one when an image is not there
    assert figures(run(tmp_path, "aro_attribution", scorer))["macro"] == pytest.approx(
        100 * (4 / 24 + 0.5) / 2
    )


def test_order(tmp_path: Path) -> None:
    rows = [
        {"image": f"val2014/{i}.jpg", "caption_options": [f"{k} {i}!" for k in "abcde"]} for i in range(3)
    ]
    write(tmp_path, "coco_order", "coco", {"seed": 0, "items": rows})
    values = [[3, 2, 2, 2, 2], [3, 3, 2, 2, 2], [2, 1, 1, 1, 3]]
    table = {(f"{i}.jpg", f"{k} {i}"): values[i][j] for i in range(3) for j, k in enumerate("abcde")}
    found = figures(run(tmp_path, "coco_order", TableScorer(table)))
    assert found == {"precision@1": pytest.approx(200 / 3), "precision@1 strict": pytest.approx(100 / 3)}


def test_clean_follows_the_official_preparation() -> None:
    assert clean('  A "dog", (red) runs.\n') == "a dog , red runs"
    assert clean(" ".join(str(i) for i in range(40))) == " ".join(str(i) for i in range(30))


@given(
    st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from(["NN", "NNS", "JJ", "IN"]))), st.randoms()
)
def test_shuffles_move_only_what_they_should(tagged: list[tuple[str, str]], rng: Any) -> None:
    words, tags = [word for word, _ in tagged], [tag for _, tag in tagged]
    content, rest, within, moved = (option.split() for option in shuffles(words, tags, rng))
    assert all(sorted(option) == sorted(words) for option in (content, rest, within, moved))
    for kind in ({"NN", "NNS"}, {"JJ"}, {"IN"}):
        own = [i for i, tag in enumerate(tags) if tag in kind]
        assert sorted(content[i] for i in own) == sorted(words[i] for i in own)
        assert kind == {"IN"} or [rest[i] for i in own] == [words[i] for i in own]
        assert kind != {"IN"} or [content[i] for i in own] == [words[i] for i in own]
    for start in range(0, len(words), 3):
        assert sorted(within[start : start + 3]) == sorted(words[start : start + 3])
    if len(words) % 3 == 0:
        assert sorted(moved[i : i + 3] for i in range(0, len(words), 3)) == sorted(
            words[i : i + 3] for i in range(0, len(words), 3)
        )


def test_freeze_writes_what_shaped_the_shuffles(tmp_path: Path) -> None:
    import spacy

    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("attribute_ruler")
    ruler.add([[{"LOWER": "dog"}], [{"LOWER": "cat"}]], {"TAG": "NN"})
    nlp.to_disk(tmp_path / "tagger")
    split = tmp_path / "split.json"
    split.write_text(json.dumps([{"image": "val2014/1.jpg", "caption": ["a dog and a cat", "the cat"]}]))
    out = tmp_path / "coco_order" / "coco_order.json"
    out.parent.mkdir()
    assert freeze(split, out, tagger=str(tmp_path / "tagger"), seed=3) == 2
    first = out.read_bytes()
    freeze(split, out, tagger=str(tmp_path / "tagger"), seed=3)
    assert out.read_bytes() == first
    assert {"seed", "tagger", "spacy", "source_sha256"} <= json.loads(first).keys()
    items = BENCHMARKS["coco_order"](Places(tmp_path)).items()
    assert [item.captions[0] for item in items] == ["a dog and a cat", "the cat"]
    assert all(len(item.captions) == 5 for item in items)
    with pytest.raises(UserError, match="python -m spacy download"):
        freeze(split, out, tagger="no_such_pipeline")


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


QUADS = [[2, 1, 1, 2], [2, 1, 3, 4], [2, 3, 1, 4], [2, 2, 1, 3]]  # all; text; image; image, with a tie


def quads(pictures: list[tuple[str, str]]) -> TableScorer:
    table: dict[tuple[str, str], float] = {}
    for i, (one, other) in enumerate(pictures):
        a, b, c, d = QUADS[i]
        table |= {(one, f"a {i}"): a, (one, f"b {i}"): b, (other, f"a {i}"): c, (other, f"b {i}"): d}
    return TableScorer(table)


def test_winoground(tmp_path: Path) -> None:
    rows = [
        {
            "id": i,
            "caption_0": f"a {i}",
            "caption_1": f"b {i}",
            "image_0": f"ex_{i}_0",
            "image_1": f"ex_{i}_1",
        }
        for i in range(4)
    ]
    folder = tmp_path / "winoground"
    folder.mkdir()
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    scorer = quads([(f"ex_{i}_0.png", f"ex_{i}_1.png") for i in range(4)])
    outcome = run(tmp_path, "winoground", scorer)
    assert figures(outcome) == {"text": 50.0, "image": 75.0, "group": 25.0}
    assert [one["ties"] for one in outcome.report["counts"]] == [1]
    for name, rule in {
        "text": "scores[1] > scores[2] AND scores[4] > scores[3]",
        "image": "scores[1] > scores[3] AND scores[4] > scores[2]",
    }.items():
        by_sql = sql(outcome, f"SELECT avg(({rule})::INT) FROM items", tmp_path)
        assert 100 * by_sql == figures(outcome)[name]
    (folder / "clean.json").write_text("[0, 1]")
    found = figures(run(tmp_path, "winoground", scorer))
    assert (found["text"], found["clean text"], found["clean image"]) == (50.0, 100.0, 50.0)


def test_cola(tmp_path: Path) -> None:
    rows = [[f"https://x/y/{i}0.jpg", f"a {i}", f"https://x/y/{i}1.jpg", f"b {i}"] for i in range(4)]
    write(tmp_path, "cola", "multi", rows)
    found = figures(run(tmp_path, "cola", quads([(f"{i}0.jpg", f"{i}1.jpg") for i in range(4)])))
    assert found == {"accuracy": 75.0, "text": 50.0, "group": 25.0}


def test_bivlc(tmp_path: Path) -> None:
    kinds = [("add", "obj"), ("add", "obj"), ("swap", "att"), ("swap", "att")]
    rows = [
        {"caption": f"a {i}", "negative_caption": f"b {i}", "type": kind, "subtype": subtype}
        for i, (kind, subtype) in enumerate(kinds)
    ]
    image = {"bytes": b"", "path": ""}
    (tmp_path / "bivlc").mkdir()
    table = pa.Table.from_pylist([row | {"image": image, "negative_image": image} for row in rows])
    pq.write_table(table, tmp_path / "bivlc" / "test.parquet")
    scorer = quads([(f"image/{i}", f"negative_image/{i}") for i in range(4)])
    found = figures(run(tmp_path, "bivlc", scorer))
    assert (found["i2t"], found["t2i"], found["group"]) == (50.0, 75.0, 25.0)
    assert (found["add_obj i2t"], found["swap_att t2i"]) == (100.0, 100.0)

    (tmp_path / "rows.csv").open("w").close()
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], "filename", "negative_image"])
        writer.writeheader()
        writer.writerows(
            row | {"filename": f"{i}.jpg", "negative_image": f"n{i}.jpg"} for i, row in enumerate(rows)
        )
    benchmark = BENCHMARKS["bivlc"](Places(tmp_path))
    read = list(benchmark.read("test", tmp_path / "rows.csv"))
    assert [Path(picture.source).name for picture in read[1].pictures] == ["1.jpg", "n1.jpg"]


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


def test_whatsup(tmp_path: Path) -> None:
    places = {
        "A": ["left_of", "right_of", "on", "under"],
        "B": ["left_of", "right_of", "in-front_of", "behind"],
    }
    # Two sets a subset. "+" right, "=" a tie (right by argmax), "-" wrong.
    answers = {"A": "+++=" + "+-+-", "B": "++++" + "+---"}
    table: dict[tuple[str, str], float] = {}
    for subset, words in places.items():
        rows = []
        for i, letter in enumerate(answers[subset]):
            image = f"cup_{words[i % 4]}_table{i // 4}.jpeg"
            options = [f"{k} {i}" for k in "abcdefg"]  # beyond the fourth: not part of the benchmark
            rows.append({"image_path": f"data/x/{image}", "caption_options": options})
            table |= dict.fromkeys(((image, option) for option in options), 0.0)
            table[image, options[0]] = 0.5
            table[image, options[2]] = {"+": 0.4, "=": 0.5, "-": 0.6}[letter]
            table[image, options[5]] = 0.9
        write(tmp_path, "whatsup", subset, rows)
    for subset in ("COCO one", "COCO two", "GQA one", "GQA two"):
        write(tmp_path, "whatsup", subset, [[285, "yes", "no"], [286, "yes", "no"]])
    for image in ("{}.jpg", "000000000{}.jpg"):
        for number, other in ((285, 0.4), (286, 0.6)):
            table |= {(image.format(number), "yes"): 0.5, (image.format(number), "no"): other}
    outcome = run(tmp_path, "whatsup", TableScorer(table))
    found = figures(outcome)
    assert (found["A"], found["A strict"], found["B"]) == (75.0, 62.5, 62.5)
    assert (found["A pairs"], found["A sets"]) == (50.0, 50.0)
    assert (found["B pairs"], found["B sets"]) == (50.0, 50.0)
    assert found["MACCO What's Up"] == pytest.approx((68.75 + 50 + 50) / 3)
    a = "SELECT avg((scores[1] >= list_max(scores))::INT) FROM items WHERE subset = 'A'"
    assert 100 * sql(outcome, a, tmp_path) == found["A"]


def test_missing_images_are_counted_and_shift_nothing(tmp_path: Path) -> None:
    for number, subset in enumerate(load_benchmark_manifest("sugarcrepe").files):
        write(tmp_path, "sugarcrepe", subset, pairs_file("+-", 2 * number))
    scorer = against("+-" * 7)
    scorer.missing = ["1.jpg", "2.jpg", "3.jpg"]  # the negative of add_obj, all of add_att
    outcome = run(tmp_path, "sugarcrepe", scorer)
    found = figures(outcome)
    assert (found["add_obj"], found["add_att"], found["macro"]) == (100.0, None, None)
    assert [one["used"] for one in outcome.report["counts"]] == [1, 0, 2, 2, 2, 2, 2]
    assert outcome.report["statuses"] == {"ok": 11, "image_missing": 3}
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
