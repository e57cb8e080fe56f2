"""A dual encoder as a scorer: each picture and each caption is encoded once, whichever benchmarks ask for it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from macco.pipeline.errors import UserError
from macco.pipeline.memory import keep_freed
from macco.pipeline.pictures import ANY_PIXELS, ImageError, decode, read_image_bytes
from macco.train.clip.towers import Text
from macco.train.evaluation.item import Picture
from macco.train.evaluation.judged import Floats
from macco.train.evaluation.scorer import CORRUPT, MISSING, OK

_ROWS: Final = 16_384  # pairs whose features are gathered at once

Preprocess = Callable[[Image.Image], Tensor]


def open_picture(source: str, member: str | None) -> Image.Image | str:
    """A picture in RGB, or the status that says why not.

    Official loaders ignore EXIF rotation and drop transparency, so scores need both ignored.
    """
    try:
        data = read_image_bytes(source, member, None, None)
        if source.endswith(".npy"):
            return _frame(data)
        return decode(data, max_pixels=ANY_PIXELS, min_side=1, plain=True).image
    except (FileNotFoundError, KeyError):
        return MISSING
    except (OSError, ImageError, ValueError):
        return CORRUPT


def _frame(data: bytes) -> Image.Image:
    """A video frame [H, W, 3] as OpenCV gives it, blue first: EqBen keeps YouCook2's in NumPy's format."""
    array = np.load(BytesIO(data), allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"an array of {array.dtype} {array.shape} is no frame")
    return Image.fromarray(array[..., ::-1].copy())


class _Files(Dataset[tuple[list[Picture], list[Tensor] | str]]):
    """Image files with all crops wanted of each, so that a file is decoded once."""

    def __init__(self, pictures: Iterable[Picture], preprocess: Preprocess) -> None:
        files: dict[tuple[str, str], list[Picture]] = {}
        for picture in pictures:
            files.setdefault((picture.source, picture.member or ""), []).append(picture)
        self.files = list(files.values())
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[list[Picture], list[Tensor] | str]:
        pictures = self.files[index]
        image = open_picture(pictures[0].source, pictures[0].member)
        if isinstance(image, str):
            return pictures, image
        return pictures, [self.preprocess(cropped(image, picture)) for picture in pictures]


def _stack(
    files: list[tuple[list[Picture], list[Tensor] | str]],
) -> tuple[list[Picture], Tensor, dict[Picture, str]]:
    """Pictures read, with their pixels [n, 3, S, S], and those not read, with why.

    One tensor, because each that comes from a worker process takes a file descriptor.
    """
    read = [p for pictures, images in files if not isinstance(images, str) for p in pictures]
    pixels = [x for _, images in files if not isinstance(images, str) for x in images]
    unread = {p: status for pictures, status in files if isinstance(status, str) for p in pictures}
    return read, torch.stack(pixels) if pixels else torch.empty(0), unread


def cropped(image: Image.Image, picture: Picture) -> Image.Image:
    """The part of its file that a picture is."""
    if picture.crop is None:
        return image
    x, y, width, height = picture.crop
    return image.crop((x, y, x + width, y + height))


class DualEncoder:
    """An open_clip model. Features are L2-normalised float32; similarity is their dot product."""

    def __init__(
        self,
        model: Any,
        preprocess: Preprocess,
        tokenizer: Callable[[list[str]], Tensor],
        *,
        device: str = "cpu",
        batch_size: int = 64,
        workers: int = 0,
    ) -> None:
        self.model = model.to(device).float().eval()
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.device = device
        self.batch_size = batch_size
        self.workers = workers
        self._text = _causal_text(model)
        self._pictures: dict[Picture, Floats | str] = {}
        self._captions: dict[str, Floats] = {}

    def pairs(self, pictures: Sequence[Picture], captions: Sequence[str]) -> Floats:
        """Cosines [n]; nan where the picture could not be read."""
        self.encode_pictures(pictures)
        self.encode_captions(captions)
        scores = np.full(len(pictures), np.nan, dtype=np.float32)
        for start in range(0, len(pictures), _ROWS):
            rows, left, right = [], [], []
            for row in range(start, min(start + _ROWS, len(pictures))):
                features = self._pictures[pictures[row]]
                if not isinstance(features, str):
                    rows.append(row)
                    left.append(features)
                    right.append(self._captions[captions[row]])
            if rows:
                scores[rows] = np.einsum("nd,nd->n", np.stack(left), np.stack(right))
        return scores

    def text_pairs(self, left: Sequence[str], right: Sequence[str]) -> Floats:
        """Cosines [n] of captions."""
        a, b = self.text_features(left), self.text_features(right)
        cosines: Floats = np.einsum("nd,nd->n", a, b)
        return cosines

    def status(self, picture: Picture) -> str:
        features = self._pictures[picture]
        return features if isinstance(features, str) else OK

    def image_features(self, pictures: Sequence[Picture]) -> Floats:
        """Features [n, D] of pictures that could all be read (see `status`)."""
        self.encode_pictures(pictures)
        return np.stack([self._readable(picture) for picture in pictures])

    def text_features(self, captions: Sequence[str]) -> Floats:
        """Features [n, D]."""
        self.encode_captions(captions)
        return np.stack([self._captions[caption] for caption in captions])

    def encode_pictures(self, pictures: Iterable[Picture]) -> None:
        """Encode what is not yet known. A picture that cannot be read keeps a status instead of features."""
        keep_freed()  # and with it the workers that are forked
        wanted = [picture for picture in dict.fromkeys(pictures) if picture not in self._pictures]
        loader = DataLoader(
            _Files(wanted, self.preprocess),
            batch_size=self.batch_size,
            num_workers=self.workers if len(wanted) > self.batch_size else 0,
            collate_fn=_stack,
        )
        for read, pixels, unread in loader:
            self._pictures.update(unread)
            self._pictures.update(zip(read, self._encode_images(pixels), strict=True))

    def encode_captions(self, captions: Iterable[str]) -> None:
        """Encode what is not yet known, captions of like length together."""
        wanted = sorted((c for c in set(captions) if c not in self._captions), key=lambda c: (len(c), c))
        for start in range(0, len(wanted), self.batch_size):
            batch = wanted[start : start + self.batch_size]
            with torch.inference_mode():
                features = self._encode_texts(self.tokenizer(batch).to(self.device))
            self._captions.update(zip(batch, _checked(features), strict=True))

    def _encode_texts(self, tokens: Tensor) -> Tensor:
        """Normalised features of token ids [n, context]; padding that no token sees is left out."""
        if self._text is None:
            features: Tensor = self.model.encode_text(tokens, normalize=True)
            return features
        ends = self._text.ends(tokens)
        tokens = tokens[:, : int(ends.max()) + 1]
        return F.normalize(self._text.encode(self._text.embed(tokens), ends).cls, dim=-1)

    def encode_dataset(self, dataset: Any) -> tuple[Floats, list[int]]:
        """Features [n, D] and labels of a data set of (PIL image, label), which is not kept."""
        loader = DataLoader(
            _Preprocessed(dataset, self.preprocess), batch_size=self.batch_size, num_workers=self.workers
        )
        features: list[Floats] = []
        labels: list[int] = []
        for pixels, numbers in loader:
            features += self._encode_images(pixels)
            labels += numbers.tolist()
        return np.stack(features), labels

    def _encode_images(self, pixels: Tensor) -> Iterator[Floats]:
        for start in range(0, len(pixels), self.batch_size):
            batch = pixels[start : start + self.batch_size].to(self.device)
            with torch.inference_mode():
                yield from _checked(self.model.encode_image(batch, normalize=True))

    def _readable(self, picture: Picture) -> Floats:
        features = self._pictures[picture]
        if isinstance(features, str):
            raise ValueError(f"{picture} could not be read: {features}")
        return features


def _causal_text(model: Any) -> Text | None:
    """The text tower where each token sees only those before it."""
    try:
        text = Text(model)
    except (UserError, AttributeError):
        return None  # one of another library
    return None if text.fixed_length else text


class _Preprocessed(Dataset[tuple[Tensor, int]]):
    def __init__(self, dataset: Any, preprocess: Preprocess) -> None:
        self.dataset = dataset
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.dataset[index]
        return self.preprocess(image.convert("RGB")), int(label)


def _checked(features: Tensor) -> Floats:
    array: Floats = features.float().cpu().numpy()
    if not np.isfinite(array).all():
        raise UserError("the model gives features that are not finite: is the checkpoint damaged?")
    return array
