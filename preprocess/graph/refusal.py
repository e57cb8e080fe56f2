"""Which captions are not worth parsing, and why."""


def caption_status(caption: str | None, max_chars: int = 1000) -> tuple[str, str] | None:
    """(status, message) of a caption that cannot be parsed, None if it can.

    `max_chars` counts code points.
    """
    if caption is None:
        return "missing_caption", "the caption is missing"
    if not caption.strip():
        return "empty_caption", "the caption is empty"
    if len(caption) > max_chars:
        return "caption_too_long", f"the caption has {len(caption)} characters, more than {max_chars}"
    if caption.isascii():
        return None
    if any("\ud800" <= c <= "\udfff" for c in caption):
        return "bad_encoding", "the caption holds half of a surrogate pair, which is no character"
    letters = [c for c in caption if c.isalpha()]
    foreign = sum(not _is_latin(c) for c in letters)
    if 2 * foreign > len(letters):
        return "not_english", f"{foreign} of {len(letters)} letters are not Latin"
    return None


def _is_latin(letter: str) -> bool:
    # Latin with its extensions, modifiers, phonetic and full-width forms: plain ranges, no table.
    return letter < "\u02e5" or "\u1d00" <= letter < "\u1f00" or "\uff21" <= letter < "\uff5b"
