"""Checkpoints in the format of transformers: GroundingDINO, MM-GroundingDINO, LLMDet."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForZeroShotObjectDetection, AutoTokenizer

from macco.pipeline.errors import UserError
from macco.preprocess.detectors.canvas import ImageRule
from macco.preprocess.detectors.checkpoint import load_model, reading
from macco.preprocess.detectors.prompts import Packer, PromptBatch

# transformers finds the ends of phrases by these ids, whatever the vocabulary says.
WIRED_IDS = {"[PAD]": 0, "[CLS]": 101, "[SEP]": 102, ".": 1012}


class HuggingFaceNetwork:
    """A grounding-dino or mm-grounding-dino checkpoint from a local folder."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        with reading(folder, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        for token, wired in WIRED_IDS.items():
            if tokenizer.convert_tokens_to_ids(token) != wired:
                raise UserError(f"{folder}: the vocabulary must have {token!r} at {wired}, as BERT's has")
        model = load_model(AutoModelForZeroShotObjectDetection, folder)
        self.model = model.to(device)
        self.device = device
        self.rule = _image_rule(folder)
        self.num_queries = int(model.config.num_queries)
        positions = int(model.config.text_config.max_position_embeddings)
        self.packer = Packer(tokenizer, int(model.config.max_text_len), positions)

    def __call__(self, pixels: Tensor, mask: Tensor, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """See `Network`."""
        out = self.model(
            pixel_values=pixels,
            pixel_mask=mask.long(),
            input_ids=prompts.input_ids,
            attention_mask=prompts.attention_mask.long(),
        )
        return out.logits, out.pred_boxes


def _image_rule(folder: Path) -> ImageRule:
    with reading(folder, "preprocessor_config.json"):
        config = AutoImageProcessor.from_pretrained(folder, local_files_only=True).to_dict()
    shortest, longest = (dict(config["size"]).get(side) for side in ("shortest_edge", "longest_edge"))
    if not shortest or not longest:
        raise UserError(
            f"{folder}: the image size is {config['size']}; shortest_edge and longest_edge are needed"
        )
    if not all(config.get(step, True) for step in ("do_resize", "do_rescale", "do_normalize")):
        raise UserError(f"{folder}: do_resize, do_rescale and do_normalize must be true")
    return ImageRule(shortest, longest, tuple(config["image_mean"]), tuple(config["image_std"]))
