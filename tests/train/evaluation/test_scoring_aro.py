"""ARO's rules, on its files written small, and the shuffles of its order tests."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.pipeline.shuffles import shuffles
from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.benchmarks.order import clean, freeze
from macco.train.evaluation.manifest import Places, load_benchmark_manifest
from tests.support.ruled import against, figures, run, sql, write
from tests.support.scored import TableScorer


def vg(number: int, group: dict[str, Any]) -> dict[str, Any]:
    box = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 3, "bbox_h": 4}
    captions = {"true_caption": f"yes {number}", "false_caption": f"no {number}"}
    return {"image_path": f"{number}.jpg", **captions, **box, **group}


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


def test_trigrams_are_of_nltks_words_as_in_aro(tmp_path: Path) -> None:
    """spaCy cuts "two-piece" in three and NLTK does not: no shuffle of trigrams may tear it."""
    import spacy

    spacy.blank("en").to_disk(tmp_path / "tagger")
    split, out = tmp_path / "split.json", tmp_path / "order.json"
    caption = "a two-piece suit and a man's hat"
    split.write_text(json.dumps([{"image": "1.jpg", "caption": [caption] * 8}]))
    freeze(split, out, tagger=str(tmp_path / "tagger"), seed=3)
    for item in json.loads(out.read_text())["items"]:
        _, _, rest, within, moved = item["caption_options"]
        assert sorted(rest.split()) == sorted(
            ["a", "two", "-", "piece", "suit", "and", "a", "man", "'s", "hat"]
        )
        for option in (within, moved):
            assert sorted(option.split()) == sorted(
                ["a", "two-piece", "suit", "and", "a", "man", "'s", "hat"]
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
    assert {"seed", "tagger", "spacy", "nltk", "source_sha256"} <= json.loads(first).keys()
    items = BENCHMARKS["coco_order"](Places(tmp_path)).items()
    assert [item.captions[0] for item in items] == ["a dog and a cat", "the cat"]
    assert all(len(item.captions) == 5 for item in items)
    with pytest.raises(UserError, match="python -m spacy download"):
        freeze(split, out, tagger="no_such_pipeline")
