"""The page of runs in a browser."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from macco.train.results.serve import runs_app
from macco.train.runs.metrics import read
from tests.support.browser import BROWSED, faults, opened
from tests.support.pages import served
from tests.support.scored import evaluation

pytestmark = BROWSED
RUN = Path(__file__).parents[2] / "fixtures" / "v0.1" / "macco"


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
    with served(runs_app(folders, None, 0.35, None)) as address:
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
