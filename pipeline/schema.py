"""The three tables of a concept store, as Arrow schemas.

Every Parquet file is written with these schemas explicitly: a file whose columns happen to be all
null would otherwise be typed by guess and break the glob for its neighbours.
"""

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1

OBJECT: Final = "object"
ATTRIBUTE: Final = "attribute"
RELATION: Final = "relation"

OK: Final = "ok"

_ID = [
    pa.field("dataset", pa.string(), nullable=False),
    pa.field("shard", pa.string(), nullable=False),
    pa.field("key", pa.string(), nullable=False),
    pa.field("caption_id", pa.int32(), nullable=False),  # 0-based among the captions of one image
]

SAMPLES: Final = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),  # dataset/shard/key/caption_id
        *_ID,
        pa.field("row", pa.int32(), nullable=False),  # 0-based place in the shard: rows in = rows out
        pa.field("caption", pa.string()),
        pa.field("width", pa.int32()),  # of the original image, pixels, after EXIF rotation
        pa.field("height", pa.int32()),
        pa.field("source", pa.string(), nullable=False),  # URL of the tar, table or image file
        pa.field("member", pa.string()),  # name inside the tar, or path as the table gives it
        pa.field("offset", pa.int64()),  # of the image's bytes inside `source`; null where it is a file
        pa.field("size", pa.int64()),  # number of those bytes
        pa.field("dhash", pa.uint64()),  # 64-bit difference hash of the image, for leakage audits
        pa.field("status", pa.string(), nullable=False),  # "ok", or a short name of what went wrong
        pa.field("error", pa.string()),  # the same in words, for people
    ]
)

# One row per span. A concept whose words are not contiguous ("picks the ball up") is several rows that
# share concept_id and differ in `part` (0, 1, ...); caption[start:end] == text holds for every row.
CONCEPTS: Final = pa.schema(
    [
        pa.field("concept_id", pa.string(), nullable=False),  # sample_id/ordinal
        pa.field("sample_id", pa.string(), nullable=False),
        *_ID,
        pa.field("kind", pa.string(), nullable=False),  # object | attribute | relation
        pa.field("part", pa.int8(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("lemma", pa.string(), nullable=False),  # of the whole concept, all parts, lower case
        pa.field("start", pa.int32(), nullable=False),  # characters (code points), half-open
        pa.field("end", pa.int32(), nullable=False),
        pa.field("head", pa.string(), nullable=False),  # head word(s): "ice cream truck", "sitting", "red"
        pa.field("head_start", pa.int32(), nullable=False),
        pa.field("head_end", pa.int32(), nullable=False),
        pa.field(
            "pos", pa.string(), nullable=False
        ),  # coarse part of speech of the head: NOUN, VERB, ADP, ...
        pa.field("subject_id", pa.string()),  # relation: concept_id of an object; null where it is a pronoun
        pa.field("object_id", pa.string()),
        pa.field("owner_id", pa.string()),  # attribute: concept_id of its object
        pa.field("phrase", pa.string()),  # what the detector was asked; null for relations
    ]
)

# Boxes belong to objects. An attribute's boxes are its owner's, a relation's those of its subject and
# object: the view `concept_boxes` spells that out.
BOXES: Final = pa.schema(
    [
        pa.field("concept_id", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        *_ID,
        pa.field("x0", pa.float32(), nullable=False),  # 0..1 of the original image
        pa.field("y0", pa.float32(), nullable=False),
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # raw; rows down to a low threshold are kept
    ]
)

TABLES: Final = {"samples": SAMPLES, "concepts": CONCEPTS, "boxes": BOXES}


def sample_id(dataset: str, shard: str, key: str, caption_id: int) -> str:
    """Name one (image, caption) pair in the whole store."""
    return f"{dataset}/{shard}/{key}/{caption_id}"
