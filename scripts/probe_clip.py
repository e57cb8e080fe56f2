"""What a CLIP's frozen patches know of a demo scene: `python scripts/probe_clip.py MODEL [--images 6000]`.

A head of two cross-attention blocks answers questions from the projected patch tokens, which are what MACCO's
predictors see. Questions: the noun of a colour, the colour of a noun, how two nouns lie to each other (right where
the first answer is one of the relations that hold). Asked about new scenes of the training's pairs (val) and about
scenes with held-out pairs (test). Chance is measured: the same head, trained on the patches of other images.

Then of the pooled features: how often an image prefers its caption to the same with attributes, or objects, exchanged;
by the cosine as it is, and by the best cosine after a linear map of the text feature, learned on such pairs (both
towers frozen). The second is what a fine-tuning can reach at once; what is not in it, the towers must learn first.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from clip_scenes import COLOUR_IDS, NOUN_IDS, Scenes, draw_many, normalised
from torch import Tensor, nn
from torch.nn import functional as F

from macco.preprocess.demo.scene import RELATIONS
from macco.train.clip.load import LoadedClip, load_clip
from macco.train.clip.towers import image_tower
from macco.train.data.slots import Slots
from macco.train.objectives.macco.predictors import CrossBlock

SEED = 5_000_000
KINDS = {"noun": len(NOUN_IDS) + 1, "colour": len(COLOUR_IDS) + 1, "relation": len(RELATIONS)}


@dataclass
class Questions:
    """Q questions of one kind."""

    scene: Tensor  # [Q]
    asked: Tensor  # [Q, 2]: what the question names
    answers: Tensor  # [Q, A] bool: which answers are right


def questions(scenes: Scenes, kind: str) -> Questions:
    """Ask about everything in a scene that its noun, or colour, alone names."""
    rows: list[tuple[int, int, int, list[int]]] = []
    for i, (nouns, colours) in enumerate(zip(scenes.nouns.tolist(), scenes.colours.tolist(), strict=True)):
        things = [t for t, noun in enumerate(nouns) if noun]
        for a in things:
            if kind == "noun" and colours.count(colours[a]) == 1:
                rows.append((i, colours[a], 0, [nouns[a]]))
            elif kind == "colour" and nouns.count(nouns[a]) == 1:
                rows.append((i, nouns[a], 0, [colours[a]]))
            elif kind == "relation":
                rows += [
                    (i, nouns[a], nouns[b], np.flatnonzero(scenes.relations[i, a, b]).tolist())
                    for b in things
                    if nouns.count(nouns[a]) == nouns.count(nouns[b]) == 1 and scenes.relations[i, a, b].any()
                ]
    answers = torch.zeros(len(rows), KINDS[kind], dtype=torch.bool)
    for q, (*_, right) in enumerate(rows):
        answers[q, right] = True
    table = torch.tensor([row[:3] for row in rows])
    return Questions(table[:, 0], table[:, 1:], answers)


class Head(nn.Module):
    """Reads patches [Q, P, D] as a question asks."""

    def __init__(self, width: int, answers: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Embedding(max(KINDS.values()), width) for _ in range(2))
        self.blocks = nn.ModuleList(CrossBlock(width, max(1, width // 32)) for _ in range(2))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, answers))

    def forward(self, asked: Tensor, patches: Tensor) -> Tensor:
        x = self.first(asked[:, 0]) + self.second(asked[:, 1])
        where = Slots.of(torch.ones(len(x), 1, dtype=torch.bool))
        for block in self.blocks:
            x = block(x, patches, where, None)
        logits: Tensor = self.out(x)
        return logits


def fit(kind: str, patches: Tensor, asked: Questions, steps: int, *, blind: bool) -> Head:
    """Train a head; blind: on the patches of other images."""
    head = Head(patches.shape[-1], KINDS[kind])
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(asked.scene), (256,))
        logits = head(asked.asked[chosen], patches[scene_of(asked, chosen, len(patches), blind)])
        right = asked.answers[chosen].float()
        loss = F.cross_entropy(logits, right / right.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head


def scene_of(asked: Questions, chosen: Tensor, count: int, blind: bool) -> Tensor:
    return torch.randint(count, chosen.shape) if blind else asked.scene[chosen]


@torch.no_grad()
def accuracy(head: Head, patches: Tensor, asked: Questions, *, blind: bool) -> float:
    """Percent of questions whose first answer is right."""
    right = []
    for chosen in torch.arange(len(asked.scene)).split(512):
        best = head(asked.asked[chosen], patches[scene_of(asked, chosen, len(patches), blind)]).argmax(1)
        right.append(asked.answers[chosen, best])
    return 100 * torch.cat(right).float().mean().item()


@dataclass
class Swaps:
    """Q captions, each with its image and the same caption with a pair exchanged. Features are normalised."""

    image: Tensor  # [Q, D]
    right: Tensor
    wrong: Tensor

    def preferred(self, change: nn.Module, chosen: Tensor) -> Tensor:
        """By how much each image prefers its caption, [len(chosen)]."""
        gap = F.normalize(change(self.right[chosen]), dim=-1) - F.normalize(
            change(self.wrong[chosen]), dim=-1
        )
        return (self.image[chosen] * gap).sum(-1)


@torch.no_grad()
def swaps(clip: LoadedClip, scenes: Scenes, kind: int) -> Swaps:
    """kind: 0 attributes, 1 objects; captions that have no such pair are left out."""
    places = [
        (i, j)
        for i, texts in enumerate(scenes.texts)
        for j, text in enumerate(texts)
        if scenes.swapped[i][j][kind] != text
    ]

    def encode(texts: list[str]) -> Tensor:
        parts = [clip.tokenizer(texts[i : i + 500]) for i in range(0, len(texts), 500)]
        return torch.cat([clip.model.encode_text(part, normalize=True) for part in parts])

    parts = torch.from_numpy(scenes.images).split(250)
    image = torch.cat([clip.model.encode_image(normalised(part), normalize=True) for part in parts])
    right = encode([scenes.texts[i][j] for i, j in places])
    wrong = encode([scenes.swapped[i][j][kind] for i, j in places])
    return Swaps(image[[i for i, _ in places]], right, wrong)


def fit_map(pairs: Swaps, steps: int) -> nn.Linear:
    """The linear map of the text feature under which images prefer their captions."""
    change = nn.Linear(pairs.right.shape[1], pairs.right.shape[1], bias=False)
    nn.init.eye_(change.weight)
    optimizer = torch.optim.AdamW(change.parameters(), lr=1e-3, weight_decay=0.05)
    for _ in range(steps):
        loss = F.softplus(-30 * pairs.preferred(change, torch.randint(len(pairs.image), (256,)))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return change


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.manual_seed(a.seed)
    clip = load_clip(a.model)
    tower = image_tower(clip.model.eval().visual)
    drawn = {
        "train": draw_many(a.images, "train", SEED + a.seed),
        "val": draw_many(1000, "val", SEED + a.seed),
        "test": draw_many(1000, "test", SEED + a.seed),
    }
    patches = {}
    with torch.no_grad():
        for split, scenes in drawn.items():
            parts = [
                tower.encode(tower.embed(normalised(part)), None).tokens[:, tower.prefix :]
                for part in torch.from_numpy(scenes.images).split(250)
            ]
            patches[split] = torch.cat(parts)
    print("| asked | answers | val | test (held-out pairs) | without the image (val) |")
    print("|---|---:|---:|---:|---:|")
    for kind in KINDS:
        asked = {split: questions(scenes, kind) for split, scenes in drawn.items()}
        head = fit(kind, patches["train"], asked["train"], a.steps, blind=False)
        control = fit(kind, patches["train"], asked["train"], a.steps, blind=True)
        found = [accuracy(head, patches[split], asked[split], blind=False) for split in ("val", "test")]
        chance = accuracy(control, patches["val"], asked["val"], blind=True)
        answers = int(asked["train"].answers.any(0).sum())
        print(f"| {kind} | {answers} | {found[0]:.1f} | {found[1]:.1f} | {chance:.1f} |", flush=True)
    print("\n| exchanged | val | test | val, linear map | test, linear map |")
    print("|---|---:|---:|---:|---:|")
    for kind, name in enumerate(("attributes", "objects")):
        pairs = {split: swaps(clip, scenes, kind) for split, scenes in drawn.items()}
        cells = [name]
        for change in (nn.Identity(), fit_map(pairs["train"], a.steps)):
            for split in ("val", "test"):
                every = torch.arange(len(pairs[split].image))
                share = (pairs[split].preferred(change, every) > 0).float().mean().item()
                cells.append(f"{100 * share:.1f}")
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
