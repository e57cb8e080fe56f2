"""Write detectors with random weights, to run the whole extraction without a download.

    python scripts/random_detectors.py DIR --vocab VOCAB [--small]

DIR gets `groundingdino_swint_random.pth` with `bert-base-uncased/` beside it (groundingdino:DIR/...pth),
`grounding-dino/`, `mm-grounding-dino/` and `owlv2/` (transformers:DIR/...). The architectures are the published
ones; `--small` cuts layers, widths and image size, so that a test takes seconds. VOCAB is BERT's vocab.txt.
Their boxes are noise: they show speed, and that parts fit.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from macco.preprocess.detectors.compat import build_model
from macco.preprocess.detectors.locate import BERT, OFFICIAL, official_config

ORIGINAL = "groundingdino_swint_random.pth"
SMALL_CONFIG = "small.py"  # beside ORIGINAL
SMALL_OFFICIAL = {"enc_layers": 1, "dec_layers": 2, "dim_feedforward": 64, "num_queries": 20}
SMALL_BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SMALL_SWIN = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
SMALL_MODEL = {
    "num_queries": 20,
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
SMALL_SIDES = {"shortest_edge": 128, "longest_edge": 256}


def shake(model: torch.nn.Module, seed: int) -> None:
    """Fill weights so that text and image matter: the usual initial values leave all boxes the same."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.7 / weight[0].numel() ** 0.5, generator=generator)
        elif name.endswith(("gamma_v", "gamma_l", "vision_param", "text_param")):
            torch.nn.init.constant_(weight, 0.3)
        elif weight.dim() == 0:  # the bias of all logits, which starts as a low prior
            torch.nn.init.zeros_(weight)


def write_bert(folder: Path, vocab: Path, small: bool) -> None:
    """BERT's configuration and vocabulary, without weights."""
    from transformers import BertConfig

    BertConfig(**(SMALL_BERT if small else {}), architectures=["BertModel"]).save_pretrained(folder)
    shutil.copy(vocab, folder / "vocab.txt")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_original(out: Path, small: bool, seed: int = 0) -> str:
    """GroundingDINO SwinT as an official file; returns its spec. BERT's folder must lie in `out`."""
    config = official_config(OFFICIAL["swint"][1])
    if small:
        lines = [f"{name} = {value!r}\n" for name, value in SMALL_OFFICIAL.items()]
        (out / SMALL_CONFIG).write_text(config.read_text() + "".join(lines))
        config = out / SMALL_CONFIG
    model, _ = build_model(config, out / BERT)
    shake(model, seed)
    torch.save(
        {"model": {f"module.{key}": value for key, value in model.state_dict().items()}}, out / ORIGINAL
    )
    return f"groundingdino:{out / ORIGINAL}" + (f"@{config}" if small else "")


def write_transformers(folder: Path, bert: Path, kind: str, small: bool, seed: int = 0) -> str:
    """A checkpoint of `kind`, grounding-dino or mm-grounding-dino; returns its spec."""
    from transformers import (
        AutoConfig,
        AutoModelForZeroShotObjectDetection,
        AutoTokenizer,
        GroundingDinoImageProcessor,
        SwinConfig,
    )

    swin: dict[str, Any] = {"window_size": 7, "out_features": ["stage2", "stage3", "stage4"]}
    config = AutoConfig.for_model(
        kind,
        backbone_config=SwinConfig(**swin, **(SMALL_SWIN if small else {})),
        text_config=AutoConfig.from_pretrained(bert),
        **(SMALL_MODEL if small else {}),
    )
    model = AutoModelForZeroShotObjectDetection.from_config(config)
    shake(model, seed)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    sides = {"size": SMALL_SIDES} if small else {}
    GroundingDinoImageProcessor(**sides).save_pretrained(folder)
    return f"transformers:{folder}"


def write_clip_tokenizer(folder: Path) -> int:
    """A tokenizer of CLIP's kind that knows no merges, a token a character; returns its number of tokens."""
    from transformers import CLIPTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return len(tokens)


def write_owlv2(folder: Path, small: bool, seed: int = 0) -> str:
    """An owlv2 checkpoint, the base model's architecture; returns its spec."""
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor

    words = write_clip_tokenizer(folder)
    text: dict[str, Any] = {"vocab_size": words, "eos_token_id": words - 1, "bos_token_id": words - 2}
    vision: dict[str, Any] = {"image_size": 960, "patch_size": 16}
    if small:
        width = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text |= width
        vision = width | {"image_size": 64, "patch_size": 8}
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=text.get("hidden_size", 512))
    model = Owlv2ForObjectDetection(config)
    shake(model, seed)
    model.save_pretrained(folder)
    side = vision["image_size"]
    Owlv2ImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return f"transformers:{folder}"


