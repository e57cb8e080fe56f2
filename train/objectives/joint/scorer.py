"""A joint encoder as a scorer: each picture's regions are made once, and each pair is scored once."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.pipeline.tokens import Tokenize as CaptionTokens
from macco.train.clip.towers import ClipImage, TimmImage, image_tower, pixel_statistics
from macco.train.data.crops import whole
from macco.train.data.masks import Crop
from macco.train.evaluation.encoder import Preprocess, cropped, open_picture
from macco.train.evaluation.item import Picture
from macco.train.evaluation.judged import Floats
from macco.train.evaluation.scorer import OK
from macco.train.objectives.joint.encoder import JointEncoder, Pairs
from macco.train.objectives.joint.model import read_tokens
from macco.train.objectives.joint.product import Joint
from macco.train.objectives.joint.regions import RegionPlan, cells, pool_regions, regions_of
from macco.train.objectives.objective import Opened, Scoring

# Captions to tokens [n, L], which are no padding [n, L], and which are neither padding nor special [n, L].
Tokenize = Callable[[list[str]], tuple[Tensor, Tensor, Tensor]]
# A picture, read, to its regions' boxes [V, 4]: x0, y0, x1, y1 in 0..1 of what the preprocessing keeps of it.
Ground = Callable[[Picture, Image.Image], Tensor]


class JointScorer:
    """Scores are matching logits. Regions are kept per picture, as features and boxes, not as patches."""

    def __init__(
        self,
        model: JointEncoder,
        tower: ClipImage | TimmImage,
        preprocess: Preprocess,
        tokenize: Tokenize,
        ground: Ground,
        *,
        device: str = "cpu",
        batch_size: int = 64,
    ) -> None:
        self.model = model.to(device).float().eval()
        self.tower = tower
        tower.module.to(device).float().eval()
        self.preprocess = preprocess
        self.tokenize = tokenize
        self.ground = ground
        self.device = device
        self.batch_size = batch_size
        self._regions: dict[Picture, tuple[Tensor, Tensor] | str] = {}
        self._scores: dict[tuple[Picture, str], float] = {}

    def pairs(self, pictures: Sequence[Picture], captions: Sequence[str]) -> Floats:
        """Matching logits [n] of picture i with caption i; nan where the picture could not be read."""
        self._see(pictures)
        asked = list(zip(pictures, captions, strict=True))
        new = [
            pair for pair in dict.fromkeys(asked) if pair not in self._scores and self.status(pair[0]) == OK
        ]
        for start in range(0, len(new), self.batch_size):
            batch = new[start : start + self.batch_size]
            self._scores.update(zip(batch, self._score(batch), strict=True))
        return np.array([self._scores.get(pair, np.nan) for pair in asked], dtype=np.float32)

    def text_pairs(self, left: Sequence[str], right: Sequence[str]) -> None:
        """A joint encoder compares no captions with each other."""

    def status(self, picture: Picture) -> str:
        """ "ok", or why a picture that was asked for could not be read."""
        regions = self._regions[picture]
        return regions if isinstance(regions, str) else OK

    def _see(self, pictures: Iterable[Picture]) -> None:
        new = [picture for picture in dict.fromkeys(pictures) if picture not in self._regions]
        for start in range(0, len(new), self.batch_size):
            read: list[tuple[Picture, Tensor, Tensor]] = []
            for picture in new[start : start + self.batch_size]:
                image = open_picture(picture.source, picture.member)
                if isinstance(image, str):
                    self._regions[picture] = image
                else:
                    image = cropped(image, picture)
                    read.append((picture, self.preprocess(image), self.ground(picture, image)))
            if read:
                self._pool(read)

    @torch.inference_mode()
    def _pool(self, read: list[tuple[Picture, Tensor, Tensor]]) -> None:
        pixels = torch.stack([image for _, image, _ in read]).to(self.device)
        boxes = pad_sequence([each for _, _, each in read], batch_first=True).float().to(self.device)
        patches = self.tower.encode(self.tower.embed(pixels), None).tokens[:, self.tower.prefix :]
        features = pool_regions(patches, boxes, self.tower.grid)
        for (picture, _, own), f, b in zip(read, features, boxes, strict=True):
            # Clones: a view would keep the whole batch.
            self._regions[picture] = f[: len(own)].clone(), b[: len(own)].clone()

    @torch.inference_mode()
    def _score(self, batch: list[tuple[Picture, str]]) -> list[float]:
        known = [found for picture, _ in batch if not isinstance(found := self._regions[picture], str)]
        features, boxes = (pad_sequence(list(each), batch_first=True) for each in zip(*known, strict=True))
        count = torch.tensor([len(each) for each, _ in known], device=self.device)
        tokens, present, words = (t.to(self.device) for t in self.tokenize([caption for _, caption in batch]))
        regions = torch.arange(features.shape[1], device=self.device) < count[:, None]
        scores = self.model(Pairs(tokens, present, words, features, boxes, regions))
        if not scores.isfinite().all():
            raise UserError("the model gives scores that are not finite: is the checkpoint damaged?")
        logits: list[float] = scores.tolist()
        return logits


def joint_scorer(joint: Joint, scoring: Scoring) -> Opened:
    """A joint encoder as a scorer: pictures are seen whole, as in training on a frozen tower's features."""
    clip, encoder, config = joint
    tower = image_tower(clip.model.visual)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in pixel_statistics(clip.model.visual))
    side = tower.grid[0] * tower.patch[0]
    plan = RegionPlan(config.regions, config.count, config.box_score, tower.grid)
    grid = cells(tower.grid)
    boxes = None
    if plan.kind == "boxes":
        given = scoring.store or config.eval_store
        if not given:
            raise UserError(
                "this joint encoder reads boxes: extract a store of the benchmark's images and give it with --store"
            )
        boxes = StoredBoxes(Store.open(given).choose_boxes(config.eval_detector), plan)
    read = CaptionTokens(clip.tokenizer)

    def preprocess(image: Image.Image) -> Tensor:
        return (torch.from_numpy(whole(image, side)).float() / 255 - mean) / std

    def tokenize(captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        ids = [torch.from_numpy(read(caption).ids) for caption in captions]
        tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        return tokens, *read_tokens(tokens)

    def ground(picture: Picture, image: Image.Image) -> Tensor:
        return grid if boxes is None else boxes(picture)

    scorer = JointScorer(
        encoder, tower, preprocess, tokenize, ground, device=scoring.device, batch_size=scoring.batch_size
    )
    return Opened(scorer, clip.model)


class StoredBoxes:
    """Regions of benchmark pictures, from a store of the same files, which are known by name."""

    def __init__(self, store: Store, plan: RegionPlan) -> None:
        self.url, self.plan = store.url, plan
        with connect(store, views=("samples", "boxes")) as connection:
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
