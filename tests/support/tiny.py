"""Small random models and batches for the tests of stage 2."""

from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from macco.train.objectives.macco.batches import MaskedBatch
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.macco.settings import Method

PATCH, SIZE, CONTEXT, VOCABULARY, HEADS = 8, 24, 16, 40, 2


def tiny_clip(seed: int = 0, **changes: Any) -> Any:
    """An open_clip CLIP: 9 patches, 16 tokens, joint width 16."""
    torch.manual_seed(seed)
    config: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": SIZE, "patch_size": PATCH, "width": 24, "head_width": 12, "layers": 2},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": VOCABULARY,
            "width": 16,
            "heads": 2,
            "layers": 2,
        },
    } | changes
    return open_clip.model.CLIP(**config).double()


def tiny_macco(clip: Any = None, **switches: Any) -> Macco:
    """A model in float64, its weights the same at each call."""
    clip = tiny_clip() if clip is None else clip
    torch.manual_seed(1)
    return Macco(clip, Method(heads=HEADS, **switches)).double()


def tiny_batch(size: int = 5, seed: int = 2, length: int = CONTEXT) -> MaskedBatch:
    """Captions of 4 to 11 tokens (the last the largest id), 0 beyond, with random masks.

    Sample 0 has no text mask, sample 1 no image mask, sample 2 every patch masked.
    """
    random = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(size, length, dtype=torch.long)
    text_mask = torch.zeros(size, length, dtype=torch.bool)
    for row in range(size):
        end = int(torch.randint(3, min(11, length), (1,), generator=random))
        tokens[row, 1:end] = torch.randint(1, VOCABULARY - 2, (end - 1,), generator=random)
        tokens[row, 0], tokens[row, end] = VOCABULARY - 2, VOCABULARY - 1
        text_mask[row, 1:end] = torch.rand(end - 1, generator=random) < 0.4
        text_mask[row, 1] = True
    patch_mask = torch.rand(size, (SIZE // PATCH) ** 2, generator=random) < 0.4
    text_mask[0], patch_mask[1], patch_mask[2] = False, False, True
    images = torch.randn(size, 3, SIZE, SIZE, generator=random, dtype=torch.float64)
    return MaskedBatch(
        images=images,
        tokens=tokens,
        text_mask=text_mask,
        patch_mask=patch_mask,
        ids=[str(i) for i in range(size)],
    )


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all gradients, zero where there is none."""
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }
