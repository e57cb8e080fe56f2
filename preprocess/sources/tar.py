"""webdataset and img2dataset tars, read as a stream, one sample in memory at a time."""

import contextlib
import io
import lzma
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Final

from macco.pipeline.content import HEAD, compression, open_plain, unpacked
from macco.pipeline.schema import Status
from macco.pipeline.urls import filesystem, open_url
from macco.preprocess.graph.refusal import captions_of
from macco.preprocess.sources import img2dataset
from macco.preprocess.sources.member import Member, read_captions
from macco.preprocess.sources.source_image import IMAGE, MAX_BYTES, SourceImage

MAX_HEADER: Final = 2**20  # bytes of an extended header: it holds a long name, not a payload

_SAMPLE = re.compile(r"(?:\./)*((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)  # key, all after the first dot
_PAX = re.compile(rb"(\d{1,9}) ([^=]+)=")
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_MAX_LINKS = 40  # from link to link: as many as Linux follows
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
class _Sample:
    key: str
    members: dict[str, Member] = field(default_factory=dict)  # by extension, lower case
    dead: list[str] = field(default_factory=list)  # links, in words, that lead to nothing in the tar


def read(url: str, captions: tuple[str, ...], image: str | None) -> Iterator[SourceImage]:
    """Yield the samples of a tar in order, then one row for what is lost, if anything is.

    Neighbours that share a key (the name up to the first dot of its last part) are one sample.
    `captions` names where the captions are: "txt", or keys of the json; `image` the extensions of images in
    order of preference ("jpg;png"). Where img2dataset's Parquet lies beside the tar, the rows that it could
    not download come last.
    """
    kinds = tuple(image.lower().split(";")) if image else IMAGE
    with open_url(url) as stream:
        compressed = compression(stream.read(HEAD)) is not None
    seen: set[str] = set()
    damage = None
    try:
        with open_plain(url) as stream:
            for sample in _samples(stream, kinds, _Links(url, compressed)):
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
    expected, failed = img2dataset.beside(url)
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
    fs, path = filesystem(url)
    data: bytes = fs.cat_file(path, start=0, end=size)
    packed = compression(data[:HEAD])
    stream = unpacked(io.BytesIO(data), packed)
    with contextlib.suppress(TarDamageError):
        for sample in _samples(stream, kinds, _Links(url, packed is not None)):
            yield _item(sample, url, captions, kinds)


def members(stream: IO[bytes], wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the regular files and the links of a tar; raise TarDamageError where it is cut or corrupt.

    What follows an end mark is read, too: tars are put together with `cat`.
    Only members whose name is `wanted` and whose size is at most MAX_BYTES are read into memory.
    The tarfile module is not enough here: it takes a corrupt header in the middle for a good end.
    """
    position = 0
    ended = False  # an end mark has been read
    name: str | None = None  # from an extended header, for the next member
    link: str | None = None
    size: int | None = None

    def some(count: int) -> bytes:
        nonlocal position
        try:
            data = stream.read(count)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's or the network's
            raise TarDamageError(f"the compressed data breaks near byte {position} ({error})") from error
        position += len(data)
        return data

    def take(count: int) -> bytes:
        if len(data := some(count)) < count:
            raise TarDamageError(f"the tar ends early, at byte {position}")
        return data

    def skip(count: int) -> None:
        while count > 0:  # no seeking: streams may not, and a corrupt size would lead anywhere
            count -= len(take(min(count, 2**20)))

    while True:
        start = position
        block = some(tarfile.BLOCKSIZE) if ended else take(tarfile.BLOCKSIZE)
        if not any(block):
            if len(block) < tarfile.BLOCKSIZE:
                return
            ended = True
            continue
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except (tarfile.HeaderError, ValueError) as error:
            what = "something follows the tar's end that is no tar" if ended else "no tar header"
            raise TarDamageError(f"{what} at byte {start} ({error})") from error
        ended = False
        if info.type in _EXTENDED:
            if not 0 <= info.size <= MAX_HEADER:
                raise TarDamageError(f"a header of {info.size} bytes at byte {start}")
            extended = take(info.size)
            skip(-info.size % tarfile.BLOCKSIZE)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = extended.split(b"\0")[0].decode("utf-8", "backslashreplace")
            elif info.type == tarfile.GNUTYPE_LONGLINK:
                link = extended.split(b"\0")[0].decode("utf-8", "backslashreplace")
            else:
                records = _pax_records(extended)
                if b"path" in records:
                    name = records[b"path"].decode("utf-8", "backslashreplace")
                if b"linkpath" in records:
                    link = records[b"linkpath"].decode("utf-8", "backslashreplace")
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
        elif info.type in _LINKS:
            own, target = name or info.name, link or info.linkname
            if info.type == tarfile.SYMTYPE:  # starts from where it lies
                target = posixpath.join(posixpath.dirname(own), target)
            yield Member(own, position, 0, None, target)
        skip(length + padding)
        if info.type != tarfile.XGLTYPE:  # of the whole tar: nothing that we need to know
            name = link = size = None


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    records = {}
    while (match := _PAX.match(data)) and (length := int(match[1])) > match.end():
        records[match[2]] = data[match.end() : length - 1]
        data = data[length:]
    return records


class _Links:
    """What links point to: all names of a tar, read once more when the first link is met."""

    def __init__(self, url: str, compressed: bool) -> None:
        self._url, self._compressed = url, compressed
        self._found: dict[str, Member] | None = None

    def follow(self, link: Member) -> Member | str:
        """The member that a link leads to, with its bytes, or why there is none."""
        if self._found is None:
            self._found = self._names()
        one: Member | None = link
        for _ in range(_MAX_LINKS):
            if one is None or one.target is None:
                break
            one = self._found.get(posixpath.normpath(one.target))
        if one is None or one.target is not None:
            return f"{link.name!r} links to {link.target!r}, which is not in the tar"
        if self._compressed:
            return f"{link.name!r} is a link inside a compressed tar: decompress the tar to have it read"
        if one.size > MAX_BYTES:
            return one
        with open_url(self._url) as stream:
            stream.seek(one.offset)
            return replace(one, data=stream.read(one.size))

    def _names(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        try:
            with open_plain(self._url) as stream:
                for member in members(stream, lambda name: False):
                    found.setdefault(posixpath.normpath(member.name), member)
        except TarDamageError:
            pass  # `read` says so
        return found


def _samples(stream: IO[bytes], kinds: tuple[str, ...], links: _Links) -> Iterator[_Sample]:
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
            if member.target is not None and extension not in extensions:
                continue
            if sample is not None and (sample.key != key or extension in sample.members):
                if sample.members:
                    yield sample
                sample = None
            sample = sample or _Sample(key)
            one = links.follow(member) if member.target is not None else member
            if isinstance(one, str):
                sample.dead.append(one)
            else:
                sample.members[extension] = one
    except TarDamageError:
        if sample and sample.members.keys() & set(kinds) and sample.members.keys() & {"txt", "json"}:
            yield sample
        raise
    if sample is not None and sample.members:
        yield sample


def _item(sample: _Sample, url: str, names: tuple[str, ...], kinds: tuple[str, ...]) -> SourceImage:
    found = sample.members
    picture = next((found[kind] for kind in kinds if kind in found), None)
    texts = [found[kind] for kind in ("txt", "json") if kind in found]
    captions, status, error = read_captions(found, names)
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
        words = "; ".join([f"no image ({'/'.join(kinds[:4])}...) among {', '.join(found)}", *sample.dead])
        status, error = Status.MISSING_IMAGE, words
    image = picture.data if picture is not None and unsafe is None else None
    if picture is None:
        return SourceImage(sample.key, captions, None, url, status=status, error=error)
    return SourceImage(
        sample.key, captions, image, url, picture.name, picture.offset, picture.size, status, error
    )


def _unused(key: str, seen: set[str]) -> str:
    name, times = key, 1
    while name in seen:  # ids in the store are made of keys
        times += 1
        name = f"{key}#{times}"
    return name
