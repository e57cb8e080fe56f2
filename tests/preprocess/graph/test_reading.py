"""Captions with markup and invisible characters: what is parsed, and where it lies in the caption."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macco.pipeline.schema import OBJECT
from macco.preprocess.graph.reading import read
from tests.preprocess.graph.test_graph import check, graphs
from tests.support.parses import told

ENGLISH = {"red", "dog", "sofa", "umbrella", "white", "cat"}
# Marks that nobody sees: zero-width, bidirectional, soft hyphen, NUL, byte order mark, word joiner.
UNSEEN = ["\u200c", "\u200d", "\u202a", "\u202c", "\u200e", "\u2066", "\x00", "\ufeff", "\u2060", "\ufe0f"]


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("a dog &amp; a cat", "a dog & a cat"),
        ("a dog &amp;amp; a cat", "a dog & a cat"),
        ("Tom&#39;s  dog", "Tom's dog"),
        ("a dog&nbsp;on a sofa", "a dog on a sofa"),
        ("<b>A dog</b> on a <i class='x'>sofa</i>", "A dog on a sofa"),
        ("a dog<br/>on a sofa", "a dog on a sofa"),
        ("&lt;p&gt;a dog&lt;/p&gt;", "a dog"),
        ("<person> with 3 < 5 dogs", "<person> with 3 < 5 dogs"),
        ("AT&T and R&B; a & b", "AT&T and R&B; a & b"),
        ("a red\u00addog on a so\u00adfa", "a red dog on a sofa"),
        ("an um\u00adbrel\u00adla", "an umbrella"),
        ("red\u200bdog \u200b on\u200b a sofa", "red dog on a sofa"),
        (
            "a dog\U0001f436on\U0001f3d6\ufe0f a sofa \U0001f469\u200d\U0001f469\u200d\U0001f467",
            "a dog on a sofa",
        ),
        ("a dog \u2764\ufe0f a cat at 5 \u00b0C", "a dog a cat at 5 \u00b0C"),
        ("a dog\u2194\ufe0f on a sofa \u2b05\ufe0f 3 \u2264 5", "a dog on a sofa 3 \u2264 5"),
        ("a black\u2011and\u2010white cat", "a black-and-white cat"),
        (
            "<script>alert(1)</script>a dog<style a='b'>\n.x{}</style> <!-- hi --> on a sofa",
            "a dog on a sofa",
        ),
        ("<script>a dog", "<script>a dog"),
        ("a dog <!-- on a sofa", "a dog <!-- on a sofa"),
        ("\uff32\uff45\uff44 do\uff47", "Red dog"),
        ("\U0001d41a \U0001d5e5\U0001d5f2\U0001d5f1 \ufb01re\ufb01ghter", "a Red firefighter"),
        (
            "\uff12 dogs at \u00bd m\u00b2, n\u00ba 3",
            "2 dogs at \u00bd m\u00b2, n\u00ba 3",
        ),
        ("e\u0301t\u00e9 caf\u00e9", "e\u0301t\u00e9 caf\u00e9"),
    ],
)
def test_what_is_parsed(caption: str, text: str) -> None:
    found, aligned = read(caption, ENGLISH.__contains__)
    assert found == text
    assert aligned is None or (aligned.text == text and len(aligned.starts) == len(aligned.ends) == len(text))


@pytest.mark.parametrize("mark", UNSEEN)
@pytest.mark.parametrize("place", [0, 2, 3, 6, 9, 12, 15, 19])
def test_unseen_marks_change_no_graph(mark: str, place: int) -> None:
    plain = "A red dog on a sofa"
    caption = plain[:place] + mark + plain[place:]
    concepts = graphs().parse([caption])[0]
    check(caption, concepts)
    strip = {ord(each): None for each in UNSEEN}
    assert [line.translate(strip) for line in told(caption, concepts)] == told(
        plain, graphs().parse([plain])[0]
    )
    assert [c.lemma for c in concepts if c.kind == OBJECT] == ["dog", "sofa"]
    assert [c.phrase for c in concepts if c.kind == OBJECT] == ["red dog", "sofa"]


PIECES = [
    "&amp;",
    "&#39;",
    "&nbsp;",
    "&lt;b&gt;",
    "<b>",
    "</i>",
    "<br>",
    "&",
    "<",
    "\U0001f436",
    "\ufe0f",
    *UNSEEN,
]
PIECES += [
    "\u00ad",
    "\u200b",
    " ",
    "a dog",
    "on",
    "red",
    "sofa",
    "not",
    "no",
    "without",
    ",",
    "one",
    "and",
    "each other",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_any_markup_parses_to_spans_of_the_caption(caption: str) -> None:
    concepts = graphs().parse([caption])[0]
    check(caption, concepts)
    for concept in concepts:
        assert not any(mark in concept.lemma for mark in (*UNSEEN, "\U0001f436", "\u00ad", "\u200b"))
