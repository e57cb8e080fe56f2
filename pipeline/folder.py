"""A folder at any fsspec URL, in which a kill at any moment leaves no file half written."""

import contextlib
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from macco.pipeline.errors import UserError
from macco.pipeline.urls import filesystem

_STREAM = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/(\d+)")
_CHANGED = (
    "PreconditionFailed",
    "ConditionalRequestConflict",
)  # S3's answers where a condition does not hold
TEMPORARY = ".tmp-"  # how the names of files begin that are being written


class Folder:
    """Files by name, in a folder that need not be there yet."""

    def __init__(self, url: str) -> None:
        self.fs, self.root = filesystem(url)
        self.local = isinstance(self.fs, LocalFileSystem)
        # What other programs are told: an absolute path, or the URL with its protocol.
        self.url: str = self.root if self.local else self.fs.unstrip_protocol(self.root)

    def path(self, name: str = "") -> str:
        """What the file system calls a file; of no name, the folder itself."""
        return f"{self.root}/{name}" if name else str(self.root)

    def exists(self, name: str = "") -> bool:
        return bool(self.fs.exists(self.path(name)))

    def names(self, ending: str = "", folder: str = "") -> set[str]:
        """Names of the files that end so, without the ending; those that begin with a dot are nobody's."""
        try:
            paths = self.fs.ls(self.path(folder), detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return set()
        names = (path.rsplit("/", 1)[-1] for path in paths)
        return {
            name.removesuffix(ending) for name in names if name.endswith(ending) and not name.startswith(".")
        }

    def keep(self, name: str, data: bytes) -> None:
        """Make a file hold `data`, unless it does."""
        try:
            if self.read(name) == data:
                return
        except FileNotFoundError:
            pass
        self.put(name, data)

    def sizes(self, folder: str, ending: str) -> dict[str, int]:
        """The names, without the ending, and sizes of a folder's files; those that begin with a dot are nobody's."""
        try:
            if self.local:
                with os.scandir(self.path(folder)) as entries:
                    found = [(entry.name, entry.stat().st_size) for entry in entries if entry.is_file()]
            else:
                listed = self.fs.ls(self.path(folder), detail=True, refresh=True)
                found = [
                    (one["name"].rsplit("/", 1)[-1], one["size"]) for one in listed if one["type"] == "file"
                ]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {
            name.removesuffix(ending): size
            for name, size in found
            if name.endswith(ending) and not name.startswith(".")
        }

    def make(self, folder: str = "") -> None:
        """Make a folder in this one, or this one itself, unless it is there."""
        self.fs.makedirs(self.path(folder), exist_ok=True)

    def read(self, name: str) -> bytes:
        if self.local:  # ten thousand records in no time
            return Path(self.path(name)).read_bytes()
        data: bytes = self.fs.cat_file(self.path(name), start=0)  # without it s3fs asks for the size before
        return data

    def put(self, name: str, data: bytes) -> None:
        """Make a file hold `data`: readers see the old file or the new one, never a part."""
        put(self.fs, self.path(name), data)

    def etag(self, name: str) -> str | None:
        """What an object store calls the content of a file: "" where it has no such name, None where no file is."""
        try:
            return str(self.fs.info(self.path(name), refresh=True).get("ETag", ""))
        except FileNotFoundError:
            return None

    def put_over(self, name: str, data: bytes, etag: str | None) -> bool:
        """`put` in an object store, unless the file is not what `etag` said any more; tell whether it holds `data`."""
        given = {"mode": "create"} if etag is None else {"IfMatch": etag} if etag else {}
        try:
            self.fs.pipe_file(self.path(name), data, **given)
        except OSError as error:
            answer = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
            if answer not in _CHANGED and not isinstance(error, FileExistsError | FileNotFoundError):
                raise
            try:
                return self.read(name) == data  # by a request whose answer was lost
            except FileNotFoundError:
                return False
        return True

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A stream that makes a file, larger than memory if need be: it is there once the stream is done with."""
        path = self.path(name)
        if not self.local:
            try:
                with self.fs.open(path, "wb") as file:
                    yield file
            except BaseException:  # file systems end with what was written up to then
                with contextlib.suppress(Exception):
                    self.remove(name)
                raise
        else:
            with _whole(path) as file:
                yield file

    def remove(self, name: str) -> None:
        """Remove a file that may not be there."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def lock(self) -> FileLock | None:
        """Hold the folder, a local one, for as long as the answer lives; None where another process does."""
        lock = FileLock(self.path(".lock"), blocking=False, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock

    def sweep(self, folder: str = "") -> None:
        """Remove what killed writers left. Call it only where no writer can be at work."""
        path = self.path(folder)
        if self.local and os.path.isdir(path):
            for name in os.listdir(path):
                if name.startswith(TEMPORARY):
                    with contextlib.suppress(OSError):
                        os.remove(os.path.join(path, name))


def put(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Make `path` hold `data`: readers see the old file or the new one, never a part.

    Local files are written under a temporary name, synced and renamed. Object stores have no rename but
    put an object whole.
    """
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
    else:
        with _whole(path) as file:
            file.write(data)


@contextlib.contextmanager
def _whole(path: str) -> Iterator[IO[bytes]]:
    """A local file under a temporary name, synced and renamed once it is written, or gone."""
    temporary = _beside(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def put_file(path: str | os.PathLike[str], data: bytes) -> None:
    """`put` for one local file, whose folder is made if need be; raises UserError where it cannot be written."""
    name = os.path.abspath(path)
    try:
        os.makedirs(os.path.dirname(name), exist_ok=True)
        if leads_elsewhere(name):
            with open_through(name) as stream:
                stream.write(data)
        else:
            put(LocalFileSystem(), name, data)
    except OSError as error:
        raise UserError(f"cannot write {name}: {error}") from error


def leads_elsewhere(path: str) -> bool:
    """A link, a device or a pipe (/dev/stdout is the first) is written through: put in its place, a file ends it."""
    return os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path))


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Tell /dev/stdout and the like: streams that are open already."""
    return _STREAM.fullmatch(os.fspath(path)) is not None


def open_through(path: str) -> IO[bytes]:
    """Where a path that leads elsewhere leads, to be written. An open stream goes on where it is."""
    if match := _STREAM.fullmatch(path):
        sys.stdout.flush()
        return os.fdopen(os.dup({"stdout": 1, "stderr": 2}.get(match[1]) or int(match[2])), "wb")
    return open(path, "wb")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name to write a local file or folder under, which takes the place of `path` once that is done, or goes.

    Raises UserError where it cannot be written.
    """
    target = os.path.abspath(path)
    temporary = Path(_beside(target, "".join(Path(target).suffixes)))  # the ending may say the format
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, target)
        except BaseException:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}") from error


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """`replacing` for a folder; raises UserError where something is in `path` already."""
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{path} is not empty: choose a new --out")
    with replacing(target) as temporary:
        temporary.mkdir()
        yield temporary


@contextlib.contextmanager
def filling(path: str | os.PathLike[str], last: str) -> Iterator[Path]:
    """An empty folder whose files then take their places in `path`, one by one, the file `last` after all others.

    What tells readers that `path` is whole is to be `last`: it goes before anything else comes. Raises UserError where
    nothing can be written.
    """
    target = Path(path)
    try:
        target.mkdir(parents=True, exist_ok=True)
        temporary = target / f"{TEMPORARY}{uuid.uuid4().hex[:8]}"
        try:
            temporary.mkdir()
            yield temporary
            files = sorted(
                temporary.rglob("*"), key=lambda file: (file.relative_to(temporary) == Path(last), file)
            )
            (target / last).unlink(missing_ok=True)
            for file in files:
                place = target / file.relative_to(temporary)
                if file.is_dir():
                    place.mkdir(exist_ok=True)
                else:
                    os.replace(file, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}") from error


def _beside(path: str, ending: str = "") -> str:
    """A temporary name in the same folder. Without an ending of its own no glob over a store's files finds it."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f"{TEMPORARY}{name}-{uuid.uuid4().hex[:8]}{ending}")
