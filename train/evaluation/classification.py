"""Zero-shot classification and the linear probe, on a folder of class folders or a torchvision data set."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import UserError
from train.evaluation.encoder import DualEncoder
from train.evaluation.item import Item, Picture
from train.evaluation.judged import Floats, Judged, Mean
from train.evaluation.manifest import BenchmarkManifest, File, MissingDataError
from train.evaluation.results import ItemScores, table
from train.evaluation.retrieval import best_scores, recalled
from train.evaluation.run import Outcome, outcome
from train.evaluation.scorer import OK

TOPS: Final = (1, 5)
TEMPLATES: Final = {
    "openai": open_clip.OPENAI_IMAGENET_TEMPLATES,
    "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES,
}
PENALTIES: Final = tuple(10.0**power for power in range(-6, 3))  # of the probe's L2 term
_SPLITS: Final = {
    "test": ({"train": False}, {"split": "test"}, {"split": "val"}),
    "train": ({"train": True}, {"split": "train"}),
}


def open_labelled(name: str, root: Path, split: str = "test") -> Any:
    """A data set of (PIL image, label) with `classes`: ROOT/NAME/classify/split/class/image (a benchmark's
    own), a folder FOLDER/[split/]class/image, or of torchvision.

    Raises:
        MissingDataError: it is not there; nothing is downloaded.
    """
    from torchvision import datasets

    for folder in (root / name / "classify" / split, Path(name) / split, Path(name)):
        if folder.is_dir():
            return datasets.ImageFolder(str(folder))
    kind = {known.lower(): getattr(datasets, known) for known in datasets.__all__}.get(name.lower())
    if kind is None:
        raise MissingDataError(f"{name}: no such folder, and no data set of torchvision has that name")
    for options in _SPLITS[split]:
        try:
            return kind(str(root / "torchvision"), **options)
        except TypeError:  # this one names its splits otherwise
            continue
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise MissingDataError(
                f'{name}: not in {root / "torchvision"} ({reason}); get it with: python -c "from torchvision.datasets '
                f"import {kind.__name__}; {kind.__name__}('{root / 'torchvision'}', download=True)\""
            ) from error
    raise UserError(f"{name} of torchvision has no {split} split: give a folder of class folders")


def class_names(dataset: Any) -> list[str]:
    """Names to ask for: ImageNet's curated ones for its 1,000 folders, else the classes' own."""
    classes = [str(name) for name in getattr(dataset, "classes", [])]
    if not classes:
        raise UserError(f"{type(dataset).__name__} does not name its classes: give a folder of class folders")
    if len(classes) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in classes):
        return list(open_clip.IMAGENET_CLASSNAMES)
    return [name.replace("_", " ") for name in classes]


def class_features(encoder: DualEncoder, names: Sequence[str], templates: str) -> Floats:
    """A classifier [C, D]: per class the mean of its prompts' features, normalised again."""
    prompts = [template(name) for name in names for template in TEMPLATES[templates]]
    features = encoder.text_features(prompts).reshape(len(names), len(TEMPLATES[templates]), -1).mean(axis=1)
    normalised: Floats = features / np.linalg.norm(features, axis=1, keepdims=True)
    return normalised


def run_classification(encoder: DualEncoder, name: str, root: Path, templates: str = "openai") -> Outcome:
    """Zero-shot top-1 and top-5; a tie with a wrong class is wrong."""
    dataset = open_labelled(name, root)
    names = class_names(dataset)
    features, labels = encoder.encode_dataset(dataset)
    scores = features @ class_features(encoder, names, templates).T
    return _outcome(
        f"classify:{name}", f"zero-shot, {len(names)} classes, {templates} prompts", scores, labels, names
    )


def run_probe(encoder: DualEncoder, name: str, root: Path, seed: int = 0) -> Outcome:
    """Logistic regression on frozen features; its L2 penalty is chosen on a fifth of the training split."""
    training, test = open_labelled(name, root, "train"), open_labelled(name, root)
    names = class_names(test)
    x, y = _tensors(*encoder.encode_dataset(training))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held, kept = order[: len(x) // 5], order[len(x) // 5 :]

    def accuracy(penalty: float) -> float:
        weights = fit(x[kept], y[kept], len(names), penalty)
        return float((predict(weights, x[held]).argmax(1) == y[held]).float().mean())

    penalty = max(PENALTIES, key=accuracy)
    features, labels = encoder.encode_dataset(test)
    weights = fit(x, y, len(names), penalty)
    scores = predict(weights, torch.from_numpy(features)).numpy()
    return _outcome(f"probe:{name}", f"linear probe, L2 {penalty:g}", scores, labels, names)


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


def _tensors(features: Floats, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(features), torch.tensor(labels)


def _outcome(name: str, title: str, scores: Floats, labels: Iterable[int], names: Sequence[str]) -> Outcome:
    rows = []
    tops = [k for k in TOPS if k < len(names)]
    for number, (row, label) in enumerate(zip(scores, labels, strict=True)):
        best = best_scores(row, np.arange(len(row)) == label)
        right = {f"top-{k}": recalled(best, k) for k in tops} | {"tie": bool((best[1:] == best[0]).any())}
        item = Item("test", str(number), (Picture(str(number)),), (), names[label])
        rows.append(ItemScores(item, OK, best, None, right))
    manifest = BenchmarkManifest(
        name=name, title=title, licence="of the data set", homepage="-", citation="-", get="-",
        files={"test": File(path="-", items=len(rows))},
    )  # fmt: skip
    return outcome(manifest, table(name, rows), classification_figures, [])
