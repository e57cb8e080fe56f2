"""Tars packed in memory, and what a plan reads of them."""

import io
import tarfile
from pathlib import Path

from macco.preprocess.sources import SourceImage, plan

Files = list[tuple[str, bytes]]


def pack(files: Files, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sample(key: str, caption: str = "a dog") -> Files:
    return [(f"{key}.jpg", b"image of " + key.encode()), (f"{key}.txt", caption.encode())]


def write(path: Path, files: Files) -> str:
    path.write_bytes(pack(files))
    return str(path)


def read(*patterns: str, **options: object) -> list[SourceImage]:
    return [item for shard in plan(patterns, **options) for item in shard.read()]  # type: ignore[arg-type]


def statuses(items: list[SourceImage]) -> list[str]:
    return [status for item in items for _, status, _ in item.rows()]
