"""Batches by worker processes: the same ones for any number of workers, and again after a resume."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from macco.pipeline.cache import ImageCache
from macco.pipeline.checked import checked, valid
from macco.pipeline.errors import UserError
from macco.pipeline.memory import keep_freed
from macco.pipeline.store import Store
from macco.train.config import DataConfig, Seed
from macco.train.data.batch import Batch
from macco.train.data.crops import BrokenImageError
from macco.train.data.index import Index, build
from macco.train.data.made import made_texts
from macco.train.data.recipe import Recipe
from macco.train.data.rows import Fetch, Rows, Sample
from macco.train.data.selection import Selection
from macco.train.data.shuffle import Epoch
from macco.train.distributed import ranks

TRIES: Final = 8  # samples tried in place of one whose image cannot be read

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, kw_only=True)
class LoaderPlan:
    """All that the batches depend on; workers get a copy."""

    data: DataConfig
    recipe: Recipe
    selection: Selection
    index: Index
    seed: int
    rank: int
    world_size: int
    contents: dict[str, str]  # digests of the store's rows, and of each table of texts that is read

    @property
    def share(self) -> int:
        """This rank's pairs of a step."""
        return self.data.batch_size // self.world_size

    @property
    def steps(self) -> int:
        """Batches of one epoch on each rank; the last samples, too few for one more on every rank, are dropped."""
        return len(self.index) // self.data.batch_size


def open_loader(
    data: DataConfig,
    recipe: Recipe,
    *,
    seed: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    pin_memory: bool | None = None,
    log: Callable[[str], None] = print,
) -> "Loader[Any]":
    """Select a training set and return a loader of its batches, made by `recipe`.

    What each clause of `data.where` leaves is told to `log`, on rank 0. `rank` and `world_size` are those of
    torch.distributed where they are not given. More than `data.max_broken` unreadable images on one rank end the
    run; until then each is replaced and counted.

    Raises UserError for a setting that is none, a store or cache that is not there, a condition that is none, an empty
    training set.
    """
    data, seed = checked(data, "data"), valid(Seed, seed, "seed")
    recipe = replace(recipe, masks=checked(recipe.masks, "masks"))
    rank = ranks.rank() if rank is None else rank
    world_size = ranks.world() if world_size is None else world_size
    if not 0 <= rank < world_size or data.batch_size < 1:
        raise UserError(f"rank {rank} of {world_size} with batches of {data.batch_size}: these cannot be")
    if data.batch_size % world_size:
        raise UserError(f"data.batch_size {data.batch_size} is no multiple of the {world_size} ranks")
    selection = Selection.of(data.where, recipe.masks, data.keep)
    if data.cache:
        ImageCache.open(data.cache)
    store = Store.open(data.store).choose_boxes(data.detector)
    store.require_whole()
    contents = made_texts(store, recipe)
    say = log if rank == 0 else lambda line: None
    recipe = replace(recipe, on_device=data.crop == "device")
    index = build(store, selection, say, one_caption=data.captions == "one", exclude=data.exclude)
    plan = LoaderPlan(
        data=data, recipe=recipe, selection=selection, index=index, seed=seed, rank=rank, world_size=world_size,
        contents={"rows": index.rows_of} | contents,
    )  # fmt: skip
    return Loader(plan, torch.cuda.is_available() if pin_memory is None else pin_memory)


@dataclass(frozen=True)
class Loaded:
    """What a worker hands over."""

    batch: Batch | None
    broken: list[str]  # of images that were replaced: sample id and why
    error: str | None = None  # why there is no batch
    cut: tuple[int, int, int] = (
        0,
        0,
        0,
    )  # captions, those with more tokens than fit, concepts beyond the cut

    def pin_memory(self) -> "Loaded":
        """Called by DataLoader."""
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


