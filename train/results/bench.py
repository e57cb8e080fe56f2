"""How fast this machine trains: the step alone, and with a store what the loader delivers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice

import torch

from macco.pipeline.devices import choose_device
from macco.pipeline.query import connect
from macco.pipeline.schema import OK
from macco.pipeline.store import Store
from macco.train.clip.load import load_start
from macco.train.config import TrainConfig
from macco.train.data.detector import detector_of
from macco.train.data.loader import open_loader
from macco.train.distributed.processes import joined
from macco.train.loop.state import State, build_model
from macco.train.objectives.objective import Log, load_objective

WARM_UP = 2  # steps


def measure(config: TrainConfig, steps: int, pairs: int, log: Log) -> dict[str, float]:
    """Log and return samples per second of the step and, where the configuration has a store, of the loader.

    With them the hours that the configuration's epochs take on `pairs` pairs; 0: on the store's.
    """
    device = choose_device(config.device)
    with joined(device):
        start, objective = load_start(config.model, config.seed), load_objective(config)
        model = build_model(objective, start.model, device)
        state = State(objective, model, WARM_UP + steps)
        batch = objective.random_batch(model, config.data.batch_size)
        found = {"step": _rate(lambda: state.update(batch), steps, len(batch), device)}
        log(f"training step on {device}: {found['step']:.1f} samples/s, batch {len(batch)}")
        if device.type == "cuda":
            log(f"peak memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        if config.data.store:
            store, reads = Store.open(config.data.store), bool(objective.without_boxes)
            detector = detector_of(store, config, config.data.where, reads_boxes=reads)
            data = replace(config.data, detector=detector)
            recipe = objective.recipe(model, start.tokenizer, data, device, log)
            loader = open_loader(data, recipe, seed=config.seed, log=log)
            batches = (batch for _ in range(WARM_UP + steps) for batch in islice(loader, 1))
            found["loader"] = _rate(lambda: next(batches), steps, config.data.batch_size, device)
            pairs = pairs or len(loader.plan.index)
            loader.close()
            log(f"loader: {found['loader']:.1f} samples/s, {config.data.workers} workers")
        log(
            f"a checkpoint: {size(weight(state.state_dict()))}; a run keeps the latest, and the best if it validates"
        )
        if pairs:
            log(plan(config, pairs, found))
        if config.data.store:
            images, each = cached(config.data.store, 256)
            told = f"{size(images * pairs * each)} as pixels, about a sixth of it as JPEGs"
            log(f"a cache (macco-prep cache) of {images * pairs:,.0f} images: {told}")
    return found


def plan(config: TrainConfig, pairs: int, rates: Mapping[str, float]) -> str:
    """What the configuration takes on `pairs` pairs at the rates measured; the slower of step and loader counts."""
    seen = config.steps * config.data.batch_size if config.steps else round(config.epochs * pairs)
    slowest = min(rates, key=lambda name: rates[name])
    hours = seen / rates[slowest] / 3600
    return f"{seen:,} samples of {pairs:,} pairs: {hours:.1f} hours on this machine, by the {slowest}"


def cached(store: str, short_side: int) -> tuple[float, float]:
    """Images of a store by caption, and the bytes of one resized to this short side, by its first 100,000 captions."""
    side = f"least(width, height, {short_side})"
    with connect(Store.open(store)) as connection:
        found = connection.execute(
            "SELECT count(DISTINCT (dataset, shard, key)) / count(*), "
            f"avg(3.0 * {side} * {side} * greatest(width, height) / least(width, height)) "
            f"FROM (SELECT * FROM samples WHERE status = '{OK}' LIMIT 100000)"
        ).fetchone()
    assert found is not None
    return float(found[0]), float(found[1])


def weight(state: object) -> int:
    """Bytes of all tensors in a nest of dicts and lists."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(weight, parts))


def size(count: float) -> str:
    """Bytes, for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _rate(work: Callable[[], object], steps: int, size: int, device: torch.device) -> float:
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            _wait(device)
            began = time.perf_counter()
        work()
    _wait(device)
    return steps * size / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
