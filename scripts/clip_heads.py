"""What a small CLIP's towers are asked while it learns; all of it is thrown away afterwards.

Shapes: B scenes, T things, P patches, D the joint width, R relations.
"""

import torch
from clip_scenes import COLOUR_IDS, NOUN_IDS, PARTNERS, ROLES, THINGS
from torch import Tensor, nn
from torch.nn import functional as F

from macco.preprocess.demo.scene import RELATIONS

BOUND = 10  # weight of what is asked of bindings


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
        self.right: dict[str, float] = {}  # share of the last batch's nouns

    def forward(
        self, patches: Tensor, tokens: Tensor, words: Tensor, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """patches: the projected ones, [B, P, D]; captions are not looked at. The losses, each a mean."""
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
        self.right["nouns"] = (guess.argmax(-1) == truth).float().mean().item()
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


def in_roles(relations: Tensor) -> Tensor:
    """Relations of subjects to objects [B, T, T, R] as roles of the first to the second [B, T, T, roles]."""
    held = relations.new_zeros(*relations.shape[:-1], len(ROLES))
    subject = list(range(len(RELATIONS)))
    held[..., subject] |= relations
    held[..., [PARTNERS[role] for role in subject]] |= relations.transpose(1, 2)
    return held


def alone(nouns: Tensor) -> Tensor:
    """Of nouns [B, T], 0 for none: those that name one thing."""
    return (nouns > 0) & ((nouns[:, :, None] == nouns[:, None]).sum(-1) == 1)


class Codes(nn.Module):
    """Features of (noun, colour) and (noun, role): a scene's feature should be near those that hold in it.

    They are products, so that no sum of a noun's and a colour's feature is near one. A relation is two roles, the
    sum of their codes: a scene of many things is then a sum of what each is, and "left of" a matter of how far left.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.nouns, self.placed = (nn.Embedding(len(NOUN_IDS) + 1, width) for _ in range(2))
        self.colours = nn.Embedding(len(COLOUR_IDS) + 1, width)
        self.roles = nn.Embedding(len(ROLES), width)
        self.scales = nn.ParameterDict()  # of the logits, logarithms
        self.right: dict[str, float] = {}  # shares of the last batch's answers
        for name in ("thing", "image", "caption"):
            self.scales[f"{name} colours"] = nn.Parameter(torch.tensor(2.5))
        for name in ("thing", "token", "image", "caption"):
            self.scales[f"{name} roles"] = nn.Parameter(torch.tensor(2.5))

    def coloured(self) -> Tensor:
        """[nouns, colours, D]."""
        return F.normalize(self.nouns.weight[:, None] * self.colours.weight, dim=-1)

    def role_codes(self) -> Tensor:
        """[nouns, roles, D]."""
        return F.normalize(self.placed.weight[:, None] * self.roles.weight, dim=-1)

    def scale(self, name: str) -> Tensor:
        return self.scales[name].exp()

    def nearest(self, name: str, features: Tensor, codes: Tensor, truth: Tensor) -> Tensor:
        """The loss of finding each feature's own code [Q, D] among all [..., D], counted through."""
        logits = F.normalize(features, dim=-1) @ codes.flatten(0, 1).T
        return F.cross_entropy(logits * self.scale(name), truth)

    def colour_loss(self, name: str, features: Tensor, nouns: Tensor, colours: Tensor) -> Tensor:
        """Which colour a noun has [Q], in a feature of the whole scene [Q, D]."""
        guess = torch.einsum("qcd,qd->qc", self.coloured()[nouns], F.normalize(features, dim=-1))
        self.right[f"{name} colours"] = (guess.argmax(-1) == colours).float().mean().item()
        return F.cross_entropy(guess * self.scale(f"{name} colours"), colours)

    def role_loss(self, name: str, features: tuple[Tensor, Tensor], nouns: Tensor, holds: Tensor) -> Tensor:
        """How a first thing lies to a second: each role that holds, against all that do not.

        features: in which the first's and the second's role are looked for, [Q, D] each; nouns: [Q, 2];
        holds: [Q, roles], of the first.
        """
        first, second = (
            torch.einsum("qrd,qd->qr", self.role_codes()[nouns[:, side]], F.normalize(features[side], dim=-1))
            for side in (0, 1)
        )
        partners = list(PARTNERS)
        logits = (first + second[:, partners]) * self.scale(f"{name} roles")
        pair, role = holds.nonzero(as_tuple=True)
        truth, wrong = logits[pair, role], logits.masked_fill(holds, -torch.inf)[pair]
        turned = ~holds[pair, torch.tensor(partners)[role]]  # exchanging the two makes it false
        other = logits[pair, torch.tensor(partners)[role]]
        self.right[f"{name} order"] = (truth > other)[turned].float().mean().item()
        return F.cross_entropy(torch.cat([truth[:, None], wrong], 1), torch.zeros_like(pair))

    def image_losses(self, patches: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Asked of each thing's own patches, where the mean of all patches begins, and of that mean."""
        things, there = seen(patches, batch)
        nouns, colours, mean = batch["nouns"], batch["colours"], patches.mean(1)
        truth = nouns[there] * (len(COLOUR_IDS) + 1) + colours[there]
        losses = {"thing colours": self.nearest("thing colours", things[there], self.coloured(), truth) / 4}
        named = alone(nouns) & there
        scene = named.nonzero()[:, 0]
        losses["image colours"] = self.colour_loss("image", mean[scene], nouns[named], colours[named])
        holds = in_roles(batch["relations"])
        scene, a, b = (holds.any(-1) & named[:, :, None] & named[:, None]).nonzero(as_tuple=True)
        pairs, held = torch.stack([nouns[scene, a], nouns[scene, b]], 1), holds[scene, a, b]
        losses["thing roles"] = self.role_loss("thing", (things[scene, a], things[scene, b]), pairs, held) / 2
        losses["image roles"] = self.role_loss("image", (mean[scene], mean[scene]), pairs, held)
        return losses

    def caption_losses(self, tokens: Tensor, pooled: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Asked of the tokens [B, L, D] that first tell a role, where the pooled feature's begins, and of that one."""
        where, noun, role = batch["told"].unbind(-1)
        caption, place = (where > 0).nonzero(as_tuple=True)
        told = (caption, place)
        losses = {
            "token roles": self.nearest(
                "token roles",
                tokens[caption, where[told]],
                self.role_codes(),
                noun[told] * len(ROLES) + role[told],
            )
        }
        nouns = batch["said_nouns"]
        named = alone(nouns)
        caption = named.nonzero()[:, 0]
        colours = batch["said_colours"][named]
        losses["caption colours"] = self.colour_loss("caption", pooled[caption], nouns[named], colours)
        holds = in_roles(batch["said_relations"])
        caption, a, b = (holds.any(-1) & named[:, :, None] & named[:, None]).nonzero(as_tuple=True)
        pairs = torch.stack([nouns[caption, a], nouns[caption, b]], 1)
        both = pooled[caption], pooled[caption]
        losses["caption roles"] = self.role_loss("caption", both, pairs, holds[caption, a, b])
        return losses


class Bindings(nn.Module):
    """Which colour a noun has, and how it lies to another, asked of both pooled features in equal codes.

    What does not bind gets half of the answers right, by a step that is far easier than the rest: hence BOUND, without
    which Adam's scale is that of the other losses, and nothing binds for thousands of steps. Were the codes not the
    same, the towers would know the bindings in terms that no short fine-tuning can translate.
    """

    def __init__(self, dense: Dense, width: int) -> None:
        super().__init__()
        self.dense, self.codes = dense, Codes(width)
        self.weight = 1.0

    @property
    def right(self) -> dict[str, float]:
        return self.codes.right

    def forward(
        self, patches: Tensor, tokens: Tensor, words: Tensor, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """patches: projected [B, P, D]; tokens: projected [B, L, D]; words: the captions' pooled features [B, D]."""
        losses: dict[str, Tensor] = self.dense(patches, tokens, words, batch)
        bound = self.codes.image_losses(patches, batch) | self.codes.caption_losses(tokens, words, batch)
        return losses | {name: BOUND * self.weight * loss for name, loss in bound.items()}
