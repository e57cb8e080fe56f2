"""Batches by worker processes: the same ones for any number of workers, and again after a resume."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.data.batch import Batch, Slots
from macco.train.data.crops import BrokenImageError, cut, decode, draw_crop, read
from macco.train.data.index import Index
from macco.train.data.masks import MaskConfig, draw
from macco.train.data.rows import Fetch, Rows, Sample
from macco.train.data.selection import Selection
from macco.train.data.shuffle import Epoch
from macco.train.data.tokens import Tokenize

TRIES: Final = 8  # samples tried in place of one whose image cannot be read


@dataclass(frozen=True)
class RegionPlan:
    """Which regions of an image a joint encoder sees, and where their features lie."""

    kind: Literal["boxes", "grid"]
    count: int  # regions at most; the first is the whole image
    box_score: float
    grid: tuple[int, int]  # patches: rows, columns
    features: str | None = None  # folder of train.features; None: images are loaded


@dataclass(frozen=True)
class Plan:
    """All that the batches depend on; workers get a copy."""

    store_url: str
    cache_url: str | None
    index: Index
    selection: Selection
    masks: MaskConfig
    tokenize: Tokenize
    full_length: bool  # pad captions to the context length, not to the batch's longest
    image_size: int
    patch_size: int
    batch_size: int
    negatives: int  # hard negatives per caption
    seed: int
    rank: int
    world_size: int
    regions: "RegionPlan | None" = None  # of the joint objectives: no masks then

    @property
    def steps(self) -> int:
        """Batches of one epoch on each rank; the last samples, too few for one more on every rank, are dropped."""
        return len(self.index) // (self.batch_size * self.world_size)


@dataclass(frozen=True)
class Loaded:
    """What a worker hands over."""

    batch: Batch | None
    broken: list[str]  # of images that were replaced: sample id and why
    error: str | None = None  # why there is no batch

    def pin_memory(self) -> "Loaded":
        """Called by DataLoader."""
        return replace(self, batch=_pin(self.batch))


def _pin(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.pin_memory()
    if isinstance(value, Batch | Slots):
        return replace(value, **{name: _pin(part) for name, part in vars(value).items()})
    return value


class Batches(Dataset[Loaded]):
    """Makes the batch of (epoch, step); what it opens, it opens where it is first used."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._opened: tuple[Any, Any] | None = None

    def __getitem__(self, place: tuple[int, int]) -> Loaded:
        epoch, step = place
        plan = self.plan
        broken: list[str] = []
        made = []
        try:
            for k in range(plan.batch_size):
                made.append(self._sample(epoch, step * plan.batch_size + k, broken))
            return Loaded(self.collate(made), broken)
        except UserError as error:  # DataLoader would wrap its message in a traceback
            return Loaded(None, broken, str(error))

    def _find(self, epoch: int, position: int) -> tuple[int, Sample]:
        """The sample at a position of this rank's part of the epoch, and its number in the index."""
        if self._opened is None:
            plan = self.plan
            box_score = None
            if plan.regions is not None and plan.regions.features is None and plan.regions.kind == "boxes":
                box_score = plan.regions.box_score
            fetch = Fetch(
                plan.store_url, plan.index, plan.selection, plan.cache_url, plan.negatives, box_score
            )

            @lru_cache(maxsize=2)
            def order(epoch: int) -> Epoch:
                return Epoch(plan.index.starts, plan.seed, epoch)

            @lru_cache(maxsize=2)
            def rows(epoch: int, window: int) -> tuple[Rows, Any]:
                pieces = order(epoch).window(window).pieces
                sizes = np.diff(plan.index.starts)[pieces]
                return fetch(pieces.tolist()), np.cumsum(sizes)

            self._opened = order, rows
        order, rows = self._opened
        position += self.plan.rank * self.plan.steps * self.plan.batch_size
        number = order(epoch).number(position)
        window = order(epoch).window(number)
        slot = int(window.order[position - window.start])
        fetched, ends = rows(epoch, number)
        which = int(np.searchsorted(ends, slot, side="right"))
        piece = window.pieces[which]
        return int(self.plan.index.starts[piece + 1] - ends[which] + slot), fetched[slot]

    def _sample(self, epoch: int, position: int, broken: list[str]) -> Any:
        plan = self.plan
        for _ in range(TRIES):
            number, sample = self._find(epoch, position)
            try:
                return self.make(sample, np.random.default_rng((plan.seed, epoch, number)))
            except BrokenImageError as error:
                broken.append(f"{sample.id}: {error}")
                # Not the next in this batch, which would be in it twice and its own negative.
                position = (position + plan.batch_size) % (plan.steps * plan.batch_size)
        raise UserError(
            f"{TRIES} images in a row cannot be read, the last {broken[-1]}: are the shards where they were?"
        )

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        """One sample's part of a batch; raises BrokenImageError."""
        plan = self.plan
        data = read(sample.source, sample.member, sample.offset, sample.size)
        image = decode(data, plan.image_size)
        crop = draw_crop(*image.size, random)
        tokens = plan.tokenize(sample.caption)
        grid = plan.image_size // plan.patch_size
        text, patch = draw(sample.concepts, sample.caption, tokens, crop, grid, plan.masks, random)
        return (
            sample.id,
            cut(image, crop, plan.image_size),
            tokens.ids,
            text,
            patch,
            self.wrong(sample),
        )

    def wrong(self, sample: Sample) -> list[Any]:
        """Token ids of the sample's hard negatives, None where there is none."""
        return [None if caption is None else self.plan.tokenize(caption).ids for caption in sample.negatives]

    def collate(self, made: list[Any]) -> Batch:
        """What `make` gave for each sample as a batch."""
        ids, images, tokens, text, patch, wrong = zip(*made, strict=True)
        padded = self.pad(tokens)
        mask = torch.zeros_like(padded, dtype=torch.bool)
        for row, masked in enumerate(text):
            mask[row, : len(masked)] = torch.from_numpy(masked)
        negatives, valid = self.pad_wrong(tokens, wrong)
        return Batch(
            torch.from_numpy(np.stack(images)),
            padded,
            mask,
            torch.from_numpy(np.stack(patch)),
            list(ids),
            negatives,
            valid,
        )

    def pad_wrong(self, tokens: Sequence[Any], wrong: Sequence[Any]) -> tuple[Tensor | None, Tensor | None]:
        """Hard negatives [B, K, L'] and which exist [B, K]."""
        if not self.plan.negatives:
            return None, None
        exist = [one is not None for of_sample in wrong for one in of_sample]
        # Where there is none, the caption itself stands, and does not count.
        flat = [
            own if one is None else one
            for own, of_sample in zip(tokens, wrong, strict=True)
            for one in of_sample
        ]
        shape = (len(tokens), self.plan.negatives)
        return self.pad(flat).view(*shape, -1), torch.tensor(exist).view(shape)

    def pad(self, tokens: Sequence[Any]) -> Tensor:
        """Token ids of captions, [N, L] int64."""
        length = self.plan.tokenize.context if self.plan.full_length else max(map(len, tokens))
        padded = torch.full((len(tokens), length), self.plan.tokenize.padding)
        for row, one in enumerate(tokens):
            padded[row, : len(one)] = torch.from_numpy(one)
        return padded


