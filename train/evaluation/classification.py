"""Zero-shot classification and the linear probe, on a folder of class folders or a torchvision data set."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from macco.pipeline.errors import UserError
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.item import Item, Picture
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean
from macco.train.evaluation.manifest import (
    BenchmarkManifest,
    File,
    MissingDataError,
    Places,
    known_benchmarks,
    load_benchmark_manifest,
)
from macco.train.evaluation.results import ItemScores, table
from macco.train.evaluation.retrieval import best_scores, recalled
from macco.train.evaluation.run import Outcome, outcome
from macco.train.evaluation.scorer import OK

TOPS: Final = (1, 5)
TEMPLATES: Final = {
    "openai": open_clip.OPENAI_IMAGENET_TEMPLATES,
    "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES,
}
PENALTIES: Final = tuple(10.0**power for power in range(-6, 3))  # of the probe's L2 term
_SPLITS: Final = {"test": ("test", "val"), "train": ("train",)}  # what they are called: the first there is


def open_labelled(name: str, places: Places, split: str = "test") -> Any:
    """A data set of (PIL image, label) with `classes`: DATA/NAME/classify/split/class/image (a benchmark's
    own), a folder FOLDER/split/class/image (split: train, test or else val), FOLDER/class/image, all of it for
    the test, or of torchvision.

    Raises:
        MissingDataError: it is not there; nothing is downloaded.
        UserError: it has no such split, or no classes.
    """
    from torchvision import datasets

    for folder in (places.folder(name) / "classify", Path(name)):
        if folder.is_dir():
            return _open_folder(folder, split)
    if name in known_benchmarks():
        raise MissingDataError(
            f"{name}: no {places.folder(name) / 'classify'}; {load_benchmark_manifest(name).get}"
        )
    kind = {known.lower(): getattr(datasets, known) for known in datasets.__all__}.get(name.lower())
    if kind is None:
        raise MissingDataError(f"{name}: no such folder, and no data set of torchvision has that name")
    root = places.root
    parameters = inspect.signature(kind).parameters
    choices: list[dict[str, Any]] = [{"split": known} for known in _SPLITS[split] if "split" in parameters]
    for options in [{"train": split == "train"}] if "train" in parameters else choices:
        try:
            return kind(str(root / "torchvision"), **options)
        except (TypeError, ValueError):  # this one asks for more, or calls its splits otherwise
            continue
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise MissingDataError(
                f'{name}: not in {root / "torchvision"} ({reason}); get it with: python -c "from torchvision.datasets '
                f"import {kind.__name__}; {kind.__name__}('{root / 'torchvision'}', download=True)\""
            ) from error
    raise UserError(f"{name} of torchvision has no {split} split: give a folder of class folders")


def class_names(dataset: Any) -> list[str]:
    """Names to ask for: ImageNet's curated ones for its 1,000 folders, else the classes' own, the first of several."""
    classes = [
        str(name) if isinstance(name, str) else str(name[0]) for name in getattr(dataset, "classes", [])
    ]
    if not classes:
        raise UserError(f"{type(dataset).__name__} does not name its classes: give a folder of class folders")
    if len(classes) < 2:
        raise UserError(
            f"there is one class alone, {classes[0]!r}: give a folder of two class folders or more"
        )
    folders = getattr(dataset, "wnids", classes)
    if len(folders) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in folders):
        return list(open_clip.IMAGENET_CLASSNAMES)
    return [name.replace("_", " ") for name in classes]


def class_features(encoder: DualEncoder, names: Sequence[str], templates: str) -> Floats:
    """A classifier [C, D]: per class the mean of its prompts' features, normalised again."""
    prompts = [template(name) for name in names for template in TEMPLATES[templates]]
    features = encoder.text_features(prompts).reshape(len(names), len(TEMPLATES[templates]), -1).mean(axis=1)
    normalised: Floats = features / np.linalg.norm(features, axis=1, keepdims=True)
    return normalised


def run_classification(encoder: DualEncoder, name: str, places: Places, templates: str = "openai") -> Outcome:
    """Zero-shot top-1 and top-5; a tie with a wrong class is wrong. Images that cannot be read are counted."""
    dataset = open_labelled(name, places)
    names = class_names(dataset)
    encoded = _encode(encoder, name, dataset)
    scores = encoded.features @ class_features(encoder, names, templates).T
    return _outcome(
        f"classify:{name}", f"zero-shot, {len(names)} classes, {templates} prompts", scores, encoded, names
    )


