"""groundingdino-py 0.4 on transformers 5, with its batch defect mended. Nothing installed is edited.

1. Its BERT wrapper needs methods that transformers 5 removed.
2. Its text enhancer repeats the batch of attention masks per head in the wrong order, so that with
   different captions in a batch each head uses the mask of another image.
3. It loads BERT's weights from the hub only to overwrite them with the checkpoint's, and prints.
"""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class BertWrapper(nn.Module):
    """The wrapper's job in today's terms; sub-modules keep their names, and so the checkpoint's keys."""

    def __init__(self, bert_model: Any) -> None:
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder
        self.pooler = bert_model.pooler

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, token_type_ids: Tensor
    ) -> dict[str, Tensor]:
        """`attention_mask` [B, T, T] bool: which token sees which."""
        embedded = self.embeddings(
            input_ids=input_ids, position_ids=position_ids, token_type_ids=token_type_ids
        )
        hidden = torch.zeros(attention_mask.shape, dtype=embedded.dtype, device=embedded.device)
        hidden.masked_fill_(~attention_mask, torch.finfo(embedded.dtype).min)
        return {"last_hidden_state": self.encoder(embedded, attention_mask=hidden[:, None])[0]}


def _enhancer_forward(
    self: Any,
    src: Tensor,
    src_mask: Tensor,
    src_key_padding_mask: Tensor | None = None,
    pos: Tensor | None = None,
) -> Tensor:
    """TransformerEncoderLayer.forward with each image's mask [B, T, T] given to all its heads."""
    mask = src_mask.repeat_interleave(self.nhead, 0)
    query = src if pos is None else src + pos
    src = self.norm1(src + self.self_attn(query, query, value=src, attn_mask=mask, need_weights=False)[0])
    return self.norm2(src + self.linear2(self.activation(self.linear1(src))))  # type: ignore[no-any-return]


def build_model(config: Path, bert: Path) -> tuple[nn.Module, Any]:
    """Build the network with random weights, in evaluation mode; returns it and its configuration.

    `config` is one of the library's Python configurations, `bert` a folder with BERT's configuration and
    vocabulary.
    """
    with warnings.catch_warnings():  # of timm's old import path
        warnings.simplefilter("ignore", FutureWarning)
        import groundingdino.models.GroundingDINO.groundingdino as library
        import groundingdino.models.GroundingDINO.transformer_vanilla as enhancer
        from groundingdino.models import build_model as build
    from groundingdino.util import get_tokenlizer
    from groundingdino.util.slconfig import SLConfig
    from transformers import AutoConfig, BertModel

    library.BertModelWarper = BertWrapper
    enhancer.TransformerEncoderLayer.forward = _enhancer_forward
    get_tokenlizer.get_pretrained_language_model = lambda folder: BertModel(
        AutoConfig.from_pretrained(folder)
    )

    settings = SLConfig.fromfile(str(config))
    settings.text_encoder_type = str(bert)
    settings.use_checkpoint = settings.use_transformer_ckpt = False  # these save memory in training only
    with contextlib.redirect_stdout(io.StringIO()):
        model = build(settings)
    return model.eval(), settings
