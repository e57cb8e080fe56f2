"""What the concepts of a caption are worth in a model's cosine, in thousandths: the cosine of image and caption less
that of the image and the caption whose attribute and relation words are covered by the run's mask token.

    python scripts/probe_worth.py RUN [--batches 20]

How much a replaced or exchanged word is worth, the benchmark `demo` says of each run (its signals).
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from macco.train.clip.load import load_start
from macco.train.clip.towers import encode_both
from macco.train.data.loader import open_loader
from macco.train.objectives.objective import load_objective
from macco.train.runs import checkpoint
from macco.train.runs.weights import saved_config


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument(
        "--start", action="store_true", help="the model before the first step, with the run's mask token"
    )
    a = parser.parse_args()
    config = saved_config(a.run)
    start, objective = load_start(config.model, config.seed), load_objective(config)
    model = objective.model(start.model).eval()
    state = checkpoint.load(a.run, checkpoint.LATEST)["model"]
    model.load_state_dict(
        {n: v for n, v in state.items() if not (a.start and n.startswith("clip."))}, strict=not a.start
    )
    data = replace(config.data, batch_size=64, workers=0)
    recipe = replace(objective.recipe(model, start.tokenizer, data, torch.device("cpu"), print), negatives=0)
    worth = []
    batches = iter(open_loader(data, recipe, seed=777))
    for _ in range(a.batches):
        batch = next(batches)
        text, covered = encode_both(model.text, batch.tokens, batch.text_mask, model.text_mask_token)
        image = model.image.encode(model.image.embed(model.pixels(batch.images)), None)
        assert covered is not None
        seen = batch.text_mask.any(1)
        full, less = (F.cosine_similarity(side.cls, image.cls)[seen] for side in (text, covered))
        worth.append(full - less)
    found = 1000 * torch.cat(worth)
    print(f"covered words: {found.mean():.1f} thousandths of a cosine, over {len(found)} captions")


if __name__ == "__main__":
    main()
