"""A joint encoder as a scorer: each picture's regions are made once, and each pair is scored once."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from macco.pipeline.errors import UserError
from macco.train.clip.towers import ClipImage, TimmImage
from macco.train.evaluation.encoder import Preprocess, cropped, open_picture
from macco.train.evaluation.item import Picture
from macco.train.evaluation.judged import Floats
from macco.train.evaluation.scorer import OK
from macco.train.objectives.joint.encoder import JointEncoder, Pairs
from macco.train.objectives.joint.regions import pool_regions

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
