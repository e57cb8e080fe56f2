"""The page in a browser: what is drawn is the store's, what is hovered lights, and nobody is shut out."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from macco.pipeline.page.app import store_app
from macco.pipeline.page.filter import Filter
from macco.pipeline.page.gallery import Gallery
from macco.pipeline.store import Store
from macco.preprocess.look.view import write_page
from tests.support.browser import BROWSED, faults, opened
from tests.support.pages import HOSTILE, hostile_store, served

pytestmark = BROWSED
THRESHOLD = 0.35


@pytest.fixture(scope="module")
def gallery(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("browsed") / "store"
    shutil.copytree(store.url, folder)  # it is tagged
    made = Gallery(Store.open(str(folder)))
    made.fill()
    return made


@pytest.fixture(scope="module")
def url(gallery: Gallery) -> Iterator[str]:
    with served(store_app(gallery, threshold=THRESHOLD)) as address:
        yield address


@pytest.fixture(scope="module")
def written_page(store: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of what `view` writes."""
    path = tmp_path_factory.mktemp("written") / "view.html"
    write_page(store, path, where="true", limit=50, threshold=THRESHOLD)
    return f"file://{path}"


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    yield from opened(browser)


def go(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("body.ready")
    page.wait_for_load_state("networkidle")


def settle(page: Any) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_selector("body:not(.busy)")


def shown(page: Any) -> list[str]:
    return [card.get_attribute("data-id") for card in page.query_selector_all(".figure")]


# Of each figure: the corner and the size of its image, how many boxes it has, and of those that are seen the score and
# the corners, in pixels of the window; of the element itself, without its stroke.
DRAWN = """() => [...document.querySelectorAll('.figure')].map(card => {
    card.scrollIntoView();
    const { x, y, width, height } = card.querySelector('img').getBoundingClientRect();
    const rects = [...card.querySelectorAll('.picture rect')];
    return { image: [x, y, width, height], rects: rects.length,
        seen: rects.filter(one => one.checkVisibility({ visibilityProperty: true })).map(one => {
            const box = one.getBBox(), at = one.getScreenCTM();
            return [Number(one.dataset.score),
                    [box.x * at.a + at.e, box.y * at.d + at.f,
                     (box.x + box.width) * at.a + at.e, (box.y + box.height) * at.d + at.f]] }) } })"""


def test_drawn_boxes_are_the_stores(page: Any, url: str, gallery: Gallery) -> None:
    go(page, url)
    figures = gallery.figures(Filter())["figures"]
    assert shown(page) == [figure["id"] for figure in figures]
    for card, figure in zip(page.evaluate(DRAWN), figures, strict=True):
        assert card["rects"] == len(figure["boxes"])
        start, size = card["image"][:2] * 2, card["image"][2:] * 2
        boxes = sorted(
            (box["score"], [a + x * s for a, x, s in zip(start, box["corners"], size, strict=True)])
            for box in figure["boxes"]
            if box["score"] >= THRESHOLD
        )
        rects = sorted(card["seen"])
        assert [score for score, _ in rects] == [score for score, _ in boxes]
        for (_, drawn), (_, stored) in zip(rects, boxes, strict=True):
            assert drawn == pytest.approx(stored, abs=0.6)


# What each figure says: its captions, and their spans, each with the concepts that it is of.
SAID = """() => [...document.querySelectorAll('.figure')].map(card => ({
    captions: [...card.querySelectorAll('.caption')].map(one => one.textContent),
    spans: [...card.querySelectorAll('.caption [data-c]')].map(one => [one.dataset.c.split(' '), one.textContent])
}))"""


def test_captions_are_whole_and_their_spans_where_they_stand(page: Any, url: str, gallery: Gallery) -> None:
    go(page, url)
    for card, figure in zip(page.evaluate(SAID), gallery.figures(Filter())["figures"], strict=True):
        assert card["captions"] == [caption["caption"] for caption in figure["captions"]]
        for at, caption in enumerate(figure["captions"]):
            for concept in caption["concepts"]:
                said = [text for tokens, text in card["spans"] if f"{at}:{concept['number']}" in tokens]
                assert "".join(said) == "".join(
                    caption["caption"][first:end] for first, end in concept["spans"]
                )


def test_a_word_lights_its_box_and_a_box_its_words(page: Any, url: str) -> None:
    go(page, url)
    card = page.query_selector(".figure")
    next(one for one in card.query_selector_all("rect") if one.is_visible()).hover(force=True)
    rect = card.query_selector("rect.lit:not(.low)")
    tokens = set(rect.get_attribute("data-c").split())
    lit = card.query_selector_all(".caption .span.lit")
    assert {token for one in lit for token in one.get_attribute("data-c").split()} >= tokens
    page.mouse.move(5, 5)
    assert card.query_selector_all(".lit") == []
    word = card.query_selector(f'.caption [data-c~="{min(tokens)}"]')
    word.hover()
    assert "lit" in rect.get_attribute("class")
    colour = "one => getComputedStyle(one).getPropertyValue('--c')"
    assert word.evaluate(colour) == rect.evaluate(colour)


def test_a_relation_lights_both_its_ends_and_an_arrow(page: Any, url: str) -> None:
    go(page, url)
    arrow = next(one for one in page.query_selector_all(".figure .arrow:not(.low)"))
    token = arrow.get_attribute("data-c")
    assert arrow.evaluate("one => getComputedStyle(one).visibility") == "hidden"
    card = arrow.evaluate_handle("one => one.closest('.figure')").as_element()
    card.query_selector(f'.caption .relation[data-c~="{token}"]').hover()
    assert arrow.evaluate("one => getComputedStyle(one).visibility") == "visible"
    assert len({one.get_attribute("data-hue") for one in card.query_selector_all(".picture rect.lit")}) == 2


def test_filters_leave_what_they_say(page: Any, url: str, gallery: Gallery) -> None:
    go(page, url)
    row = page.query_selector("#facet-concept .choice")
    name, count = (
        row.query_selector("input").get_attribute("value"),
        row.query_selector(".number").text_content(),
    )
    row.click()
    settle(page)
    expected = gallery.figures(Filter(concept=(name,)))
    assert shown(page) == [figure["id"] for figure in expected["figures"]]
    assert page.text_content("#count") == f"{count} of 24 images" == f"{expected['total']} of 24 images"
    page.click("#chips .chip")
    settle(page)
    assert len(shown(page)) == 24
    where = "caption LIKE '%green%' AND row < 40"
    page.fill("#where", where)
    page.click("text=Apply")
    settle(page)
    assert shown(page) == [figure["id"] for figure in gallery.figures(Filter(where=where))["figures"]]
    page.fill("#where", "colour = 'red'")
    page.click("text=Apply")
    page.wait_for_selector("#problem:visible")
    assert "colour" in page.text_content("#problem")


def test_a_name_in_the_address_that_means_nothing_is_said(page: Any, url: str) -> None:
    go(page, f"{url}?concpt=object:dog")
    page.wait_for_selector("#problem:visible")
    assert "did you mean concept?" in page.text_content("#problem")
    page.select_option("#sort", "score")  # the next change is of what the page knows
    settle(page)
    assert "concpt" not in page.url
    assert page.is_hidden("#problem")


WRONG = ("t=abc", "t=5", "t=-1", "t=", "at=-10", "at=x", "at=1.5", "seed=x", "score=2")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        *((given, False) for given in WRONG),
        *((given, True) for given in ("t=abc", "at=1.5", "seed=x", "score=2")),
    ],
)
def test_numbers_of_an_address_that_mean_nothing_are_said(
    page: Any, url: str, given: str, written: bool, written_page: str
) -> None:
    go(page, f"{written_page if written else url}?shard=00001&{given}")  # a page of four is drawn at once
    page.wait_for_selector("#problem:visible")
    said = page.text_content("#problem")
    assert given.partition("=")[0] in said
    assert "undefined" not in said
    assert "NaN" not in page.inner_text("body")
    page.select_option("#sort", "score")
    settle(page)
    assert page.is_hidden("#problem")
    assert len(shown(page)) == 4
    assert page.text_content("#threshold") == str(THRESHOLD)