class Samples:
    """The samples of a plan by epoch and position. Made in the process that uses it."""

    def __init__(self, plan: LoaderPlan) -> None:
        index, recipe = plan.index, plan.recipe
        fetch = Fetch(
            plan.data, index, plan.selection, recipe.negatives, recipe.box_score,
            units=recipe.reads_units, siblings=recipe.reads_siblings,
        )  # fmt: skip

        # Closures, not methods: nothing here may refer to itself. A connection that only the garbage collector frees
        # is freed in a forked worker too, where its threads are not, and takes the worker with it.
        @lru_cache(maxsize=2)
        def order(epoch: int) -> Epoch:
            return Epoch(index.starts, plan.seed, epoch)

        @lru_cache(maxsize=2)
        def rows(epoch: int, number: int) -> tuple[Rows, NDArray[np.int64]]:
            """The rows of a window of an epoch, and where those of each of its pieces end."""
            pieces = order(epoch).window(number).pieces
            return fetch(pieces.tolist(), plan.seed, epoch), np.cumsum(np.diff(index.starts)[pieces])

        self._index, self._order, self._rows = index, order, rows
        self._first = plan.rank * plan.steps * plan.share

    def __call__(self, epoch: int, position: int) -> tuple[int, Sample]:
        """The sample at a position of this rank's part of the epoch, and its number in the index."""
        position += self._first
        number = self._order(epoch).number(position)
        window = self._order(epoch).window(number)
        slot = int(window.order[position - window.start])
        rows, ends = self._rows(epoch, number)
        which = int(np.searchsorted(ends, slot, side="right"))
        return int(self._index.starts[window.pieces[which] + 1] - ends[which] + slot), rows[slot]


class Batches(Dataset[Loaded]):
    """Makes the batch of (epoch, step); what it opens, it opens where it is first used."""

    def __init__(self, plan: LoaderPlan) -> None:
        self.plan = plan

    @cached_property
    def _samples(self) -> Samples:
        keep_freed()
        return Samples(self.plan)

    def __getitem__(self, place: tuple[int, int]) -> Loaded:
        epoch, step = place
        share, broken, cut = self.plan.share, list[str](), Counter[str]()
        try:
            made = [self._make(epoch, step * share + k, broken, cut) for k in range(share)]
            counts = share, cut["captions"], cut["concepts"]
            return Loaded(self.plan.recipe.collate(made), broken, cut=counts)
        except UserError as error:  # DataLoader would wrap its message in a traceback
            return Loaded(None, broken, str(error))

    def _make(self, epoch: int, position: int, broken: list[str], cut: "Counter[str]") -> Any:
        plan = self.plan
        for _ in range(TRIES):
            number, sample = self._samples(epoch, position)
            try:
                made = plan.recipe.make(sample, np.random.default_rng((plan.seed, epoch, number)))
                self._count(sample, cut)
                return made
            except BrokenImageError as error:
                broken.append(f"{sample.id}: {error}")
                # Not the next in this batch, which would be in it twice and its own negative.
                position = (position + plan.share) % (plan.steps * plan.share)
        raise UserError(
            f"{TRIES} images in a row cannot be read, the last {broken[-1]}: are the shards where they were?"
        )

    def _count(self, sample: Sample, cut: "Counter[str]") -> None:
        """Count a caption that is cut. A token has a byte at least: most captions need no second look."""
        tokenize = self.plan.recipe.tokenize
        if len(sample.caption.encode()) > tokenize.context - 2 and (tokens := tokenize(sample.caption)).cut:
            cut["captions"] += 1
            cut["concepts"] += sum(tokens.beyond(concept.spans) for concept in sample.concepts)


class _Places(Sampler[tuple[int, int]]):
    """(epoch, step) from a start, without end: workers go on into the next epoch."""

    def __init__(self, steps: int, epoch: int, step: int) -> None:
        self._steps, self._epoch, self._step = steps, epoch, step

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, step = self._epoch, self._step
        while True:
            yield epoch, step
            epoch, step = (epoch, step + 1) if step + 1 < self._steps else (epoch + 1, 0)


