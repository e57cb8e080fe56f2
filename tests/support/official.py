"""Rows as the official files of later benchmarks have them, with texts and image names that tell their number."""

from pathlib import Path
from typing import Any

import torch

from macco.train.evaluation.manifest import load_benchmark_manifest

Row = dict[str, Any]


def colorswap(i: int) -> Row:
    images = {"image_1": f"images/img_{i}_1.png", "image_2": f"images/img_{i}_2.png"}
    sources = {"image_source": "midjourney", "caption_source": "human"}
    return {"id": i, "caption_1": f"a {i}", "caption_2": f"b {i}", **images, **sources}


def mmvp(i: int, pattern: str) -> list[Row]:
    """Both rows of a pair: numbers begin with 1."""
    return [
        {"Question ID": 2 * i + 1 + place, "Type": pattern, "Statement": f"{text} {i}"}
        for place, text in enumerate("ab")
    ]


def svo(i: int, *kinds: str) -> Row:
    triplets = {"pos_triplet": "girl,stand,grass", "neg_triplet": "dog,stand,grass"}
    urls = {"pos_url": f"http://x/{i}p", "neg_url": f"http://x/{i}n"}
    ids = {"pos_image_id": 2 * i, "neg_image_id": 2 * i + 1}
    negatives = {f"{kind}_neg": kind in kinds for kind in ("subj", "verb", "obj")}
    return {"sentence": f"s {i}", **triplets, **urls, **ids, **negatives}


def crepe(i: int, **lists: list[str]) -> Row:
    box = {"x": 1, "y": 2, "width": 30, "height": 40}
    return {"image_id": i, "caption": f"yes {i}", **box, **{key: repr(texts) for key, texts in lists.items()}}


def negbench(i: int, right: int, template: str) -> Row:
    captions = {f"caption_{k}": f"yes {i}" if k == right else f"no {i} {k}" for k in range(4)}
    return {
        "image_path": f"/data/{i}.jpg",
        "correct_answer": right,
        **captions,
        "correct_answer_template": template,
    }


def ccneg(root: Path, count: int) -> None:
    annotations = [
        {"json": {"caption": f"yes {i}"}, "sop_data": {"negative-prompt": f"no, {i}"}} for i in range(count)
    ]
    path = root / "ccneg" / load_benchmark_manifest("ccneg").files["evaluation"].path
    path.parent.mkdir(parents=True)
    images = [f"/workspace/datasets/{i}.jpg" for i in range(count)]
    torch.save({"image_paths": images, "annotations": annotations, "num_ops": {}}, path)


def half_truth(i: int, **changes: Any) -> Row:
    """A COCO row of CS-CLIP's pipeline: two entities and a relation, each with foils."""
    foils = [
        {"negative": "red ball", "change_type": "object_change"},
        {"negative": "wet grass", "change_type": "attribute_change"},
    ]
    negatives = [
        {"subject": "dogs", "relation_type": verb, "object": "grass", "change_type": kind}
        for kind, verb in (("antonym", "off"), ("negation", "not on"))
    ]
    relation = {"subject": "Dogs", "relation_type": "on", "object": "grass", "negatives": negatives}
    row = {
        "sample_id": f"{i}_0",
        "image_path": f"val2014/{i}.jpg",
        "positive_components": ["Dogs", "grass"],
        "negative_components": {"grass": foils},
        "relations": [relation],
    }
    return row | changes
