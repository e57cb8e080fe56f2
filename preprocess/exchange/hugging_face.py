"""A store as a dataset that Hugging Face's `load_dataset` opens: its tables as Parquet, their features, and a card."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pyarrow as pa
import yaml

from macco.pipeline.errors import UserError
from macco.pipeline.folder import new_folder
from macco.pipeline.published import licence, without_folders
from macco.pipeline.query import connect
from macco.pipeline.schema import BOX_COLUMNS, CONCEPT_COLUMNS, SAMPLE_COLUMNS, TABLES, Column
from macco.pipeline.store import Store
from macco.pipeline.views import quote

Log = Callable[[str], None]
COLUMNS: Final = {"samples": SAMPLE_COLUMNS, "concepts": CONCEPT_COLUMNS, "boxes": BOX_COLUMNS}
# Files of about 256 MB.
_FORM: Final = "FORMAT parquet, COMPRESSION zstd, FILE_SIZE_BYTES '256MB', FILENAME_PATTERN 'train-{i}'"
# Where files lie on the machine of whoever publishes this, and what it said of them, is nobody's business.
_PUBLIC: Final = """* REPLACE (
    regexp_extract(source, '[^/]*$') AS source,
    CASE WHEN member LIKE '/%' THEN regexp_extract(member, '[^/]*$') ELSE member END AS member,
    NULL::VARCHAR AS error
)"""
_CARD: Final = """# Compositional concepts of {names}

Objects, attributes and relations of image captions, with their places in the caption (`caption[start:end] == text`, in
characters) and boxes of the objects (0..1 of the image). Made by macco {version}. Its tables:

```python
from datasets import load_dataset

load_dataset("{out}", "concepts", split="train")
```

**The images are not in it**: `samples` names the file (without its folders), or the place inside a tar, that each was
read from.

## Counts

| | |
|---|---:|
{counts}

Boxes with a score of at least {threshold} of the detector `{detector}`; scores are raw.

## How it was made

```yaml
{settings}```

## Licences

{licences}

The annotations are derived from those captions by models whose own licences hold: see the parser and the detector.

## Columns

{columns}
"""


def export_hugging_face(store: Store, out: Path, threshold: float, log: Log = print) -> int:
    """Write a folder with data/TABLE/*.parquet and README.md, whose header declares the features of each table.

    Tables without a row are left out. Returns the number of all rows. Raises UserError where there is none, or nothing
    can be written.
    """
    with new_folder(out) as folder, connect(store, views=TABLES) as connection:
        rows: dict[str, int] = {}
        for name in TABLES:
            where = f"WHERE score >= {threshold}" if name == "boxes" else ""
            count = connection.execute(f"SELECT count(*) FROM {name} {where}").fetchall()[0][0]
            if not count:  # load_dataset refuses a table without a row
                continue
            place = folder / "data" / name
            place.mkdir(parents=True)
            chosen = f"SELECT {_PUBLIC if name == 'samples' else '*'} FROM {name} {where}"
            connection.execute(f"COPY ({chosen}) TO {quote(str(place))} ({_FORM})")
            rows[name] = count
        if not rows:
            raise UserError(f"{store.url} has no row to write")
        counted = connection.execute(
            "SELECT kind, count(*) FROM concepts WHERE part = 0 GROUP BY 1 ORDER BY 1"
        )
        counts = {f"{name} (rows)": count for name, count in rows.items()}
        counts |= {f"{kind}s": count for kind, count in counted.fetchall()}
        datasets = connection.execute("SELECT DISTINCT dataset FROM samples ORDER BY 1").fetchall()
        card = _card(store, out, threshold, list(rows), counts, [name for (name,) in datasets])
        (folder / "README.md").write_text(card)
    log(f"to publish it: hf upload NAME/{out.name} {out} --repo-type dataset")
    return sum(rows.values())


def _card(
    store: Store, out: Path, threshold: float, rows: list[str], counts: dict[str, int], datasets: list[str]
) -> str:
    from importlib.metadata import version

    header = {
        "license": "other",
        "pretty_name": f"Compositional concepts of {', '.join(datasets) or 'nothing'}",
        "task_categories": ["zero-shot-image-classification", "image-to-text"],
        "configs": [  # the first is what `load_dataset` opens where none is named
            {"config_name": name, "data_files": f"data/{name}/*.parquet", "default": name == rows[0]}
            for name in rows
        ],
        "dataset_info": [{"config_name": name, "features": _features(TABLES[name])} for name in rows],
    }
    text = _CARD.format(
        names=", ".join(f"`{name}`" for name in datasets) or "nothing",
        version=version("macco"),
        out=out.name,
        counts="\n".join(f"| {name} | {count:,} |" for name, count in counts.items()),
        threshold=f"{threshold:g}",
        detector=without_folders(store.boxes_of or store.detector),
        settings=yaml.safe_dump(without_folders(store.made_with), sort_keys=False),
        licences="\n".join(f"- `{name}`: {licence(name)}" for name in datasets),
        columns="\n".join(_meanings(name, COLUMNS[name]) for name in rows),
    )
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n{text}"


def _features(schema: pa.Schema) -> list[dict[str, str]]:
    names = {"float": "float32", "double": "float64"}  # where Arrow's are not those of the datasets library
    return [{"name": field.name, "dtype": names.get(str(field.type), str(field.type))} for field in schema]


def _meanings(name: str, columns: Iterable[Column]) -> str:
    rows = "\n".join(f"| `{column.name}` | {column.meaning} |" for column in columns)
    return f"### {name}\n\n| | |\n|---|---|\n{rows}\n"
