"""The public code's checkpoints, and plain CLIP weights, as models of this project."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor, nn

from macco.pipeline.errors import UserError

State = dict[str, Tensor]
CLIP_VOCABULARY = 49408  # of OpenAI's byte-pair encoding


def read_state(path: Path) -> State:
    """Tensors of a .safetensors or a PyTorch checkpoint, whatever wraps them, without running its code."""
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: give the path of a .pt, .bin or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            tensors: State = load_file(path)
            return tensors
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
        while "state_dict" in found or "model" in found:
            found = found.get("state_dict", found.get("model"))
        found = {str(name): value for name, value in found.items()}
    except Exception as error:
        raise UserError(f"{path} is no checkpoint of tensors alone ({type(error).__name__})") from error
    return {name.removeprefix("module."): value for name, value in found.items() if isinstance(value, Tensor)}


def public_names(state: Mapping[str, Tensor]) -> State:
    """The public code's parameter names to Macco's; a plain CLIP's names get their prefix.

    The public code names one logit scale twice, in its CLIP and outside: the same parameter, so either will do.
    """
    renamed: State = {}
    for name, value in state.items():
        if name.startswith("CLIP."):
            renamed.setdefault("clip." + name.removeprefix("CLIP."), value)
        elif name == "logit_scale":
            renamed["clip.logit_scale"] = value
        elif name == "img_mask_token":
            renamed["image_mask_token"] = value
        elif name.startswith(("clip.", "prediction_", "text_mask_token", "image_mask_token", "margin")):
            renamed[name] = value
        else:
            renamed["clip." + name] = value
    return renamed


def clip_config(
    state: Mapping[str, Tensor], *, quick_gelu: bool, text_heads: int, vision_heads: int
) -> dict[str, Any]:
    """The open_clip configuration of a ViT CLIP's state dict, read off its shapes.

    Weights do not tell the number of heads or the activation; heads of 0 mean one per 64 of the width.

    Raises:
        UserError: the weights are not those of an open_clip ViT CLIP.
    """
    try:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        places = len(state["visual.positional_embedding"]) - 1
        context, text_width = state["positional_embedding"].shape
        embed_dim = state["text_projection"].shape[1]
        vocabulary = len(state["token_embedding.weight"])
        ratios = [
            len(state[f"{side}transformer.resblocks.0.mlp.c_fc.bias"]) / size
            for side, size in (("visual.", width), ("", text_width))
        ]
    except (KeyError, ValueError) as error:
        raise UserError(f"these are not the weights of an open_clip ViT CLIP: {error} is missing") from error
    vision_heads = vision_heads or max(1, width // 64)
    return {
        "embed_dim": embed_dim,
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": patch * round(places**0.5),
            "patch_size": patch,
            "width": width,
            "head_width": width // vision_heads,
            "layers": _depth(state, "visual.transformer.resblocks."),
            "mlp_ratio": ratios[0],
        },
        "text_cfg": {
            "context_length": context,
            "vocab_size": vocabulary,
            "width": text_width,
            "heads": text_heads or max(1, text_width // 64),
            "layers": _depth(state, "transformer.resblocks."),
            "mlp_ratio": ratios[1],
        },
    }


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def import_clip(
    state: Mapping[str, Tensor], *, quick_gelu: bool, text_heads: int = 0, vision_heads: int = 0
) -> tuple[nn.Module, dict[str, Any]]:
    """A public or plain CLIP state dict to the CLIP in it and its open_clip configuration."""
    named = public_names(state)
    clip_state = {
        name.removeprefix("clip."): value for name, value in named.items() if name.startswith("clip.")
    }
    config = clip_config(clip_state, quick_gelu=quick_gelu, text_heads=text_heads, vision_heads=vision_heads)
    clip: nn.Module = CLIP(**config)
    clip.load_state_dict(clip_state)
    return clip, config


def open_checkpoint(path: Path, *, quick_gelu: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The CLIP of a file of weights, which OpenAI's tokenizer belongs to, and its open_clip configuration.

    Raises UserError where there is none, or its tokenizer is another: a file does not tell which.
    """
    clip, config = import_clip(read_state(path), quick_gelu=quick_gelu)
    if (size := config["text_cfg"]["vocab_size"]) != CLIP_VOCABULARY:
        raise UserError(
            f"{path} has a vocabulary of {size}, not CLIP's of {CLIP_VOCABULARY}, and no tokenizer: "
            "give a folder that holds both (of a run: its model, or what macco-train export writes)"
        )
    return clip, config


def import_training(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a whole public checkpoint, predictors and mask tokens included, into a Macco of the same sizes.

    Raises:
        UserError: a tensor is missing, superfluous or of another shape.
    """
    named = public_names(state)
    if "margin" in dict(model.named_buffers()):
        named.setdefault("margin", model.get_buffer("margin"))
    try:
        model.load_state_dict(named)
    except RuntimeError as error:
        raise UserError("the checkpoint does not fit the model: " + " ".join(str(error).split())) from error
