"""webdataset and img2dataset tars, read as a stream, one sample in memory at a time."""

import contextlib
import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any, Final, cast

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from macco.pipeline.schema import OK, Status
from macco.pipeline.urls import exists, folder, join, open_url, stem
from macco.preprocess.graph.refusal import CaptionError, captions_of
from macco.preprocess.sources.source_image import IMAGE, MAX_BYTES, SourceImage

MAX_HEADER: Final = 2**20  # bytes of an extended header: it holds a long name, not a payload

_SAMPLE = re.compile(r"(?:\./)*((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)  # key, all after the first dot
_PAX = re.compile(rb"(\d{1,9}) ([^=]+)=")
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_OTHERS = (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE)  # headers about the next member that we need not know
_EMPTY = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
)


class TarDamageError(Exception):
    """The tar is cut or corrupt, and nothing can be read past this point."""


@dataclass(slots=True)
class Member:
    """A file in a tar; `data` is None where it is too large or was not asked for."""

    name: str
    offset: int  # of its first byte, in the uncompressed tar
    size: int
    data: bytes | None


@dataclass(slots=True)
class _Sample:
    key: str
    members: dict[str, Member] = field(default_factory=dict)  # by extension, lower case


def read(url: str, captions: tuple[str, ...], image: str | None) -> Iterator[SourceImage]:
    """Yield the samples of a tar in order, then one row for what is lost, if anything is.

    Neighbours that share a key (the name up to the first dot of its last part) are one sample.
    `captions` names where the captions are: "txt", or keys of the json; `image` the extensions of images in
    order of preference ("jpg;png"). Where img2dataset's Parquet lies beside the tar, the rows that it could
    not download come last.
    """
    kinds = tuple(image.lower().split(";")) if image else IMAGE
    compressed = url.endswith(("gz", "tgz"))
    seen: set[str] = set()
    damage = None
    try:
        with open_url(url, compression="gzip" if compressed else None) as stream:
            for sample in _samples(stream, kinds):
                item = _item(sample, url, captions, kinds)
                if compressed:
                    item = replace(item, offset=None)
                key = _unused(item.key, seen)
                if key != item.key:
                    words = f"{item.key!r} was already in this tar"
                    item = replace(item, key=key, image=None, status=Status.DUPLICATE_KEY, error=words)
                seen.add(key)
                yield item
    except TarDamageError as error:
        damage = str(error)
    read = len(seen)
    expected, failed = _sidecar(url)
    if damage is not None or (expected is not None and expected > read):
        lost = "an unknown number of" if expected is None else max(0, expected - read)
        words = f"{damage or 'the tar holds less than was downloaded'}: {read} samples read, {lost} lost"
        yield SourceImage(_unused("#lost", seen), (), None, url, status=Status.TRUNCATED_TAR, error=words)
    for row in failed:
        key = str(row["key"])
        if key not in seen:
            seen.add(key)
            words = f"{row['status']}: {row.get('error_message')}"
            yield SourceImage(
                key, captions_of(row.get("caption")), None, url, status=Status.DOWNLOAD_FAILED, error=words
            )


def begin(url: str, captions: tuple[str, ...], image: str | None, size: int) -> Iterator[SourceImage]:
    """Yield the samples that lie whole in the first `size` bytes of a tar. No more of it is fetched."""
    kinds = tuple(image.lower().split(";")) if image else IMAGE
    filesystem, path = fsspec.core.url_to_fs(url)
    stream = io.BytesIO(filesystem.cat_file(path, start=0, end=size))
    if url.endswith(("gz", "tgz")):
        stream = cast(io.BytesIO, gzip.GzipFile(fileobj=stream))
    with contextlib.suppress(TarDamageError):
        for sample in _samples(stream, kinds):
            yield _item(sample, url, captions, kinds)


