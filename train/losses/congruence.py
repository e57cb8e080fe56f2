"""Attention congruence: how tokens of one modality attend to each other should match how their counterparts do.

CACR (Pandey et al., ACL 2023) and IAIS (Ren et al., ACL 2021), on the last layer of a joint encoder, positive
pairs only. Everything is in float32 at least, inside autocast too: CACR's values lie between 1e-4 and 1e-2.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from macco.pipeline.errors import UserError

EPSILON = 1e-6  # inside the logarithm, where a product of attentions is compared as it is


@dataclass(frozen=True)
class Attention:
    """Logits QK^T / sqrt(d) of h heads in four blocks: N tokens of one modality, M of the other, B samples.

    Padding and special tokens are not valid: whatever their logits are, they neither attend nor are attended.
    """

    own: Tensor  # [B, h, N, N]
    across: Tensor  # [B, h, N, M]: queries of the one, keys of the other
    back: Tensor  # [B, h, M, N]
    other: Tensor  # [B, h, M, M]
    valid: Tensor  # [B, N] bool
    other_valid: Tensor  # [B, M] bool
    causal: bool = False  # own tokens attend to themselves and those before only: later ones are not compared
    other_causal: bool = False

    @classmethod
    def joint(cls, logits: Tensor, text: Tensor, image: Tensor) -> "Attention":
        """Cut a joint layer's logits [B, h, L + V, L + V], text first; text: [B, L] bool, image: [B, V] bool.

        The losses of this are those of direction L; of `mirrored()`, of direction V.
        """
        # Splits, not slices: each slice's gradient would be a matrix of the whole.
        sizes = [text.shape[1], image.shape[1]]
        (ll, lv), (vl, vv) = (rows.split_with_sizes(sizes, -1) for rows in logits.split_with_sizes(sizes, -2))
        return cls(ll, lv, vl, vv, text, image)

    def mirrored(self) -> "Attention":
        """The same with the modalities exchanged."""
        return Attention(
            self.other,
            self.back,
            self.across,
            self.own,
            self.other_valid,
            self.valid,
            self.other_causal,
            self.causal,
        )

    @property
    def pairs(self) -> Tensor:
        """Which own tokens attend to which, [B, N, N] bool."""
        return _attending(self.valid, self.causal)


def congruence(attention: Attention, kind: str = "cacr") -> Tensor:
    """The loss of each sample [B], of a kind in KINDS; 0 where a modality has no valid token.

    It compares the attention of the N own tokens with that of the M others, carried over by the cross-attention:
    cacr: softly, without gradient to it. iais-singular: by each token's most attended counterpart.
    iais-distributed: the cross-attention there and back. row-normalised: as cacr, with rows divided by their
    sums in place of its second softmax; its size is IAIS's, and it is not CACR.

    Raises:
        UserError: no such kind.
    """
    if kind not in KINDS:
        raise UserError(f"no congruence loss {kind!r}: choose from {', '.join(KINDS)}")
    with torch.autocast(attention.own.device.type, enabled=False):
        divergence = KINDS[kind](attention).sum((1, 2)) / attention.valid.sum(1).clamp(min=1)
    return divergence * (attention.valid.any(1) & attention.other_valid.any(1))


def _cacr(a: Attention) -> Tensor:
    return _softmax_divergence(_carried(a), _own(a), a.pairs)


def _row_normalised(a: Attention) -> Tensor:
    carried = _where(a.pairs, _carried(a))
    sums = carried.sum(-1, keepdim=True)
    return _offset_divergence(carried / sums.masked_fill(sums == 0, 1), _own(a))


def _iais_singular(a: Attention) -> Tensor:
    with torch.no_grad():
        across = _weights(a.across, _pairs(a.valid, a.other_valid))
        chosen = torch.zeros_like(across).scatter_(-1, across.argmax(-1, keepdim=True), 1.0)
    carried = chosen @ _other(a) @ chosen.mT
    pairs = a.pairs
    p, log_p = (f(_only(carried, pairs), -1) for f in (torch.softmax, torch.log_softmax))
    # In logarithms throughout: an attention that is 0 in float32 has a finite one.
    own = _only(a.own, pairs[:, None]).log_softmax(-1)
    log_q = own.logsumexp(1) - math.log(own.shape[1])
    return _where(pairs, (p - log_q.exp()) * (log_p - log_q))


def _iais_distributed(a: Attention) -> Tensor:
    across = _weights(a.across, _pairs(a.valid, a.other_valid))
    back = _weights(a.back, _pairs(a.other_valid, a.valid))
    return _offset_divergence(_where(a.pairs, across @ back), _own(a))


KINDS: Mapping[str, Callable[[Attention], Tensor]] = MappingProxyType(
    {
        "cacr": _cacr,
        "iais-singular": _iais_singular,
        "iais-distributed": _iais_distributed,
        "row-normalised": _row_normalised,
    }
)


def _own(a: Attention) -> Tensor:
    return _weights(a.own, a.pairs)


def _other(a: Attention) -> Tensor:
    return _weights(a.other, _attending(a.other_valid, a.other_causal))


def _carried(a: Attention) -> Tensor:
    """The other modality's attention seen from the own tokens: C S C^T with C the cross-attention, [B, N, N]."""
    with torch.no_grad():
        across = _weights(a.across, _pairs(a.valid, a.other_valid))
    return across @ _other(a) @ across.mT


def _weights(logits: Tensor, pairs: Tensor) -> Tensor:
    """[B, h, Q, K] to the mean over heads of the softmax over each query's keys, [B, Q, K]; 0 where not `pairs`."""
    return _where(pairs, _only(logits, pairs[:, None]).softmax(-1).mean(1))


def _only(logits: Tensor, which: Tensor) -> Tensor:
    """Logits that a softmax turns to 0 where `which` is not set; finite, so that no gradient is nan."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.masked_fill(~which, torch.finfo(logits.dtype).min)


def _pairs(queries: Tensor, keys: Tensor) -> Tensor:
    return queries[:, :, None] & keys[:, None]


def _attending(valid: Tensor, causal: bool) -> Tensor:
    pairs = _pairs(valid, valid)
    return pairs.tril() if causal else pairs


def _where(condition: Tensor, x: Tensor) -> Tensor:
    return x.masked_fill(~condition, 0)


def _softmax_divergence(a: Tensor, b: Tensor, pairs: Tensor) -> Tensor:
    """Terms of KL(p || q) + KL(q || p), p and q being the row softmaxes of a and b: (q - p) (b - a).

    a, b: [B, N, N]. As q = p exp(b - a - c) with one c for a row, no digits are lost where p and q are near.
    """
    p, gap = _only(a, pairs).softmax(-1), _where(pairs, b - a)
    shift = (p * gap.expm1()).sum(-1, keepdim=True).log1p()
    return p * (gap - shift).expm1() * gap


def _offset_divergence(p: Tensor, q: Tensor) -> Tensor:
    """The same terms of p and q as they are: EPSILON is added to the second of each KL, as in the public code."""
    tiny = torch.finfo(p.dtype).tiny  # 0 log 0 is 0, and its gradient finite
    forth = p * (p.clamp(min=tiny).log() - (q + EPSILON).log())
    return forth + q * (q.clamp(min=tiny).log() - (p + EPSILON).log())
