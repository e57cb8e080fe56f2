"""The three tables of a concept store, as Arrow schemas; concepts before they are rows; the statuses of rows.

Every Parquet file is written with these schemas explicitly: a file whose columns happen to be all
null would otherwise be typed by guess and break the glob for its neighbours.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

import pyarrow as pa

SCHEMA_VERSION: Final = 2
READ_VERSIONS: Final = (1, 2)  # 1 did not know what is denied

OBJECT: Final = "object"
ATTRIBUTE: Final = "attribute"
RELATION: Final = "relation"


class Status(StrEnum):
    """What became of a row: the name that tables hold, and what it means. Nothing else is ever a status."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> "Status":
        status = str.__new__(cls, name)
        status._value_ = name
        status.meaning = meaning
        return status

    OK = "ok", "nothing is wrong with it"
    # The sample as a whole
    BAD_ROW = "bad_row", "a line of a table that does not fit its header"
    BAD_JSON = "bad_json", "JSON that cannot be read, or holds no object"
    DUPLICATE_KEY = "duplicate_key", "a key that its shard has already; the first sample keeps it"
    UNSAFE_NAME = "unsafe_name", "a name that leads out of the tar"
    MEMBER_TOO_LARGE = "member_too_large", "a file of more bytes than any image or caption has"
    TRUNCATED_TAR = "truncated_tar", "one row for all that is lost with the damaged end of a tar"
    DOWNLOAD_FAILED = "download_failed", "img2dataset could not fetch the image"
    # Its caption
    MISSING_CAPTION = "missing_caption", "no caption, an empty one, or something that is no text"
    BAD_ENCODING = "bad_encoding", "text that is not UTF-8, or holds half of a surrogate pair"
    CAPTION_TOO_LONG = "caption_too_long", "a caption of more characters than --max-caption-chars"
    NOT_ENGLISH = "not_english", "a caption most of whose letters are not Latin"
    PARSING_FAILED = "parsing_failed", "the parser wrote nothing that can be read as a graph"
    # Its image
    MISSING_IMAGE = "missing_image", "no image is named, or none is there"
    UNREADABLE_IMAGE = "unreadable_image", "a file that cannot be opened: a folder, no permission, a bad name"
    IMAGE_UNSUPPORTED = "image_unsupported", "no image, or of a format or a kind of pixels that is not read"
    IMAGE_CORRUPT = "image_corrupt", "an image that cannot be decoded"
    IMAGE_TRUNCATED = "image_truncated", "an image whose end is missing"
    IMAGE_TOO_LARGE = "image_too_large", "an image of more pixels than --max-pixels, or too long a side"
    IMAGE_TOO_SMALL = "image_too_small", "an image of a single pixel's width or height"
    # Its boxes
    GROUNDING_FAILED = "grounding_failed", "the detector failed on this image alone"


OK: Final = Status.OK