def write_omdet(folder: Path, small: bool, seed: int = 0) -> str:
    """An omdet-turbo checkpoint, the published Swin-T's architecture; returns its spec."""
    from transformers import (
        CLIPTextConfig,
        DetrImageProcessor,
        OmDetTurboConfig,
        OmDetTurboForObjectDetection,
        SwinConfig,
    )

    words = write_clip_tokenizer(folder)
    text: dict[str, Any] = {"vocab_size": words, "eos_token_id": words - 1, "bos_token_id": words - 2}
    swin: dict[str, Any] = {
        "image_size": 640,
        "out_features": ["stage2", "stage3", "stage4"],
        "window_size": 7,
    }
    model: dict[str, Any] = {}
    side = 640
    if small:
        side = 64
        text |= SMALL_TEXT | {"hidden_size": 48}  # other than the decoder's, or transformers fails
        swin |= SMALL_SWIN | {"image_size": side}
        model = {
            "num_queries": 20, "text_projection_in_dim": 48, "text_projection_out_dim": 48, "class_embed_dim": 48,
            "task_encoder_hidden_dim": 32, "encoder_hidden_dim": 32, "decoder_hidden_dim": 32,
            "vision_features_channels": [32, 32, 32], "encoder_in_channels": [48, 96, 192],
            "encoder_dim_feedforward": 32, "decoder_dim_feedforward": 32, "decoder_num_layers": 2,
            "encoder_attention_heads": 2, "decoder_num_heads": 2,
        }  # fmt: skip
        model["backbone_config"] = SwinConfig(**swin)
        model["apply_layernorm_after_vision_backbone"] = False  # is for timm's backbone, the published one
    config = OmDetTurboConfig(text_config=CLIPTextConfig(**text), image_size=side, **model)
    made = OmDetTurboForObjectDetection(config)
    shake(made, seed)
    made.save_pretrained(folder)
    DetrImageProcessor(size={"height": side, "width": side}, do_pad=False).save_pretrained(folder)
    return f"transformers:{folder}"


def write_sam3(folder: Path, small: bool, seed: int = 0) -> str:
    """A sam3 checkpoint; returns its spec."""
    from transformers import Sam3Config, Sam3ImageProcessor, Sam3Model

    words = write_clip_tokenizer(folder)
    text = {
        "model_type": "clip_text_model", "vocab_size": words, "eos_token_id": words - 1, "bos_token_id": words - 2,
        "hidden_size": 1024, "intermediate_size": 4096, "projection_dim": 512, "num_hidden_layers": 24,
        "num_attention_heads": 16, "max_position_embeddings": 32, "hidden_act": "gelu",
    }  # fmt: skip
    parts: dict[str, Any] = {}
    side = 1008
    if small:
        side = 56
        text |= SMALL_TEXT | {"projection_dim": 32}
        wide = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        backbone = {
            "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": side, "window_size": 2, "global_attn_indexes": [1],
            "pretrain_image_size": 28,
        }  # fmt: skip
        sizes = [[16, 16], [8, 8], [4, 4]]
        parts = {
            "vision_config": {
                "backbone_config": backbone, "fpn_hidden_size": 32, "backbone_feature_sizes": sizes,
            },
            "geometry_encoder_config": wide,
            "detr_encoder_config": wide,
            "detr_decoder_config": wide | {"num_queries": 12},
            "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2},
        }  # fmt: skip
    model = Sam3Model(Sam3Config(text_config=text, **parts))
    shake(model, seed)
    model.save_pretrained(folder)
    Sam3ImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return f"transformers:{folder}"


def write_florence2(folder: Path, small: bool, seed: int = 0) -> str:
    """A florence2 checkpoint, the base model's architecture; most of what its vocabulary has are places."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        PreTrainedTokenizerFast,
    )

    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"<loc_{place}>" for place in range(1000)] + ["<image>"]
    words = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [], unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    text: dict[str, Any] = {
        "model_type": "bart", "vocab_size": len(names), "d_model": 768, "encoder_layers": 6, "decoder_layers": 6,
        "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072, "max_position_embeddings": 4096,
    }  # fmt: skip
    vision: dict[str, Any] = {"projection_dim": 768}
    side = 768
    if small:
        side = 64
        wide = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
        text |= wide | {"decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        vision = {
            "projection_dim": 32, "depths": [1, 1, 1, 1], "embed_dim": [8, 16, 16, 32], "num_heads": [1, 2, 2, 4],
            "num_groups": [1, 2, 2, 4], "window_size": 4,
        }  # fmt: skip
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=len(names) - 1)
    model = Florence2ForConditionalGeneration(config)
    shake(model, seed)
    model.generation_config.no_repeat_ngram_size = 1  # else it says one place again and again
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"height": side, "width": side}, do_center_crop=False).save_pretrained(folder)
    return f"transformers:{folder}"


SMALL_TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PHRASEWISE = {
    "owlv2": write_owlv2, "omdet-turbo": write_omdet, "sam3": write_sam3, "florence2": write_florence2,
}  # fmt: skip


def main() -> None:
    """Write all and print their specs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    write_bert(args.out / BERT, args.vocab, args.small)
    print(write_original(args.out, args.small))
    for kind in ("grounding-dino", "mm-grounding-dino"):
        print(write_transformers(args.out / kind, args.out / BERT, kind, args.small))
    for kind, write in PHRASEWISE.items():
        print(write(args.out / kind, args.small))


if __name__ == "__main__":
    main()
