"""The rules of benchmarks with several images an item: Winoground, COLA, BiVLC, What's Up."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.manifest import Places
from tests.support.ruled import figures, run, sql, write
from tests.support.scored import TableScorer

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
