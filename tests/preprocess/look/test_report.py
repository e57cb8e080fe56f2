"""What `macco-prep report` counts, and the page that it writes."""

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store
from macco.preprocess.cli import app
from macco.preprocess.look.report import GRID, report
from macco.preprocess.look.report_page import report_page
from tests.support import ROOT
from tests.support.browser import CHROMIUM, faults, opened
from tests.support.pages import HOSTILE, hostile_store
from tests.support.rows import record, tables

FORMER = ROOT / "tests/fixtures/v0.1/store"
THRESHOLD = 0.35


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements = Counter[str]()
        self.attributes = Counter[str]()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def rows(store: Store, name: str) -> list[dict[str, Any]]:
    return [row for shard in sorted(store.committed()) for row in store.table(name, shard).to_pylist()]


@pytest.fixture(scope="module")
def found(store: Store) -> dict[str, Any]:
    return report(store, threshold=THRESHOLD)


def test_it_counts_what_is_there(found: dict[str, Any], store: Store) -> None:
    samples, concepts, boxes = (rows(store, name) for name in TABLES)
    kinds = Counter(row["kind"] for row in concepts if row["part"] == 0)
    counts = {"shards": 6, "captions": 120, "ok": 120, "images": 24, "negatives": 0}
    assert len(samples) == 120
    assert found["counts"] == counts | kinds | {"boxes": len(boxes)}
    for kind, commonest in found["commonest"].items():
        named = Counter(row["lemma"] for row in concepts if row["kind"] == kind)
        expected = sorted(named.items(), key=lambda one: (-one[1], one[0]))[:20]
        assert [(row["lemma"], row["n"]) for row in commonest] == expected
    by_id = {row["concept_id"]: row["lemma"] for row in concepts}
    owned = Counter((row["lemma"], by_id[row["owner_id"]]) for row in concepts if row["kind"] == "attribute")
    first = found["together"]["attribute_of"][0]
    assert (first["n"], owned[first["attribute"], first["object"]]) == (max(owned.values()),) * 2
    assert (
        sum(row["n"] for row in report(store, threshold=0.5, top=999)["together"]["triplets"])
        == kinds["relation"]
    )


def test_shares_of_objects_are_those_of_their_best_boxes(found: dict[str, Any], store: Store) -> None:
    best: dict[str, float] = {}
    for box in rows(store, "boxes"):
        best[box["concept_id"]] = max(box["score"], best.get(box["concept_id"], 0))
    objects = [
        row["concept_id"] for row in rows(store, "concepts") if row["kind"] == "object" and not row["denied"]
    ]
    assert found["boxes"]["objects"] == len(objects)
    for row in found["boxes"]["grounded"]:
        least = np.float32(row["threshold"])
        share = sum(name in best and np.float32(best[name]) >= least for name in objects) / len(objects)
        assert row["share"] == pytest.approx(share, abs=1e-6)


def test_histograms_hold_every_box_once(found: dict[str, Any], store: Store) -> None:
    scores = np.array([box["score"] for box in rows(store, "boxes")], np.float32)
    boxes = found["boxes"]
    assert (
        boxes["scores"]["boxes"] == np.histogram(scores, np.linspace(0, 1, 21, dtype=np.float32))[0].tolist()
    )
    kept = int((scores >= np.float32(THRESHOLD)).sum())
    assert sum(boxes["sides"]["boxes"]) == sum(map(sum, boxes["centres"]["boxes"])) == kept


def test_masking_draws_from_spans_and_boxes(found: dict[str, Any], store: Store) -> None:
    samples, concepts, boxes = (rows(store, name) for name in TABLES)
    words, patches = [], []
    for sample in samples:
        own = [c for c in concepts if c["sample_id"] == sample["sample_id"]]
        letters = {at for c in own for at in range(c["start"], c["end"])}
        places = [{*range(*match.span())} for match in re.finditer(r"\S+", sample["caption"])]
        words.append(sum(bool(place & letters) for place in places) / len(places))
        touched = set()
        for box in boxes:
            if box["sample_id"] == sample["sample_id"] and box["score"] >= THRESHOLD:
                for row in range(GRID):
                    for column in range(GRID):
                        over = box["x0"] * GRID < column + 1 and box["x1"] * GRID > column
                        if over and box["y0"] * GRID < row + 1 and box["y1"] * GRID > row:
                            touched.add((row, column))
        patches.append(len(touched) / GRID**2)
    masking = found["masking"]
    assert masking["captions"] == len(samples)
    assert masking["words"]["any"] == pytest.approx(np.mean(words), abs=1e-6)
    assert masking["patches"] == pytest.approx(np.mean(patches), abs=1e-6)


