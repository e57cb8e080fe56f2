"""Low-rank adapters on the blocks of both towers, by the `peft` library."""

from typing import Any

from torch import nn

from macco.pipeline.errors import UserError
from macco.train.clip.towers import Text, image_tower
from macco.train.config import LoraSettings


def adapt(clip: Any, settings: LoraSettings) -> Any:
    """Put adapters beside every matrix of the towers' blocks, in place; all else of the towers learns no more.

    They begin as nothing. Returns peft's tuner, whose `merge_and_unload` gives the plain CLIP.

    Raises UserError where peft is not installed.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise UserError("lora.rank needs the package: pip install 'macco[lora]'") from error
    blocks = {id(block) for tower in (Text(clip), image_tower(clip.visual)) for block in tower.blocks}
    scale = {name for name in ("logit_scale", "logit_bias") if getattr(clip, name, None) is not None}
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or settings.rank,
        target_modules=[
            f"{outer}.{inner}"
            for outer, block in clip.named_modules()
            if id(block) in blocks
            for inner in _matrices(block)
        ],
    )
    tuner = LoraModel(clip, {"default": config}, "default")
    for name in scale:
        getattr(clip, name).requires_grad_(True)
    return tuner


def _matrices(block: nn.Module) -> list[str]:
    """The linear maps of a block; PyTorch's attention is one, with all of its own."""
    attentions = [name for name, part in block.named_modules() if isinstance(part, nn.MultiheadAttention)]
    linear = [name for name, part in block.named_modules() if isinstance(part, nn.Linear)]
    return attentions + [
        name for name in linear if not any(name.startswith(f"{attention}.") for attention in attentions)
    ]
