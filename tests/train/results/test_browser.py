"""The page of runs in a browser."""

import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from macco.pipeline.page.filter import Filter
from macco.pipeline.page.gallery import Gallery
from macco.pipeline.store import Store
from macco.train.results.look import Look
from macco.train.results.report import write_report
from macco.train.results.serve import runs_app
from macco.train.runs.metrics import read
from tests.support.browser import BROWSED, faults, opened
from tests.support.pages import served
from tests.support.scored import evaluation

pytestmark = BROWSED
RUN = Path(__file__).parents[2] / "fixtures" / "v0.1" / "macco"


@pytest.fixture(scope="module")
def report(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with reconstructions, whose name and samples are long or hostile."""
    run = Path(shutil.copytree(RUN, tmp_path_factory.mktemp("report") / f"<b>{'run' * 30}"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["name"] = str(RUN.parent / "start")
    config["data"] |= {"store": store.url, "cache": ""}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_report(run)
    return run / "report.html"


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1400), ("dark", 1400), ("light", 390), ("dark", 390)]
)
def test_a_runs_report_shuts_nobody_out(browser: Any, report: Path, scheme: str, width: int) -> None:
    size = {"width": width, "height": 844}
    for page in opened(browser, color_scheme=scheme, viewport=size, bypass_csp=True):
        page.goto(report.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("h1").inner_text() == report.parent.name
        assert page.locator("polyline").count() > 3
        assert page.locator(".pictures img").count() == 18
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", colour))) > 380) == (scheme == "light")
        assert faults(page) == []


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs whose folders have one name, and two evaluations with hostile captions."""
    room = tmp_path_factory.mktemp("runs")
    runs = [Path(shutil.copytree(RUN, room / name / "run")) for name in ("one", "other")]
    answers = [[True, True, False, False], [True, False, True, False]]
    return [*runs, *(evaluation(room / f"eval{at}", right) for at, right in enumerate(answers))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_runs_and_evaluations_are_told_apart_and_shut_nobody_out(
    browser: Any, folders: list[Path], scheme: str, width: int
) -> None:
    with served(runs_app(Look.of([str(folder) for folder in folders]), None, None)) as address:
        for page in opened(browser, color_scheme=scheme, viewport={"width": width, "height": 844}):
            page.goto(f"{address}runs")
            page.wait_for_selector("body.ready")
            assert page.locator("#legend li").all_text_contents() == ["one/run", "other/run"]
            drawn = {
                name for row in read(folders[0]) for name, value in row.items() if isinstance(value, float)
            }
            curves = page.locator("#curves figcaption").all_text_contents()
            assert curves
            assert {name for name in drawn if any(curve.startswith(name) for curve in curves)} >= {
                "loss",
                "mlm",
                "mim",
            }
            for curve in page.locator("#curves svg").all():
                assert len(curve.locator("polyline, circle").all()) == 2
            rows = page.locator("#items tbody tr")
            assert rows.count() == 2  # where they differ
            assert "<b>1" in rows.first.inner_text()  # as text
            page.locator("#items input[type=checkbox]").uncheck()
            page.wait_for_selector("#items tbody tr:nth-child(4)")
            assert faults(page) == []
            if width < 800:
                assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_one_evaluation_is_not_compared(browser: Any, folders: list[Path]) -> None:
    with served(runs_app(Look.of([str(folders[-1])]), None, None)) as address:
        for page in opened(browser):
            page.goto(f"{address}runs")
            page.wait_for_selector("body.ready")
            assert "nothing to compare it with" in page.inner_text("#items")
            assert page.locator("#items table").count() == 0


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 390)])
def test_a_sample_is_seen_as_training_would_before_any_run(
    browser: Any, store: Store, scheme: str, width: int
) -> None:
    gallery = Gallery(store)
    gallery.fill()
    look = Look.of(["method.negatives=2"], ["tiny"], store.url)
    with closing(gallery), served(runs_app(look, gallery, None)) as address:
        for page in opened(browser, color_scheme=scheme, viewport={"width": width, "height": 844}):
            page.goto(address)
            page.wait_for_selector("body.ready")
            page.click(".figure .open")
            page.locator("#detail summary", has_text="As training sees it").first.click()
            page.wait_for_selector(".seen .crop img")
            sample = gallery.figures(Filter())["figures"][0]["captions"][0]["sample_id"]
            found = page.evaluate("async id => (await fetch(`api/seen?seed=0&sample=${id}`)).json()", sample)
            assert page.locator(".seen .crop rect").count() == sum(found["patches"])
            masked = [token["text"] for token in found["tokens"] if token["masked"]]
            assert page.locator(".seen .masked").all_text_contents() == masked != []
            assert f"{len(masked)} of {len(found['tokens'])} tokens" in page.inner_text(".seen")
            assert "Under preset tiny, method.negatives=2." in page.inner_text(".seen")
            assert page.locator(".seen li").all_text_contents() == found["siblings"]
            assert page.locator(".seen .status").all_text_contents() == found["lacks"] != []
            assert page.locator(".seen > *").count() == 6  # and no text beside these
            assert page.evaluate("[...document.querySelector('.seen').childNodes].every(one => one.tagName)")
            assert faults(page) == []
