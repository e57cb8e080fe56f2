"""Whole-file writes that a kill at any moment cannot leave half done, on any fsspec file system."""

import contextlib
import os
import uuid
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

_TEMPORARY = ".tmp-"


def put(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Make `path` hold `data`: readers see the old file or the new one, never a part.

    Local files are written under a temporary name, synced and renamed. Object stores have no rename but
    put an object whole.
    """
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
        return
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"{_TEMPORARY}{name}-{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def sweep(fs: fsspec.AbstractFileSystem, folder: str) -> None:
    """Remove what killed writers left in `folder`. Call it only where no writer can be at work."""
    if isinstance(fs, LocalFileSystem) and os.path.isdir(folder):
        for name in os.listdir(folder):
            if name.startswith(_TEMPORARY):
                with contextlib.suppress(OSError):
                    os.remove(os.path.join(folder, name))


def lock(path: str) -> Any:
    """Take the local file `path` as a lock until the process ends; None where another holds it."""
    import fcntl

    file = open(path, "a")  # noqa: SIM115 - held open on purpose: closing it lets the lock go
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def put_file(path: str | os.PathLike[str], data: bytes) -> None:
    """`put` for one local file, whose folder is made if need be; raises UserError where it cannot be written."""
    from macco.pipeline.errors import UserError

    name = os.path.abspath(path)
    try:
        os.makedirs(os.path.dirname(name), exist_ok=True)
        put(LocalFileSystem(), name, data)
    except OSError as error:
        raise UserError(f"cannot write {name}: {error}") from error