class Loader(Generic[B]):
    """Each iteration yields what is left of the current epoch. `epoch` and `step` name the next batch."""

    def __init__(self, plan: LoaderPlan, pin_memory: bool) -> None:
        if not plan.steps:
            raise UserError(
                f"{len(plan.index)} samples are too few for one batch of {plan.data.batch_size}: "
                "choose a smaller one"
            )
        self.plan = plan
        self.epoch = self.step = 0
        self.broken = 0  # images replaced so far, in the batches handed out
        self.broken_examples: list[str] = []
        self._cuts: dict[int, tuple[int, ...]] = {}  # by epoch; see Loaded.cut
        # Of the epoch of which most was handed out: in a further one the captions are the same.
        self.captions = self.captions_cut = self.concepts_cut = 0
        workers = plan.data.workers
        self._options: dict[str, Any] = {"num_workers": workers, "pin_memory": pin_memory, "batch_size": None}
        # DataLoader draws seeds for its workers, unused here: not from the generator of the training.
        self._options["generator"] = torch.Generator()
        if workers:
            self._options |= {"prefetch_factor": plan.data.prefetch, "persistent_workers": True}
            if not Store(plan.data.store).local:  # threads of remote file systems do not survive a fork
                self._options["multiprocessing_context"] = "spawn"
        self._stream: Iterator[Loaded] | None = None

    @property
    def samples(self) -> int:
        """Samples of the training set."""
        return len(self.plan.index)

    def __len__(self) -> int:
        """Steps of one epoch on each rank."""
        return self.plan.steps

    def __iter__(self) -> Iterator[B]:
        epoch = self.epoch
        while self.epoch == epoch:
            batch = self._next()
            self.step += 1
            if self.step == len(self):
                self.epoch, self.step = epoch + 1, 0
            yield batch

    def _next(self) -> B:
        if self._stream is None:
            places = _Places(len(self), self.epoch, self.step)
            self._stream = iter(DataLoader(Batches(self.plan), sampler=places, **self._options))
        loaded, most = next(self._stream), self.plan.data.max_broken
        self.broken += len(loaded.broken)
        self.broken_examples = (self.broken_examples + loaded.broken)[:10]
        counted = self._cuts.get(self.epoch, (0, 0, 0))
        self._cuts[self.epoch] = tuple(a + b for a, b in zip(counted, loaded.cut, strict=True))
        self.captions, self.captions_cut, self.concepts_cut = max(self._cuts.values())
        if loaded.batch is not None and self.broken <= most:
            return loaded.batch  # type: ignore[return-value]  # the recipe's kind
        self.close()
        limit = f"{self.broken} images could not be read, more than {most}, such as"
        raise UserError(loaded.error or " ".join([limit, *self.broken_examples[:1]]))

    def said_of_cuts(self) -> str | None:
        """A line on captions that have more tokens than the model reads; None where there are none so far."""
        if not self.captions_cut:
            return None
        share = 100 * self.captions_cut / self.captions
        return (
            f"{self.captions_cut:,} of {self.captions:,} captions ({share:.1f} %) have more than the "
            f"{self.plan.recipe.tokenize.context} tokens that the model reads, and are cut; "
            f"{self.concepts_cut:,} concepts lie beyond, and are not masked"
        )

    def close(self) -> None:
        """Stop the workers; the next batch starts them again."""
        self._stream = None

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch stands, and what its place depends on."""
        plan = self.plan
        return {"epoch": self.epoch, "step": self.step} | {
            "seed": plan.seed,
            "batch_size": plan.share,  # of one rank, as the first version wrote it
            "world_size": plan.world_size,
            "training_set": plan.index.fingerprint,
            "contents": plan.contents,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved place.

        Raises UserError where the batches would not be those of the run that saved it: another seed, training
        set, store under the same name, or, within an epoch, batch size or number of ranks.
        """
        mine = self.state_dict()
        fixed = ["seed", "training_set"] + (["batch_size", "world_size"] if state["step"] else [])
        for name in fixed:
            if state[name] != mine[name]:
                raise UserError(
                    f"this run has {name} {mine[name]!r}, the saved one {state[name]!r}: "
                    "resume with the same, or start anew"
                )
        # Earlier versions saved none.
        for table, known in state.get("contents", mine["contents"]).items():
            if mine["contents"].get(table) != known:
                raise UserError(
                    f"the {table} of {self.plan.data.store} are not those that this run was begun with: "
                    "bring them back, or start anew"
                )
        self.close()
        self.epoch, self.step = state["epoch"], state["step"]
