"""Retrieval on a Karpathy split: captions of an image, the image of a caption; R@1, 5, 10."""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from macco.pipeline.errors import UserError
from macco.train.evaluation.benchmarks.base import read_json
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.item import Item, Picture, text_or_none
from macco.train.evaluation.judged import Floats, Judged, Mean
from macco.train.evaluation.manifest import Places, load_benchmark_manifest
from macco.train.evaluation.results import ItemScores, table
from macco.train.evaluation.run import Outcome, absent_images, outcome, require_images
from macco.train.evaluation.scorer import OK, UNCAPTIONED

CAPTIONS: Final = 5  # of an image; a few COCO images have more, which the usual figures leave out
KS: Final = (1, 5, 10)
TEXT, IMAGE = "text", "image"  # what is retrieved
COLLECTIONS: Final = {
    "coco_retrieval": "coco2014",
    "flickr30k_retrieval": "flickr30k",
    "demo_retrieval": "demo_images",
}


class Entry(NamedTuple):
    """An image with its captions."""

    picture: Picture
    captions: list[str | None]  # None: the file has no text there

    @property
    def texts(self) -> list[str]:
        return [caption for caption in self.captions if caption is not None]


def run_retrieval(encoder: DualEncoder, name: str, places: Places) -> Outcome:
    """Both directions on the split that the manifest `name` describes. A tie with a wrong one is wrong.

    Images that cannot be read are neither queries nor candidates, and their captions neither.

    Raises:
        MissingDataError: the split's file is not there.
    """
    manifest = load_benchmark_manifest(name)
    entries = _read(places.file(manifest, TEXT), places.images(COLLECTIONS[name]))
    require_images(manifest, places, [entry.picture for entry in entries])
    encoder.encode_pictures(entry.picture for entry in entries)
    readable = [entry for entry in entries if encoder.status(entry.picture) == OK and entry.texts]
    best = iter(_best_of_all(encoder, readable))
    images, captions = [], []
    for number, entry in enumerate(entries):
        status = encoder.status(entry.picture) if entry.texts else UNCAPTIONED
        item = Item(TEXT, str(number), (entry.picture,), ())
        images.append(_row(item, status, next(best) if status == OK else None))
    for number, entry in enumerate(entries):
        for place, caption in enumerate(entry.captions):
            status = encoder.status(entry.picture) if caption is not None else UNCAPTIONED
            item = Item(IMAGE, f"{number}/{place}", (entry.picture,), (caption,))
            captions.append(_row(item, status, next(best) if status == OK else None))
    rows = table(name, images + captions)
    return outcome(
        manifest,
        rows,
        retrieval_figures,
        absent_images(manifest, places, encoder, [entry.picture for entry in entries]),
    )


def retrieval_pictures(name: str, places: Places) -> list[Picture]:
    """The pictures of a split; raises MissingDataError where its file is not there."""
    manifest = load_benchmark_manifest(name)
    entries = _read(places.file(manifest, TEXT), places.images(COLLECTIONS[name]))
    return [entry.picture for entry in entries]


def retrieval_figures(judged: Judged) -> dict[str, Mean]:
    """R@k of text (image queries) and of images (caption queries)."""
    return {
        f"{subset} R@{k}": judged.mean(subset, criterion=f"r@{k}") for subset in (TEXT, IMAGE) for k in KS
    }


def _read(path: Path, images: Path) -> list[Entry]:
    try:
        rows = [(row["image"], [*map(text_or_none, row["caption"][:CAPTIONS])]) for row in read_json(path)]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no Karpathy split: a list of {{image, caption: [...]}}") from error
    if empty := [image for image, captions in rows if not captions]:
        raise UserError(f"{path}: {empty[0]} has no caption")
    return [Entry(Picture(str(images / image)), captions) for image, captions in rows]


def _best_of_all(encoder: DualEncoder, entries: list[Entry]) -> list[Floats]:
    """Best scores of each image query, then of each caption query."""
    if not entries:
        return []
    images = encoder.image_features([entry.picture for entry in entries])
    texts = encoder.text_features([caption for entry in entries for caption in entry.texts])
    owners = np.repeat(np.arange(len(entries)), [len(entry.texts) for entry in entries])
    own = np.arange(len(entries))
    return [
        *(best_scores(texts @ image, owners == i) for i, image in enumerate(images)),
        *(best_scores(images @ text, own == i) for i, text in zip(owners, texts, strict=True)),
    ]


def best_scores(scores: Floats, right: np.ndarray) -> Floats:
    """The best right score, then the 10 best wrong ones, descending."""
    wrong = np.sort(scores[~right])[::-1]
    return np.concatenate([[scores[right].max()], wrong[: max(KS)]]).astype(np.float32)


def recalled(best: Floats, k: int) -> bool:
    """Whether the right one is among the first k: fewer than k wrong ones reach it."""
    return bool((best[1 : k + 1] >= best[0]).sum() < k)


def _row(item: Item, status: str, best: Floats | None) -> ItemScores:
    if best is None:
        return ItemScores(item, status, np.empty(0, np.float32), None, {})
    right = {f"r@{k}": recalled(best, k) for k in KS} | {"tie": bool((best[1:] == best[0]).any())}
    return ItemScores(item, status, best, None, right)
