"""What tokenizers clean captions by, with each cleaned character's place in the caption."""

import string
from collections.abc import Callable

import ftfy

from macco.pipeline.aligned import Aligned

__all__ = ["Aligned", "clean"]

_PUNCTUATION = frozenset(string.punctuation) - {"_"}


def _repair(aligned: Aligned) -> Aligned:
    """ftfy.fix_text."""
    if aligned.text.isascii() and aligned.text.isprintable() and "&" not in aligned.text:
        return aligned
    fixed = ftfy.fix_text(aligned.text)
    plain = aligned.unescape()
    return (plain if ftfy.fix_text(plain.text) == fixed else aligned).become(fixed)


def _unpunctuate(aligned: Aligned) -> Aligned:
    """Drop ASCII punctuation; underscores become spaces."""
    places = [i for i, c in enumerate(aligned.text) if c not in _PUNCTUATION]
    text = "".join(aligned.text[i] for i in places).replace("_", " ")
    return Aligned(text, [aligned.starts[i] for i in places], [aligned.ends[i] for i in places])


def clean(caption: str, cleaner: Callable[[str], str]) -> Aligned:
    """Clean a caption as open_clip's `cleaner` (lower, whitespace or canonicalize) does, keeping places.

    The text is always what `cleaner` returns: where the steps known here lead elsewhere, it is aligned as a whole.
    """
    text = cleaner(caption)
    aligned = _repair(Aligned.of(caption)).unescape().unescape()
    kind = getattr(cleaner, "__name__", "")
    if kind == "_clean_canonicalize":
        aligned = _unpunctuate(aligned)
    if kind in ("_clean_canonicalize", "_clean_lower"):
        aligned = aligned.lower()
    return aligned.squeeze().become(text)