def members(stream: IO[bytes], wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the regular files of a tar; raise TarDamageError where it is cut or corrupt.

    Only members whose name is `wanted` and whose size is at most MAX_BYTES are read into memory.
    The tarfile module is not enough here: it takes a corrupt header in the middle for a good end.
    """
    position = 0
    name: str | None = None  # from an extended header, for the next member
    size: int | None = None

    def take(count: int) -> bytes:
        nonlocal position
        try:
            data = stream.read(count)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TarDamageError(f"the compressed data breaks near byte {position} ({error})") from error
        position += len(data)
        if len(data) < count:
            raise TarDamageError(f"the tar ends early, at byte {position}")
        return data

    def skip(count: int) -> None:
        while count > 0:  # no seeking: streams may not, and a corrupt size would lead anywhere
            count -= len(take(min(count, 2**20)))

    while True:
        start = position
        block = take(tarfile.BLOCKSIZE)
        if not any(block):
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except (tarfile.HeaderError, ValueError) as error:
            raise TarDamageError(f"no tar header at byte {start} ({error})") from error
        if info.type in _EXTENDED:
            if not 0 <= info.size <= MAX_HEADER:
                raise TarDamageError(f"a header of {info.size} bytes at byte {start}")
            extended = take(info.size)
            skip(-info.size % tarfile.BLOCKSIZE)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = extended.split(b"\0")[0].decode("utf-8", "backslashreplace")
            else:
                records = _pax_records(extended)
                if b"path" in records:
                    name = records[b"path"].decode("utf-8", "backslashreplace")
                if (digits := records.get(b"size", b"")).isdigit() and len(digits) < 20:
                    size = int(digits)
            continue
        length = 0 if info.type in _EMPTY else info.size if size is None else size
        if length < 0:
            raise TarDamageError(f"no tar header at byte {start} (negative size)")
        padding = -length % tarfile.BLOCKSIZE
        if info.type in _REGULAR:
            member = Member(name or info.name, position, length, None)
            if wanted(member.name) and length <= MAX_BYTES:
                member.data = take(length)
                length = 0
            yield member  # before the padding: what is cut there loses nothing
        skip(length + padding)
        if info.type not in _OTHERS:
            name = size = None


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    records = {}
    while (match := _PAX.match(data)) and (length := int(match[1])) > match.end():
        records[match[2]] = data[match.end() : length - 1]
        data = data[length:]
    return records


def _samples(stream: IO[bytes], kinds: tuple[str, ...]) -> Iterator[_Sample]:
    extensions = {*kinds, "txt", "json"}

    def wanted(name: str) -> bool:
        match = _SAMPLE.fullmatch(name)
        return match is not None and match[2].lower() in extensions

    sample: _Sample | None = None
    try:
        for member in members(stream, wanted):
            match = _SAMPLE.fullmatch(member.name)
            if match is None:  # hidden files and files without extension are no samples
                continue
            key, extension = match[1], match[2].lower()
            if sample is not None and (sample.key != key or extension in sample.members):
                yield sample
                sample = None
            sample = sample or _Sample(key)
            sample.members[extension] = member
    except TarDamageError:
        if sample and sample.members.keys() & set(kinds) and sample.members.keys() & {"txt", "json"}:
            yield sample
        raise
    if sample is not None:
        yield sample


def _item(sample: _Sample, url: str, names: tuple[str, ...], kinds: tuple[str, ...]) -> SourceImage:
    found = sample.members
    picture = next((found[kind] for kind in kinds if kind in found), None)
    texts = [found[kind] for kind in ("txt", "json") if kind in found]
    captions, status, error = _captions(found, names)
    huge = next((one for one in (picture, *texts) if one and one.size > MAX_BYTES), None)
    unsafe = next(
        (one.name for one in found.values() if one.name[0] == "/" or ".." in one.name.split("/")), None
    )
    if unsafe is not None:
        status, error = Status.UNSAFE_NAME, f"{unsafe!r} leads out of the tar"
    elif huge is not None:
        status, error = (
            Status.MEMBER_TOO_LARGE,
            f"{huge.name!r} has {huge.size} bytes; the limit is {MAX_BYTES}",
        )
    elif picture is None:
        status, error = Status.MISSING_IMAGE, f"no {'/'.join(kinds)} among {', '.join(found)}"
    image = picture.data if picture is not None and unsafe is None else None
    if picture is None:
        return SourceImage(sample.key, captions, None, url, status=status, error=error)
    return SourceImage(
        sample.key, captions, image, url, picture.name, picture.offset, picture.size, status, error
    )


def _captions(
    found: dict[str, Member], names: tuple[str, ...]
) -> tuple[tuple[str | CaptionError, ...], Status, str | None]:
    text = found["txt"].data if "txt" in found else None
    fields: Any = {}
    status: Status = OK
    error = None
    if "json" in found and found["json"].data is not None and names != ("txt",):
        try:
            fields = json.loads(found["json"].data)
            if not isinstance(fields, dict):
                fields, status, error = {}, Status.BAD_JSON, f"{found['json'].name!r} holds no object"
        except UnicodeDecodeError as problem:
            status, error = Status.BAD_ENCODING, f"{found['json'].name!r}: {problem}"
        except (ValueError, RecursionError) as problem:
            status, error = Status.BAD_JSON, f"{found['json'].name!r}: {problem}"
    if names:
        values = [text if name == "txt" else fields.get(name) for name in names]
    elif fields.get("captions"):
        values = [fields["captions"]]
    else:
        values = [text if "txt" in found else fields.get("caption")]
    if status == OK and all(value is None for value in values):
        places = ", ".join(names) or "txt, json captions or json caption"
        return (), Status.MISSING_CAPTION, f"nothing in {places}"
    return tuple(one for value in values if value is not None for one in captions_of(value)), status, error


def _unused(key: str, seen: set[str]) -> str:
    name, times = key, 1
    while name in seen:  # ids in the store are made of keys
        times += 1
        name = f"{key}#{times}"
    return name


def _sidecar(url: str) -> tuple[int | None, list[dict[str, Any]]]:
    """Return the number of downloaded samples and the failed rows, as img2dataset wrote them down."""
    beside = join(folder(url), stem(url))
    if exists(f"{beside}.parquet"):
        with open_url(f"{beside}.parquet") as stream:
            try:
                names = pq.read_schema(stream).names
                if not {"key", "status"} <= set(names):
                    return None, []  # somebody else's table
                stream.seek(0)
                columns = [name for name in ("key", "status", "error_message", "caption") if name in names]
                table = pq.read_table(stream, columns=columns)
            except pa.ArrowInvalid as error:
                return None, [
                    {"key": "#sidecar", "status": f"unreadable {beside}.parquet", "error_message": error}
                ]
        failed = table.filter(pc.not_equal(table["status"], "success"))
        return table.num_rows - failed.num_rows, failed.to_pylist()
    if exists(f"{beside}_stats.json"):
        with open_url(f"{beside}_stats.json") as stream:
            try:
                return int(json.load(stream)["successes"]), []
            except (ValueError, KeyError, TypeError):
                return None, []
    return None, []
