"""Whose colours MACCO's text predictor reads: `python scripts/probe_predictor.py RUN [--batches 20]`.

RUN is a run on the demo corpus that kept its checkpoints (a study's: --keep, or OUT/warm-up/NAME). On crops that it was
not trained on, all concept words masked: of captions that say so many different colours, how often the predictor takes
the right one for a masked colour, and how often another one of the same caption. A predictor that looks at the
image and knows which things the caption names answers with one of its colours; which of them, it can know only where
the masked caption's features still tell whose the word was.
"""

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from macco.preprocess.demo.icons import COLOURS
from macco.train.clip.load import load_start
from macco.train.data.loader import open_loader
from macco.train.objectives.objective import load_objective
from macco.train.runs import checkpoint
from macco.train.runs.weights import saved_config


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--seed", type=int, default=777)
    a = parser.parse_args()
    config = saved_config(a.run)
    clip, objective = load_start(config.model, 0), load_objective(config)
    model = objective.model(clip.model).eval()
    model.load_state_dict(checkpoint.load(a.run, checkpoint.LATEST)["model"])
    data = replace(config.data, batch_size=64, workers=0)
    recipe = objective.recipe(model, clip.tokenizer, data, torch.device("cpu"), print)
    batches = iter(open_loader(data, recipe, seed=a.seed))
    colours = torch.tensor([clip.tokenizer([name])[0, 1] for name in COLOURS])
    asked: Counter[int] = Counter()
    right: Counter[int] = Counter()
    other: Counter[int] = Counter()
    for _ in range(a.batches):
        batch = next(batches)
        with torch.no_grad():
            logits = model.words(batch, model.encode(batch, model.pixels(batch.images)))
        slots = batch.text_slots
        match = batch.tokens[slots.sample, slots.position][:, None] == colours
        chosen = match.any(1)
        truth = match[chosen].int().argmax(1).tolist()
        answers = logits[chosen][:, colours].argmax(1).tolist()
        owners = slots.sample[chosen].tolist()
        said: dict[int, set[int]] = {}
        for owner, colour in zip(owners, truth, strict=True):
            said.setdefault(owner, set()).add(colour)
        for owner, colour, answer in zip(owners, truth, answers, strict=True):
            number = len(said[owner])
            asked[number] += 1
            right[number] += answer == colour
            other[number] += answer != colour and answer in said[owner]
    print("| colours said | asked | right | another of the caption |")
    print("|---:|---:|---:|---:|")
    for number in sorted(asked):
        print(
            f"| {number} | {asked[number]} | {100 * right[number] / asked[number]:.1f} "
            f"| {100 * other[number] / asked[number]:.1f} |"
        )


if __name__ == "__main__":
    main()
