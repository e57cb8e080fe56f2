"""Which captions are not worth parsing, and why: all that refuses a caption for its own sake is here."""

import json
from typing import Any, NamedTuple

from macco.pipeline.schema import Status


class CaptionError(NamedTuple):
    """Why a caption cannot be used; in lists of captions it stands in place of the text."""

    status: Status
    error: str


def captions_of(value: Any) -> tuple[str | CaptionError, ...]:
    """Turn what a field holds (text, UTF-8 bytes, a list of them, nothing) into captions.

    White space around a caption goes; nothing else is changed.
    """
    if isinstance(value, list):  # a map's entries are tuples, whose names are no captions
        return tuple(caption for one in value for caption in captions_of(one)) or captions_of(None)
    if isinstance(value, bytes):
        value = text_of(value)
        if isinstance(value, CaptionError):
            return (value,)
    if value is not None and not isinstance(value, str):
        shown = json.dumps(value, default=str)[:80]
        return (CaptionError(Status.MISSING_CAPTION, f"caption is {shown}, no text"),)
    text = value or ""
    return (_no_text(text) or text.strip(),)


def text_of(data: bytes) -> str | CaptionError:
    """A caption's UTF-8 bytes as text."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return CaptionError(Status.BAD_ENCODING, f"caption is not UTF-8: {error}")


def caption_status(caption: str | None, max_chars: int = 1000) -> CaptionError | None:
    """Why a caption cannot be parsed, None if it can. `max_chars` counts code points."""
    caption = caption or ""
    if bad := _no_text(caption):
        return bad
    if len(caption) > max_chars:
        words = f"the caption has {len(caption)} characters, more than {max_chars}"
        return CaptionError(Status.CAPTION_TOO_LONG, words)
    if caption.isascii():
        return None
    letters = [c for c in caption if c.isalpha()]
    foreign = sum(not _is_latin(c) for c in letters)
    if 2 * foreign > len(letters):
        return CaptionError(Status.NOT_ENGLISH, f"{foreign} of {len(letters)} letters are not Latin")
    return None


def _no_text(caption: str) -> CaptionError | None:
    if not caption.strip():
        return CaptionError(Status.MISSING_CAPTION, "caption is empty")
    if not caption.isprintable() and any("\ud800" <= c <= "\udfff" for c in caption):
        return CaptionError(Status.BAD_ENCODING, "caption holds half of a surrogate pair")
    return None


def _is_latin(letter: str) -> bool:
    # Latin with its extensions, modifiers, phonetic and full-width forms: plain ranges, no table.
    return letter < "\u02e5" or "\u1d00" <= letter < "\u1f00" or "\uff21" <= letter < "\uff5b"