class Column(NamedTuple):
    """A column of a table, and what it means; docs/sql.md is made of these."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


def _schema(columns: Iterable[Column]) -> pa.Schema:
    return pa.schema([pa.field(each.name, each.type, nullable=each.nullable) for each in columns])


_ID: Final = (
    Column("dataset", pa.string(), "name of the corpus"),
    Column("shard", pa.string(), "name of the tar, or of the part of a table, that it came from"),
    Column("key", pa.string(), "name of the image, in its dataset and shard"),
    Column("caption_id", pa.int32(), "0-based among the captions of one image"),
)

SAMPLE_COLUMNS: Final = (
    Column("sample_id", pa.string(), "dataset/shard/key/caption_id"),
    *_ID,
    Column("row", pa.int32(), "0-based place in the shard: rows in = rows out"),
    Column("caption", pa.string(), "as the source has it", nullable=True),
    Column("width", pa.int32(), "of the original image, pixels, after EXIF rotation", nullable=True),
    Column("height", pa.int32(), "of the original image, pixels, after EXIF rotation", nullable=True),
    Column("source", pa.string(), "URL of the tar, table or image file"),
    Column("member", pa.string(), "name inside the tar, or path as the table gives it", nullable=True),
    Column(
        "offset", pa.int64(), "of the image's bytes inside `source`; null where it is a file", nullable=True
    ),
    Column("size", pa.int64(), "number of those bytes", nullable=True),
    Column(
        "dhash",
        pa.uint64(),
        "64-bit difference hash of the image, for leakage audits; null: not made",
        nullable=True,
    ),
    Column("status", pa.string(), "`ok`, or what is wrong with it"),
    Column("error", pa.string(), "the same in words, for people", nullable=True),
)

# One row per span. A concept whose words are not contiguous ("picks the ball up") is several rows that
# share concept_id and differ in `part` (0, 1, ...); caption[start:end] == text holds for every row.
CONCEPT_COLUMNS: Final = (
    Column("concept_id", pa.string(), "sample_id/ordinal"),
    Column("sample_id", pa.string(), "dataset/shard/key/caption_id"),
    *_ID,
    Column("kind", pa.string(), "`object`, `attribute` or `relation`"),
    Column("part", pa.int8(), "0; the further pieces of a concept that is in several are 1, 2, ..."),
    Column("text", pa.string(), "the words as the caption has them: `caption[start + 1 : end]` in SQL"),
    Column("lemma", pa.string(), "of the whole concept, all parts, lower case"),
    Column("start", pa.int32(), "first character (code point) of the caption, 0-based"),
    Column("end", pa.int32(), "the character after its last"),
    Column("head", pa.string(), 'head word(s): "ice cream truck", "sitting", "red"'),
    Column("head_start", pa.int32(), "first character of the head"),
    Column("head_end", pa.int32(), "the character after its last"),
    Column("pos", pa.string(), "coarse part of speech of the head: NOUN, VERB, ADP, ..."),
    Column(
        "subject_id",
        pa.string(),
        "relation: concept_id of an object; null where it is a pronoun",
        nullable=True,
    ),
    Column(
        "object_id",
        pa.string(),
        "relation: concept_id of an object; null where it is a pronoun",
        nullable=True,
    ),
    Column("owner_id", pa.string(), "attribute: concept_id of its object", nullable=True),
    Column("phrase", pa.string(), "what the detector was asked; null for relations", nullable=True),
    Column(
        "denied",
        pa.bool_(),
        "the caption says that it is not there, or not so: no detector is asked; null in stores of version 1",
        nullable=True,
    ),
)

# Boxes belong to objects. An attribute's boxes are its owner's, a relation's those of its subject and
# object: the view `concept_boxes` spells that out.
BOX_COLUMNS: Final = (
    Column("concept_id", pa.string(), "of an object"),
    Column("sample_id", pa.string(), "dataset/shard/key/caption_id"),
    *_ID,
    Column("x0", pa.float32(), "left side, 0..1 of the original image's width"),
    Column("y0", pa.float32(), "upper side, 0..1 of its height"),
    Column("x1", pa.float32(), "right side, 0..1 of its width"),
    Column("y1", pa.float32(), "lower side, 0..1 of its height"),
    Column("score", pa.float32(), "the detector's, raw: rows down to a low threshold are kept"),
)

SAMPLES: Final = _schema(SAMPLE_COLUMNS)
CONCEPTS: Final = _schema(CONCEPT_COLUMNS)
BOXES: Final = _schema(BOX_COLUMNS)

# Hard negatives lie in STORE/negatives/<shard>.parquet; K of them are the first K kinds, the swaps of NegCLIP first.
# Those of an imported TSV are of no kind: its lists fill these names from the first on.
NEGATIVES: Final = "negatives"
NEGATIVE_KINDS: Final = (  # the first so many are taken: a new kind comes last
    "swap_object", "swap_attribute", "replace_relation", "replace_attribute", "replace_object",
)  # fmt: skip
NEGATIVE_ROWS: Final = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # one of NEGATIVE_KINDS
        pa.field("caption", pa.string(), nullable=False),
    ]
)

# Units of captions with foils of their own lie in STORE/units/<shard>.parquet (sample_id, unit, kind, text, foil_kind,
# foil); an entity is an object with its adjectives, the other kind of unit a relation with its ends.
UNITS: Final = "units"
ENTITY: Final = "entity"
# Captions that say the same, made elsewhere, lie in STORE/paraphrases/<shard>.parquet (sample_id, caption).
PARAPHRASES: Final = "paraphrases"

TEXTS: Final = (NEGATIVES, UNITS, PARAPHRASES)  # made of a shard's captions: they go where these change

TABLES: Final = {"samples": SAMPLES, "concepts": CONCEPTS, "boxes": BOXES}


def sample_id(dataset: str, shard: str, key: str, caption_id: int) -> str:
    """Name one (image, caption) pair in the whole store."""
    return f"{dataset}/{shard}/{key}/{caption_id}"


class Span(NamedTuple):
    """Characters [start, end) of a caption, in code points."""

    start: int
    end: int


class Concept(NamedTuple):
    """An object, attribute or relation of a caption, before it has a store to live in.

    `subject`, `object` and `owner` are places in the list of the caption's concepts. `spans` are in
    reading order and never overlap; the columns of CONCEPTS say what the rest means.
    """

    kind: str
    spans: tuple[Span, ...]
    lemma: str
    head: Span
    pos: str
    phrase: str | None = None
    subject: int | None = None
    object: int | None = None
    owner: int | None = None
    denied: bool = False
