"""Phrases into prompts, logits into boxes: what every detector of the GroundingDINO family shares.

A prompt is "red dog . small sofa ." and a model answers with one logit per (query, token). Boxes are
attributed to phrases by token position alone: never by decoding tokens back to words, which mixes
phrases ("circle surfboard") and leaves word pieces ("##board").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CANDIDATES = 100  # per phrase, before NMS; a trained detector rarely has ten over the threshold


@dataclass(frozen=True)
class Prompt:
    """Some of an image's distinct phrases, as one input of the text encoder."""

    text: str  # "red dog . small sofa ."
    input_ids: list[int]  # with [CLS], the full stops and [SEP]
    slots: list[int]  # which of the image's distinct phrases stand here, in this order
    spans: list[tuple[int, int]]  # where each of them stands in input_ids, half-open


@dataclass(frozen=True)
class Packed:
    """All phrases of one image: every distinct phrase is in exactly one prompt."""

    slot_of: NDArray[np.int64]  # [phrases]: the distinct phrase that a given phrase is, or -1 if it is empty
    prompts: list[Prompt]
    cut: int = 0  # distinct phrases that a prompt does not hold whole


@dataclass(frozen=True)
class PromptBatch:
    """B prompts of up to T tokens and K phrases."""

    texts: list[str]
    input_ids: Tensor  # [B, T] int64
    attention_mask: Tensor  # [B, T] bool, true on tokens
    phrase_tokens: Tensor  # [B, K, T] bool, true on the tokens of phrase k; all false where b has fewer

    def to(self, device: torch.device) -> "PromptBatch":
        """The same batch on another device."""
        tensors = (self.input_ids, self.attention_mask, self.phrase_tokens)
        return PromptBatch(self.texts, *(t.to(device) for t in tensors))


def normalize(phrase: str) -> str:
    """A phrase as the detector reads it: lower case, single spaces, no full stop or question mark.

    Both marks end a phrase inside a prompt, so "st. bernard" would be two.
    """
    return " ".join(phrase.lower().replace(".", " ").replace("?", " ").split())


def first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Put items into as few bins as first-fit finds, in order. No length may exceed `room`."""
    bins: list[list[int]] = []
    free: list[int] = []
    for item, length in enumerate(lengths):
        place = next((b for b, left in enumerate(free) if length <= left), len(bins))
        if place == len(bins):
            bins.append([])
            free.append(room)
        bins[place].append(item)
        free[place] -= length
    return bins


class Packer:
    """Packs the phrases of images into prompts of at most `max_tokens` tokens.

    `tokenizer` is a fast BERT word-piece tokenizer. Its pieces never cross a space, so a prompt's ids are
    the ids of its phrases with full stops between: phrases are tokenised once, in one call, and their
    token spans are known without offsets.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, max_phrase_tokens: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.room = max_tokens - 2  # [CLS] and [SEP]
        self.max_phrase_tokens = min(max_phrase_tokens or self.room, self.room) - 1  # its full stop
        self.stop_id = int(tokenizer.convert_tokens_to_ids("."))

    def __call__(self, phrases: Sequence[Sequence[str]]) -> list[Packed]:
        """Pack the phrases of each image."""
        texts = [[normalize(phrase) for phrase in of_image] for of_image in phrases]
        vocabulary = self._tokenize(list(dict.fromkeys(text for of_image in texts for text in of_image)))
        return [self._pack(of_image, vocabulary) for of_image in texts]

    def collate(self, prompts: Sequence[Prompt]) -> PromptBatch:
        """Pad prompts to one batch."""
        tokens = max(len(prompt.input_ids) for prompt in prompts)
        phrases = max(len(prompt.spans) for prompt in prompts)
        ids = np.full((len(prompts), tokens), self.tokenizer.pad_token_id, np.int64)
        mask = np.zeros((len(prompts), tokens), bool)
        phrase_tokens = np.zeros((len(prompts), phrases, tokens), bool)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt.input_ids)] = prompt.input_ids
            mask[row, : len(prompt.input_ids)] = True
            for k, (start, end) in enumerate(prompt.spans):
                phrase_tokens[row, k, start:end] = True
        texts = [prompt.text for prompt in prompts]
        return PromptBatch(texts, *(torch.from_numpy(array) for array in (ids, mask, phrase_tokens)))

    def _tokenize(self, texts: list[str]) -> dict[str, tuple[str, list[int]]]:
        """Text as given -> (text as asked, its ids); empty ones are left out."""
        if not texts:
            return {}
        encoded = self._encode(texts)
        found = {}
        for row, (text, ids) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
            asked = text
            if len(ids) > self.max_phrase_tokens:
                asked = self._shorten(text, encoded[row].offsets)
                ids = self._encode([asked])["input_ids"][0]
            if ids:
                found[text] = (asked, ids)
        return found

    def _encode(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # of long phrases: they are shortened here
        )

    def _shorten(self, text: str, offsets: Sequence[tuple[int, int]]) -> str:
        """Cut to the token limit, at a space where there is one."""
        end = offsets[self.max_phrase_tokens - 1][1]
        head = text[:end]
        if text[end] != " " and " " in head:
            head = head[: head.rindex(" ")]
        return head.rstrip()

    def _pack(self, texts: list[str], vocabulary: dict[str, tuple[str, list[int]]]) -> Packed:
        distinct = list(dict.fromkeys(text for text in texts if text in vocabulary))
        slots = {text: slot for slot, text in enumerate(distinct)}
        asked = [vocabulary[text] for text in distinct]
        bins = first_fit([len(ids) + 1 for _, ids in asked], self.room)
        prompts = [self._prompt(asked, slots_here) for slots_here in bins]
        cut = sum(vocabulary[text][0] != text for text in distinct)
        return Packed(np.array([slots.get(text, -1) for text in texts], np.int64), prompts, cut)

    def _prompt(self, asked: list[tuple[str, list[int]]], slots: list[int]) -> Prompt:
        ids = [int(self.tokenizer.cls_token_id)]
        spans = []
        for slot in slots:
            start = len(ids)
            ids += asked[slot][1]
            spans.append((start, len(ids)))
            ids.append(self.stop_id)
        ids.append(int(self.tokenizer.sep_token_id))
        return Prompt(" . ".join(asked[slot][0] for slot in slots) + " .", ids, slots, spans)