def test_failures_and_silent_captions_are_shown(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"), {})
    made = tables("a", ["dog", "cat", "cow"])
    samples = made["samples"].to_pylist()
    samples[0] |= {"status": "image_corrupt", "error": "cannot be decoded"}
    concepts = [row for row in made["concepts"].to_pylist() if row["key"] == "0001"]
    boxes = [row for row in made["boxes"].to_pylist() if row["key"] == "0001"]
    given = {"samples": samples, "concepts": concepts, "boxes": boxes}
    store.commit(
        "a", {name: pa.Table.from_pylist(given[name], schema=TABLES[name]) for name in TABLES}, record("a")
    )
    found = report(store, threshold=THRESHOLD)
    (failed,) = found["failed"]
    assert (failed["status"], failed["samples"]) == ("image_corrupt", 1)
    assert failed["meaning"] == "an image that cannot be decoded"
    assert failed["examples"][0]["error"] == "cannot be decoded"
    assert found["without_concept"] == {
        "captions": 1,
        "examples": [{"sample_id": "d/a/0002/0", "caption": "cow"}],
    }
    text = Page(report_page(found)).text
    assert "image_corrupt: 1" in text
    assert "cannot be decoded" in text


@pytest.mark.parametrize("kind", ["empty", "no boxes", "former"])
def test_any_store_has_a_page(kind: str, tmp_path: Path) -> None:
    if kind == "former":
        shutil.copytree(FORMER, tmp_path / "store")
        store = Store.open(str(tmp_path / "store"))
    else:
        store = Store.create(str(tmp_path / "store"), {})
        if kind == "no boxes":
            store.commit("a", tables("a", ["dog"], boxes=0), record("a"))
        store.close()
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", store.url, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    assert Page(out.read_text()).elements["svg"] == (4 if kind == "former" else 0)
    said = CliRunner().invoke(app, ["report", store.url, "--json"], catch_exceptions=False).output
    captions = {"empty": 0, "no boxes": 1, "former": 60}[kind]
    assert json.loads(said)["counts"]["captions"] == captions


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a store whose captions, keys and lemmas are hostile; they fail, so that they are shown."""
    folder = tmp_path_factory.mktemp("hostile")
    own = hostile_store(folder)
    store = Store.create(str(folder / "other"), {"parser": "<b>bold</b>"})
    made = {name: pa.Table.from_pylist(rows(own, name), schema=schema) for name, schema in TABLES.items()}
    samples, concepts = made["samples"].to_pylist(), made["concepts"].to_pylist()
    statuses = ("image_corrupt", "bad_row")
    for number, row in enumerate(samples):
        row |= {"status": statuses[number % 2], "error": HOSTILE.get(row["key"])}
    for row, text in zip(concepts, [*HOSTILE.values(), "$x$ {{ 1 }}", "w" * 300] * 99, strict=False):
        row["lemma"] = text
    given = made | {
        "samples": pa.Table.from_pylist(samples, schema=TABLES["samples"]),
        "concepts": pa.Table.from_pylist(concepts, schema=TABLES["concepts"]),
    }
    store.commit("00000", given, record("00000"))
    page = folder / "page.html"
    page.write_text(report_page(report(store, threshold=0.1)))
    return page


def test_hostile_text_is_text(hostile: Path) -> None:
    page = Page(hostile.read_text())
    assert not page.elements.keys() & {"script", "img", "iframe", "object", "form"}
    assert not [name for name in page.attributes if name.startswith("on") or name in ("src", "srcset")]
    for text in (*HOSTILE.values(), "$x$ {{ 1 }}", "<b>bold</b>"):
        assert text in page.text
    assert "://" not in re.sub(r"http://www\.w3\.org/\S+", "", hostile.read_text())


# The page's own words, in heads and kinds, that stand on more than one line.
BROKEN = """() => [...document.querySelectorAll("table:not(.matrix) thead th, .own")].flatMap((cell) => {
    const text = cell.firstChild, range = document.createRange();
    return [...(text?.data ?? "").matchAll(/\\w+/g)].filter((word) => {
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        return range.getClientRects().length > 1;
    }).map((word) => word[0]); })"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 390)])
def test_the_page_is_for_everyone(
    browser: Any, hostile: Path, found: dict[str, Any], scheme: str, width: int
) -> None:
    """Light and dark, wide and narrow: nothing sticks out, no script runs, axe finds no serious fault."""
    (hostile.parent / "plain.html").write_text(report_page(found))
    many = [row | {"concepts": 1234567 * row["concepts"], "lemmas": 12345678} for row in found["concepts"]]
    (hostile.parent / "many.html").write_text(report_page(found | {"concepts": many}))
    size = {"width": width, "height": 844}
    for page in opened(browser, color_scheme=scheme, viewport=size, bypass_csp=True):
        asked = list[str]()
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        for file in ("plain.html", "many.html", hostile.name):
            page.goto((hostile.parent / file).as_uri())
            assert page.evaluate("window.owned") is None
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", colour))) > 380) == (scheme == "light")
            assert page.evaluate(BROKEN) == []
            assert faults(page) == []
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
