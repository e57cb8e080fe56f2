"""What a file holds, told by its first bytes: names lie (`.tar` that is gzip, `.pq`, no ending at all)."""

import bz2
import gzip
import lzma
import re
import tarfile
from typing import IO, Any, Final, cast

import pyarrow as pa

from macco.pipeline.errors import UserError
from macco.pipeline.urls import open_url

HEAD: Final = 512  # bytes: a tar's first header

TAR: Final = "tar"
PARQUET: Final = "Parquet"

_COMPRESSED: Final = {
    "gzip": rb"\x1f\x8b",
    "bz2": rb"BZh[1-9]1AY&SY",
    "xz": rb"\xfd7zXZ\0",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
}
_REFUSED: Final = {
    "lz4": rb"\x04\x22\x4d\x18",
    "compress (.Z)": rb"\x1f\x9d",
    "lzip": rb"LZIP",
    "a zip archive": rb"PK\x03\x04",
    "a 7z archive": rb"7z\xbc\xaf\x27\x1c",
    "a rar archive": rb"Rar!\x1a\x07",
    "an Arrow IPC (Feather) file": rb"ARROW1",
}


def compression(head: bytes) -> str | None:
    """Name the compression that a file is read through, by its first bytes; None for a plain file."""
    return next((name for name, magic in _COMPRESSED.items() if re.match(magic, head)), None)


def kind(head: bytes) -> str | None:
    """Tell a tar and a Parquet file by their first 512 bytes (uncompressed); None for anything else."""
    if head.startswith(b"PAR1"):
        return PARQUET
    try:
        tarfile.TarInfo.frombuf(head[:HEAD], "utf-8", "replace")
    except (tarfile.HeaderError, ValueError):
        return None
    return TAR


def peek(url: str, size: int = HEAD) -> tuple[str | None, bytes]:
    """Return a file's compression and its first bytes, uncompressed; of broken data, none.

    Raises UserError for what is compressed or packed in a way that is not read.
    """
    with open_url(url) as stream:
        head = stream.read(HEAD)
    for name, magic in _REFUSED.items():
        if re.match(magic, head):
            raise UserError(f"{url} is {name}, which is not read: give a tar, a table or a folder instead")
    packed = compression(head)
    if packed is None and size <= HEAD:
        return None, head
    try:
        with open_plain(url) as stream:
            return packed, stream.read(size)
    except (EOFError, OSError, ValueError):  # whoever reads it says where it breaks
        return packed, b""


def open_plain(url: str) -> IO[bytes]:
    """Open a file as a stream of what it holds, through gzip, bz2, xz or zstd where it is compressed."""
    stream = open_url(url)
    packed = compression(stream.read(HEAD))
    if stream.seekable():
        stream.seek(0)
    else:
        stream.close()
        stream = open_url(url)
    return unpacked(stream, packed)


def unpacked(stream: IO[bytes], packed: str | None) -> IO[bytes]:
    """A stream of what lies behind a compression, by its name; None: the stream itself."""
    return stream if packed is None else cast(IO[bytes], _Unpacked(stream, packed))


class _Unpacked:
    """A compressed file, to be read; closing it closes the file, too."""

    def __init__(self, file: IO[bytes], packed: str) -> None:
        self._file = file
        if packed == "zstd":  # Arrow's: Python's own library has it from 3.14 on
            self._stream: Any = pa.input_stream(file, compression="zstd")
        else:
            unpack: dict[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
            self._stream = unpack[packed](file)

    def read(self, count: int = -1) -> bytes:
        return cast(bytes, self._stream.read(None if count < 0 else count))

    def close(self) -> None:
        self._stream.close()
        self._file.close()

    def __enter__(self) -> "_Unpacked":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
