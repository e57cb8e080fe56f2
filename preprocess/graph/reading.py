"""A caption as the parser reads it best: without markup and what nobody sees, each character with its place."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

from macco.pipeline.aligned import Aligned

SOFT_HYPHEN: Final = "\u00ad"
# A comment, a script or an HTML tag; "<person>", as some corpora hide names, is none.
_TAG: Final = re.compile(
    r"<!--.*?-->|<(script|style)(?:\s[^<>]*)?>.*?</\1\s*>"
    r"|</?(?:a|abbr|b|big|br|center|cite|code|div|em|font|h[1-6]|hr|i|img|li|mark|ol|p|pre|s|small|span|strike|strong"
    r"|sub|sup|table|td|th|tr|tt|u|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE | re.DOTALL,
)
# Emoji are made of symbols, skin tones, and marks that tell how to draw what stands before them.
_TONES: Final = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
_HYPHENS: Final = "\u2010\u2011"
_SELECTORS: Final = frozenset([*map(chr, range(0xFE00, 0xFE10)), "\u20e3"])


def read(caption: str, is_word: Callable[[str], bool]) -> tuple[str, Aligned | None]:
    """The text to parse and, where it differs from the caption, its places there.

    `is_word` tells English words, to choose between "um|brella" and "red|dog" at a soft hyphen.
    """
    text = readable(caption)
    if not (text.isascii() and text.isprintable()) or "&" in text or "<" in text:
        seen = _seen(Aligned.of(_whole(caption)), is_word)
        return seen.text, seen
    if text == caption:
        return text, None
    kept = places(caption)
    return text, Aligned(text, kept, [place + 1 for place in kept])


def readable(caption: str) -> str:
    """The caption with single blanks and without what spaCy refuses."""
    return _whole(" ".join(caption.split()))


def places(caption: str) -> list[int]:
    """The place in the caption of each character of `readable(caption)`."""
    kept = [i for i, c in enumerate(caption) if not c.isspace() or (i > 0 and not caption[i - 1].isspace())]
    while kept and caption[kept[-1]].isspace():
        del kept[-1]
    return kept


def _whole(text: str) -> str:
    """Without half of a surrogate pair, as JSON may hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def _seen(text: Aligned, is_word: Callable[[str], bool]) -> Aligned:
    """What a reader of the page sees: "dog &amp; <b>cat</b>" is "dog & cat", without emoji."""
    text = text.unescape().unescape()
    if "<" in text.text:
        text = text.replace([(tag.start(), tag.end(), " ") for tag in _TAG.finditer(text.text)])
    return text.replace(list(_unseen(text.text, is_word))).squeeze()


def _unseen(text: str, is_word: Callable[[str], bool]) -> Iterator[tuple[int, int, str]]:
    if text.isascii() and text.isprintable():
        return
    for i, c in enumerate(text):
        if c == SOFT_HYPHEN:
            left, right = re.search(r"\w*$", text[:i]), re.match(r"\w*", text[i + 1 :])
            parts = (left[0] if left else "", right[0] if right else "")
            apart = not is_word("".join(parts)) and all(map(is_word, parts))
            yield i, i + 1, " " if apart else ""
        elif c in _HYPHENS:
            yield i, i + 1, "-"
        elif plain := _plain(c):
            yield i, i + 1, plain
        elif _is_symbol(c) or c in _TONES:
            yield i, i + 1, " "
        elif c in "\u200b\u2028\u2029":
            yield i, i + 1, " " if _between_words(text, i) else ""
        elif c in _SELECTORS or (unicodedata.category(c) in ("Cf", "Cc") and not c.isspace()):
            yield i, i + 1, ""


def _plain(c: str) -> str:
    """The letters or digits that this one is another form of: of a font, in full width, or joined; "" for others."""
    if c < "\u0100" or not unicodedata.decomposition(c).startswith(("<wide>", "<font>", "<compat>")):
        return ""
    plain = unicodedata.normalize("NFKC", c)
    return plain if c.isalnum() and plain.isascii() and plain.isalnum() else ""


def _is_symbol(c: str) -> bool:
    """Whether it is a picture or an arrow, which is no operator: those, "3 \u2264 5", are read."""
    category = unicodedata.category(c) if c >= "\u2000" else ""
    return category == "So" or (category == "Sm" and c >= "\u2190" and not "\u2200" <= c < "\u2300")


def _between_words(text: str, i: int) -> bool:
    """Whether this zero-width space parts two letters."""
    return text[i - 1 : i].isalnum() and text[i + 1 : i + 2].isalnum()