def test_a_page_beyond_the_last_is_the_last(page: Any, url: str, gallery: Gallery) -> None:
    for at, expected in ((100_000, "1–24 of 24"), (5, "6–24 of 24")):
        go(page, f"{url}?at={at}")
        assert page.text_content("#pager span") == expected
    page.click("text=Previous")
    settle(page)
    assert page.text_content("#pager span") == "1–24 of 24"
    assert page.query_selector_all("#pager button:not(:disabled)") == []


def slide(page: Any, at: int) -> None:
    page.evaluate(f"""() => {{ const slider = document.getElementById('score'); slider.value = {at};
        for (const kind of ['input', 'change']) slider.dispatchEvent(new Event(kind)) }}""")


# Boxes that are seen.
VISIBLE = """() => [...document.querySelectorAll('.figure rect')].filter(one => one.checkVisibility(
    { visibilityProperty: true, opacityProperty: true })).length"""


def test_the_slider_hides_counts_and_filters(page: Any, url: str, gallery: Gallery) -> None:
    go(page, url)
    scores = gallery.scores(Filter())
    boxes = [box for figure in gallery.figures(Filter())["figures"] for box in figure["boxes"]]
    for at in (0, 62, 70, 100):
        slide(page, at)
        assert page.text_content("#counted") == f"{scores['images'][at]} images, {scores['boxes'][at]} boxes"
        assert page.evaluate(VISIBLE) == len([box for box in boxes if box["score"] >= at / 100])
    slide(page, 70)
    page.check("#only")
    settle(page)
    assert page.text_content("#count") == f"{scores['images'][70]} of 24 images"
    assert len(shown(page)) == scores["images"][70]


