"""A text made from a caption, with each character's place in the caption."""

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

# What html.unescape takes for a character reference.
_REFERENCE = re.compile(r"&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)")


@dataclass(frozen=True, slots=True)
class Aligned:
    """A text, and the characters [starts[i], ends[i]) of the caption that its character i was made from."""

    text: str
    starts: Sequence[int]  # a range where every character stands at its place in the caption
    ends: Sequence[int]

    @classmethod
    def of(cls, text: str) -> "Aligned":
        """The caption itself."""
        return cls(text, range(len(text)), range(1, len(text) + 1))

    def replace(self, changes: list[tuple[int, int, str]]) -> "Aligned":
        """Put new text in place of stretches [start, end), given in order: it was made from all of each."""
        pieces, starts, ends, done = list[str](), list[int](), list[int](), 0
        for start, end, new in [*changes, (len(self.text), len(self.text), "")]:
            pieces += [self.text[done:start], new]
            starts += self.starts[done:start]
            ends += self.ends[done:start]
            if new:
                at = self.starts[start] if start < len(self.text) else (self.ends[-1] if self.ends else 0)
                starts += [at] * len(new)
                ends += [self.ends[end - 1] if end > start else at] * len(new)
            done = end
        return Aligned("".join(pieces), starts, ends)

    def become(self, text: str) -> "Aligned":
        """Follow changes of unknown kind: characters that stayed keep their places, the rest goes by stretch."""
        if text == self.text:
            return self
        matcher = SequenceMatcher(None, self.text, text, autojunk=False)
        return self.replace(
            [(i, j, text[k:n]) for tag, i, j, k, n in matcher.get_opcodes() if tag != "equal"]
        )

    def unescape(self) -> "Aligned":
        """html.unescape."""
        if "&" not in self.text:
            return self
        found = [(m.start(), m.end(), html.unescape(m[0])) for m in _REFERENCE.finditer(self.text)]
        return self.replace([change for change in found if self.text[change[0] : change[1]] != change[2]])

    def compose(self) -> "Aligned":
        """NFC, where it is that of each letter with the marks that follow it (not of Hangul's parts, for one)."""
        if unicodedata.is_normalized("NFC", self.text):
            return self
        letters = [at for at, c in enumerate(self.text) if not at or not unicodedata.combining(c)]
        whole = [(i, j, self.text[i:j]) for i, j in pairwise([*letters, len(self.text)])]
        made = self.replace(
            [(i, j, new) for i, j, old in whole if (new := unicodedata.normalize("NFC", old)) != old]
        )
        return made if made.text == unicodedata.normalize("NFC", self.text) else self

    def squeeze(self) -> "Aligned":
        """Make each run of white space one space, and none at the ends."""
        if " ".join(self.text.split()) == self.text:
            return self
        changes = [
            (m.start(), m.end(), " " if m.start() > 0 and m.end() < len(self.text) else "")
            for m in re.finditer(r"\s+", self.text)
        ]
        return self.replace([change for change in changes if self.text[change[0] : change[1]] != change[2]])

    def lower(self) -> "Aligned":
        """str.lower, which makes some characters two."""
        text = self.text.lower()
        if len(text) == len(self.text):
            return Aligned(text, self.starts, self.ends)
        low = self.replace([(i, i + 1, c.lower()) for i, c in enumerate(self.text) if len(c.lower()) > 1])
        return Aligned(text, low.starts, low.ends) if len(text) == len(low.text) else self.become(text)
