"""Names of files: patterns to lists, and any fsspec URL to a stream.

A local file is always a plain absolute path, never `file://...`; everything else keeps its protocol.
"""

import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import IO, Any, Final, cast

import fsspec

from macco.pipeline.errors import UserError

MAX_NAMES: Final = 1_000_000  # of one pattern: a range with too many digits is a typing error, not a corpus

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_EXTENSION = re.compile(r"(\.tar)?\.[^.]+$")
_MAGIC = re.compile(r"[*?\[]")
_TIMES = ("mtime", "LastModified", "updated", "created")


def is_local(url: str) -> bool:
    """Tell a plain path from a URL with a protocol."""
    return "://" not in url and "::" not in url


def plain(url: str) -> str:
    """Make a local name an absolute path without protocol; leave other URLs alone."""
    url = url.removeprefix("file://")
    return os.path.abspath(os.path.expanduser(url)) if is_local(url) else url


def folder(url: str) -> str:
    """Return what stands before the last slash (`memory://a.tar` lies in `memory://`)."""
    head, slash, _ = url.rpartition("/")
    return head + slash if head.endswith("/") else head


def stem(url: str) -> str:
    """Return the file's name without its extension: `s3://b/00000.tar.gz` is `00000`."""
    return _EXTENSION.sub("", url.rpartition("/")[2])


def join(root: str, path: str) -> str:
    """Put a relative path under a folder or URL; absolute paths and URLs stay themselves."""
    if not is_local(path) or path.startswith("/"):
        return plain(path)
    return f"{root.rstrip('/') if not root.endswith('://') else root}/{path}".replace(":///", "://")


def expand(patterns: Sequence[str]) -> list[str]:
    """Turn names, braces ({00000..00031}, {a,b}) and globs into files that exist, in the order given.

    Raises UserError, naming the pattern and the folder looked in, for a pattern that is malformed or
    matches nothing, and for a named file that is missing (a missing shard is never passed over).
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        name = plain(pattern)
        if is_local(name) and os.path.isfile(name):  # a file whose own name has brackets
            found[name] = None
            continue
        names = list(itertools.islice(_braces(name, pattern), MAX_NAMES + 1))
        if len(names) > MAX_NAMES:
            raise UserError(f"pattern {pattern!r} means more than {MAX_NAMES:,} files; check its range")
        listed: dict[str, set[str]] = {}
        for concrete in names:
            found.update(dict.fromkeys(_matches(concrete, pattern, listed)))
    return list(found)


def open_url(url: str, mode: str = "rb", *, compression: str | None = None) -> IO[bytes]:
    """Open a path or URL as a binary stream; `compression` is fsspec's name of a codec ("gzip")."""
    return cast(IO[bytes], fsspec.open(url, mode, compression=compression).open())


def exists(url: str) -> bool:
    """Tell whether a file is there."""
    filesystem, path = fsspec.core.url_to_fs(url)
    return bool(filesystem.exists(path))


def fingerprint(url: str) -> dict[str, Any]:
    """Describe a file's state, ready for JSON: url, size in bytes, mtime and etag where they are known."""
    filesystem, path = fsspec.core.url_to_fs(url)
    info = filesystem.info(path)
    time = next((info[key] for key in _TIMES if info.get(key) is not None), None)
    etag = info.get("ETag", info.get("etag"))
    return {
        "url": url,
        "size": info.get("size"),
        "mtime": time.isoformat() if isinstance(time, datetime) else time,
        "etag": None if etag is None else str(etag).strip('"'),
    }


def stamps(urls: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    """The fingerprint of each file, with a local one's ctime, which no copying tool sets back; None: no such file.

    Object stores answer from the listing of the folder that `expand` made; HTTP is asked file by file, at once.
    """

    def stamp(url: str) -> dict[str, Any] | None:
        try:
            if not is_local(url):
                return fingerprint(url)
            now = os.stat(url)  # of ten thousand tars in no time
            times = {"mtime": now.st_mtime, "etag": None, "ctime": now.st_ctime}
            return {"url": url, "size": now.st_size} | times
        except FileNotFoundError:
            return None

    names = list(dict.fromkeys(urls))
    if all(map(is_local, names)):
        return {url: stamp(url) for url in names}
    with ThreadPoolExecutor(32) as threads:
        return dict(zip(names, threads.map(stamp, names), strict=True))


def _braces(name: str, pattern: str) -> Iterator[str]:
    match = _BRACES.search(name)
    if match is None:
        if "{" in name or "}" in name:
            raise UserError(f"pattern {pattern!r} has a brace without its partner")
        yield name
        return
    for choice in _choices(match[1], pattern):
        yield from _braces(name[: match.start()] + choice + name[match.end() :], pattern)


def _choices(inside: str, pattern: str) -> Iterator[str]:
    if bounds := _RANGE.fullmatch(inside):
        first, last = bounds.groups()
        if int(first) > int(last):
            raise UserError(f"pattern {pattern!r}: the range {{{inside}}} runs backwards")
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        return (str(number).zfill(width) for number in range(int(first), int(last) + 1))
    if "," in inside:
        return iter(inside.split(","))
    raise UserError(f"pattern {pattern!r}: {{{inside}}} is neither a range {{000..031}} nor a list {{a,b}}")


def _matches(name: str, pattern: str, listed: dict[str, set[str]]) -> list[str]:
    where = folder(name[: match.start()] if (match := _MAGIC.search(name)) else name)
    try:
        if is_local(name):
            names = sorted(filter(os.path.isfile, glob.glob(name, recursive=True)))
            if not names and os.path.isdir(name):
                raise UserError(f"{pattern!r} is a folder; name its files, for example '{name}/*.tar'")
        else:
            names = _remote(name, listed)
    except (ImportError, ValueError) as error:  # the protocol's package is missing, or the protocol unknown
        raise UserError(f"cannot look for {pattern!r}: {error}") from error
    except OSError as error:
        raise UserError(f"cannot look for {pattern!r} in {where}: {error}") from error
    if not names:
        raise UserError(f"no file {name!r} (pattern {pattern!r}, looked in {where}); check the path")
    return names


def _remote(url: str, listed: dict[str, set[str]]) -> list[str]:
    filesystem, path = fsspec.core.url_to_fs(url)
    if _MAGIC.search(url):
        names = [name for name, info in filesystem.glob(path, detail=True).items() if info["type"] == "file"]
        prefix = url.removesuffix(path)  # protocol and host, as the user wrote them
        return [prefix + name for name in sorted(names)]
    if url.startswith("http"):  # has no listing; a missing file shows when it is read
        return [url]
    where = folder(path)
    if where not in listed:  # one request for a folder, not one for each of its thousand shards
        try:
            listed[where] = {name.lstrip("/") for name in filesystem.ls(where, detail=False)}
        except FileNotFoundError:
            listed[where] = set()
    return [url] if path.lstrip("/") in listed[where] else []
