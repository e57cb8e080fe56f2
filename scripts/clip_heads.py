"""What a small CLIP's towers are asked while it learns; all of it is thrown away afterwards.

Shapes: B scenes, T things, P patches, D the joint width, R relations.
"""

import torch
from clip_scenes import COLOUR_IDS, NOUN_IDS, THINGS
from torch import Tensor, nn
from torch.nn import functional as F

from preprocess.demo.scene import RELATIONS

BOUND = 10  # weight of what is asked of bindings
RELATED = 3  # of these, for relations


class Dense(nn.Module):
    """What lies on each patch, what relations a thing is the subject of, and how two things lie to each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.noun = nn.Linear(width, len(NOUN_IDS) + 1)
        self.colour = nn.Linear(width, len(COLOUR_IDS) + 1)
        self.subject = nn.Linear(width, len(RELATIONS))
        self.relation = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, len(RELATIONS))
        )
        self.right = 0.0  # share of the last batch's nouns

    def forward(self, patches: Tensor, words: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """patches: the projected ones, [B, P, D]; words are not looked at. The losses, each a mean."""
        share, owner = batch["owners"].float().max(dim=1)
        covered = share > 0.06
        losses = {}
        for name, head in (("nouns", self.noun), ("colours", self.colour)):
            label = torch.where(covered, batch[name].gather(1, owner), 0)
            each = F.cross_entropy(head(patches).flatten(0, 1), label.flatten(), reduction="none")
            losses[name] = each[covered.flatten()].mean() + each[~covered.flatten()].mean() / 4
        things, there = seen(patches, batch)
        guess, truth = self.noun(things[there]), batch["nouns"][there]
        losses["things"] = F.cross_entropy(guess, truth)
        self.right = (guess.argmax(-1) == truth).float().mean().item()
        subject = batch["relations"].any(2)[there].float()
        losses["subjects"] = 5 * F.binary_cross_entropy_with_logits(self.subject(things[there]), subject)
        pairs = torch.cat(
            [
                things[:, :, None].expand(-1, -1, THINGS, -1),
                things[:, None].expand(-1, THINGS, -1, -1),
            ],
            dim=-1,
        )
        real = there[:, :, None] & there[:, None] & ~torch.eye(THINGS, dtype=torch.bool)
        logits = self.relation(pairs[real])
        losses["relations"] = 5 * F.binary_cross_entropy_with_logits(logits, batch["relations"][real].float())
        return losses


def seen(patches: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The mean of each thing's patches, by its ink [B, T, D], and which of them can be seen [B, T]."""
    owners = batch["owners"].float()
    ink = owners.sum(-1, keepdim=True)
    return owners / ink.clamp(min=1e-6) @ patches, (ink[..., 0] > 0.1) & (batch["nouns"] > 0)


class Codes(nn.Module):
    """Features of (noun, colour) and (noun, relation): a scene's feature should be near those that hold in it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.nouns, self.subjects = (nn.Embedding(len(NOUN_IDS) + 1, width) for _ in range(2))
        self.colours = nn.Embedding(len(COLOUR_IDS) + 1, width)
        self.relations = nn.Embedding(len(RELATIONS), width)
        self.relate = nn.Sequential(nn.Linear(2 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.scale = nn.Parameter(torch.full((3,), 2.5))
        self.bias = nn.Parameter(torch.tensor(-2.0))
        self.right = 0.0

    def coloured(self) -> Tensor:
        """[nouns, colours, D]: a product, so that no sum of a noun's and a colour's feature is near it."""
        return F.normalize(self.nouns.weight[:, None] * self.colours.weight, dim=-1)

    def related(self, nouns: Tensor) -> Tensor:
        """Of Q nouns each relation's, [Q, R, D]."""
        parts = self.subjects(nouns)[:, None], self.relations.weight[None]
        pairs = torch.cat([part.expand(len(nouns), len(RELATIONS), -1) for part in parts], -1)
        return F.normalize(self.relate(pairs), dim=-1)

    def subject_loss(self, nouns: Tensor, features: Tensor, holds: Tensor) -> Tensor:
        """features: [Q, D]; holds: [Q, R]."""
        logits = torch.einsum("qrd,qd->qr", self.related(nouns), F.normalize(features, dim=-1))
        return F.binary_cross_entropy_with_logits(logits * self.scale[1].exp() + self.bias, holds.float())

    def thing_losses(self, patches: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Asked of each thing's own patches: where the mean of all patches begins."""
        things, there = seen(patches, batch)
        nouns, found = batch["nouns"][there], things[there]
        logits = F.normalize(found, dim=-1) @ self.coloured().flatten(0, 1).T * self.scale[2].exp()
        truth = nouns * (len(COLOUR_IDS) + 1) + batch["colours"][there]
        subject = self.subject_loss(nouns, found, batch["relations"].any(2)[there])
        return {
            "thing colours": BOUND / 4 * F.cross_entropy(logits, truth),
            "thing relations": BOUND * RELATED * subject,
        }

    def pooled_losses(
        self, name: str, feature: Tensor, nouns: Tensor, colours: Tensor, relations: Tensor, usable: Tensor
    ) -> dict[str, Tensor]:
        """feature: [B, D]; nouns, colours, usable: [B, T]; relations: [B, T, R]."""
        same = nouns[:, :, None] == nouns[:, None]
        alone = (nouns > 0) & (same.sum(-1) == 1) & usable  # a noun that means one thing
        scene, place = alone.nonzero(as_tuple=True)
        named, truth = nouns[scene, place], colours[scene, place]
        guess = torch.einsum("qad,qd->qa", self.coloured()[named], F.normalize(feature, dim=-1)[scene])
        self.right = (guess.argmax(-1) == truth).float().mean().item()
        subject = self.subject_loss(named, feature[scene], relations[scene, place])
        return {
            f"{name} colours": BOUND * F.cross_entropy(guess * self.scale[0].exp(), truth),
            f"{name} relations": BOUND * RELATED * subject,
        }


class Bindings(nn.Module):
    """Which colour a noun has, and what relations it is the subject of, asked of both pooled features in equal codes.

    What does not bind gets half of the answers right, by a step that is far easier than the rest: hence BOUND, without
    which Adam's scale is that of the other losses, and nothing binds for thousands of steps. Were the codes not the
    same, the towers would know the bindings in terms that no short fine-tuning can translate.
    """

    def __init__(self, dense: Dense, width: int) -> None:
        super().__init__()
        self.dense, self.codes = dense, Codes(width)
        self.weight = 1.0

    @property
    def right(self) -> float:
        return self.codes.right

    def forward(self, patches: Tensor, words: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """patches: the projected ones [B, P, D]; words: the pooled features of the captions [B, D]."""
        losses: dict[str, Tensor] = self.dense(patches, words, batch)
        shown = batch["nouns"], batch["colours"], batch["relations"].any(2), seen(patches, batch)[1]
        said = batch["said_nouns"], batch["said_colours"], batch["said_relations"], batch["said_nouns"] > 0
        bound = self.codes.thing_losses(patches, batch)
        bound |= self.codes.pooled_losses("caption", words, *said)
        bound |= self.codes.pooled_losses("image", patches.mean(1), *shown)
        return losses | {name: self.weight * loss for name, loss in bound.items()}