class _Places(Sampler[tuple[int, int]]):
    """(epoch, step) from a start, without end: workers go on into the next epoch."""

    def __init__(self, steps: int, epoch: int, step: int) -> None:
        self._steps, self._epoch, self._step = steps, epoch, step

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, step = self._epoch, self._step
        while True:
            yield epoch, step
            epoch, step = (epoch, step + 1) if step + 1 < self._steps else (epoch + 1, 0)


class Loader:
    """Each iteration yields what is left of the current epoch. `epoch` and `step` name the next batch."""

    def __init__(
        self,
        plan: Plan,
        workers: int,
        prefetch: int,
        max_broken: int,
        pin_memory: bool,
        batches: type[Batches] = Batches,
    ) -> None:
        if not plan.steps:
            total = plan.batch_size * plan.world_size
            raise UserError(
                f"{len(plan.index)} samples are too few for one batch of {total}: choose a smaller one"
            )
        self.plan = plan
        self.epoch = self.step = 0
        self.broken = 0  # images replaced so far, in the batches handed out
        self.broken_examples: list[str] = []
        self._max_broken = max_broken
        self._batches = batches
        self._options: dict[str, Any] = {"num_workers": workers, "pin_memory": pin_memory, "batch_size": None}
        # DataLoader draws seeds for its workers, unused here: not from the generator of the training.
        self._options["generator"] = torch.Generator()
        if workers:
            self._options |= {"prefetch_factor": prefetch, "persistent_workers": True}
            if not Store(plan.store_url).local:  # threads of remote file systems do not survive a fork
                self._options["multiprocessing_context"] = "spawn"
        self._stream: Iterator[Loaded] | None = None

    @property
    def samples(self) -> int:
        """Samples of the training set."""
        return len(self.plan.index)

    def __len__(self) -> int:
        """Steps of one epoch on each rank."""
        return self.plan.steps

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        while self.epoch == epoch:
            batch = self._next()
            self.step += 1
            if self.step == len(self):
                self.epoch, self.step = epoch + 1, 0
            yield batch

    def _next(self) -> Batch:
        if self._stream is None:
            places = _Places(len(self), self.epoch, self.step)
            self._stream = iter(DataLoader(self._batches(self.plan), sampler=places, **self._options))
        loaded = next(self._stream)
        self.broken += len(loaded.broken)
        self.broken_examples = (self.broken_examples + loaded.broken)[:10]
        if loaded.batch is not None and self.broken <= self._max_broken:
            return loaded.batch
        self.close()
        limit = f"{self.broken} images could not be read, more than {self._max_broken}, such as"
        raise UserError(loaded.error or " ".join([limit, *self.broken_examples[:1]]))

    def close(self) -> None:
        """Stop the workers; the next batch starts them again."""
        self._stream = None

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch stands, and what its place depends on."""
        plan = self.plan
        return {"epoch": self.epoch, "step": self.step} | {
            "seed": plan.seed,
            "batch_size": plan.batch_size,
            "world_size": plan.world_size,
            "training_set": plan.index.fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved place.

        Raises UserError where the batches would not be those of the run that saved it: another seed, training
        set, or, within an epoch, batch size or number of ranks.
        """
        mine = self.state_dict()
        fixed = ["seed", "training_set"] + (["batch_size", "world_size"] if state["step"] else [])
        for name in fixed:
            if state[name] != mine[name]:
                raise UserError(
                    f"this run has {name} {mine[name]!r}, the saved one {state[name]!r}: "
                    "resume with the same, or start anew"
                )
        self.close()
        self.epoch, self.step = state["epoch"], state["step"]