def run_probe(encoder: DualEncoder, name: str, places: Places, seed: int = 0) -> Outcome:
    """Logistic regression on frozen features; its L2 penalty is chosen on a fifth of the training split."""
    training, test = open_labelled(name, places, "train"), open_labelled(name, places)
    names = class_names(test)
    if list(training.classes) != list(test.classes):
        raise UserError(f"{name}: training and test have different classes: a probe needs the same ones")
    learned = _encode(encoder, name, training)
    x, y = torch.from_numpy(learned.features), torch.from_numpy(learned.labels[learned.readable])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held, kept = order[: len(x) // 5], order[len(x) // 5 :]

    def accuracy(penalty: float) -> float:
        weights = fit(x[kept], y[kept], len(names), penalty)
        return float((predict(weights, x[held]).argmax(1) == y[held]).float().mean())

    penalty = max(PENALTIES, key=accuracy)
    encoded = _encode(encoder, name, test)
    weights = fit(x, y, len(names), penalty)
    scores = predict(weights, torch.from_numpy(encoded.features)).numpy()
    return _outcome(f"probe:{name}", f"linear probe, L2 {penalty:g}", scores, encoded, names)


def fit(x: Tensor, y: Tensor, classes: int, penalty: float) -> Tensor:
    """Multinomial logistic regression: features [N, D], labels [N] to weights [C, D + 1], the bias last.

    Minimises mean cross-entropy + penalty / 2 |weights|^2 (not of the bias) with L-BFGS.
    """
    weights = torch.zeros(classes, x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(predict(weights, x), y) + penalty / 2 * weights[:, :-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


def predict(weights: Tensor, x: Tensor) -> Tensor:
    """Logits [N, C]."""
    return x @ weights[:, :-1].T + weights[:, -1]


def classification_figures(judged: Judged) -> dict[str, Mean]:
    """Top-1 and, where there are more than five classes, top-5."""
    return {name: judged.mean(criterion=name) for name in judged.right if name != "tie"}


def _open_folder(folder: Path, split: str) -> Any:
    from torchvision.datasets import ImageFolder

    there = [known for known in ("train", "val", "test") if (folder / known).is_dir()]
    chosen = next((known for known in _SPLITS[split] if known in there), None)
    if chosen is None and (there or split == "train"):
        raise UserError(
            f"{folder} has no folder {' or '.join(_SPLITS[split])} of class folders: it needs one"
        )
    try:
        return ImageFolder(str(folder / (chosen or "")))
    except FileNotFoundError as error:
        raise UserError(f"{folder / (chosen or '')} is no folder of class folders: {error}") from error


class _Encoded(NamedTuple):
    """A data set's features [n, D] of the images that could be read, and of all N their labels and statuses."""

    features: Floats
    labels: NDArray[np.int64]
    statuses: list[str]

    @property
    def readable(self) -> Bools:
        return np.array([status == OK for status in self.statuses])


def _encode(encoder: DualEncoder, name: str, dataset: Any) -> _Encoded:
    samples = getattr(dataset, "samples", None)
    if samples is None:  # no files of its own: arrays, archives
        features, labels = encoder.encode_dataset(dataset)
        return _Encoded(features, np.array(labels), [OK] * len(labels))
    pictures = [Picture(path) for path, _ in samples]
    encoder.encode_pictures(pictures)
    statuses = [encoder.status(picture) for picture in pictures]
    readable = [picture for picture, status in zip(pictures, statuses, strict=True) if status == OK]
    if not readable:
        raise MissingDataError(f"{name}: none of its {len(pictures)} images can be read")
    return _Encoded(encoder.image_features(readable), np.array([label for _, label in samples]), statuses)


def _outcome(name: str, title: str, scores: Floats, encoded: _Encoded, names: Sequence[str]) -> Outcome:
    rows = []
    tops = [k for k in TOPS if k < len(names)]
    read = iter(scores)
    for number, (label, status) in enumerate(zip(encoded.labels, encoded.statuses, strict=True)):
        item = Item("test", str(number), (Picture(str(number)),), (), names[label])
        if status != OK:
            rows.append(ItemScores(item, status, np.empty(0, np.float32), None, {}))
            continue
        row = next(read)
        best = best_scores(row, np.arange(len(row)) == label)
        right = {f"top-{k}": recalled(best, k) for k in tops} | {"tie": bool((best[1:] == best[0]).any())}
        rows.append(ItemScores(item, OK, best, None, right))
    manifest = BenchmarkManifest(
        name=name, title=title, licence="of the data set", homepage="-", citation="-", get="-",
        files={"test": File(path="-", items=len(rows))},
    )  # fmt: skip
    return outcome(manifest, table(name, rows), classification_figures, [])
