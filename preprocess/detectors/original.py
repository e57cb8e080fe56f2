"""The official GroundingDINO code, as groundingdino-py ships it."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from macco.pipeline.errors import UserError
from macco.preprocess.detectors.canvas import ImageRule
from macco.preprocess.detectors.compat import build_model
from macco.preprocess.detectors.locate import OFFICIAL, DetectorFiles, official_config
from macco.preprocess.detectors.prompts import Packer, PromptBatch

# In the official files, but not in the model: a training head, and a counter that BERT used to store.
UNUSED = ("label_enc.weight", "bert.embeddings.position_ids")


class OriginalNetwork:
    """GroundingDINO SwinT or SwinB with official weights."""

    def __init__(self, files: DetectorFiles, device: torch.device) -> None:
        assert files.bert is not None
        state = read_checkpoint(files.weights)
        config = files.config or fitting_config(state)
        model, settings = build_model(config, files.bert)
        own = model.state_dict()
        missing = [key for key in own if key not in state and key not in UNUSED]
        wrong = [key for key, value in state.items() if key not in UNUSED and _shape(own, key) != value.shape]
        if missing or wrong:
            raise UserError(
                f"{files.weights} does not fit {config.name}: {len(missing)} weights are missing "
                f"{missing[:3]}, {len(wrong)} are unknown or of another size {wrong[:3]}; "
                "name the right configuration after an @"
            )
        model.load_state_dict(state, strict=False)
        self.model = model.to(device)
        self.device = device
        self.rule = ImageRule()
        self.num_queries = int(settings.num_queries)
        positions = int(model.bert.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]
        self.packer = Packer(model.tokenizer, int(settings.max_text_len), positions)

    def __call__(self, pixels: Tensor, mask: Tensor, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """See `Network`. The library tokenises the texts again, to the same ids."""
        from groundingdino.util.misc import NestedTensor

        out = self.model(NestedTensor(pixels, ~mask), captions=prompts.texts)
        return out["pred_logits"], out["pred_boxes"]


def fitting_config(state: dict[str, Tensor]) -> Path:
    """The official configuration for some weights, told by the width of the backbone."""
    width = _shape(state, "backbone.0.patch_embed.proj.weight")
    return official_config(OFFICIAL["swinb" if width and width[0] == 128 else "swint"][1])


def _shape(state: dict[str, Tensor], key: str) -> torch.Size | None:
    return state[key].shape if key in state else None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """State dict of an official .pth, without the prefix of parallel training."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, OSError) as error:
        raise UserError(f"{path} is not a PyTorch weights file: {str(error).splitlines()[0]}") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no weights: a GroundingDINO file has them under 'model'")
    return {key.removeprefix("module."): value for key, value in state.items()}
