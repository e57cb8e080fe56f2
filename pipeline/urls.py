"""Names of files: patterns to lists, and any fsspec URL to a stream.

A local file is always a plain absolute path, never `file://...`; everything else keeps its protocol.
"""

import glob
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import IO, Any, Final, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from macco.pipeline.errors import UserError

MAX_NAMES: Final = 1_000_000  # of one pattern: a range with too many digits is a typing error, not a corpus

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_EXTENSION = re.compile(r"(\.tar)?\.[^.]+$", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")
_TIMES = ("mtime", "LastModified", "updated", "created")
_SHARDS = (
    ".tar",
    ".tgz",
    ".gz",
    ".parquet",
    ".tsv",
    ".csv",
    ".jsonl",
    ".json",
)  # as a folder's hint has them
# fsspec's chains, `first::second`: caches are read through, archives are not looked into.
_CACHES = ("simplecache", "filecache", "blockcache", "cached")
_EXTRAS = {"s3": ("s3://", "s3a://"), "gs": ("gs://", "gcs://")}  # of pyproject.toml
_ARCHIVES = ("zip", "tar", "libarchive", "reference", "dir")


def is_local(url: str) -> bool:
    """Tell a plain path, whose name may hold `::`, from a URL with a protocol or a chain of them."""
    return "://" not in url and _chain(url) is None


def _chain(url: str) -> str | None:
    """The first protocol of a chained URL (`simplecache::s3://...`); None where `::` is part of a name."""
    first, chained, _ = url.partition("::")
    protocol = first.partition("://")[0]
    return protocol if chained and protocol in (*_CACHES, *_ARCHIVES) else None


def plain(url: str) -> str:
    """Make a local name an absolute path without protocol; leave other URLs alone."""
    url = url.removeprefix("file://")
    return os.path.abspath(os.path.expanduser(url)) if is_local(url) else url


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """What opens a path or URL, and its name there. A local path is no URL, whatever colons it holds.

    Raises UserError for a protocol that is unknown, or whose package is not installed.
    """
    if is_local(plain(url)):
        return LocalFileSystem(), plain(url)
    try:
        found: tuple[fsspec.AbstractFileSystem, str] = fsspec.core.url_to_fs(url)
        return found
    except ImportError as error:
        extra = next((name for name, kinds in _EXTRAS.items() if url.startswith(kinds)), None)
        how = f" (pip install 'macco[{extra}]')" if extra else ""
        raise UserError(f"cannot open {url!r}: {error}{how}") from error
    except ValueError as error:
        raise UserError(f"cannot open {url!r}: {error}") from error


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


def expand(patterns: Sequence[str], *, folders: bool = False) -> list[str]:
    """Turn names, braces ({00000..00031}, {a,b}) and globs into files that exist, in the order given.

    Local names that are there are no patterns: a file is itself, and so is every folder that leads to a pattern.
    `a::b` is two patterns, as in webdataset, unless a file is called so. With `folders`, a pattern may also
    name a folder. Raises UserError, naming the pattern and the folder looked in, for a pattern that is
    malformed or matches nothing, and for a named file that is missing (a missing shard is never passed over).
    """
    found: dict[str, None] = {}
    for pattern in (part for whole in patterns for part in _parts(whole)):
        root, name = _existing(plain(pattern))
        names = list(itertools.islice(_braces(name, pattern), MAX_NAMES + 1))
        if len(names) > MAX_NAMES:
            raise UserError(f"pattern {pattern!r} means more than {MAX_NAMES:,} files; check its range")
        listed: dict[str, set[str]] = {}
        for concrete in names:
            whole = os.path.join(root, concrete).rstrip("/") if root else concrete
            if folders and is_folder(whole):
                found[whole.rstrip("/")] = None
            else:
                found.update(dict.fromkeys(_matches(root, concrete, pattern, listed)))
    return list(found)


def _parts(pattern: str) -> list[str]:
    """The patterns that `a::b` stands for; commands and archives are refused, for half of them would be lost."""
    command = pattern.startswith("pipe:")
    if "::" not in pattern and not command:
        return [pattern]
    unknown = _existing(plain(pattern))[1]  # what no file or folder is called
    if not unknown or ("::" not in unknown and not command):
        return [pattern]
    if command:
        raise UserError(
            f"{pattern!r} is a command: give the path or URL that it reads, e.g. s3://bucket/0.tar"
        )
    protocol = _chain(pattern)
    if protocol in _ARCHIVES:
        raise UserError(f"{pattern!r} lies inside an archive ({protocol}): unpack it and give its files")
    if protocol is not None:
        return [pattern]
    parts = pattern.split("::")
    if not all(parts):
        raise UserError(f"{pattern!r} has an empty part beside '::'; write 'a.tar::b.tar'")
    return [part for each in parts for part in _parts(each)]


def is_folder(url: str) -> bool:
    """Tell whether a folder is there. Of URLs only those can be one whose last part has no ending."""
    if is_local(url):
        return os.path.isdir(url)
    if _MAGIC.search(url) or url.startswith("http") or "." in url.rstrip("/").rpartition("/")[2]:
        return False
    try:
        fs, path = filesystem(url)
        return bool(fs.isdir(path))
    except (UserError, ValueError, OSError):  # `expand` says why it cannot be looked for
        return False


def listing(url: str) -> list[str]:
    """Names of all files in a folder and below it, from the folder on, sorted; hidden ones are none."""
    fs, path = filesystem(url)
    names = (name.lstrip("/").removeprefix(path.strip("/")).lstrip("/") for name in fs.find(path))
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def open_url(url: str) -> IO[bytes]:
    """Open a path or URL to be read as bytes."""
    return open(url, "rb") if is_local(url) else cast(IO[bytes], fsspec.open(url).open())


def exists(url: str) -> bool:
    """Tell whether a file is there."""
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def fingerprint(url: str) -> dict[str, Any]:
    """Describe a file's state, ready for JSON: url, size in bytes, mtime and etag where they are known."""
    fs, path = filesystem(url)
    info = fs.info(path)
    if info["type"] == "directory":
        info = _together(fs.find(path, detail=True))
    time = next((info[key] for key in _TIMES if info.get(key) is not None), None)
    etag = info.get("ETag", info.get("etag"))
    return {
        "url": url,
        "size": info.get("size"),
        "mtime": time.isoformat() if isinstance(time, datetime) else time,
        "etag": None if etag is None else str(etag).strip('"'),
    }


def _together(files: dict[str, Any]) -> dict[str, Any]:
    """The state of a folder's files as one: another where any was added, changed or taken away."""
    told = [
        (name, info.get("size"), *(str(info.get(key)) for key in _TIMES))
        for name, info in sorted(files.items())
    ]
    return {
        "size": sum(info.get("size") or 0 for info in files.values()),
        "etag": hashlib.blake2b(repr(told).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest(),
    }


def _existing(name: str) -> tuple[str, str]:
    """What is there by that very name, and the rest of a name, relative to it; of a URL all is the rest."""
    if not is_local(name):
        return "", name
    root = name
    while not os.path.exists(root):
        root = os.path.dirname(root)
    return root, os.path.relpath(name, root) if root != name else ""


def stamps(urls: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    """The fingerprint of each file, with a local one's ctime, which no copying tool sets back; None: no such file.

    Object stores answer from the listing of the folder that `expand` made; HTTP is asked file by file, at once.
    """

    def stamp(url: str) -> dict[str, Any] | None:
        try:
            if not is_local(url) or os.path.isdir(url):
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


def _matches(root: str, name: str, pattern: str, listed: dict[str, set[str]]) -> list[str]:
    """The files that a name or glob below `root` means; of a URL without root."""
    where = os.path.join(root, folder(name[: match.start()] if (match := _MAGIC.search(name)) else name))
    try:
        if root:
            if not name and os.path.isfile(root):
                return [root]
            found = (os.path.join(root, one) for one in glob.glob(name, root_dir=root, recursive=True))
            names = sorted(filter(os.path.isfile, found))
            whole = os.path.join(root, name).rstrip("/")
            if not names and os.path.isdir(whole):
                raise UserError(f"{pattern!r} is a folder; {_what_to_name(whole)}")
        else:
            names = _remote(name, listed)
    except (ImportError, ValueError) as error:  # the protocol's package is missing, or the protocol unknown
        raise UserError(f"cannot look for {pattern!r}: {error}") from error
    except OSError as error:
        raise UserError(f"cannot look for {pattern!r} in {where}: {error}") from error
    if not names:
        raise UserError(
            f"no file {os.path.join(root, name)!r} (pattern {pattern!r}, looked in {where}); check the path"
        )
    return names


def _what_to_name(folder: str) -> str:
    """What to give instead of a folder: the files that it really holds."""
    endings = {os.path.splitext(name)[1].lower() for name in os.listdir(folder)}
    ending = next((known for known in _SHARDS if known in endings), None)
    if ending is None:
        return f"it holds no file that can be read as shards ({', '.join(_SHARDS)})"
    return f"name its files, for example '{folder}/*{ending}'"


def _remote(url: str, listed: dict[str, set[str]]) -> list[str]:
    fs, path = filesystem(url)
    if _MAGIC.search(url):
        names = [name for name, info in fs.glob(path, detail=True).items() if info["type"] == "file"]
        prefix = url.removesuffix(path)  # protocol and host, as the user wrote them
        return [prefix + name for name in sorted(names)]
    if url.startswith("http"):  # has no listing; a missing file shows when it is read
        return [url]
    where = folder(path)
    if where not in listed:  # one request for a folder, not one for each of its thousand shards
        try:
            listed[where] = {name.lstrip("/") for name in fs.ls(where, detail=False)}
        except FileNotFoundError:
            listed[where] = set()
    return [url] if path.lstrip("/") in listed[where] else []
