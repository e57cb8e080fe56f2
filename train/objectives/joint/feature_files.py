"""Region features of a frozen tower, as features.py keeps them in the store, read by image."""

import json
from io import BytesIO
from typing import IO, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder


def read_header(file: IO[bytes]) -> dict[str, str]:
    """What a .safetensors file says of itself."""
    size = int.from_bytes(file.read(8), "little")
    found: dict[str, str] = json.loads(file.read(size))["__metadata__"]
    return found


class ShardFeatures:
    """One shard's features, read where they lie: a local file is mapped, another one loaded."""

    def __init__(self, read: Any, keys: list[str], starts: list[int]) -> None:
        self._read = read  # a slice of a named tensor
        self._starts = starts
        self._numbers = {key: number for number, key in enumerate(keys)}

    @classmethod
    def open(cls, folder: str, shard: str) -> "ShardFeatures":
        """Open what `make_features` wrote of a shard into `folder`, an absolute path or a URL."""
        where = Folder(folder)
        name = f"{shard}.safetensors"
        path = where.path(name)
        try:
            if where.local:
                file: Any = safe_open(path, "pt")
                whole = {name: file.get_slice(name) for name in ("boxes", "features", "pooled")}
                starts = file.get_tensor("starts").tolist()
                return cls(whole.__getitem__, json.loads(file.metadata()["images"]), starts)
            data = where.read(name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete it to make it again") from error
        tensors = load(data)
        return cls(
            tensors.__getitem__, json.loads(read_header(BytesIO(data))["images"]), tensors["starts"].tolist()
        )

    def image(self, name: str) -> tuple[Tensor, Tensor, Tensor] | None:
        """Boxes [V, 4], features [V, D] and pooled features [D]; None where the image could not be read."""
        number = self._numbers.get(name)
        if number is None:
            return None
        rows = slice(self._starts[number], self._starts[number + 1])
        boxes, features = self._read("boxes")[rows], self._read("features")[rows]
        return boxes, features, self._read("pooled")[number : number + 1][0]
