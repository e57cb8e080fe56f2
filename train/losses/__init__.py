"""Losses as small pure functions of tensors; the shapes stand with each."""

from macco.train.losses.congruence import Attention, congruence
from macco.train.losses.contrastive import clip_contrast, info_nce, intra_modal
from macco.train.losses.masked import masked_pixels, masked_words, patch_pixels
from macco.train.losses.matching import hardest, triplet_ranking
from macco.train.losses.negatives import intra_modal_negatives, next_margin, rank_negatives
from macco.train.losses.pairs import PairIds, same, true_negatives
from macco.train.losses.sigmoid import own_pairs, sigmoid_contrast, sigmoid_loss

__all__ = [
    "Attention",
    "PairIds",
    "clip_contrast",
    "congruence",
    "hardest",
    "info_nce",
    "intra_modal",
    "intra_modal_negatives",
    "masked_pixels",
    "masked_words",
    "next_margin",
    "own_pairs",
    "patch_pixels",
    "rank_negatives",
    "same",
    "sigmoid_contrast",
    "sigmoid_loss",
    "triplet_ranking",
    "true_negatives",
]
