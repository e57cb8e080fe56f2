"""A student kept near a teacher: what a CLIP was is not to be forgotten (DeGLA, arXiv 2504.16801)."""

import torch
from torch import Tensor


def distillation(
    image: Tensor, texts: Tensor, teacher_image: Tensor, teacher_texts: Tensor, there: Tensor
) -> Tensor:
    """Squared distances of the student's features to the teacher's, summed.

    image: [b, D]; texts: [b, T, D], the caption and its hard negatives; there: [b, T] bool, which exist. Normalised.
    """
    apart = (texts - teacher_texts).square().sum(-1)
    return (image - teacher_image).square().sum() + torch.where(there, apart, 0.0).sum()
