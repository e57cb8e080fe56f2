"""A model by its name, folder or run, as the scorer that benchmarks ask."""

from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.train.clip.load import load_clip
from macco.train.clip.towers import image_tower, pixel_statistics
from macco.train.data.crops import whole
from macco.train.data.loader import RegionPlan
from macco.train.data.masks import Crop
from macco.train.data.tokens import Tokenize
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.item import Picture
from macco.train.objectives.joint.batches import cells, regions_of
from macco.train.objectives.joint.model import read_tokens
from macco.train.objectives.joint.product import Joint, find_joint, read_joint, trained_joint
from macco.train.objectives.joint.scorer import JointScorer
from macco.train.results.product import saved_config, trained_clip

Scoring = tuple[DualEncoder | JointScorer, Any]  # a scorer, and the open_clip model in it


def open_scorer(
    model: str,
    pretrained: str | None = None,
    activation: str | None = None,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    store: str | None = None,
) -> Scoring:
    """Open what `load_clip` opens, or the joint encoder of a run or an exported folder.

    store: of the benchmarks' images, for a joint encoder that reads boxes; None: the one it was trained to take.

    Raises:
        UserError: there is no such model, or a joint encoder's boxes have no store.
    """
    path = Path(model)
    folder = find_joint(path)
    joint = folder is not None or (
        (path / "config.yaml").is_file() and saved_config(path).objective != "macco"
    )
    if joint and (pretrained or activation):
        raise UserError(
            f"{model} is a joint encoder with its own weights: leave --pretrained and --activation out"
        )
    if folder is not None:
        return joint_scorer(read_joint(folder), device=device, batch_size=batch_size, store=store)
    if joint:
        return run_scorer(path, device=device, batch_size=batch_size, store=store)
    if store is not None:
        raise UserError(f"--store is for joint encoders: {model} is none")
    loaded = load_clip(model, pretrained, activation)
    return DualEncoder(*loaded, device=device, batch_size=batch_size, workers=workers), loaded.model


def run_scorer(
    run: Path, *, device: str = "cpu", batch_size: int = 64, workers: int = 0, store: str | None = None
) -> Scoring:
    """The latest weights of a run, whatever its objective, straight from its checkpoint."""
    if saved_config(run).objective != "macco":
        return joint_scorer(trained_joint(run), device=device, batch_size=batch_size, store=store)
    loaded = trained_clip(run)
    return DualEncoder(*loaded, device=device, batch_size=batch_size, workers=workers), loaded.model


def joint_scorer(
    joint: Joint, *, device: str = "cpu", batch_size: int = 64, store: str | None = None
) -> Scoring:
    """A joint encoder as a scorer: pictures are seen whole, as in training on a frozen tower's features."""
    clip, encoder, config = joint
    tower = image_tower(clip.model.visual)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in pixel_statistics(clip.model.visual))
    side = tower.grid[0] * tower.patch[0]
    plan = RegionPlan(config.regions, config.count, config.box_score, tower.grid)
    grid = cells(tower.grid)
    boxes = None
    if plan.kind == "boxes":
        given = store or config.eval_store
        if not given:
            raise UserError(
                "this joint encoder reads boxes: extract a store of the benchmark's images and give it with --store"
            )
        boxes = StoredBoxes(Store.open(given), plan)
    read = Tokenize(clip.tokenizer)

    def preprocess(image: Image.Image) -> Tensor:
        return (torch.from_numpy(whole(image, side)).float() / 255 - mean) / std

    def tokenize(captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        ids = [torch.from_numpy(read(caption).ids) for caption in captions]
        tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        return tokens, *read_tokens(tokens)

    def ground(picture: Picture, image: Image.Image) -> Tensor:
        return grid if boxes is None else boxes(picture)

    scorer = JointScorer(encoder, tower, preprocess, tokenize, ground, device=device, batch_size=batch_size)
    return scorer, clip.model


class StoredBoxes:
    """Regions of benchmark pictures, from a store of the same files, which are known by name."""

    def __init__(self, store: Store, plan: RegionPlan) -> None:
        self.url, self.plan = store.url, plan
        with connect(store) as connection:
            images = connection.execute(
                "SELECT dataset, shard, key, any_value(coalesce(member, source)), any_value(width), "
                "any_value(height) FROM samples WHERE status = 'ok' GROUP BY ALL ORDER BY ALL"
            ).fetchall()
            rows = connection.execute(
                "SELECT dataset, shard, key, x0, y0, x1, y1, max(score) AS score FROM boxes "
                "WHERE score >= ? GROUP BY ALL ORDER BY score DESC, x0, y0, x1, y1",
                [plan.box_score],
            ).fetchall()
        self._boxes: dict[tuple[str, str, str], list[Any]] = {}
        for dataset, shard, key, *box in rows:
            self._boxes.setdefault((dataset, shard, key), []).append(box)
        self._named: dict[str, list[tuple[Any, ...]]] = {}
        for image in images:
            self._named.setdefault(PurePath(image[3]).name, []).append(image)

    def __call__(self, picture: Picture) -> Tensor:
        """Regions [V, 4] of a picture, in 0..1 of its crop."""
        found = self._named.get(PurePath(picture.source).name, []) if picture.member is None else []
        if len(found) != 1:
            many = f"{len(found)} images are called" if found else "no image is called"
            raise UserError(
                f"in {self.url} {many} {picture}: extract each image of the benchmark once, under its own name"
            )
        dataset, shard, key, _, width, height = found[0]
        boxes: NDArray[np.float32] = np.array(self._boxes.get((dataset, shard, key), []), np.float32)
        x, y, across, down = picture.crop or (0, 0, width, height)
        return regions_of(self.plan, boxes.reshape(-1, 5), Crop(y, x, down, across, width, height))
