"""Train the embedded CLIP: `python scripts/train_clip.py OUT [--steps DENSE CONTRAST BIND ALIGN BLIND]`.

A small CLIP of the demo corpus, the start of the study: OUT is a folder that open_clip opens as "local-dir:OUT".

It must be like a large CLIP in two ways. Its towers, each for itself, know the scene: who has which colour, who
stands where. Contrast alone does not get towers of this size there, so they are asked for it (clip_heads.py). And
their cosine knows the words and not who has which. In large CLIPs that is so because words alone find the image; here
it is asked for: a caption and the same with attributes or objects exchanged must score alike. Five parts:

1. dense: what lies on each patch, 32 scenes a step; steps teach nouns, not scenes.
2. contrast, 128 scenes a step.
3. bind: both pooled features are asked for bindings, 32 scenes a step.
4. align: contrast once more, 128 scenes a step, with a tenth of the third part's weight, and each image's swapped
   captions among its candidates: the cosine tells bindings now.
5. blind: only the captions' last projection learns, 256 a step: contrast, and a caption and its swap score alike. The
   towers stay as they are, so that what is taken from the cosine is still there, and fine-tuning finds it soon.

OUT/parts has what each part left; the same command goes on from there.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from clip_heads import Bindings, Dense
from clip_scenes import PATCH, SIZE, draw_many, normalised
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from macco.train.clip.write import export_open_clip

SEED = 4_000_000  # of the scenes; other commands use small ones
WIDTH = 128
VOCABULARY = 1200
CONTEXT = 40
WARMUP = 100
DECAY = 0.1
BLIND, SMALL = 10.0, 0.03  # weights of how a gap leans, and of its size
BLIND_SCENES, BLIND_BATCH = 12000, 256
LOOSE = 10.0
REPORT = 100  # steps


def config(vocabulary: int) -> dict[str, Any]:
    """The model as open_clip describes it; the tokenizer lies beside its weights."""
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {
            "image_size": SIZE,
            "patch_size": PATCH,
            "width": WIDTH,
            "head_width": 32,
            "layers": 4,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocabulary,
            "width": WIDTH,
            "heads": 4,
            "layers": 3,
            "hf_tokenizer_name": "macco-demo",
        },
    }


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-pair encoding of the demo's words; any other text falls into smaller pieces, at worst bytes.

    The end token has the largest id, where open_clip looks for the end of a text.
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        special_tokens=["<pad>", "<start>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens(["<end>"])
    ends = [(token, bpe.token_to_id(token)) for token in ("<start>", "<end>")]
    bpe.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


@dataclass
class Corpus:
    """Training scenes as tensors, with their captions' tokens, and the validation's."""

    arrays: dict[str, Tensor]
    tokens: Tensor  # [N, 5, CONTEXT]
    swapped: Tensor  # [N, 5, 2, CONTEXT]: attributes exchanged, objects exchanged
    judge_images: Tensor
    judge_tokens: Tensor


def make_corpus(images: int, seed: int, out: Path) -> tuple[Corpus, int]:
    """Draw it, and train and write the tokenizer; returns the vocabulary's size too."""
    scenes = draw_many(images, "train", SEED + seed)
    judges = draw_many(500, "val", SEED + seed)
    wrapped = train_tokenizer([text for texts in scenes.texts[:5000] for text in texts])
    out.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(out)

    def tokenize(texts: list[str]) -> Tensor:
        return torch.tensor(padded(texts)["input_ids"], dtype=torch.int32)

    def padded(texts: list[str]) -> Any:
        return wrapped(
            texts, padding="max_length", max_length=CONTEXT, truncation=True, return_offsets_mapping=True
        )

    texts = [text for texts in scenes.texts for text in texts]
    found = padded(texts)
    arrays = {name: torch.from_numpy(v) for name, v in vars(scenes).items() if not isinstance(v, list)}
    ends = torch.tensor(found["offset_mapping"])[..., 1].view(images, -1, 1, CONTEXT)
    where = arrays["told"][..., 0]  # characters; from here on the first tokens that reach so far
    arrays["told"][..., 0] = torch.where(where > 0, (ends >= where[..., None]).int().argmax(-1), 0)
    swapped = [text for pairs in scenes.swapped for pair in pairs for text in pair]
    corpus = Corpus(
        arrays,
        torch.tensor(found["input_ids"], dtype=torch.int32).view(images, -1, CONTEXT),
        tokenize(swapped).view(images, -1, 2, CONTEXT),
        torch.from_numpy(judges.images),
        tokenize([texts[0] for texts in judges.texts]),
    )
    return corpus, len(wrapped)


