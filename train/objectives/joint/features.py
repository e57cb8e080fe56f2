"""Region features of a frozen tower, made once and kept in the store: STORE/regions/<key>/<shard>.safetensors.

The key stands for all that shapes them: the tower's weights and sizes, and which regions are taken. A shard's file is
whole or not there, so that making them goes on where a kill ended it; one that was made before its shard was
extracted anew is made again.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.schema import OK
from macco.pipeline.store import Store
from macco.train.data.crops import BrokenImageError, decode, read, whole
from macco.train.distributed import ranks
from macco.train.objectives.joint.feature_files import read_header
from macco.train.objectives.joint.regions import NEAR, RegionPlan, pool_regions, regions_of
from macco.train.objectives.model import Model

FOLDER: Final = "regions"
FORMAT: Final = 1  # of the files: another one, another key
IMAGES: Final = 64  # encoded at once

Located = tuple[str, str, str | None, int | None, int | None]  # image id, source, member, offset, size
Image = tuple[Located, NDArray[np.float32]]  # with its boxes [K, 5]: corners and score
Regions = Callable[[NDArray[np.float32]], Tensor]  # boxes [K, 5] of an image to its regions [V, 4]


def prepared(
    store: Store, model: Model, plan: RegionPlan, device: torch.device, log: Callable[[str], None]
) -> str:
    """The folder with a plan's features of every committed shard; what is not there is made first."""
    settings: dict[str, Any] = {"kind": plan.kind}
    if plan.kind == "boxes":
        settings |= {"count": plan.count, "box_score": plan.box_score, "near": NEAR}
    return make_features(store, model, settings, partial(regions_of, plan), device, log)


def features_key(model: Model, settings: dict[str, Any]) -> str:
    """A name for the tower as it computes, and for the regions that are taken."""
    digest = hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode())
    visual = model.image.module
    digest.update(repr(visual).encode())  # activations and sizes, of which weights tell nothing
    for name, value in [*visual.state_dict().items(), *model.named_buffers(recurse=False)]:
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def make_features(
    store: Store,
    model: Model,
    settings: dict[str, Any],
    regions: Regions,
    device: torch.device,
    log: Callable[[str], None],
) -> str:
    """Make what is not yet there, each rank its part of the shards, and return the folder, a path or URL.

    model: whose image tower sees each image whole. settings: what shapes `regions`, by name.

    Raises:
        UserError: the store cannot be written to.
    """
    folder = Folder(f"{store.url}/{FOLDER}/{features_key(model, settings)}")
    try:
        folder.make()
        if ranks.rank() == 0:
            folder.put("about.json", json.dumps(settings, indent=1).encode())
        missing = [s for s in sorted(store.committed()) if not _is_made(folder, s, _stamp(store, s))]
        mine = missing[ranks.rank() :: ranks.world()]
        for number, shard in enumerate(mine, 1):
            count, broken = _make(store, shard, folder, model, regions, device)
            log(
                f"region features of shard {shard} ({number} of {len(mine)}): {count} images, {broken} broken"
            )
    except OSError as error:
        raise UserError(f"cannot write region features to {folder.url}: {error}") from error
    ranks.mean(torch.zeros(1, device=device))  # wait for the others
    return folder.url


def _stamp(store: Store, shard: str) -> str:
    """What a shard's rows are, wherever they lie."""
    record = {name: value for name, value in store.shard(shard).items() if name not in ("file", "bytes")}
    if store.boxes_of is not None:
        record["boxes of"] = store.boxes_of, store.groundings()[store.boxes_of]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _is_made(folder: Folder, shard: str, stamp: str) -> bool:
    name = f"{shard}.safetensors"
    if not folder.exists(name):
        return False
    with folder.fs.open(folder.path(name), "rb") as file:
        return read_header(file)["stamp"] == stamp


def _images(store: Store, shard: str) -> Iterator[Image]:
    """Each image of a shard with its boxes [K, 5], best first."""
    corners = ["x0", "y0", "x1", "y1", "score"]
    table = store.table("boxes", shard).select(["dataset", "key", *corners])
    found: dict[tuple[str, str], list[list[float]]] = {}
    columns = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    for dataset, key, *numbers in columns:
        found.setdefault((dataset, key), []).append(numbers)
    names = ["dataset", "shard", "key", "source", "member", "offset", "size", "status"]
    samples = store.table("samples", shard).select(names)
    done: set[tuple[str, str]] = set()
    for row in zip(*(samples[name].to_pylist() for name in names), strict=True):
        dataset, own, key, source, member, offset, size, status = row
        if status == OK and (dataset, key) not in done:
            done.add((dataset, key))
            boxes = np.array(found.get((dataset, key), []), np.float32).reshape(-1, 5)
            order = np.lexsort((*boxes[:, :4].T, -boxes[:, 4]))
            yield (f"{dataset}/{own}/{key}", source, member, offset, size), boxes[order]


def _chunks(images: Iterator[Image]) -> Iterator[list[Image]]:
    while chunk := list(islice(images, IMAGES)):
        yield chunk


@torch.inference_mode()
def _make(
    store: Store, shard: str, folder: Folder, model: Model, regions: Regions, device: torch.device
) -> tuple[int, int]:
    side = model.image.grid[0] * model.image.patch[0]

    def pixels(image: Image) -> NDArray[np.uint8] | None:
        try:
            return whole(decode(read(*image[0][1:]), side), side)
        except BrokenImageError:
            return None

    keys: list[str] = []
    parts: dict[str, list[Tensor]] = {"boxes": [], "features": [], "pooled": []}
    counts, broken = [0], 0
    with ThreadPoolExecutor(4) as threads:
        for images in _chunks(_images(store, shard)):
            seen = [(i, p) for i, p in zip(images, threads.map(pixels, images), strict=True) if p is not None]
            broken += len(images) - len(seen)
            if not seen:
                continue
            boxes = [regions(found) for (_, found), _ in seen]
            stacked = torch.from_numpy(np.stack([p for _, p in seen])).to(device)
            encoded = model.image.encode(model.image.embed(model.pixels(stacked)), None)
            patches = encoded.tokens[:, model.image.prefix :]
            pooled = pool_regions(patches, pad_sequence(boxes, batch_first=True).to(device), model.image.grid)
            keys += [name for ((name, *_), _), _ in seen]
            counts += [len(each) for each in boxes]
            parts["boxes"] += boxes
            parts["features"] += [f[: len(b)].half().cpu() for f, b in zip(pooled, boxes, strict=True)]
            parts["pooled"].append(encoded.cls.half().cpu())
    if keys:
        tensors = {name: torch.cat(values).contiguous() for name, values in parts.items()}
    else:
        tensors = {name: torch.zeros(0, 1) for name in parts}
    tensors["starts"] = torch.tensor(counts).cumsum(0)
    metadata = {"images": json.dumps(keys), "stamp": _stamp(store, shard)}
    folder.put(f"{shard}.safetensors", save(tensors, metadata))
    return len(keys), broken
