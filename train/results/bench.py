"""How fast this machine trains: the step alone, and with a store what the loader delivers."""

import time
from collections.abc import Callable, Mapping
from itertools import islice

import torch

from macco.pipeline.devices import choose_device
from macco.train.clip.load import load_start
from macco.train.config import TrainConfig
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
            recipe = objective.recipe(model, start.tokenizer, config.data, device, log)
            loader = open_loader(config.data, recipe, seed=config.seed, log=log)
            batches = (batch for _ in range(WARM_UP + steps) for batch in islice(loader, 1))
            found["loader"] = _rate(lambda: next(batches), steps, config.data.batch_size, device)
            pairs = pairs or len(loader.plan.index)
            loader.close()
            log(f"loader: {found['loader']:.1f} samples/s, {config.data.workers} workers")
        if pairs:
            log(plan(config, pairs, found))
    return found


def plan(config: TrainConfig, pairs: int, rates: Mapping[str, float]) -> str:
    """What the configuration takes on `pairs` pairs at the rates measured; the slower of step and loader counts."""
    seen = config.steps * config.data.batch_size if config.steps else round(config.epochs * pairs)
    slowest = min(rates, key=lambda name: rates[name])
    hours = seen / rates[slowest] / 3600
    return f"{seen:,} samples of {pairs:,} pairs: {hours:.1f} hours on this machine, by the {slowest}"


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
