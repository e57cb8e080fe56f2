"""Captions to token ids, each with the characters of the caption that it stands for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from macco.pipeline.clean import clean
from macco.pipeline.errors import UserError

WORDS: Final = 100_000  # that are kept as they were read: about 30 MB of a worker
LAST: Final = 64  # captions, likewise: some samples, with their hard negatives

Word = tuple[tuple[int, int, int], ...]  # id, and characters [start, end) of the word, of each of its tokens


@dataclass(frozen=True, slots=True)
class Tokens:
    """One caption: token i stands for the characters [starts[i], ends[i]), none where they are equal.

    All three are int64 [L], start and end tokens (which stand for no characters) included. `cut` is set where the
    caption has more tokens than the model's context: what follows the last token's characters is not seen.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    cut: bool = False

    def beyond(self, spans: Iterable[tuple[int, int]]) -> bool:
        """Whether a concept lies wholly beyond the cut."""
        return self.cut and min(start for start, _ in spans) >= self.ends.max()

    @property
    def words(self) -> NDArray[np.bool_]:
        """Which tokens stand for any characters, [L]."""
        return self.starts < self.ends


class Tokenize:
    """Wraps an open_clip tokenizer. Ids are exactly those of the tokenizer itself, without padding.

    Raises UserError for tokenizers that do not tell where their tokens lie.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._words: dict[str, Word] = {}
        self._last: dict[str, Tokens] = {}  # of the latest captions: a sample's is asked for more than once
        if isinstance(tokenizer, SimpleTokenizer):
            if tokenizer.reduction_fn is not None:
                raise UserError(
                    "tokenizers that drop words at random are not supported: leave reduction_mask empty"
                )
            self.padding = 0
        elif isinstance(tokenizer, HFTokenizer):
            if tokenizer.tokenizer_mode or not tokenizer.tokenizer.is_fast:
                raise UserError(
                    "this tokenizer does not tell where its tokens lie: choose a model with a fast one"
                )
            self.padding = int(tokenizer.tokenizer.pad_token_id)
        else:
            raise UserError(
                f"tokenizer {type(tokenizer).__name__} is not supported: use open_clip.get_tokenizer"
            )
        self.context: int = tokenizer.context_length

    def __call__(self, caption: str) -> Tokens:
        """Tokenize one caption, cut at the context length, with its last token kept for the end."""
        if (known := self._last.get(caption)) is not None:
            return known
        if len(self._last) >= LAST:
            self._last.clear()
        return self._last.setdefault(caption, self._read(caption))

    def _read(self, caption: str) -> Tokens:
        cleaned = clean(caption, self.tokenizer.clean_fn)
        simple = isinstance(self.tokenizer, SimpleTokenizer)
        ids, places, whole = self._simple(cleaned.text) if simple else self._fast(cleaned.text)
        at = np.array(places, np.int64)
        if not isinstance(cleaned.starts, range):  # cleaning moved characters
            for number, (first, last) in enumerate(places):
                if first < last:
                    at[number] = min(cleaned.starts[first:last]), max(cleaned.ends[first:last])
        return Tokens(np.array(ids, np.int64), at[:, 0], at[:, 1], not whole)

    def _simple(self, text: str) -> tuple[list[int], list[tuple[int, int]], bool]:
        """SimpleTokenizer.encode, keeping places."""
        t = self.tokenizer
        ids, places = [t.sot_token_id], [(0, 0)]
        for match in t.pat.finditer(text):
            word, first = match[0], match.start()
            for number, start, end in self._words.get(word) or self._word(word):
                ids.append(number)
                places.append((first + start, first + end))
        whole = len(ids) < self.context
        ids, places = ids[: self.context - 1], places[: self.context - 1]
        return [*ids, t.eot_token_id], [*places, (0, 0)], whole

    def _word(self, word: str) -> Word:
        """Ids and places of a word of a SimpleTokenizer, whose letters are bytes of UTF-8."""
        t, found, at = self.tokenizer, list[tuple[int, int, int]](), 0
        letters = [number for number, c in enumerate(word) for _ in c.encode()]
        for piece in t.bpe("".join(t.byte_encoder[b] for b in word.encode())).split(" "):
            size = len(piece.removesuffix("</w>"))
            found.append((t.encoder[piece], letters[at], letters[at + size - 1] + 1))
            at += size
        if len(self._words) >= WORDS:
            self._words.clear()
        self._words[word] = tuple(found)
        return self._words[word]

    def _fast(self, text: str) -> tuple[list[int], list[tuple[int, int]], bool]:
        t = self.tokenizer
        found = t.tokenizer(text, max_length=self.context, truncation=True, return_offsets_mapping=True)
        ids, places = list(found["input_ids"]), []
        for first, last in found["offset_mapping"]:
            while (
                first < last and text[first].isspace()
            ):  # sentencepiece counts the space before a word as the word's
                first += 1
            places.append((first, last))
        whole = not found.encodings[0].overflowing
        if t.strip_sep_token:
            ids = [0 if number == t.tokenizer.sep_token_id else number for number in ids]
        return ids, places, whole