def test_an_address_is_all_of_a_view(page: Any, browser: Any, url: str, gallery: Gallery) -> None:
    name = gallery.facets(Filter())["concept"][1]["name"]
    go(page, url)
    page.check(f'input[value="{name}"]')
    settle(page)
    page.select_option("#sort", "random")
    settle(page)
    page.click("#shuffle")
    settle(page)
    page.press("body", "]")
    page.click(".figure .open")
    page.wait_for_selector("#detail[open]")
    there, cards = page.url, shown(page)
    assert all(part in there for part in ("concept=", "sort=random", "seed=1", "t=0.36", "image="))
    for other in opened(browser):
        go(other, there)
        assert shown(other) == cards
        assert other.is_visible("#detail")
        assert other.text_content("#threshold") == "0.36"
        assert other.is_checked(f'input[value="{name}"]')
    page.go_back()
    page.wait_for_selector("#detail", state="hidden")
    assert shown(page) == cards


def test_all_is_done_by_keys(page: Any, url: str) -> None:
    go(page, url)
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.closest('.figure').dataset.id") == shown(page)[1]
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail[open]")
    page.keyboard.press("j")
    page.wait_for_selector(f"#detail[data-id={json.dumps(shown(page)[2])}]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    assert "image=" not in page.url
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("re")
    page.wait_for_selector("#facet-concept:not(:has([value='attribute:small']))", state="attached")
    assert all("re" in one.text_content() for one in page.query_selector_all("#facet-concept .text"))
    page.keyboard.press("Escape")
    before = shown(page)
    page.keyboard.press("r")
    settle(page)
    assert sorted(shown(page)) == sorted(before)
    assert shown(page) != before
    page.keyboard.press("b")
    assert page.evaluate(VISIBLE) == 0
    page.reload()
    settle(page)
    page.keyboard.press("t")
    assert page.text_content(".note") == "j and k choose an image"
    page.keyboard.press("j")
    page.keyboard.press("t")
    page.wait_for_selector("#new-tag:focus")
    assert page.get_attribute("#detail", "data-id") == shown(page)[0]


def test_a_tag_is_written_and_found(page: Any, url: str, gallery: Gallery) -> None:
    go(page, url)
    page.click(".figure .open")
    page.fill("#new-tag", "a <b>bold</b> one")
    page.press("#new-tag", "Enter")
    page.wait_for_selector("#facet-tag .choice")
    assert page.text_content("#facet-tag .text") == "a <b>bold</b> one"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.check("#facet-tag input")
    settle(page)
    assert shown(page) == [gallery.figures(Filter())["figures"][0]["id"]]
    page.click("#copy")
    copied = page.wait_for_selector("#copy[data-copied]").get_attribute("data-copied")
    assert copied == "--where \"sample_id IN (SELECT sample_id FROM tags WHERE tag = 'a <b>bold</b> one')\""


def test_hostile_text_is_text(page: Any, tmp_path: Path) -> None:
    store = hostile_store(tmp_path)
    gallery = Gallery(store)
    gallery.fill()
    write_page(store, tmp_path / "view.html", where="true", limit=9, threshold=THRESHOLD)
    with served(store_app(gallery, threshold=THRESHOLD)) as url:
        for address in (url, f"file://{tmp_path}/view.html"):
            go(page, address)
            texts = [one.text_content() for one in page.query_selector_all(".figure .caption")]
            for key, words in HOSTILE.items():
                assert any(text.endswith(words) for text in texts)
                page.click(f".figure[data-id={json.dumps(f'd/00000/{key}')}] .open")
                page.wait_for_selector("#detail[open]")
                assert page.text_content("#detail h2") == key
                page.keyboard.press("Escape")
                page.wait_for_selector("#detail", state="hidden")
            assert page.evaluate("window.owned") is None
            assert page.query_selector_all("#grid script, #grid img[src=x]") == []


def test_a_written_page_says_what_it_cannot_do(page: Any, written_page: str) -> None:
    go(page, written_page)
    page.keyboard.press("?")
    assert {"c", "t"}.isdisjoint(one.text_content() for one in page.query_selector_all("#help kbd"))
    page.keyboard.press("Escape")
    page.evaluate("() => { window.prompt = () => { throw new Error('copied') } }")
    page.check('#facet-kind [value="relation"]')
    settle(page)
    for key in "jct":
        page.keyboard.press(key)
    assert page.query_selector_all(".note, #copy[data-copied], #detail[open]") == []
    for given in ("where=lemma='dog'", "concpt=object:dog"):
        go(page, f"{written_page}?{given}")
        assert given.partition("=")[0] in page.text_content("#problem")


def test_a_written_page_has_the_facets_of_the_store(page: Any, tmp_path: Path) -> None:
    store = hostile_store(tmp_path)
    gallery = Gallery(store)
    gallery.fill()
    for figure in gallery.figures(Filter())["figures"][1:3]:
        gallery.tag(figure["id"], "👨‍👩‍👧 it's", True)
    write_page(store, tmp_path / "view.html", where="true", limit=50, threshold=THRESHOLD)
    address = f"file://{tmp_path}/view.html"
    go(page, address)
    facets = gallery.facets(Filter())
    for facet in ("split", "tag"):
        assert facets[facet]
        for value, count in facets[facet].items():
            go(page, address)
            row = page.locator(f"#facet-{facet} .choice", has_text=value)
            assert row.locator(".number").text_content() == str(count)
            row.locator("input").check()
            settle(page)
            chosen = gallery.figures(Filter(**{facet: (value,)}))["figures"]
            assert sorted(shown(page)) == sorted(figure["id"] for figure in chosen)


def test_a_store_of_which_not_all_is_shown_says_so(page: Any, tmp_path: Path) -> None:
    store = hostile_store(tmp_path)
    (tmp_path / "store/boxes/00000.parquet").write_bytes(b"cut")
    gallery = Gallery(Store.open(store.url))
    gallery.start()
    with served(store_app(gallery, threshold=THRESHOLD)) as url:
        go(page, url)
        assert "00000: boxes/00000.parquet" in page.text_content("#failed")
        assert page.text_content("#grid") == "There is no image here."
    gallery.close()


def test_a_written_page_is_the_same_page(page: Any, gallery: Gallery, tmp_path: Path) -> None:
    write_page(gallery.store, tmp_path / "view.html", where="true", limit=50, threshold=THRESHOLD)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    go(page, f"file://{tmp_path}/view.html")
    assert {one.partition(":")[0] for one in requests} <= {"file", "data"}
    figures = gallery.figures(Filter(), 0, 50)["figures"]
    assert shown(page) == [figure["id"] for figure in figures]
    assert len(page.query_selector_all(".picture rect")) == sum(len(figure["boxes"]) for figure in figures)
    facets = gallery.facets(Filter())
    for kind in facets["kind"]:
        number = page.query_selector(f'#facet-kind .choice:has([value="{kind}"]) .number').text_content()
        assert number == str(facets["kind"][kind])
    page.check('#facet-kind [value="relation"]')
    settle(page)
    assert shown(page) == [figure["id"] for figure in gallery.figures(Filter(kind=("relation",)))["figures"]]
    scores = gallery.scores(Filter(kind=("relation",)))
    assert page.text_content("#counted") == f"{scores['images'][35]} images"


@pytest.mark.parametrize("width", [1400, 390])
def test_an_image_says_what_shows_it_as_training_sees_it(browser: Any, gallery: Gallery, width: int) -> None:
    about = {"training": f"macco-train serve --store /{'long/' * 20}store"}
    with served(store_app(gallery, threshold=THRESHOLD, about=about)) as address:
        for page in opened(browser, viewport={"width": width, "height": 844}):
            go(page, address)
            page.click(".figure .open")
            assert page.inner_text("#detail .lies code") == about["training"]
            assert page.evaluate("document.querySelector('#detail').scrollWidth") <= width
            assert faults(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_no_serious_fault(browser: Any, url: str, scheme: str, width: int) -> None:
    for page in opened(browser, color_scheme=scheme, viewport={"width": width, "height": 844}):
        go(page, f"{url}?shard=00001")  # axe takes a second for four figures, and for all of them ten
        for narrow in (240, 180) if width < 800 else ():
            page.set_viewport_size({"width": narrow, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= narrow
        page.set_viewport_size({"width": width, "height": 844})
        if width < 800:
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.click("#open-filters")
        for act in (lambda: None, lambda: page.click(".figure .open")):  # noqa: B023
            act()
            page.wait_for_timeout(100)
            assert faults(page) == []
            if width < 800:
                page.evaluate("document.body.classList.remove('filtering')")
        assert all(image.get_attribute("alt") for image in page.query_selector_all("img"))
