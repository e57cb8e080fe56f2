"""How fast this machine trains: the step alone, and with a store what the loader delivers."""

import time
from collections.abc import Callable
from itertools import islice

import torch

from macco.pipeline.errors import UserError
from macco.train.clip.start import load_start
from macco.train.config import TrainConfig
from macco.train.data.batch import Batch
from macco.train.distributed.processes import choose_device, joined
from macco.train.loop.run import open_loader
from macco.train.loop.state import Training
from macco.train.objectives.objective import Objective

WARM_UP = 2  # steps
WORDS, TEXT_MASK, PATCH_MASK = 14, 3, 0.3  # of a random batch: tokens, masked ones, masked share, as in COCO


def measure(config: TrainConfig, steps: int, log: Callable[[str], None]) -> dict[str, float]:
    """Log and return samples per second of the step and, where the configuration has a store, of the loader."""
    if config.objective != "macco":
        raise UserError(
            f"bench measures MACCO's step, not that of {config.objective}: see benchmarks/cacr.py --step"
        )
    device = choose_device(config.device)
    with joined(device):
        start = load_start(config.model, config.seed)
        training = Training(config, start.model, device)
        training.total = WARM_UP + steps
        batch = random_batch(training.model, config.data.batch_size)
        found = {"step": _rate(lambda: training.update(batch), steps, len(batch), device)}
        log(f"training step on {device}: {found['step']:.1f} samples/s, batch {len(batch)}")
        if device.type == "cuda":
            log(f"peak memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        if config.data.store:
            loader = open_loader(config.data, training.model, start.tokenizer, config.masks, config.seed, log)
            batches = (batch for _ in range(WARM_UP + steps) for batch in islice(loader, 1))
            found["loader"] = _rate(lambda: next(batches), steps, config.data.batch_size, device)
            loader.close()
            log(f"loader: {found['loader']:.1f} samples/s, {config.data.workers} workers")
    return found


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


def random_batch(model: Objective, size: int) -> Batch:
    """A batch of noise with masks as many as in real ones, in the sizes of a model."""
    random = torch.Generator().manual_seed(0)
    rows, columns = model.image.grid
    length = model.text.context if model.text.fixed_length else WORDS
    tokens = torch.zeros(size, length, dtype=torch.long)
    tokens[:, : WORDS - 1] = torch.randint(1, model.text.vocabulary - 2, (size, WORDS - 1), generator=random)
    tokens[:, WORDS - 1] = model.text.vocabulary - 1
    text_mask = torch.zeros(size, length, dtype=torch.bool)
    text_mask[:, 1 : 1 + TEXT_MASK] = True
    patch_mask = torch.rand(size, rows * columns, generator=random) < PATCH_MASK
    sides = (rows * model.image.patch[0], columns * model.image.patch[1])
    images = torch.randint(0, 256, (size, 3, *sides), generator=random, dtype=torch.uint8)
    return Batch(images, tokens, text_mask, patch_mask, [str(row) for row in range(size)])
