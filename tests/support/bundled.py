"""The MACCO authors' data in small: their folders, their names, their forms; every picture drawn."""

import csv
import json
from pathlib import Path
from typing import Any

from tests.support.evaluated import draw

COLUMNS = (
    "title", "filepath", "object_list", "relation_list", "attribute_list", "relation_phrase_list",
    "attribute_phrase_list", "relation_attribute_phrase_bbox_list", "neg_caption", "neg_image",
)  # fmt: skip
TSV = "mscoco_object_relation_attribute_with_phrase_bbox.tsv"
CRATE = ("add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att")
RELATIONS = ("on", "on", "on", "under", "under", "pulling", "pulling", "next to")
VALSE = {  # piece -> the folder that its pictures' paths start from, and such a path
    "actant-swap": ("VL_checklist/VL_checklist_datasets", "swig/{}.jpg"),
    "action-replacement": ("VL_checklist/VL_checklist_datasets", "swig/{}.jpg"),
    "coreference-hard": ("VALSE", "visdial/{}.jpg"),
    "coreference-standard": ("coco", "val2014/COCO_val2014_{}.jpg"),
    "counting-adversarial": ("VALSE", "v7w/{}.jpg"),
    "counting-hard": ("VALSE", "v7w/{}.jpg"),
    "counting-small-quant": ("VALSE", "v7w/{}.jpg"),
    "existence": ("VALSE", "v7w/{}.jpg"),
    "foil-it": ("coco", "val2014/COCO_val2014_{}.jpg"),
    "plurals": ("sugar-crepe", "val2017/{}.jpg"),
    "relations": ("sugar-crepe", "val2017/{}.jpg"),
}
TYPES = ("action", "color", "material", "size", "state")


def _json(path: Path, rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def _crops(root: Path, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for number, group in enumerate(groups):
        draw(root / "ARO/images" / f"{number}.jpg", number)
        box = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 12, "bbox_h": 10}
        captions = {"true_caption": f"the dog {number} eats", "false_caption": f"the {number} eats dog"}
        rows.append({"image_id": number, "image_path": f"{number}.jpg", **captions, **box, **group})
    return rows


def write_sugar_crepe(root: Path, items: int = 3) -> None:
    """One benchmark of the collection."""
    for piece in CRATE:
        found = {}
        for number in range(items):
            draw(root / "sugar-crepe/val2017" / f"{number:012}.jpg", number)
            texts = {"caption": f"a dog {number} {piece}", "negative_caption": f"a cat {number} {piece}"}
            found[str(number)] = {"filename": f"{number:012}.jpg", **texts}
        _json(root / "sugar-crepe" / f"{piece}.json", found)


def write_bundle(root: Path, items: int = 3) -> None:
    """All benchmark files of the collection, a few items each."""
    write_sugar_crepe(root, items)
    relations = _crops(root, [{"relation_name": name} for name in RELATIONS])
    _json(root / "ARO/visual_genome_relation.json", relations)
    attributes = _crops(root, [{"attributes": ["red", "big"]}] * 25)
    _json(root / "ARO/visual_genome_attribution.json", attributes)
    for name, folder in (("coco_karpathy_test", "coco"), ("flickr30k_test", "ARO/flickr30k-images")):
        rows = []
        for number in range(items):
            image = f"val2014/COCO_val2014_{number:012}.jpg" if folder == "coco" else f"{number}.jpg"
            draw(root / folder / image, number)
            given = image if folder == "coco" else f"flickr30k-images/{image}"
            texts = [f"a red dog {number} sits on the small sofa {i}" for i in range(5)]
            rows.append({"image": given, "caption": texts})
        _json(root / "ARO" / f"{name}.json", rows)
    for piece, (folder, pattern) in VALSE.items():
        rows = []
        for number in range(items):
            path = pattern.format(f"{number:012}")
            draw(root / folder / path, number)
            texts = {"pos_caption": f"a man {number} {piece}", "neg_caption": f"a cow {number} {piece}"}
            rows.append({"image_path": path, **texts})
        _json(root / "VALSE/probing_data" / f"{piece}.json", rows)
    lists = [(f"Relation/{one}.json", one.split("_")[0]) for one in
             ("hake_action", "swig_action", "vg_action", "vg_spatial")]  # fmt: skip
    lists += [(f"Attribute/{source}/{kind}.json", "vg") for source in ("vaw", "vg") for kind in TYPES]
    for file, source in lists:
        rows = []
        for number in range(items):
            draw(root / "VL_checklist/VL_checklist_datasets" / source / f"images/{number}.jpg", number)
            texts = {"POS": f"dog {number} {file}", "NEG": f"cow {number} {file}"}
            rows.append({"image_path": f"images/{number}.jpg", **texts})
        _json(root / "VL_checklist/VL_checklist_json_data" / file, rows)
    _whats_up(root / "whats_up_data", items)


def _whats_up(root: Path, items: int) -> None:
    for file, folder, prepositions in (
        ("controlled_images_dataset", "controlled_images", ("left_of", "right_of", "on", "under")),
        ("controlled_clevr_dataset", "controlled_clevr", ("left_of", "right_of", "in-front_of", "behind")),
    ):
        rows = []
        for place, word in enumerate(prepositions):
            image = f"{folder}/mug_{word}_table.jpeg"
            draw(root / image, place)
            others = [one for one in prepositions if one != word]
            rows.append(
                {"image_path": image, "caption_options": [f"mug {one} table" for one in (word, *others)]}
            )
        _json(root / f"{file}.json", rows)
    for name, folder in (("coco_qa", "val2017"), ("vg_qa", "vg_images")):
        for which in ("one", "two"):
            rows = []
            for number in range(items):
                file = f"{number + 500:012}" if name == "coco_qa" else str(number)
                draw(root / folder / f"{file}.jpg", number)
                rows.append([int(file), f"dog left {name} {which}", f"dog right {name} {which}"])
            _json(root / f"{name}_{which}_obj.json", rows)


def write_tsv(root: Path, rows: int = 40, images: int = 38) -> Path:
    """The training annotations: `rows` captions of `images` pictures, both splits, at root/TSV."""
    lines = []
    for number in range(rows):
        image = number % images
        split = "train2014" if image % 2 else "val2014"
        path = f"coco/{split}/COCO_{split}_{image:012}.jpg"
        draw(root / path, image, size=(80, 60))
        caption = "A red dog is sitting on a small sofa" + ' "indoors"' * (number // images) + "."
        boxes = {
            "red dog": [[8.0, 6.0, 24.0, 24.0]],
            "small sofa": [[40.0, 30.0, 72.0, 54.0]],
            "dog sitting on sofa": [[8.0, 6.0, 72.0, 54.0]],
        }
        lists: list[Any] = [
            ["dog", "sofa"], ["sitting on"], ["red", "small"], ["dog sitting on sofa"], ["red dog", "small sofa"],
            [boxes] if number % 5 else [],
        ]  # fmt: skip
        lines.append([caption, path, *map(repr, lists), repr([f"A red sofa {number}"]), "[]"])
    with open(root / TSV, "w", newline="") as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows([COLUMNS, *lines])
    return root / TSV
