"""The unit of work: a tar, or some images of a table or a folder."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from macco.preprocess.sources import image_folder, tables, tar
from macco.preprocess.sources.index import Table
from macco.preprocess.sources.source_image import SourceImage


@dataclass(frozen=True)
class Shard:
    """The unit of work: a tar, or the images [start, stop) of a table or folder. Small: it travels to workers."""

    dataset: str
    name: str  # unique within the dataset; a file name
    url: str
    format: str
    captions: tuple[str, ...] = ()  # fields; () stands for the format's usual ones
    image: str | None = None  # field, or for tars the extensions in order of preference: "jpg;png"
    key: str | None = None  # field whose equal values make one image of several rows
    image_root: str | None = None  # folder or URL that relative image paths start from
    start: int = 0
    stop: int | None = None
    rows_per_shard: int | None = None  # of a table: how many images [start, stop) was meant to be

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Shard | None":
        """The shard that a store's record was made from, by its "input"; None where nothing was extracted (imports).

        Fields that this version does not know are passed over.
        """
        given = {field.name: record["input"].get(field.name) for field in fields(cls)}
        given = {name: value for name, value in given.items() if value is not None}
        if not {"dataset", "name", "url", "format"} <= given.keys():
            return None
        return cls(**given | {"captions": tuple(given.get("captions", ()))})

    def record(self) -> dict[str, Any]:
        """The shard for JSON, as `of` reads it."""
        return asdict(self)

    def read(self) -> Iterator[SourceImage]:
        """Yield a SourceImage for each image, and for each thing that should have been one."""
        if self.format == "webdataset":
            return tar.read(self.url, self.captions, self.image)
        if self.format == "folder":
            return image_folder.read(self.url, self.captions, self.start, self.stop)
        return tables.read(self.table(), self.start, self.stop)

    def count(self) -> int:
        """How many images there are in the whole table or folder, with the rows that belong to none."""
        return image_folder.count(self.url) if self.format == "folder" else tables.count(self.table())

    def glance(self) -> Iterator[SourceImage]:
        """`read` what the shard's own file holds: image files that a table names are not opened."""
        if self.format == "webdataset":
            return tar.read(self.url, self.captions, self.image)
        if self.format == "folder":
            return image_folder.read(self.url, self.captions, self.start, self.stop, follow=False)
        return tables.read(self.table(), self.start, self.stop, follow=False)

    @property
    def file(self) -> str:
        """The name of the whole file that this is a part of."""
        return self.name if self.stop is None else self.name.rpartition("-")[0]

    def named(self, file: str) -> "Shard":
        """The same shard of a file by another name."""
        return replace(self, name=file + self.name.removeprefix(self.file))

    def table(self) -> Table:
        """The whole table that this is a part of."""
        return Table(self.url, self.format, self.captions, self.image, self.key, self.image_root)
