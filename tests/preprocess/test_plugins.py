"""Parsers and detectors of other packages: held to what they must have, and their rows against caption and image."""

from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertConfig
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.query import query
from macco.pipeline.schema import ATTRIBUTE, OBJECT, Concept, Span
from macco.preprocess import plugins
from macco.preprocess.cli import app
from macco.preprocess.detectors import Detections, check_detector, load_detector
from macco.preprocess.detectors.detector import OUTSIDE, UNASKED
from macco.preprocess.graph.parser import Parsed, held
from macco.preprocess.graph.parsers import check_parser, load_parser
from macco.preprocess.graph.refusal import CaptionError
from tests.preprocess.graph.test_parsers import FirstBackend, extract

ONE = Concept(OBJECT, (Span(0, 1),), "x", Span(0, 1), "NOUN", "x")


class Bare:
    """Has nothing that is asked of a plug-in."""


class Backend(FirstBackend):
    """Loads what it is told to."""

    loads: Any = None

    def load(self, name: str, *more: Any) -> Any:
        return type(self).loads


class Beyond:
    """Its last caption of each batch has a concept that ends beyond it."""

    def parse(self, captions: list[str], names: list[str]) -> Parsed:
        far = ONE._replace(spans=(Span(0, 2 * len(captions[-1])),))
        return Parsed([[ONE] for _ in captions[:-1]] + [[far]], {})


class Eager:
    """Finds a good box of each phrase, one of a phrase that was not asked, one beyond the image."""

    fingerprint = "eager"
    max_side = 64

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def detect(self, images: Any, phrases: Any) -> list[Detections]:
        box = [0.1, 0.1, 0.5, 0.5]
        return [
            Detections(
                np.array([*range(len(own)), len(own), 0], np.int32),
                np.array([*[box] * len(own), box, [0.1, 0.1, 7, 0.5]], np.float32),
                np.ones(len(own) + 2, np.float32),
            )
            for own in phrases
        ]


def add(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    point = EntryPoint("mine", f"{__name__}:{name}", "of either group")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])


@pytest.mark.parametrize("check", [check_parser, check_detector])
def test_a_plug_in_that_lacks_something_is_told_what_is_needed(
    check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, "Bare")
    with pytest.raises(
        UserError, match=r"mine.* has no check, fingerprint, load: check, fingerprint, load are"
    ):
        check("mine")
    add(monkeypatch, "Nowhere")
    with pytest.raises(UserError, match="does not load"):
        check("mine")


@pytest.mark.parametrize(
    ("load", "needed"), [(load_parser, "parse"), (load_detector, "fingerprint, max_side")]
)
def test_what_a_plug_in_loads_is_told_what_it_lacks(
    load: Any, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, "Backend")
    with pytest.raises(UserError, match=f"mine, as it is loaded, has no {needed}"):
        load("mine")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (ONE._replace(kind="thing"), "kind 'thing'"),
        (ONE._replace(spans=()), "without characters"),
        (ONE._replace(spans=(Span(0, 84),)), "characters 0:84"),
        (ONE._replace(spans=(Span(2, 2),)), "characters 2:2"),
        (ONE._replace(spans=(Span(-3, 2),)), "characters -3:2"),
        (ONE._replace(spans=(Span(2, 3), Span(0, 1))), "characters 0:1"),
        (ONE._replace(head=Span(3, 99)), "of its head"),
        (ONE._replace(lemma=7), "no text"),
        (ONE._replace(phrase="half \ud83d"), "no text"),
        (ONE._replace(kind=ATTRIBUTE, owner=5), "no object"),
        (ONE._replace(kind=ATTRIBUTE, owner=1), "no object"),
        (ONE._replace(denied=None), "no object"),
        (None, "no list of concepts"),
        (("a", "b"), "no list of concepts"),
    ],
)
def test_a_graph_that_its_caption_does_not_bear_out_is_a_failed_row(wrong: Any, said: str) -> None:
    good, bad = held(["a dog", "a dog"], Parsed([[ONE], [ONE, wrong]], {})).graphs
    assert good == [ONE]
    assert isinstance(bad, CaptionError)
    assert said in bad.error


def test_another_number_of_graphs_than_of_captions_is_said() -> None:
    with pytest.raises(ValueError, match="1 graphs for 2 captions"):
        held(["a dog", "a cat"], Parsed([[ONE]], {}))


def test_spans_beyond_the_caption_are_failed_rows(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, "Backend")
    monkeypatch.setattr(Backend, "loads", Beyond())
    made = extract(corpus, tmp_path / "store", "--parser", "mine")
    rows = query(made, "SELECT status, count(*) AS n FROM samples GROUP BY ALL").to_pylist()
    failed = {row["status"]: row["n"] for row in rows}
    assert failed["parsing_failed"] >= 1
    assert failed["ok"] > failed["parsing_failed"]
    assert not query(made, 'SELECT * FROM concepts JOIN samples USING (sample_id) WHERE "end" > len(caption)')


def test_boxes_that_were_not_asked_for_are_counted(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, "Backend")
    monkeypatch.setattr(Backend, "loads", Eager())
    plain = extract(corpus, tmp_path / "store", "--detector", "mine", "--parser", "en_caption")
    counted: Counter[str] = sum((Counter(one["counts"]) for one in plain.records().values()), Counter())
    assert counted[UNASKED] == counted[OUTSIDE] > 20
    assert not query(plain, "SELECT * FROM boxes WHERE x1 > 1")
    more = ["--reground", "--as", "more", "--detector", "mine", "--box-threshold", "0.2", "--workers", "0"]
    done = CliRunner().invoke(
        app, ["extract", "--out", str(tmp_path / "store"), *more], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    record = plain.boxes_record("more", next(iter(plain.records())))
    assert record["counts"][UNASKED] == record["counts"][OUTSIDE] > 0


def test_a_parser_of_another_kind_of_model_is_told_in_one_line(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="of the kind bert: the parser factual needs a t5"):
        check_parser(f"factual:{tmp_path / 'bert'}")
    (tmp_path / "bert/config.json").write_text("[]")
    with pytest.raises(UserError, match="no configuration"):
        check_parser(f"factual:{tmp_path / 'bert'}")
    (tmp_path / "bert/config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="cannot be read as a T5"):
        load_parser(f"factual:{tmp_path / 'bert'}")
