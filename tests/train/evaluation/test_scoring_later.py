"""The rules of the benchmarks from ColorSwap to half-truths, on official files written small and scores with ties."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from macco.pipeline.errors import UserError
from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.encoder import open_picture
from macco.train.evaluation.manifest import Places, load_benchmark_manifest
from macco.train.evaluation.scorer import CORRUPT
from tests.support import official
from tests.support.ruled import figures, run, write, write_csv
from tests.support.scored import TableScorer

# Images 0 and 1 against captions a and b: all right; text alone; image alone; image, and a tie of texts.
QUADS = [[2, 1, 1, 2], [2, 1, 3, 4], [2, 3, 1, 4], [2, 2, 1, 3]]


def quads(images: list[tuple[str, str]], before: str = "") -> TableScorer:
    table: dict[tuple[str, str], float] = {}
    for i, (one, other) in enumerate(images):
        a, b, c, d = QUADS[i % 4]
        texts = f"{before}a {i}", f"{before}b {i}"
        table |= {(one, texts[0]): a, (one, texts[1]): b, (other, texts[0]): c, (other, texts[1]): d}
    return TableScorer(table)


def test_colorswap(tmp_path: Path) -> None:
    write(tmp_path, "colorswap", "test", [official.colorswap(i) for i in range(4)])
    outcome = run(tmp_path, "colorswap", quads([(f"img_{i}_1.png", f"img_{i}_2.png") for i in range(4)]))
    assert figures(outcome) == {"group": 25.0, "text": 50.0, "image": 75.0}
    assert outcome.report["counts"][0]["ties"] == 1
    assert "test: 4 items, where 300 were published" in outcome.report["notes"]


def test_mmvp_vlm_takes_rows_two_by_two_and_patterns_with_the_same_weight(tmp_path: Path) -> None:
    patterns = ["Color", "Color", "Color", "Text"]
    rows = [row for i, pattern in enumerate(patterns) for row in official.mmvp(i, pattern)]
    write_csv(tmp_path, "mmvp_vlm", "pairs", rows)
    scorer = quads([(f"{2 * i + 1}.jpg", f"{2 * i + 2}.jpg") for i in range(4)], "a photo of ")
    found = figures(run(tmp_path, "mmvp_vlm", scorer))
    assert found["pairs"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert (found["Color"], found["Text"]) == (pytest.approx(200 / 3), 100.0)
    assert (found["text"], found["group"]) == (50.0, 25.0)
    item = BENCHMARKS["mmvp_vlm"](Places(tmp_path)).items()[3]
    assert item.pictures[0].source.endswith("mmvp_vlm/MLLM_VLM Images/Text/7.jpg")
    write_csv(tmp_path, "mmvp_vlm", "pairs", rows[:3])
    with pytest.raises(UserError, match="has not the published form"):
        run(tmp_path, "mmvp_vlm", scorer)


def test_svo_probes_leaves_rows_of_two_kinds_out_of_its_figures(tmp_path: Path) -> None:
    kinds = [("subj",), ("verb",), ("verb",), ("verb",), ("obj",), ("obj", "verb")]
    answers = "++-=-+"
    write_csv(tmp_path, "svo_probes", "all", [official.svo(i, *kind) for i, kind in enumerate(kinds)])
    other = {"+": 0.4, "-": 0.6, "=": 0.5}
    table = {(f"{2 * i}.jpg", f"s {i}"): 0.5 for i in range(6)}
    table |= {(f"{2 * i + 1}.jpg", f"s {i}"): other[answer] for i, answer in enumerate(answers)}
    outcome = run(tmp_path, "svo_probes", TableScorer(table))
    found = figures(outcome)
    assert (found["subj"], found["verb"], found["obj"]) == (100.0, pytest.approx(100 / 3), 0.0)
    assert found["macro"] == pytest.approx(100 * (1 + 1 / 3) / 3)
    assert found["all"] == pytest.approx(100 * 2 / 5)
    assert outcome.report["counts"][0] == {
        "subset": "all", "used": 6, "in_files": 6, "expected": 36841, "ties": 1,
    }  # fmt: skip


def test_crepe_productivity(tmp_path: Path) -> None:
    subsets = [s for s, file in load_benchmark_manifest("crepe").files.items() if not file.optional]
    assert len(subsets) == 27
    table: dict[tuple[str, str], float] = {}
    for place, subset in enumerate(subsets):
        negatives = [f"no {k}" for k in range(5)]
        write_csv(tmp_path, "crepe", subset, [official.crepe(place, hard_negs=negatives)])
        table |= {(f"{place}.jpg", text): 0.4 for text in negatives}
        table[f"{place}.jpg", f"yes {place}"] = 0.5
        # Every swap's last negative ties, one atom's is better.
        if subset.startswith("swap"):
            table[f"{place}.jpg", "no 4"] = 0.5
        if subset == "atom 7":
            table[f"{place}.jpg", "no 4"] = 0.6
    second = tmp_path / "vg" / "VG_100K_2"
    second.mkdir(parents=True)
    (second / "3.jpg").touch()
    outcome = run(tmp_path, "crepe", TableScorer(table))
    found = figures(outcome)
    assert (found["atom"], found["swap"], found["negate"]) == (pytest.approx(100 * 8 / 9), 0.0, 100.0)
    assert found["productivity"] == pytest.approx(100 * 17 / 27)
    assert found["cc12m seen compounds atom"] is None
    assert not outcome.report["notes"]
    pictures = [item.pictures[0] for item in BENCHMARKS["crepe"](Places(tmp_path)).items()]
    assert {picture.crop for picture in pictures} == {(1, 2, 30, 40)}
    assert {Path(picture.source).parent.name for picture in pictures[3:4]} == {"VG_100K_2"}
    assert {Path(picture.source).parent.name for picture in pictures[4:]} == {"VG_100K"}


def test_crepe_systematicity_asks_of_both_kinds_where_there_are_negatives(tmp_path: Path) -> None:
    rows = [
        official.crepe(0, valid_hard_negs_atom=["no 0", "no 1"], valid_hard_negs_comp=[]),
        official.crepe(1, valid_hard_negs_atom=["no 0"], valid_hard_negs_comp=["no 1"]),
    ]
    write_csv(tmp_path, "crepe", "cc12m seen compounds", rows)
    table = {(f"{i}.jpg", f"no {k}"): 0.1 for i in range(2) for k in range(2)}
    table |= {("0.jpg", "yes 0"): 0.5, ("1.jpg", "yes 1"): 0.1}  # right; a tie, twice
    found = figures(run(tmp_path, "crepe", TableScorer(table)))
    assert (found["cc12m seen compounds atom"], found["cc12m seen compounds comp"]) == (50.0, 0.0)
    assert found["productivity"] is None


def test_negbench(tmp_path: Path) -> None:
    rows = [
        official.negbench(i, right, template)
        for i, (right, template) in enumerate(
            [(0, "positive"), (3, "negative"), (2, "hybrid"), (1, "hybrid")]
        )
    ]
    write_csv(tmp_path, "negbench", "coco", rows)
    table = {(f"{i}.jpg", f"no {i} {k}"): 0.4 for i in range(4) for k in range(4)}
    table |= {(f"{i}.jpg", f"yes {i}"): score for i, score in enumerate([0.5, 0.3, 0.5, 0.4])}
    found = figures(run(tmp_path, "negbench", TableScorer(table)))
    assert (found["coco"], found["voc2007"]) == (50.0, None)
    assert [found[f"coco {one}"] for one in ("positive", "negative", "hybrid")] == [100.0, 0.0, 50.0]
    item = BENCHMARKS["negbench"](Places(tmp_path)).items()[1]
    assert item.pictures[0].source == str(tmp_path / "coco" / "val2017" / "1.jpg")
    assert item.captions == ("yes 1", "no 1 0", "no 1 1", "no 1 2")


def test_ccneg_takes_the_last_rows_and_commas_out_of_the_negation(tmp_path: Path) -> None:
    official.ccneg(tmp_path, 40_003)
    items = BENCHMARKS["ccneg"](Places(tmp_path)).items()
    assert (len(items), items[0].name, items[0].captions) == (40_000, "3", ("yes 3", "no 3"))
    assert items[0].pictures[0].source.endswith("cc3m_subset_images_extracted_final/3.jpg")
    official.ccneg(tmp_path / "few", 4)
    table = {(f"{i}.jpg", f"yes {i}"): 0.5 for i in range(4)}
    table |= {(f"{i}.jpg", f"no {i}"): score for i, score in enumerate([0.4, 0.5, 0.6, 0.4])}
    found = figures(run(tmp_path / "few", "ccneg", TableScorer(table)))
    assert found == {"accuracy": 75.0, "strict": 50.0}
    (tmp_path / "few" / "ccneg" / "ccneg_preprocessed.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is damaged"):
        run(tmp_path / "few", "ccneg", TableScorer(table))


def test_eqben_reads_every_layout_of_its_files(tmp_path: Path) -> None:
    def row(i: int, source: str, **captions: Any) -> dict[str, Any]:
        images = {"image0": f"{source}/{i}_0.png", "image1": f"{source}/{i}_1.png"}
        return images | {"caption0": f"a {i}", "caption1": f"b {i}"} | captions

    ag = {"video": {"person": [row(0, "eqbenag", caption0=["a 0", "x"], caption1=["b 0"])]}}
    gebc = {"video": [row(1, "eqbengebc"), row(2, "eqbengebc")]}
    write(tmp_path, "eqben", "subset", [ag, gebc, [row(3, "eqbensd")]])
    scorer = quads([(f"{i}_0.png", f"{i}_1.png") for i in range(4)])
    found = figures(run(tmp_path, "eqben", scorer))
    assert (found["subset text"], found["subset image"], found["subset group"]) == (50.0, 75.0, 25.0)
    assert found["subset image, macro over sources"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    assert (found["subset group eqbenag"], found["whole group"]) == (100.0, None)
    plain = {"image_0": "s/0_0.png", "image_1": "s/0_1.png", "caption_0": "a 0", "caption_1": "b 0"}
    write(tmp_path, "eqben", "whole", [plain])
    assert figures(run(tmp_path, "eqben", scorer))["whole group"] == 100.0
    write(tmp_path, "eqben", "whole", ["x"])
    with pytest.raises(UserError, match="has not the published form"):
        run(tmp_path, "eqben", scorer)


def test_eqben_s_frames_of_youcook2_are_arrays_with_blue_first(tmp_path: Path) -> None:
    frame = np.zeros((4, 5, 3), np.uint8)
    frame[..., 0] = 200
    np.save(tmp_path / "frame.npy", frame)
    picture = open_picture(str(tmp_path / "frame.npy"), None)
    assert not isinstance(picture, str)
    assert (picture.size, picture.getpixel((0, 0))) == ((5, 4), (0, 0, 200))
    np.save(tmp_path / "other.npy", frame[..., 0])
    assert open_picture(str(tmp_path / "other.npy"), None) == CORRUPT
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    assert open_picture(str(tmp_path / "broken.npy"), None) == CORRUPT


def test_half_truths(tmp_path: Path) -> None:
    second = official.half_truth(1, relations=[])
    again = official.half_truth(0, sample_id="0_1")  # another caption of the first image asks nothing more
    alone = official.half_truth(2, positive_components=["dogs"], negative_components={}, relations=[])
    write(tmp_path, "half_truths", "coco", [official.half_truth(0), again, second, alone])
    foils = {
        "entity object_change": "dogs and red ball", "entity attribute_change": "dogs and wet grass",
        "relation swap": "grass on dogs", "relation antonym": "dogs off grass",
        "relation negation": "dogs not on grass", "relation object": "dogs on red ball",
        "relation attribute": "dogs on wet grass",
    }  # fmt: skip
    items = BENCHMARKS["half_truths"](Places(tmp_path)).items()
    assert {item.category: item.captions[1] for item in items if item.name.startswith("0_0")} == foils
    assert {item.captions[0] for item in items} == {"dogs"}
    assert Counter(item.name.split("/")[0] for item in items) == {"0_0": 7, "1_0": 2}
    assert items[0].pictures[0].source == str(tmp_path / "coco" / "val2014" / "0.jpg")
    table = {(f"{i}.jpg", text): 0.4 for i in range(2) for text in foils.values()}
    table |= {("0.jpg", "dogs"): 0.5, ("1.jpg", "dogs"): 0.5}
    table |= {("0.jpg", "grass on dogs"): 0.6, ("0.jpg", "dogs not on grass"): 0.5}  # wrong; a tie
    table |= {("1.jpg", "dogs and wet grass"): 0.7}
    found = figures(run(tmp_path, "half_truths", TableScorer(table)))
    assert found["all"] == pytest.approx(100 * 6 / 9)
    assert (found["entity"], found["relation"]) == (75.0, pytest.approx(60.0))
    assert (found["all, lenient"], found["relation, lenient"]) == (pytest.approx(100 * 7 / 9), 80.0)
    assert (found["relation negation"], found["relation subject"]) == (0.0, None)


def test_files_of_the_published_length_have_the_published_number_of_items(tmp_path: Path) -> None:
    write(tmp_path, "colorswap", "test", [official.colorswap(i) for i in range(300)])
    patterns = [row for i in range(135) for row in official.mmvp(i, f"pattern {i // 15}")]
    write_csv(tmp_path, "mmvp_vlm", "pairs", patterns)
    write_csv(tmp_path, "svo_probes", "all", [official.svo(i, "verb") for i in range(36_841)])
    write_csv(tmp_path, "negbench", "coco", [official.negbench(i, 0, "hybrid") for i in range(5_914)])
    write_csv(tmp_path, "negbench", "voc2007", [official.negbench(i, 0, "hybrid") for i in range(5_031)])
    for name in ("colorswap", "mmvp_vlm", "svo_probes", "negbench"):
        found = Counter(item.subset for item in BENCHMARKS[name](Places(tmp_path)).items())
        described = load_benchmark_manifest(name).files
        assert found == {subset: file.items for subset, file in described.items() if file.items is not None}
    sources = [195_872, 45_849, 1_814, 2_000, 2_000, 2_000, 1_513]  # the repository's SUBSET_LENGTH_INFO
    assert load_benchmark_manifest("eqben").files["whole"].items == sum(sources)
