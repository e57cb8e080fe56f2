"""Train the embedded CLIP: `python scripts/train_clip.py OUT [--images N] [--dense STEPS] [--contrast STEPS] [--seed 0]`.

A small CLIP of the demo corpus, the start of the study: OUT is a folder that open_clip opens as "local-dir:OUT".

It must be like a large CLIP in two ways. Its image tower knows the scene: contrast alone does not get a tower of
this size there, so its projected patch tokens first learn, from the drawings' truth, which noun and colour lies on
each patch and how any two things lie to each other (the heads for this are thrown away). Its text tower knows
words and little of their order: it sees nothing but contrast, for which the words of a caption are enough.

Small batches for the first part: a step teaches nouns about as much with 32 scenes as with 128.
"""

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from preprocess.demo.captions import captions
from preprocess.demo.corpus import make
from preprocess.demo.icons import COLOURS, FRAME, NOUNS, mask
from preprocess.demo.scene import RELATIONS, SIDE, Scene
from train.export import export_open_clip

SEED = 4_000_000  # of the scenes; other commands use small ones
SIZE, PATCH, WIDTH = 96, 16, 128
GRID = SIZE // PATCH
THINGS = 4  # of a scene, at most
VOCABULARY = 1200
CONTEXT = 40
WARMUP = 200
DECAY = 0.1
NOUN_IDS = {noun: i + 1 for i, noun in enumerate([*NOUNS, FRAME])}  # 0: none
COLOUR_IDS = {colour: i + 1 for i, colour in enumerate(COLOURS)}


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


@dataclass
class Scenes:
    """N scenes as arrays."""

    images: NDArray[np.uint8]  # [N, 3, SIZE, SIZE]
    texts: list[list[str]]
    owners: NDArray[
        np.float16
    ]  # [N, THINGS, GRID * GRID]: share of a patch that a thing's visible ink covers
    nouns: NDArray[np.int64]  # [N, THINGS], 0 where there is no such thing
    colours: NDArray[np.int64]
    relations: NDArray[np.bool_]  # [N, THINGS, THINGS, relations]


def ink_shares(scene: Scene) -> NDArray[np.float16]:
    """For each thing, the share of each patch that it visibly covers, [THINGS, GRID * GRID]."""
    owner = np.full((SIDE, SIDE), -1)
    for place, thing in enumerate(scene.things):
        for x0, y0, x1, y1 in thing.boxes:
            ink = np.asarray(mask(thing.noun, round(max(x1 - x0, y1 - y0)))) > 127
            view = owner[round(y0) :, round(x0) :][: ink.shape[0], : ink.shape[1]]
            view[ink[: view.shape[0], : view.shape[1]]] = place
    shares = [
        np.asarray(
            Image.fromarray((owner == place).astype(np.float32)).resize((GRID, GRID), Image.Resampling.BOX)
        )
        for place in range(THINGS)
    ]
    return np.stack(shares).reshape(THINGS, -1).astype(np.float16)


def draw(start: int, stop: int, split: str, seed: int) -> Scenes:
    """Draw scenes `start` to `stop` of a split."""
    count = stop - start
    found = Scenes(
        np.zeros((count, 3, SIZE, SIZE), np.uint8),
        [],
        np.zeros((count, THINGS, GRID * GRID), np.float16),
        np.zeros((count, THINGS), np.int64),
        np.zeros((count, THINGS), np.int64),
        np.zeros((count, THINGS, THINGS, len(RELATIONS)), np.bool_),
    )
    for i in range(count):
        scene, rng = make(split, seed, start + i)
        small = scene.draw().resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        found.images[i] = np.asarray(small).transpose(2, 0, 1)
        found.texts.append([text for text, _ in captions(scene, rng)])
        found.owners[i] = ink_shares(scene)
        for place, thing in enumerate(scene.things):
            found.nouns[i, place], found.colours[i, place] = NOUN_IDS[thing.noun], COLOUR_IDS[thing.colour]
        for a, relation, b in scene.relations:
            found.relations[i, a, b, RELATIONS.index(relation)] = True
    return found


