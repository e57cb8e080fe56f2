"""Pages in a real browser, which only the machine's own packages bring."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
BROWSED = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.processes,
    pytest.mark.slow,
]


@pytest.fixture(
    scope="module"
)  # no longer: Playwright's event loop runs meanwhile, and other tests start their own
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


def opened(browser: Any, **given: Any) -> Iterator[Any]:
    context = browser.new_context(
        **{"viewport": {"width": 1400, "height": 900}, "reduced_motion": "reduce"} | given
    )
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert [one for one in problems if "Failed to load resource" not in one] == []


def faults(page: Any) -> list[tuple[str, str]]:
    """What axe finds that shuts somebody out: the rule, and the first element that breaks it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
