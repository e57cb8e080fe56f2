"""What tokenizers clean captions by, with each cleaned character's place in the caption."""

import string
from collections.abc import Callable

import ftfy

from macco.pipeline.aligned import Aligned

__all__ = ["Aligned", "clean"]

_KNOWN = ("_clean_lower", "_clean_whitespace", "_clean_canonicalize")
_PUNCTUATION = frozenset(string.punctuation) - {"_"}


def _plain(caption: str) -> bool:
    """Whether there is nothing in it that ftfy or html would change."""
    return caption.isascii() and caption.isprintable() and "&" not in caption


def _repair(aligned: Aligned) -> Aligned:
    """ftfy.fix_text."""
    if _plain(aligned.text):
        return aligned
    fixed = ftfy.fix_text(aligned.text)
    plain = aligned.unescape()
    ways = (plain.compose(), plain, aligned)
    return next((way for way in ways if ftfy.fix_text(way.text) == fixed), aligned).become(fixed)


def _unpunctuate(aligned: Aligned) -> Aligned:
    """Drop ASCII punctuation; underscores become spaces."""
    places = [i for i, c in enumerate(aligned.text) if c not in _PUNCTUATION]
    text = "".join(aligned.text[i] for i in places).replace("_", " ")
    return Aligned(text, [aligned.starts[i] for i in places], [aligned.ends[i] for i in places])


def clean(caption: str, cleaner: Callable[[str], str]) -> Aligned:
    """Clean a caption as open_clip's `cleaner` (lower, whitespace or canonicalize) does, keeping places.

    The text is always what `cleaner` returns: where the steps known here lead elsewhere, it is aligned as a whole.
    """
    kind, plain = getattr(cleaner, "__name__", ""), _plain(caption)
    aligned = Aligned.of(caption) if plain else _repair(Aligned.of(caption)).unescape().unescape()
    if kind == "_clean_canonicalize":
        aligned = _unpunctuate(aligned)
    if kind in ("_clean_canonicalize", "_clean_lower"):
        aligned = aligned.lower()
    aligned = aligned.squeeze()
    # Of a plain caption the steps here are all that open_clip's cleaners do: asking them takes longest of all.
    return aligned if plain and kind in _KNOWN else aligned.become(cleaner(caption))
