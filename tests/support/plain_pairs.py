"""The loader's work on a sample in the plain way: one caption, one span, one box after the other, pictures by Pillow.

What the loader makes is held against it, and how fast it is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from PIL.Image import Resampling

from macco.pipeline.aligned import Aligned
from macco.pipeline.clean import _repair, _unpunctuate
from macco.pipeline.pictures import ANY_PIXELS, decode
from macco.pipeline.tokens import Tokenize, Tokens
from macco.train.config import MaskConfig
from macco.train.data.crops import MARGIN, draw_crop, read
from macco.train.data.masks import Crop, Grounded, _rectangle, _some_tokens, _words, masked_kinds
from macco.train.data.rows import Sample
from macco.train.objectives.macco.batches import MaskedBatch, MaskedPairs


@dataclass(frozen=True, kw_only=True)
class PlainPairs(MaskedPairs):
    """The same batches, but for the rounding of pixels."""

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        data = read(sample.source, sample.member, sample.offset, sample.size)
        short = ceil(self.image_size * MARGIN)
        image = decode(data, max_pixels=ANY_PIXELS, min_side=1, short_side=short).image
        crop = draw_crop(*image.size, random)
        box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
        resized = image.crop(box).resize((self.image_size, self.image_size), Resampling.BICUBIC)
        pixels = np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
        tokens = tokenized(self.tokenize, sample.caption)
        grid = self.image_size // self.patch_size
        text, patch = draw(sample.concepts, sample.caption, tokens, crop, grid, self.masks, random)
        return (sample.id, sample.image), pixels, tokens.ids, text, patch, self.hard_negatives(sample)

    def collate(self, made: list[Any]) -> MaskedBatch:
        names, images, tokens, text, patch, hard = zip(*made, strict=True)
        pairs = self.pairs(names, images, tokens, hard)
        mask = torch.zeros_like(pairs["tokens"], dtype=torch.bool)
        for row, masked in enumerate(text):
            mask[row, : len(masked)] = torch.from_numpy(masked)
        return MaskedBatch(**pairs, text_mask=mask, patch_mask=torch.from_numpy(np.stack(patch)))


def cleaned(caption: str, cleaner: Any) -> Aligned:
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


def tokenized(tokenize: Tokenize, caption: str) -> Tokens:
    """Tokenize one caption, cut at the context length, with its last token kept for the end."""
    clear = cleaned(caption, tokenize.tokenizer.clean_fn)
    simple = isinstance(tokenize.tokenizer, SimpleTokenizer)
    ids, places = simple_tokens(tokenize, clear.text) if simple else tokenize._fast(clear.text)
    starts, ends = [0] * len(ids), [0] * len(ids)
    for number, (first, last) in enumerate(places):
        # Sentencepiece counts the space before a word as the word's.
        while first < last and clear.text[first].isspace():
            first += 1
        if first < last:
            starts[number] = min(clear.starts[first:last])
            ends[number] = max(clear.ends[first:last])
    return Tokens(np.array(ids, np.int64), np.array(starts, np.int64), np.array(ends, np.int64))


def simple_tokens(tokenize: Tokenize, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """SimpleTokenizer.encode, keeping places: its letters are bytes of UTF-8."""
    t = tokenize.tokenizer
    ids, places = [t.sot_token_id], [(0, 0)]
    for match in t.pat.finditer(text):
        word, first = match[0], match.start()
        letters = [number for number, c in enumerate(word) for _ in c.encode()]
        at = 0
        for piece in t.bpe("".join(t.byte_encoder[b] for b in word.encode())).split(" "):
            size = len(piece.removesuffix("</w>"))
            ids.append(t.encoder[piece])
            places.append((first + letters[at], first + letters[at + size - 1] + 1))
            at += size
    ids, places = ids[: tokenize.context - 1], places[: tokenize.context - 1]
    return [*ids, t.eot_token_id], [*places, (0, 0)]


def touching(tokens: Tokens, spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which tokens share a character with any of the spans [start, end), [L]."""
    touched = np.zeros(len(tokens.ids), np.bool_)
    for start, end in spans:
        if start < end:
            touched |= (tokens.starts < end) & (tokens.ends > start)
    return touched & tokens.words


def draw(
    concepts: Sequence[Grounded],
    caption: str,
    tokens: Tokens,
    crop: Crop,
    grid: int,
    config: MaskConfig,
    random: np.random.Generator,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw the masks of one sample: tokens [L], and patches [grid * grid], row by row.

    A patch is masked if it shares any area with a box. A box outside the crop masks nothing, and a sample
    without boxes has no patch masked, but for the rectangle's chance.
    """
    if config.random:
        return _some_tokens(tokens, config.text_ratio, random), _rectangle(grid, config.image_ratio, random)
    kinds = masked_kinds(config)
    phrases: dict[int, list[Grounded]] = defaultdict(list)
    words: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for concept in concepts:
        if concept.kind in kinds and (spans := _words(concept, caption, config)):
            phrases[concept.phrase].append(concept)
            words[concept.phrase] += spans
    seen = [phrase for phrase, members in phrases.items() if any(len(c.boxes) for c in members)]
    # Both are drawn always, so that what one switch does leaves the other draws as they were.
    choice, by_chance = random.random(), random.random() < config.rectangle
    drawn = seen or (list(phrases) if config.same else [])
    phrase = drawn[int(choice * len(drawn))] if drawn else None
    masked = [phrase] if config.same and phrase is not None else list(words)
    text = touching(tokens, [span for phrase in masked for span in words[phrase]])
    if by_chance:
        return text, _rectangle(grid, config.image_ratio, random)
    boxes = [c.boxes for c in phrases[phrase]] if phrase is not None else []
    return text, patches(np.concatenate([*boxes, np.empty((0, 4), np.float32)]), crop, grid)


def patches(boxes: NDArray[np.float32], crop: Crop, grid: int) -> NDArray[np.bool_]:
    """Which patches [grid * grid] of the crop share any area with the boxes [K, 4] of the original image."""
    mask = np.zeros((grid, grid), np.bool_)
    x0, x1 = (_inside(boxes[:, i], crop.image_width, crop.left, crop.width, grid) for i in (0, 2))
    y0, y1 = (_inside(boxes[:, i], crop.image_height, crop.top, crop.height, grid) for i in (1, 3))
    for left, top, right, bottom in zip(x0, y0, x1, y1, strict=True):
        if left < right and top < bottom:
            mask[int(top) : ceil(bottom), int(left) : ceil(right)] = True
    return mask.ravel()


def _inside(edge: NDArray[np.float32], image: int, start: int, size: int, grid: int) -> NDArray[np.float64]:
    """Box edges in 0..1 of the image to 0..grid of the crop."""
    pixels = edge.astype(np.float64) * image - start
    # Float32 edges that mean a patch's border must not reach over it.
    return np.round(pixels.clip(0, size) * grid / size, 5)
