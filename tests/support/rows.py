"""Small tables in the store's schemas, for tests."""

from typing import Any

import pyarrow as pa

from macco.pipeline.schema import BOXES, CONCEPTS, OBJECT, OK, SAMPLES, sample_id


def tables(shard: str, captions: list[str], *, dataset: str = "d", boxes: int = 1) -> dict[str, pa.Table]:
    """One image per caption; each caption is one object with `boxes` boxes."""
    samples: list[dict[str, Any]] = []
    concepts: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for row, caption in enumerate(captions):
        name = sample_id(dataset, shard, f"{row:04}", 0)
        ids = {"dataset": dataset, "shard": shard, "key": f"{row:04}", "caption_id": 0, "sample_id": name}
        samples.append(
            ids | {"row": row, "caption": caption, "source": f"{shard}.tar", "status": OK, "dhash": row}
        )
        concept = ids | {
            "concept_id": f"{name}/0",
            "kind": OBJECT,
            "part": 0,
            "text": caption,
            "lemma": caption,
        }
        concept |= {
            "start": 0,
            "end": len(caption),
            "head": caption,
            "head_start": 0,
            "head_end": len(caption),
        }
        concepts.append(concept | {"pos": "NOUN", "phrase": caption})
        for box in range(boxes):
            corners = {"x0": 0.1, "y0": 0.1, "x1": 0.5, "y1": 0.5, "score": 0.9 - 0.1 * box}
            found.append(ids | {"concept_id": f"{name}/0"} | corners)
    rows = {"samples": (samples, SAMPLES), "concepts": (concepts, CONCEPTS), "boxes": (found, BOXES)}
    return {name: pa.Table.from_pylist(values, schema=schema) for name, (values, schema) in rows.items()}


def record(shard: str, **values: Any) -> dict[str, Any]:
    return {
        "shard": shard,
        "dataset": "d",
        "input": {"url": f"{shard}.tar"},
        "seconds": {"total": 1.0},
    } | values
