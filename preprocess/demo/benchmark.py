"""The demo benchmark on disk: scenes with one thing changed, and captions that tell them apart."""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.shuffles import shuffles
from macco.preprocess.demo.captions import Caption, captions
from macco.preprocess.demo.changes import HELD_OUT, SEEN, Case, draw_case
from macco.preprocess.demo.corpus import NOTICE, describe
from macco.preprocess.demo.icons import COLOURS, NOUNS
from macco.preprocess.demo.scene import MARGIN, SIDE, Scene, held_out, thing_of

GROUPS: Final = {"val": (SEEN,), "test": (SEEN, HELD_OUT)}
OBJECT_ADD, OBJECT_REMOVE, WORD_ORDER = "object_add", "object_remove", "word_order"
SINGLES: Final = {"train": 8, "test": 4}  # pictures of each noun alone
_CONTENTS: Final = """
items.jsonl: the questions. retrieval.json: the base images with five captions each. scenes.jsonl: what each
image shows. classify: single things by noun.
"""


def write_benchmark(out_dir: Path, *, images: int, seed: int, split: str) -> None:
    """Write `images` base scenes of each group with their changes: equal arguments give equal bytes.

    items.jsonl holds a line per item: id, kind, group, image_0 with caption_0, and image_1 with caption_1. Of
    object_add there is no image_1, of object_remove no caption_1, because fewer things claimed are true of
    both images; word_order has `negatives` instead. items.jsonl is written last.

    Raises:
        UserError: the split has no benchmark, or out_dir is not a new or empty folder.
    """
    if split not in GROUPS:
        raise UserError(
            f"--benchmark needs --split val or test, not {split}: train is what models learn from"
        )
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise UserError(f"{out_dir} holds something: choose a new folder")
    put_file(out_dir / "NOTICE.txt", (NOTICE + _CONTENTS).encode())
    (out_dir / "images").mkdir()
    items: list[dict[str, Any]] = []
    retrieval: list[dict[str, Any]] = []
    scenes: list[dict[str, Any]] = []
    for group in GROUPS[split]:
        for index in range(images):
            rng = random.Random(f"benchmark/{split}/{group}/{seed}/{index}")
            case = draw_case(rng, group)
            names = {}
            for kind, scene in [("base", case.base), *((k, c.scene) for k, c in case.changes.items())]:
                names[kind] = f"images/{group}-{index:05}-{kind}.jpg"
                (out_dir / names[kind]).write_bytes(_jpeg(scene.draw()))
                scenes.append({"image": names[kind], **describe(scene)})
            items += ({"id": f"{index:05}", "group": group, **item} for item in _items(case, names, rng))
            written = [text for text, _ in captions(case.base, rng)]
            retrieval.append({"image": names["base"], "caption": written})
    _write_singles(out_dir / "classify", f"benchmark/{split}/classify/{seed}")
    put_file(out_dir / "scenes.jsonl", _lines(scenes))
    put_file(out_dir / "retrieval.json", json.dumps(retrieval, indent=0).encode())
    put_file(out_dir / "items.jsonl", _lines(items))


def _items(case: Case, images: dict[str, str], rng: random.Random) -> Iterator[dict[str, Any]]:
    def text(claim: Any) -> str:
        return case.style.write(claim).text

    base = images["base"]
    for kind, change in case.changes.items():
        before, after = text(change.before), text(change.after)
        item = {"kind": kind, "image_0": base, "caption_0": before}
        if kind == OBJECT_ADD:
            yield item | {"caption_1": after}
            yield {"kind": OBJECT_REMOVE, "image_0": images[kind], "caption_0": after, "image_1": base}
        else:
            yield item | {"image_1": images[kind], "caption_1": after}
    caption = case.style.write(case.claim)
    negatives = word_orders(caption, rng)
    yield {"kind": WORD_ORDER, "image_0": base, "caption_0": caption.text, "negatives": negatives}


def word_orders(caption: Caption, rng: random.Random) -> list[str]:
    """ARO's four shuffles of a caption of one relation; different from it and from each other by more than
    "a" and "an", and none that says the same in another order ("on a blue sofa a red dog").
    """
    words, tags = [], []
    (relation,) = caption.relations
    nouns = [c.head for c in (*caption.objects, relation) if c.pos == "NOUN"]
    adjectives = [c.head for c in caption.attributes]
    start = 0
    for word in caption.text.split(" "):
        words.append(word)
        tag = "NN" if any(span.start <= start < span.end for span in nouns) else "OTHER"
        tags.append("JJ" if any(span.start <= start < span.end for span in adjectives) else tag)
        start += len(word) + 1
    (span,) = relation.spans
    (last,) = caption.objects[1].spans
    how, whom = caption.text[span.start : span.end], caption.text[last.start : last.end]
    while True:
        options = shuffles(words, tags, rng)
        if len({f" {option} ".replace(" an ", " a ") for option in (caption.text, *options)}) < 5:
            continue
        if not any(f"{how} {whom}" in text or (whom in text and text.endswith(how)) for text in options):
            return options


def _write_singles(folder: Path, salt: str) -> None:
    """Folders split/noun with pictures of one thing, in colours that training shows that noun in."""
    for split, count in SINGLES.items():
        for noun in NOUNS:
            place = folder / split / noun.replace(" ", "_")
            place.mkdir(parents=True)
            for number in range(count):
                rng = random.Random(f"{salt}/{split}/{noun}/{number}")
                seen = [c for c in COLOURS if not held_out([(c, noun)])["colour_noun"]]
                thing = thing_of(rng, rng.choice(seen), noun)
                _, _, width, height = thing.box
                x, y = (rng.uniform(MARGIN, SIDE - MARGIN - side) for side in (width, height))
                scene = Scene((thing.at(x, y),), rng.randrange(2**31))
                (place / f"{number}.jpg").write_bytes(_jpeg(scene.draw()))


def _jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=92)
    return data.getvalue()


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
