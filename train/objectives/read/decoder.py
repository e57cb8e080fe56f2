"""A frozen T5 decoder that writes a caption from one vector."""

from textwrap import shorten
from typing import Any, Final

import torch
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.data.slots import Slots

IGNORED: Final = -100  # the label of padding


class Decoder(nn.Module):
    """The decoder and the head of a transformers.T5ForConditionalGeneration; nothing trains them."""

    def __init__(self, t5: Any) -> None:
        super().__init__()
        config = t5.config
        self.stack, self.head = t5.decoder, t5.lm_head
        self.width: int = config.d_model
        self.start: int = config.decoder_start_token_id
        # T5 1.0 shares its embedding with the head, and scales; transformers 4 has no name for that.
        scaled = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
        self.factor = self.width**-0.5 if scaled else 1.0
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, memory: Tensor, labels: Tensor, slots: Slots) -> Tensor:
        """Logits [M, V] of the M labels that are no padding, in their order, each after those before it.

        memory: [b, width], what is attended to; labels: [b, L] int64, IGNORED where there are none;
        slots: where there are any.
        """
        before = labels.roll(1, 1).masked_fill(labels.roll(1, 1) == IGNORED, 0)
        before[:, 0] = self.start
        found = self.stack(input_ids=before, encoder_hidden_states=memory[:, None], use_cache=False)[0]
        # The vocabulary's head is the largest matrix of all: padding does not go through it.
        logits: Tensor = self.head(found[slots.sample, slots.position] * self.factor)
        return logits


def load_decoder(name: str, dropout: float) -> Decoder:
    """The decoder of a T5 by name or folder; dropout: that it computes with, 0 for none.

    Raises UserError where there is no such T5.
    """
    from transformers import T5ForConditionalGeneration

    try:
        t5, told = T5ForConditionalGeneration.from_pretrained(
            name, dropout_rate=dropout, dtype=torch.float32, output_loading_info=True
        )
        lacking = sorted(key for key in told["missing_keys"] if key.startswith(("decoder.block", "lm_head")))
        if lacking or told["mismatched_keys"]:
            raise ValueError(f"its weights lack {lacking[0]}" if lacking else "its weights have other sizes")
    except Exception as error:  # of the hub's client, the weights' reader, the configuration's check
        raise UserError(_missing("decoder", name, error)) from error
    return Decoder(t5).train(dropout > 0)


class Labels:
    """Captions as token ids of a T5, its end token included. Workers get a copy."""

    def __init__(self, name: str, length: int) -> None:
        """Raises UserError where there is no such tokenizer. length: tokens at most."""
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        except Exception as error:
            raise UserError(_missing("tokenizer", name, error)) from error
        self._length = length

    def __call__(self, caption: str) -> list[int]:
        ids: list[int] = self._tokenizer(caption, truncation=True, max_length=self._length)["input_ids"]
        return ids

    @staticmethod
    def padded(labels: list[list[int]]) -> Tensor:
        """[b, the longest L, at least 1] int64."""
        out = torch.full((len(labels), max(1, *map(len, labels))), IGNORED)
        for row, ids in enumerate(labels):
            out[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        return out


def _missing(part: str, name: str, error: Exception) -> str:
    reason = shorten(str(error), 200, placeholder=" ...")
    return (
        f"read.{part}: no T5 {part} at {name} ({reason}): give a folder, or a name of the Hugging Face Hub and get it "
        f"with: hf download {name}"
    )