def phrase_scores(logits: Tensor, phrase_tokens: Tensor) -> Tensor:
    """Mean token probability of each phrase.

    `logits` [B, queries, >= T], -inf where there is no token; `phrase_tokens` [B, K, T] bool. Returns float32
    [B, K, queries], 0 for phrases that are not there.
    """
    probabilities = logits[..., : phrase_tokens.shape[2]].float().sigmoid()
    weights = phrase_tokens.float()
    weights = weights / weights.sum(2, keepdim=True).clamp(min=1)
    return weights @ probabilities.transpose(1, 2)


def select(scores: Tensor, boxes: Tensor, *, threshold: float, nms_iou: float, top: int) -> Tensor:
    """Threshold, then greedy NMS within each phrase, then the best `top` boxes of each phrase.

    `scores` [B, K, queries]; `boxes` [B, queries, 4] as cx, cy, w, h in 0..1. Returns float32 [N, 7] of
    (b, k, x0, y0, x1, y1, score), ordered by b, k and falling score. All phrases go at once, in
    coordinates of their own: torchvision's batched_nms shifts groups apart in float32, which makes a box's
    fate depend on its neighbours in the batch.
    """
    limit = min(CANDIDATES, scores.shape[2])
    best, query = scores.sort(dim=2, descending=True, stable=True)
    best, query = best[..., :limit], query[..., :limit]
    most = int((best > threshold).sum(2).max()) if best.numel() else 0
    best, query = best[..., :most], query[..., :most]  # [B, K, C]
    centre, size = boxes[..., :2].float(), boxes[..., 2:].float()
    corners = torch.cat([centre - size / 2, centre + size / 2], 2).clamp(0, 1)
    rows = torch.arange(len(boxes), device=boxes.device)[:, None, None]
    found = corners[rows, query]  # [B, K, C, 4]
    keep = (best > threshold) & (found[..., 2:] > found[..., :2]).all(3)
    overlaps = _pairwise_iou(found) > nms_iou  # [B, K, C, C]
    for i in range(most - 1):  # candidates are in falling order: each kept one removes its later neighbours
        keep[..., i + 1 :] &= ~(overlaps[..., i, i + 1 :] & keep[..., i, None])
    keep &= keep.cumsum(2) <= top
    b, k, c = keep.nonzero(as_tuple=True)
    return torch.cat([torch.stack([b, k], 1).float(), found[b, k, c], best[b, k, c, None]], 1)


def _pairwise_iou(boxes: Tensor) -> Tensor:
    """[..., C, 4] corners -> [..., C, C]."""
    a, b = boxes[..., :, None, :], boxes[..., None, :, :]
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared = sides.prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    union = area[..., :, None] + area[..., None, :] - shared
    return shared / union.clamp(min=1e-12)