def encode_text(clip: Any, text: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [B, L, W] and pooled features [B, W] of texts [B, CONTEXT], cut to the batch's longest, not projected."""
    text = text[:, : int((text > 0).sum(-1).max())]
    x = clip.token_embedding(text) + clip.positional_embedding[: text.shape[1]]
    x = clip.transformer(x, attn_mask=clip.attn_mask[: text.shape[1], : text.shape[1]])
    tokens: Tensor = clip.ln_final(x)
    return tokens, tokens[torch.arange(len(text)), text.argmax(-1)]


def encode_patches(visual: Any, pixels: Tensor) -> Tensor:
    """The projected patch tokens [B, P, D]; their mean is the pooled feature."""
    patches: Tensor = visual.ln_post(visual.transformer(visual._embeds(pixels)))[:, 1:] @ visual.proj
    return patches


@torch.no_grad()
def recall(clip: Any, images: Tensor, tokens: Tensor) -> tuple[float, float]:
    """Retrieval R@1 of as many captions as images: text to image, image to text."""
    image = F.normalize(
        torch.cat([clip.encode_image(normalised(part)) for part in images.split(100)]), dim=-1
    )
    text = F.normalize(clip.encode_text(tokens), dim=-1)
    scores, truth = text @ image.T, torch.arange(len(image))
    return tuple((s.argmax(1) == truth).float().mean().item() for s in (scores, scores.T))  # type: ignore[return-value]


def train(
    clip: Any,
    heads: Dense | Bindings,
    corpus: Corpus,
    steps: int,
    batch_size: int,
    rate: float,
    *,
    contrast: bool = True,
    swapped: bool = False,
) -> None:
    """One part of the training, with its own warm-up and decay.

    swapped: a caption with attributes, and with objects exchanged are more candidates for its image.
    """
    trained = [*clip.parameters(), *heads.parameters()]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
    began, count = time.perf_counter(), len(corpus.tokens)
    sums: dict[str, float] = {}
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(count)
        chosen, order = order[:batch_size], order[batch_size:]
        which = torch.randint(corpus.tokens.shape[1], (batch_size,))
        batch = {
            name: values[chosen, which] if name.startswith(("said", "told")) else values[chosen]
            for name, values in corpus.arrays.items()
        }
        patches = encode_patches(clip.visual, normalised(batch["images"]))
        tokens, words = patches, patches
        if contrast:
            found = encode_text(clip, corpus.tokens[chosen, which])
            tokens, words = (features @ clip.text_projection for features in found)
        losses = heads(patches, tokens, words, batch)
        if contrast:
            image, text = F.normalize(patches.mean(1), dim=-1), F.normalize(words, dim=-1)
            scale, truth = clip.logit_scale.exp(), torch.arange(batch_size)
            logits = scale * image @ text.T
            wrong = []
            if swapped:
                texts = corpus.swapped[chosen, which]
                other = encode_text(clip, texts.flatten(0, 1))[1] @ clip.text_projection
                other = F.normalize(other, dim=-1).view(batch_size, 2, -1)
                none = (texts == corpus.tokens[chosen, which][:, None]).all(-1)
                wrong = [(scale * (other @ image[..., None])[..., 0]).masked_fill(none, -torch.inf)]
            losses["contrast"] = (
                F.cross_entropy(logits.T, truth) + F.cross_entropy(torch.cat([logits, *wrong], 1), truth)
            ) / 2
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(trained, 2.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=math.log(100))
        for name, value in [*heads.right.items(), *((f"-{n}", loss.item()) for n, loss in losses.items())]:
            sums[name] = sums.get(name, 0) + value
        if (step + 1) % REPORT == 0:
            line = "  ".join(f"{name} {value / REPORT:.3f}" for name, value in sums.items())
            sums = {}
            if contrast:
                to_image, to_text = recall(clip, corpus.judge_images, corpus.judge_tokens)
                line += f"  R@1 of 500: text to image {to_image:.3f}, image to text {to_text:.3f}"
            print(f"{step + 1} {time.perf_counter() - began:.0f} s  {line}", flush=True)


def blind(clip: Any, corpus: Corpus, steps: int) -> None:
    """Change the captions' last projection until a caption scores as often below its swap as above.

    How often is what matters: where every gap is only made small, its sign still tells the swap.
    """
    count = min(BLIND_SCENES, len(corpus.tokens))
    with torch.no_grad():
        parts = corpus.arrays["images"][:count].split(250)
        image = torch.cat([encode_patches(clip.visual, normalised(part)).mean(1) for part in parts])
        image = F.normalize(image, dim=-1)
        texts = torch.cat([corpus.tokens[:count, :, None], corpus.swapped[:count]], 2)  # [N, 5, 3, CONTEXT]
        words = torch.cat([encode_text(clip, part)[1] for part in texts.flatten(0, 2).split(500)])
        words = words.view(*texts.shape[:3], -1)
        swapped = [
            (texts[:, :, kind] != texts[:, :, 0]).any(-1).nonzero() for kind in (1, 2)
        ]  # attributes, objects
    trained = [clip.text_projection, clip.logit_scale]
    optimizer = torch.optim.Adam(trained)
    for step in range(steps):
        scene, which = torch.randint(count, (BLIND_BATCH,)), torch.randint(5, (BLIND_BATCH,))
        text = F.normalize(words[scene, which, 0] @ clip.text_projection, dim=-1)
        logits, truth = clip.logit_scale.exp() * image[scene] @ text.T, torch.arange(BLIND_BATCH)
        losses = {"contrast": (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2}
        right = []
        for kind, pairs in enumerate(swapped, 1):
            scene, which = pairs[torch.randint(len(pairs), (2 * BLIND_BATCH,))].T
            both = F.normalize(words[scene, which][:, [0, kind]] @ clip.text_projection, dim=-1)
            gap = ((both[:, 0] - both[:, 1]) * image[scene]).sum(-1) * clip.logit_scale.exp().detach()
            lean = torch.tanh(2 * gap / gap.detach().square().mean().sqrt().clamp(min=1e-3))
            losses[f"blind {kind}"] = BLIND * lean.mean().square() + SMALL * gap.square().mean()
            right.append((gap > 0).float().mean().item())
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, 2 * (1 - step / steps))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        if (step + 1) % REPORT == 0:
            line = "  ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            print(f"{step + 1}  {line}  attributes {right[0]:.3f}, objects {right[1]:.3f}", flush=True)


@torch.no_grad()
def loosen(clip: Any) -> None:
    """Make the captions' last projection smaller, and what it is applied to as much larger: the same model.

    A step of Adam is as large for small weights as for large ones, so it changes this projection more than the towers.
    With all weights equally slow, some hundred steps are too few for hard negatives to give back what was taken.
    """
    clip.text_projection /= LOOSE
    clip.ln_final.weight *= LOOSE
    clip.ln_final.bias *= LOOSE


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=40000)
    parser.add_argument(
        "--steps", type=int, nargs=5, default=[5000, 1000, 7000, 500, 800], help="of the parts"
    )
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.manual_seed(a.seed)
    corpus, vocabulary = make_corpus(a.images, a.seed, a.out)
    model_config = config(vocabulary)
    text_config = {key: v for key, v in model_config["text_cfg"].items() if key != "hf_tokenizer_name"}
    clip: Any = open_clip.CLIP(WIDTH, model_config["vision_cfg"], text_config)
    parameters = sum(p.numel() for p in clip.parameters())
    print(f"vocabulary {vocabulary}, {parameters:,} parameters", flush=True)
    heads = Bindings(Dense(WIDTH), WIDTH)

    def align() -> None:
        heads.weight = 0.1
        train(clip, heads, corpus, a.steps[3], 128, 5e-4, swapped=True)

    def blinded() -> None:
        blind(clip, corpus, a.steps[4])
        loosen(clip)

    parts: dict[str, Callable[[], None]] = {
        "dense": lambda: train(clip, heads.dense, corpus, a.steps[0], 32, 1.5e-3, contrast=False),
        "contrast": lambda: train(clip, heads.dense, corpus, a.steps[1], 128, 1e-3),
        "bind": lambda: train(clip, heads, corpus, a.steps[2], 32, 1.5e-3),
        "align": align,
        "blind": blinded,
    }
    for number, (name, part) in enumerate(parts.items()):
        made = a.out / "parts" / f"{name}.pt"
        if made.exists():
            state = torch.load(made)
            clip.load_state_dict(state["clip"])
            heads.load_state_dict(state["heads"])
            continue
        print(f"== {name}", flush=True)
        torch.manual_seed(a.seed + number)
        part()
        made.parent.mkdir(exist_ok=True)
        torch.save({"clip": clip.state_dict(), "heads": heads.state_dict()}, made)
    save(clip, a.out, model_config)


def save(clip: nn.Module, out: Path, model_config: dict[str, Any]) -> None:
    """Write the folder, for any version of transformers that knows fast tokenizers."""
    export_open_clip(clip, out, model_config)
    file = out / "tokenizer_config.json"
    if file.exists():
        about = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        file.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
