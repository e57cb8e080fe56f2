"""The pictures of the README, of what `make quickstart` has left: python scripts/pictures.py quickstart docs/images."""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

SIZE = {"width": 1100, "height": 620}


def page_of_a_store(page: Page) -> bytes:
    """The first images, with a relation lit."""
    page.wait_for_selector("main article")
    page.locator("article p.caption .span.relation", has_text="to the left of").first.hover()
    page.wait_for_timeout(300)
    return page.screenshot()


def reconstructions(page: Page) -> bytes:
    """The first three pairs of a run's report."""
    figures = page.locator("figure:has(.pictures)")
    boxes = [box for at in range(4) if (box := figures.nth(at).bounding_box())]
    edges = [min(b["x"] for b in boxes), min(b["y"] for b in boxes)]
    right, low = max(b["x"] + b["width"] for b in boxes), max(b["y"] + b["height"] for b in boxes)
    clip = {"x": edges[0], "y": edges[1], "width": right - edges[0], "height": low - edges[1]}
    return page.screenshot(full_page=True, clip=clip)


def main(made: Path, out: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        for name, source, take in [
            ("page", made / "view.html", page_of_a_store),
            ("masked", made / "run" / "report.html", reconstructions),
        ]:
            page.goto(source.resolve().as_uri())
            picture = Image.open(io.BytesIO(take(page))).convert("RGB")
            picture.save(out / f"{name}.jpg", quality=85)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
