"""Train the embedded CLIP: `python scripts/train_clip.py OUT [--dense STEPS] [--contrast STEPS] [--readout STEPS]`.

A small CLIP of the demo corpus, the start of the study: OUT is a folder that open_clip opens as "local-dir:OUT".

It must be like a large CLIP in two ways. Its image tower knows the scene: contrast alone does not get a tower of
this size there, so its projected patch tokens first learn, from the drawings' truth, which noun and colour lies on
each patch and how any two things lie to each other (the heads for this are thrown away). And its pooled features
know words and not who has which: they see nothing but contrast, for which the words of a caption are enough,
although patches and caption tokens, each as a mean, are taught the bindings (`Readout`).

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
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from pipeline.concept import Concept
from pipeline.schema import OBJECT, RELATION
from preprocess.demo.captions import _WORDS, captions
from preprocess.demo.corpus import make
from preprocess.demo.icons import COLOURS, FRAME, NAMES, NOUNS, mask
from preprocess.demo.scene import RELATIONS, SIDE, Scene
from train.export import export_open_clip

SEED = 4_000_000  # of the scenes; other commands use small ones
SIZE, PATCH, WIDTH = 96, 16, 128
GRID = SIZE // PATCH
THINGS = 4  # of a scene, at most
SAID = 5  # objects of a caption that are looked at
WORDINGS = {words: kind for kind, wordings in _WORDS.items() for words, *_ in wordings}
VOCABULARY = 1200
CONTEXT = 40
WARMUP = 200
DECAY = 0.1
READOUT = 10  # weight of the third part's own losses
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
    said_nouns: NDArray[np.int64]  # [N, 5, SAID]: the nouns of each caption, 0 where there are no more
    said_colours: NDArray[np.int64]  # 0 where it says none
    said_relations: NDArray[np.bool_]  # [N, 5, SAID, relations]: those whose subject the noun is


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


def note(
    concepts: list[Concept],
    nouns: NDArray[np.int64],
    colours: NDArray[np.int64],
    relations: NDArray[np.bool_],
) -> None:
    """Write down what a caption says: into [SAID], [SAID] and [SAID, relations]."""
    for place, concept in enumerate(concepts):
        if concept.kind == OBJECT and place < SAID:
            nouns[place] = NOUN_IDS[NAMES[concept.lemma]]
            colours[place] = next(
                (COLOUR_IDS[w] for w in (concept.phrase or "").split() if w in COLOUR_IDS), 0
            )
        elif concept.kind == RELATION and concept.subject is not None and concept.subject < SAID:
            words = max((w for w in WORDINGS if f" {concept.lemma}".endswith(f" {w}")), key=len)
            relations[concept.subject, RELATIONS.index(WORDINGS[words])] = True


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
        np.zeros((count, 5, SAID), np.int64),
        np.zeros((count, 5, SAID), np.int64),
        np.zeros((count, 5, SAID, len(RELATIONS)), np.bool_),
    )
    for i in range(count):
        scene, rng = make(split, seed, start + i)
        small = scene.draw().resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        found.images[i] = np.asarray(small).transpose(2, 0, 1)
        written = captions(scene, rng)
        found.texts.append([text for text, _ in written])
        for number, (_, concepts) in enumerate(written):
            place = i, number
            note(concepts, found.said_nouns[place], found.said_colours[place], found.said_relations[place])
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
    joined: dict[str, Any] = {
        name: [texts for part in parts for texts in part.texts]
        if name == "texts"
        else np.concatenate([getattr(part, name) for part in parts])
        for name in vars(parts[0])
    }
    return Scenes(**joined)


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

    def forward(self, patches: Tensor, batch: dict[str, Tensor], *_: Tensor) -> dict[str, Tensor]:
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


class Readout(nn.Module):
    """Which colour a noun has, and to what relations it is the subject, as cosines of a feature of a scene.

    The same features of (noun, colour) and (noun, relation) are asked of the mean of the projected patches and of
    the mean of the projected caption tokens, so both must bind; the pooled features are not asked. What does not
    bind gets half of the answers right, by a step that is far easier than the rest: hence READOUT, without which
    Adam's scale is that of the other losses, and nothing binds for thousands of steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dense = Dense()
        self.nouns, self.subjects = (nn.Embedding(len(NOUN_IDS) + 1, WIDTH) for _ in range(2))
        self.colours = nn.Embedding(len(COLOUR_IDS) + 1, WIDTH)
        self.relations = nn.Embedding(len(RELATIONS), WIDTH)
        self.relate = nn.Sequential(nn.Linear(2 * WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.scale = nn.Parameter(torch.full((3,), 2.5))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, patches: Tensor, batch: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
        """patches: the projected ones [B, P, D]; tokens: the mean of the caption's projected tokens [B, D]."""
        losses: dict[str, Tensor] = self.dense(patches, batch)
        seen = batch["owners"].float().sum(-1) > 0.1
        shown = batch["nouns"], batch["colours"], batch["relations"].any(2), seen
        said = batch["said_nouns"], batch["said_colours"], batch["said_relations"], batch["said_nouns"] > 0
        owners, coloured = batch["owners"].float(), self.coloured()
        things = (owners / owners.sum(-1, keepdim=True).clamp(min=1e-6)) @ patches
        there = seen & (batch["nouns"] > 0)
        logits = F.normalize(things[there], dim=-1) @ coloured.flatten(0, 1).T * self.scale[2].exp()
        truth = batch["nouns"][there] * (len(COLOUR_IDS) + 1) + batch["colours"][there]
        losses["bound"] = READOUT / 4 * F.cross_entropy(logits, truth)
        losses |= self.read("caption", tokens, coloured, *said)
        return losses | self.read("image", patches.mean(1), coloured, *shown)

    def coloured(self) -> Tensor:
        """A feature for each noun of each colour, [nouns, colours, D]."""
        return F.normalize(self.nouns.weight[:, None] * self.colours.weight, dim=-1)

    def read(
        self,
        name: str,
        feature: Tensor,
        coloured: Tensor,
        nouns: Tensor,
        colours: Tensor,
        relations: Tensor,
        usable: Tensor,
    ) -> dict[str, Tensor]:
        """feature: [B, D]; nouns, colours, usable: [B, T]; relations: [B, T, R]."""
        same = nouns[:, :, None] == nouns[:, None]
        alone = (nouns > 0) & (same.sum(-1) == 1) & usable  # a noun that means one thing
        scene, place = alone.nonzero(as_tuple=True)
        named, unit = nouns[scene, place], F.normalize(feature, dim=-1)[scene]
        guess = torch.einsum("qad,qd->qa", coloured[named], unit)
        truth, holds = colours[scene, place], relations[scene, place].float()
        self.right = (guess.argmax(-1) == truth).float().mean().item()
        parts = self.subjects(named)[:, None], self.relations.weight[None]
        pairs = torch.cat([part.expand(len(named), len(RELATIONS), -1) for part in parts], -1)
        logits = torch.einsum("qad,qd->qa", F.normalize(self.relate(pairs), dim=-1), unit)
        logits = logits * self.scale[1].exp() + self.bias
        return {
            f"{name} colours": READOUT * F.cross_entropy(guess * self.scale[0].exp(), truth),
            f"{name} relations": READOUT * F.binary_cross_entropy_with_logits(logits, holds),
        }


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

    arrays = {name: torch.from_numpy(array) for name, array in vars(scenes).items() if name != "texts"}
    corpus = Corpus(
        arrays,
        tokenize([text for texts in scenes.texts for text in texts]).view(images, -1, CONTEXT),
        torch.from_numpy(judges.images),
        tokenize([texts[0] for texts in judges.texts]),
    )
    return corpus, len(wrapped)


def train(
    clip: Any,
    heads: Dense | Readout,
    corpus: Corpus,
    steps: int,
    batch_size: int,
    rate: float,
    *,
    contrast: bool,
) -> None:
    """One part of the training, with its own warm-up and decay."""
    trained = [p for p in [*clip.parameters(), *heads.parameters()] if p.requires_grad]
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
        which = torch.randint(corpus.tokens.shape[1], (batch_size,))
        batch |= {
            name: v[torch.arange(batch_size), which] for name, v in batch.items() if name.startswith("said")
        }
        pooled, patches = image_tokens(clip.visual, normalised(batch["images"]))
        words = mean_word = pooled
        if contrast:
            text = corpus.tokens[chosen, which]
            words, mean_word = encode_text(clip, text[:, : (text > 0).sum(-1).max()])
        losses = heads(patches, batch, mean_word)
        if contrast:
            logits = clip.logit_scale.exp() * F.normalize(pooled, dim=-1) @ F.normalize(words, dim=-1).T
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
        for name, value in [("right", heads.right), *((n, loss.item()) for n, loss in losses.items())]:
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
    parser.add_argument("--readout", type=int, default=2500, help="steps of the third part")
    parser.add_argument(
        "--last", type=int, default=300, help="steps of the fourth part: the second once more"
    )
    parser.add_argument("--start", type=Path, help="what the first two parts made: only the third")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.manual_seed(a.seed)
    corpus, vocabulary = make_corpus(a.images, a.seed, a.out)
    model_config = config(vocabulary)
    text_config = {key: v for key, v in model_config["text_cfg"].items() if key != "hf_tokenizer_name"}
    clip: Any = open_clip.CLIP(WIDTH, model_config["vision_cfg"], text_config)
    parameters = sum(p.numel() for p in clip.parameters())
    print(f"vocabulary {vocabulary}, {parameters:,} parameters", flush=True)
    if a.start is None:
        dense = Dense()
        train(clip, dense, corpus, a.dense, 32, 1.5e-3, contrast=False)
        train(clip, dense, corpus, a.contrast, 128, 1e-3, contrast=True)
    else:
        clip.load_state_dict(load_file(a.start / "open_clip_model.safetensors"))
    torch.manual_seed(a.seed)
    readout = Readout()
    train(clip, readout, corpus, a.readout, 32, 1.5e-3, contrast=True)
    save(clip, a.out, model_config)
    train(clip, readout.dense, corpus, a.last, 128, 5e-4, contrast=True)
    save(clip, a.out, model_config)


def encode_text(clip: Any, text: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled features [B, D] and the means of the projected tokens, of texts cut to the batch's longest."""
    x = clip.token_embedding(text) + clip.positional_embedding[: text.shape[1]]
    x = clip.transformer(x, attn_mask=clip.attn_mask[: text.shape[1], : text.shape[1]])
    x = clip.ln_final(x) @ clip.text_projection
    ends = text.argmax(-1)
    inside = torch.arange(text.shape[1]) < ends[:, None]  # the end token, which is pooled, is left out
    mean = (x * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)
    return x[torch.arange(len(text)), ends], mean


def save(clip: nn.Module, out: Path, model_config: dict[str, Any]) -> None:
    """Write the folder, for any version of transformers that knows fast tokenizers."""
    export_open_clip(clip, out, model_config)
    file = out / "tokenizer_config.json"
    about = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
