"""A plain CLIP out, with its activation on record: for open_clip, and for Hugging Face (diffusers, LLaVA)."""

import json
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import CLIP
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from safetensors.torch import save_file
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.pipeline.folder import filling
from macco.train.clip.convert import CLIP_VOCABULARY, clip_config
from macco.train.clip.towers import pixel_statistics

CONFIG = "open_clip_config.json"
FORMATS = ("open_clip", "hf")


def write_clip(
    clip: nn.Module, out: Path, format: str, config: dict[str, Any] | None, tokenizer: Any = None
) -> None:
    """Write a CLIP in one of FORMATS, with its tokenizer where that is one of Hugging Face's."""
    if format not in FORMATS:
        raise UserError(f"--format is {format!r}: choose one of {', '.join(FORMATS)}")
    with filling(out, "config.json" if format == "hf" else CONFIG) as folder:
        if format == "hf":
            export_hugging_face(clip, folder)
        else:
            export_open_clip(clip, folder, config)
        if isinstance(tokenizer, HFTokenizer):  # open_clip looks for it in the folder
            tokenizer.save_pretrained(str(folder))


def uses_quick_gelu(clip: nn.Module) -> bool:
    """Whether the model computes with QuickGELU; weights do not tell, and features differ by percents."""
    return any(isinstance(module, QuickGELU) for module in clip.modules())


def export_open_clip(clip: nn.Module, folder: str | Path, config: dict[str, Any] | None = None) -> None:
    """Write a folder that open_clip.create_model_and_transforms opens as "local-dir:FOLDER".

    config: of open_clip; needed where the model is no ViT CLIP of default parts. The activation
    on record is the model's own, whatever the configuration says.
    """
    config = dict(config or _plain_config(clip))
    if not config.get("vision_cfg", {}).get("timm_model_name"):
        config["quick_gelu"] = uses_quick_gelu(clip)
    visual: Any = clip.visual
    folder = Path(folder)
    mean, std = pixel_statistics(visual)
    preprocess = dict(getattr(visual, "preprocess_cfg", {})) | {"mean": mean, "std": std}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_contiguous(clip.state_dict()), folder / "open_clip_model.safetensors")
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    (folder / CONFIG).write_text(text)


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def _plain_config(clip: nn.Module) -> dict[str, Any]:
    """The configuration of a ViT CLIP of default parts, read from its modules."""
    model: Any = clip
    visual: Any = clip.visual
    plain = isinstance(clip, CLIP) and isinstance(visual, VisionTransformer)
    blocks: list[Any] = [*visual.transformer.resblocks, *model.transformer.resblocks] if plain else []
    plain = plain and all(
        isinstance(block, ResidualAttentionBlock) and isinstance(block.ls_1, nn.Identity) for block in blocks
    )
    if (
        not plain
        or visual.attn_pool is not None
        or visual.pool_type != "tok"
        or model.text_pool_type != "argmax"
    ):
        raise UserError(
            "this is no ViT CLIP of default parts with its class token pooled, and transformers' CLIPModel takes no "
            "other (nor do its modules alone tell what it is): export to open_clip, with its configuration"
        )
    return clip_config(
        clip.state_dict(),
        quick_gelu=uses_quick_gelu(clip),
        text_heads=blocks[-1].attn.num_heads,
        vision_heads=blocks[0].attn.num_heads,
    )


def export_hugging_face(clip: nn.Module, folder: str | Path) -> None:
    """Write a folder for transformers' CLIPModel.from_pretrained, with processor and, for CLIP's own
    vocabulary, tokenizer. Features are the same.

    Raises:
        UserError: the model is no ViT CLIP of default parts (SigLIP, other pooling: export to open_clip instead).
    """
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    plain, folder = _plain_config(clip), Path(folder)
    source: Any = clip
    vision, text = plain["vision_cfg"], plain["text_cfg"]
    act, visual = "quick_gelu" if plain["quick_gelu"] else "gelu", source.visual
    bpe = text["vocab_size"] == CLIP_VOCABULARY
    common = {"hidden_act": act, "projection_dim": plain["embed_dim"]}
    config = CLIPConfig(
        projection_dim=plain["embed_dim"],
        text_config=common
        | {
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": round(text["width"] * text["mlp_ratio"]),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "layer_norm_eps": source.ln_final.eps,
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1
            if bpe
            else 2,  # 2: pool at the largest id, as open_clip does
            "pad_token_id": 0,
        },
        vision_config=common
        | {
            "hidden_size": vision["width"],
            "intermediate_size": round(vision["width"] * vision["mlp_ratio"]),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision["head_width"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "layer_norm_eps": visual.ln_post.eps,
        },
    )
    model = CLIPModel(config)
    model.load_state_dict(_hugging_face_names(_contiguous(clip.state_dict())))
    model.save_pretrained(folder)
    size, (mean, std) = vision["image_size"], pixel_statistics(visual)
    CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=mean,
        image_std=std,
    ).save_pretrained(folder)
    if bpe:
        _save_tokenizer(folder, text["context_length"])


def _hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's tensors under transformers' names: fused projections cut in three, matrices transposed."""
    renamed = {
        "logit_scale": state["logit_scale"].squeeze(),
        "text_projection.weight": state["text_projection"].T.contiguous(),
        "visual_projection.weight": state["visual.proj"].T.contiguous(),
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        if module in norms:
            renamed[f"{norms[module]}.{kind}"] = value
        if "resblocks." not in name:
            continue
        side = "vision_model" if name.startswith("visual.") else "text_model"
        layer, _, part = name.partition("resblocks.")[2].partition(".")
        target = f"{side}.encoder.layers.{layer}."
        if part.startswith("attn.in_proj_"):
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{target}self_attn.{letter}_proj.{part.removeprefix('attn.in_proj_')}"] = (
                    third.clone()
                )
        else:
            stem, _, kind = part.rpartition(".")
            renamed[f"{target}{parts[stem]}.{kind}"] = value
    return renamed


def _save_tokenizer(folder: Path, context: int) -> None:
    """CLIP's byte-pair encoding, which open_clip ships, in the files of CLIPTokenizer."""
    from transformers import CLIPTokenizer

    bpe = open_clip.SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): number for token, number in bpe.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    merges = [" ".join(pair) for pair in sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    CLIPTokenizer.from_pretrained(folder, model_max_length=context).save_pretrained(folder)
