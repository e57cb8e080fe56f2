"""Official GroundingDINO weights (.pth) into a transformers checkpoint."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from macco.pipeline.errors import UserError
from macco.pipeline.folder import new_folder
from macco.preprocess.detectors.locate import DetectorFiles, locate
from macco.preprocess.detectors.original import UNUSED, fitting_config, read_checkpoint

# First match wins, on names without "module.". The new names are those of the published checkpoints,
# which every release of transformers reads.
SWIN = "model.backbone.conv_encoder.model."
RULES = [
    (r"bert\.", "model.text_backbone."),
    (r"feat_map\.", "model.text_projection."),
    (r"input_proj\.", "model.input_proj_vision."),
    (r"bbox_embed\.", "bbox_embed."),
    (r"transformer\.level_embed", "model.level_embed"),
    (r"transformer\.tgt_embed\.", "model.query_position_embeddings."),
    (r"transformer\.enc_out_bbox_embed\.", "model.encoder_output_bbox_embed."),
    (r"transformer\.(enc_output|enc_output_norm)\.", r"model.\1."),
    (r"transformer\.decoder\.norm\.", "model.decoder.layer_norm."),
    (r"transformer\.decoder\.ref_point_head\.", "model.decoder.reference_points_head."),
    (r"transformer\.decoder\.layers\.(\d+)\.", r"model.decoder.layers.\1."),
    (r"transformer\.encoder\.layers\.(\d+)\.", r"model.encoder.layers.\1.deformable_layer."),
    (r"transformer\.encoder\.text_layers\.(\d+)\.", r"model.encoder.layers.\1.text_enhancer_layer."),
    (r"transformer\.encoder\.fusion_layers\.(\d+)\.", r"model.encoder.layers.\1.fusion_layer."),
    (r"backbone\.0\.patch_embed\.proj\.", SWIN + "embeddings.patch_embeddings.projection."),
    (r"backbone\.0\.patch_embed\.norm\.", SWIN + "embeddings.norm."),
    (r"backbone\.0\.layers\.", SWIN + "encoder.layers."),
]
# Inside a layer, after the prefix that RULES gave it: part of the name -> its new name.
INNER = {
    "model.decoder.layers": {
        "cross_attn.": "encoder_attn.",
        "norm1.": "encoder_attn_layer_norm.",
        "ca_text.": "encoder_attn_text.",
        "catext_norm.": "encoder_attn_text_layer_norm.",
        "norm2.": "self_attn_layer_norm.",
        "norm3.": "final_layer_norm.",
        "linear": "fc",
    },
    "deformable_layer": {"norm1.": "self_attn_layer_norm.", "norm2.": "final_layer_norm.", "linear": "fc"},
    "text_enhancer_layer": {"norm1.": "layer_norm_before.", "norm2.": "layer_norm_after.", "linear": "fc"},
    "fusion_layer": {
        "gamma_v": "vision_param",
        "gamma_l": "text_param",
        "layer_norm_v.": "layer_norm_vision.",
        "layer_norm_l.": "layer_norm_text.",
        "attn.v_proj.": "attn.vision_proj.",
        "attn.l_proj.": "attn.text_proj.",
        "attn.values_v_proj.": "attn.values_vision_proj.",
        "attn.values_l_proj.": "attn.values_text_proj.",
        "attn.out_v_proj.": "attn.out_vision_proj.",
        "attn.out_l_proj.": "attn.out_text_proj.",
    },
    ".blocks.": {
        "norm1.": "layernorm_before.",
        "norm2.": "layernorm_after.",
        "attn.proj.": "attention.output.dense.",
        "attn.qkv.": "attention.self.qkv.",
        "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
        "mlp.fc1.": "intermediate.dense.",
        "mlp.fc2.": "output.dense.",
    },
}
# Buffers that the model computes, BERT's pooler, which is not run, and the decoder's copy of the box head.
DROPPED = re.compile(r"relative_position_index$|^bert\.pooler\.|^transformer\.decoder\.bbox_embed\.")
SPLIT = re.compile(r"(.*)\.(?:in_proj_|qkv\.)(weight|bias)$")
SWIN_SIZES: dict[str, dict[str, Any]] = {
    "swin_T_224_1k": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "swin_B_384_22k": {
        "embed_dim": 128,
        "depths": [2, 2, 18, 2],
        "num_heads": [4, 8, 16, 32],
        "window_size": 12,
    },
}


def convert_checkpoint(pth: str | Path, out_dir: str | Path, *, config: str | Path | None = None) -> None:
    """Write `pth` as a checkpoint folder that `transformers:OUT_DIR` loads.

    `pth` is a file, or "swint" or "swinb" for the official ones; `config` its Python configuration, by
    default the official one. UserError for a missing file, weights of another architecture, or a folder that is
    not empty.
    """
    from groundingdino.util.slconfig import SLConfig
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, GroundingDinoImageProcessor

    files = locate(f"groundingdino:{pth}" + (f"@{config}" if config else ""))
    state = read_checkpoint(files.weights)
    settings = SLConfig.fromfile(str(files.config or fitting_config(state)))
    model_config = _model_config(settings, files)
    converted = convert_state_dict(state, shared_box_head=settings.dec_pred_bbox_embed_share)
    with new_folder(out_dir) as out:
        model_config.save_pretrained(out)
        AutoTokenizer.from_pretrained(files.bert).save_pretrained(out)
        GroundingDinoImageProcessor().save_pretrained(out)
        save_file(converted, out / "model.safetensors", metadata={"format": "pt"})


def convert_state_dict(state: dict[str, Tensor], *, shared_box_head: bool = True) -> dict[str, Tensor]:
    """Official names and layouts -> those of transformers; UserError for a name that is not official."""
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in UNUSED or DROPPED.search(key):
            continue
        if shared_box_head and key.startswith("bbox_embed.") and not key.startswith("bbox_embed.0."):
            continue
        name = _rename(key)
        if match := SPLIT.match(name):  # query, key and value in one matrix
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                converted[f"{match[1]}.{part}.{match[2]}"] = rows.contiguous()
        else:
            converted[name] = value.contiguous()
    return converted


def _rename(key: str) -> str:
    if match := re.fullmatch(r"backbone\.0\.norm(\d)\.(.*)", key):  # counted from 0 there, from 1 here
        return f"{SWIN}hidden_states_norms.stage{int(match[1]) + 1}.{match[2]}"
    for pattern, prefix in RULES:
        if match := re.match(pattern, key):
            return match.expand(prefix) + _rename_inner(match.expand(prefix), key[match.end() :])
    raise UserError(f"weight {key!r} is not of GroundingDINO: give an official .pth")


def _rename_inner(prefix: str, rest: str) -> str:
    if block := re.match(r"\d+\.blocks\.\d+\.", rest):
        return block[0] + _replace(rest[block.end() :], INNER[".blocks."])
    for part, names in INNER.items():
        if part in prefix:
            return _replace(rest, names)
    return rest


def _replace(rest: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        if rest.startswith(old):
            return new + rest[len(old) :]
    return rest


def _model_config(settings: Any, files: DetectorFiles) -> Any:
    from transformers import AutoConfig, GroundingDinoConfig, SwinConfig

    if settings.backbone not in SWIN_SIZES:
        raise UserError(f"backbone {settings.backbone} cannot be converted: only {', '.join(SWIN_SIZES)} can")
    swin = SwinConfig(
        **SWIN_SIZES[settings.backbone],
        image_size=int(settings.backbone.split("_")[2]),
        out_features=[f"stage{index + 1}" for index in settings.return_interm_indices],
    )
    return GroundingDinoConfig(
        backbone_config=swin,
        text_config=AutoConfig.from_pretrained(files.bert),
        num_queries=settings.num_queries,
        d_model=settings.hidden_dim,
        encoder_layers=settings.enc_layers,
        decoder_layers=settings.dec_layers,
        encoder_ffn_dim=settings.dim_feedforward,
        decoder_ffn_dim=settings.dim_feedforward,
        encoder_attention_heads=settings.nheads,
        decoder_attention_heads=settings.nheads,
        encoder_n_points=settings.enc_n_points,
        decoder_n_points=settings.dec_n_points,
        num_feature_levels=settings.num_feature_levels,
        two_stage=settings.two_stage_type == "standard",
        two_stage_bbox_embed_share=settings.two_stage_bbox_embed_share,
        embedding_init_target=settings.embed_init_tgt,
        decoder_bbox_embed_share=settings.dec_pred_bbox_embed_share,
        max_text_len=settings.max_text_len,
        positional_embedding_temperature=settings.pe_temperatureH,
        architectures=["GroundingDinoForObjectDetection"],
    )