def draw_many(count: int, split: str, seed: int, jobs: int = 2) -> Scenes:
    """Draw `count` scenes in several processes."""
    edges = np.linspace(0, count, max(jobs, count // 2000) + 1).astype(int).tolist()
    with ProcessPoolExecutor(jobs) as pool:
        parts = list(pool.map(draw, edges, edges[1:], [split] * len(edges), [seed] * len(edges)))
    return Scenes(
        np.concatenate([part.images for part in parts]),
        [texts for part in parts for texts in part.texts],
        np.concatenate([part.owners for part in parts]),
        np.concatenate([part.nouns for part in parts]),
        np.concatenate([part.colours for part in parts]),
        np.concatenate([part.relations for part in parts]),
    )


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


class Dense(nn.Module):
    """What lies on each patch, and how two things lie to each other, read from projected patch tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.noun = nn.Linear(WIDTH, len(NOUN_IDS) + 1)
        self.colour = nn.Linear(WIDTH, len(COLOUR_IDS) + 1)
        self.relation = nn.Sequential(
            nn.Linear(2 * WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, len(RELATIONS))
        )

    def forward(self, patches: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """patches: [B, P, D]. The losses, each a mean."""
        owners = batch["owners"].float()  # [B, T, P]
        share, owner = owners.max(dim=1)
        covered = share > 0.06
        losses = {}
        for name, head in (("nouns", self.noun), ("colours", self.colour)):
            label = torch.where(covered, batch[name].gather(1, owner), 0)
            each = F.cross_entropy(head(patches).flatten(0, 1), label.flatten(), reduction="none")
            losses[name] = each[covered.flatten()].mean() + each[~covered.flatten()].mean() / 4
        weights = owners / owners.sum(-1, keepdim=True).clamp(min=1e-6)
        things = weights @ patches  # [B, T, D]
        there = (owners.sum(-1) > 0.1) & (batch["nouns"] > 0)
        guess, truth = self.noun(things[there]), batch["nouns"][there]
        losses["things"] = F.cross_entropy(guess, truth)
        self.right = (guess.argmax(-1) == truth).float().mean().item()
        pairs = torch.cat(
            [
                things[:, :, None].expand(-1, -1, THINGS, -1),
                things[:, None].expand(-1, THINGS, -1, -1),
            ],
            dim=-1,
        )
        real = there[:, :, None] & there[:, None] & ~torch.eye(THINGS, dtype=torch.bool)
        logits = self.relation(pairs[real])
        losses["relations"] = F.binary_cross_entropy_with_logits(logits, batch["relations"][real].float()) * 5
        return losses


def image_tokens(visual: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled feature [B, D] and the projected patch tokens [B, P, D]."""
    x = visual._embeds(pixels)
    x = visual.ln_post(visual.transformer(x)) @ visual.proj
    return x[:, 0], x[:, 1:]


def normalised(images: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(v).view(3, 1, 1) * 255
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (images.float() - mean) / std


@torch.no_grad()
def recall(clip: Any, images: Tensor, tokens: Tensor) -> tuple[float, float]:
    """Retrieval R@1 of as many captions as images: text to image, image to text."""
    image = F.normalize(
        torch.cat([clip.encode_image(normalised(part)) for part in images.split(100)]), dim=-1
    )
    text = F.normalize(clip.encode_text(tokens), dim=-1)
    scores, truth = text @ image.T, torch.arange(len(image))
    return tuple((s.argmax(1) == truth).float().mean().item() for s in (scores, scores.T))  # type: ignore[return-value]


@dataclass
class Corpus:
    """Training scenes as tensors, with their captions' tokens, and the validation's."""

    arrays: dict[str, Tensor]
    tokens: Tensor  # [N, 5, CONTEXT]
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
        found = wrapped(texts, padding="max_length", max_length=CONTEXT, truncation=True)
        return torch.tensor(found["input_ids"])

    names = ("images", "owners", "nouns", "colours", "relations")
    corpus = Corpus(
        {name: torch.from_numpy(getattr(scenes, name)) for name in names},
        tokenize([text for texts in scenes.texts for text in texts]).view(images, -1, CONTEXT),
        torch.from_numpy(judges.images),
        tokenize([texts[0] for texts in judges.texts]),
    )
    return corpus, len(wrapped)


def train(
    clip: Any, dense: Dense, corpus: Corpus, steps: int, batch_size: int, rate: float, *, contrast: bool
) -> None:
    """One part of the training, with its own warm-up and decay."""
    trained = [*clip.parameters(), *dense.parameters()]
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
        batch = {name: values[chosen] for name, values in corpus.arrays.items()}
        pooled, patches = image_tokens(clip.visual, normalised(batch["images"]))
        losses = dense(patches, batch)
        if contrast:
            text = corpus.tokens[chosen, torch.randint(corpus.tokens.shape[1], (batch_size,))]
            words = F.normalize(encode_text(clip, text[:, : (text > 0).sum(-1).max()]), dim=-1)
            logits = clip.logit_scale.exp() * F.normalize(pooled, dim=-1) @ words.T
            truth = torch.arange(batch_size)
            losses["contrast"] = (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(trained, 2.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=math.log(100))
        for name, value in [("right nouns", dense.right), *((n, loss.item()) for n, loss in losses.items())]:
            sums[name] = sums.get(name, 0) + value
        if (step + 1) % 250 == 0:
            line = "  ".join(f"{name} {value / 250:.3f}" for name, value in sums.items())
            sums = {}
            if contrast:
                found = recall(clip, corpus.judge_images, corpus.judge_tokens)
                line += f"  R@1 of 500: text to image {found[0]:.3f}, image to text {found[1]:.3f}"
            print(f"{step + 1} {time.perf_counter() - began:.0f} s  {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=40000)
    parser.add_argument("--dense", type=int, default=5000, help="steps of the first part")
    parser.add_argument("--contrast", type=int, default=2000, help="steps of the second part")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.manual_seed(a.seed)
    corpus, vocabulary = make_corpus(a.images, a.seed, a.out)
    model_config = config(vocabulary)
    text_config = {key: v for key, v in model_config["text_cfg"].items() if key != "hf_tokenizer_name"}
    clip: Any = open_clip.CLIP(WIDTH, model_config["vision_cfg"], text_config)
    dense = Dense()
    parameters = sum(p.numel() for p in clip.parameters())
    print(f"vocabulary {vocabulary}, {parameters:,} parameters", flush=True)
    train(clip, dense, corpus, a.dense, 32, 1.5e-3, contrast=False)
    save(clip, a.out, model_config)
    train(clip, dense, corpus, a.contrast, 128, 1e-3, contrast=True)
    save(clip, a.out, model_config)


def encode_text(clip: Any, text: Tensor) -> Tensor:
    """Pooled text features [B, D] of tokens cut to the batch's longest."""
    x = clip.token_embedding(text) + clip.positional_embedding[: text.shape[1]]
    x = clip.transformer(x, attn_mask=clip.attn_mask[: text.shape[1], : text.shape[1]])
    x = clip.ln_final(x)[torch.arange(len(text)), text.argmax(-1)]
    return x @ clip.text_projection


def save(clip: nn.Module, out: Path, model_config: dict[str, Any]) -> None:
    """Write the folder, for any version of transformers that knows fast tokenizers."""
    export_open_clip(clip, out, model_config)
    file = out / "tokenizer_config.json"
    about = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
