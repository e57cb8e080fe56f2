"""The authors' TSV at its own size and with its own oddities."""

import csv
import json
import os
import resource
import sys
import time
from itertools import groupby
from pathlib import Path

import numpy as np
import open_clip
import psutil
import pytest
from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.preprocess.exchange import importing, records
from macco.preprocess.exchange.coco import export_coco
from macco.preprocess.exchange.importing import import_tsv
from macco.preprocess.exchange.records import COLUMNS
from macco.preprocess.exchange.tsv import export_tsv
from macco.train.losses.pairs import PairIds, same
from macco.train.objectives.macco.batches import open_training_data
from tests.support import ROOT
from tests.support.bundled import write_tsv

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
TABLES = ("samples", "concepts", "boxes")


def rows(store: str) -> list[list[tuple[object, ...]]]:
    connection = connect(Store.open(store))
    return [connection.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in TABLES]


def test_processes_make_the_same_rows_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "ROWS_PER_SHARD", 7)
    tsv = write_tsv(tmp_path)
    assert import_tsv(tsv, str(tmp_path / "one"), str(tmp_path)) == {"ok": 40}
    store = Store.open(str(tmp_path / "one"))
    store.remove(f"shards/{tsv.stem}-00002.json")
    assert import_tsv(tsv, str(tmp_path / "one"), str(tmp_path), workers=2) == {"ok": 7}
    assert import_tsv(tsv, str(tmp_path / "two"), str(tmp_path), workers=2) == {"ok": 40}
    assert rows(str(tmp_path / "one")) == rows(str(tmp_path / "two"))


def lines_of(tsv: Path) -> list[list[str]]:
    with open(tsv, newline="") as stream:
        return list(csv.reader(stream, delimiter="\t"))


def rewrite(tsv: Path, lines: list[list[str]]) -> None:
    with open(tsv, "w", newline="") as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(lines)


def asked(store: str, sql: str) -> list[tuple[object, ...]]:
    return connect(Store.open(store)).execute(sql).fetchall()


def test_captions_of_one_image_are_one_images_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours by one key, whatever lies between them in the file; each caption has the boxes of its own row."""
    monkeypatch.setattr(importing, "ROWS_PER_SHARD", 7)
    tsv, store = write_tsv(tmp_path), str(tmp_path / "store")
    lines = lines_of(tsv)
    lines[39][7] = repr([{"red dog": [[0, 0, 80, 60]]}])  # of the first image's second caption
    rewrite(tsv, lines)
    import_tsv(tsv, store, str(tmp_path), workers=2)
    images = (
        "SELECT count(*), count(DISTINCT (shard, key)), count(DISTINCT hash(source, member)) FROM samples"
    )
    assert asked(store, images) == [(40, 38, 38)]
    first = "SELECT shard, key, caption_id, row FROM samples WHERE member = ? ORDER BY row"
    found = connect(Store.open(store)).execute(first, [lines[1][1]]).fetchall()
    shard = f"{tsv.stem}-00000"
    assert found == [(shard, "000000002", 0, 0), (shard, "000000002", 1, 1)]
    boxes = "SELECT caption_id, x0, y0, x1, y1 FROM boxes WHERE key = '000000002' AND shard = ? ORDER BY ALL"
    assert connect(Store.open(store)).execute(boxes, [shard]).fetchall() == [(1, 0, 0, 1, 1)]
    keys = [key for (key,) in asked(store, "SELECT shard || key FROM samples ORDER BY shard, row")]
    assert len([key for key, _ in groupby(keys)]) == 38
    assert export_coco(Store.open(store), tmp_path / "coco.json", 0) == 38
    loader = load(store, captions="one")
    for _ in range(2):
        shown = [name.rpartition("/")[0] for batch in loader for name in batch.ids]
        assert len(set(shown)) == len(shown) == 38
    for batch in load(store, captions="all"):
        ids = PairIds(batch.image_ids, batch.caption_ids)
        images_of = [name.rpartition("/")[0] for name in batch.ids]
        together = [[a is not b and a == b for b in images_of] for a in images_of]
        assert (same(ids, ids, 0).numpy() >= np.array(together)).all()


def load(store: str, captions: str):  # type: ignore[no-untyped-def]
    options = {"image_size": 32, "patch_size": 8, "workers": 0, "log": lambda line: None}
    sizes = {"one": 38, "all": 40}
    return open_training_data(store, TOKENIZER, captions=captions, batch_size=sizes[captions], **options)  # type: ignore[arg-type]


def test_a_caption_that_cannot_be_read_stays_with_its_image(tmp_path: Path) -> None:
    tsv, store = write_tsv(tmp_path, rows=4, images=1), str(tmp_path / "store")
    lines = lines_of(tsv)
    lines[2][2] = "['dog"
    rewrite(tsv, lines)
    assert import_tsv(tsv, store, str(tmp_path)) == {"ok": 3, "bad_row": 1}
    found = asked(store, "SELECT key, caption_id, status, width IS NOT NULL FROM samples ORDER BY row")
    assert found == [("000000002", n, "bad_row" if n == 1 else "ok", True) for n in range(4)]
    error = asked(store, "SELECT error FROM samples WHERE status = 'bad_row'")[0][0]
    assert str(error).startswith("line 3: ")


def test_a_file_is_known_by_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "ROWS_PER_SHARD", 7)
    tsv, store = write_tsv(tmp_path), str(tmp_path / "store")
    lines = lines_of(tsv)
    rewrite(tsv, lines[:31])
    assert import_tsv(tsv, store, str(tmp_path)) == {"ok": 30}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "store/shards").glob("*-0*.json")}
    rewrite(tsv, lines[:31])  # another time stamp
    assert import_tsv(tsv, store, str(tmp_path)) == {}
    rewrite(tsv, lines[:39])  # it grew: the last shard was not full
    assert import_tsv(tsv, store, str(tmp_path)) == {"ok": 2 + 8}
    assert {path for path, time in stamps.items() if path.stat().st_mtime_ns != time} == {
        tmp_path / f"store/shards/{tsv.stem}-00004.json"
    }
    assert import_tsv(tsv, str(tmp_path / "fresh"), str(tmp_path), workers=2) == {"ok": 38}
    assert rows(store) == rows(str(tmp_path / "fresh"))
    before = rows(store)
    rewrite(tsv, lines)  # two more captions of images that are there
    with pytest.raises(UserError, match=r"was changed since shard .*-00000 was imported; --replace does"):
        import_tsv(tsv, store, str(tmp_path))
    assert rows(store) == before
    assert import_tsv(tsv, store, str(tmp_path), replace=True) == {"ok": 9}
    assert import_tsv(tsv, str(tmp_path / "all"), str(tmp_path)) == {"ok": 40}
    assert rows(store) == rows(str(tmp_path / "all"))
    lines[9][7] = "[]"  # only the boxes of a row
    rewrite(tsv, lines[:20])
    with pytest.raises(UserError, match="was changed since shard"):
        import_tsv(tsv, store, str(tmp_path))
    assert import_tsv(tsv, store, str(tmp_path), replace=True) == {"ok": 19}
    assert asked(store, "SELECT count(*), count(DISTINCT shard) FROM samples") == [(19, 3)]
    with pytest.raises(UserError, match="was read with --dataset"):
        import_tsv(tsv, store, str(tmp_path), "other")
    with pytest.raises(UserError, match="was made with image_root"):
        import_tsv(tsv, store, str(tmp_path / "coco"))


def test_a_store_of_a_former_version_is_not_gone_on_with(tmp_path: Path) -> None:
    tsv, store = write_tsv(tmp_path), str(tmp_path / "store")
    import_tsv(tsv, store, str(tmp_path))
    (record,) = (tmp_path / "store/shards").glob(f"{tsv.stem}-*.json")
    held = json.loads(record.read_text())
    held["input"] = {"url": str(tsv)}
    record.write_text(json.dumps(held))
    with pytest.raises(UserError, match="imported by an earlier macco"):
        import_tsv(tsv, store, str(tmp_path))
    assert import_tsv(tsv, store, str(tmp_path), replace=True) == {"ok": 40}


def test_images_that_come_later_are_taken_in_on_request(tmp_path: Path) -> None:
    tsv, store = write_tsv(tmp_path), str(tmp_path / "store")
    image = next((tmp_path / "coco/val2014").iterdir())
    image.rename(tmp_path / "away.jpg")
    first = import_tsv(tsv, store, str(tmp_path))
    assert first["missing_image"] > 0
    (tmp_path / "away.jpg").rename(image)
    assert import_tsv(tsv, store, str(tmp_path)) == {}
    assert import_tsv(tsv, store, str(tmp_path), replace=True) == {"ok": 40}


def test_hard_negatives_are_the_stores_and_go_out_as_they_came(tmp_path: Path) -> None:
    tsv, store = write_tsv(tmp_path), str(tmp_path / "store")
    lines, said = lines_of(tsv), list[str]()
    given = [["a", "b"], [], ["a", "b", "c", "d", "e", "f"]]
    for line, texts in zip(lines[1:], given, strict=False):
        line[8] = repr(texts)
    rewrite(tsv, lines)
    import_tsv(tsv, store, str(tmp_path), log=said.append)
    assert said == ["1 negative captions are left out: a store has 5 of a caption at most"]
    export_tsv(Store.open(store), tmp_path / "out.tsv", 0)
    out = {(line[0], line[1]): line[8] for line in lines_of(tmp_path / "out.tsv")}
    texts = [out[line[0], line[1]] for line in lines[1:5]]
    assert texts == [repr(one[:5]) for one in given] + [lines[4][8]]
    options = {"image_size": 32, "patch_size": 8, "batch_size": 40, "log": lambda line: None}
    batch = next(iter(open_training_data(store, TOKENIZER, negatives=2, **options)))  # type: ignore[arg-type]
    assert int(batch.negative_valid.sum()) == 2 + 0 + 2 + 37
    # They go with the rows that they are of.
    for line in lines[1:]:
        line[8] = "[]"
    rewrite(tsv, lines)
    import_tsv(tsv, store, str(tmp_path), replace=True)
    with pytest.raises(UserError, match="macco-train negatives"):
        open_training_data(store, TOKENIZER, negatives=2, **options)  # type: ignore[arg-type]


def test_damage_is_found_at_the_ends_of_a_picture_and_inside_by_decoding(tmp_path: Path) -> None:
    tsv = write_tsv(tmp_path, rows=3, images=3)
    cut, inside = (tmp_path / line[1] for line in lines_of(tsv)[2:])
    cut.write_bytes(cut.read_bytes()[:-20])
    data = inside.read_bytes()
    inside.write_bytes(data[: len(data) // 2] + data[-2:])
    whole = import_tsv(tsv, str(tmp_path / "whole"), str(tmp_path), decode=True)
    quick = import_tsv(tsv, str(tmp_path / "quick"), str(tmp_path))
    assert quick == {"ok": 2, "image_truncated": 1}
    assert whole["image_truncated"] >= 1
    hashes = "SELECT count(dhash) FROM samples WHERE status = 'ok'"
    assert asked(str(tmp_path / "whole"), hashes) == [(whole["ok"],)]
    assert asked(str(tmp_path / "quick"), hashes) == [(0,)]


def test_every_odd_literal_is_a_counted_row(tmp_path: Path) -> None:
    odd = {
        "object_list": ["[1]", "'dog'", "[", "[None]", "dog", "{[]: 1}", r"['\ud800']"],
        "relation_attribute_phrase_bbox_list": [
            "[{'a': [[1, 2]]}]", "[['a']]", "{'a': 1}", "[{'a': None}]", r"[{'a \ud800': [[1, 2, 3, 4]]}]",
            f"[{{'a': [[1{'0' * 400}, 2, 3, 4]]}}]",
        ],
        "neg_caption": ["'a cat'", "[5]"],
        "neg_image": ["open('x')"],
    }  # fmt: skip
    lines = ["\t".join(COLUMNS)]
    for column, cells in odd.items():
        for cell in cells:
            row = dict.fromkeys(COLUMNS, "[]") | {"title": "a dog", "filepath": "x.jpg", column: cell}
            lines.append("\t".join(row.values()))
    (tmp_path / "odd.tsv").write_text("\n".join(lines) + "\n")
    assert import_tsv(tmp_path / "odd.tsv", str(tmp_path / "store"), str(tmp_path)) == {"bad_row": 16}


@pytest.mark.parametrize(
    ("titles", "read"),
    [
        (['"a dog', "a cat", 'a "big" cow'], ['"a dog', "a cat", 'a "big" cow']),
        (['"a dog', '"a cat"', '"a cow'], ['"a dog', "a cat", '"a cow']),
        (['"Hi" says a dog', 'a 12" cat', "a cow"], ['"Hi" says a dog', 'a 12" cat', "a cow"]),
        (['"two\nlines"', '"a\tcat ""so"""', '"a cow'], ["two\nlines", 'a\tcat "so"', '"a cow']),
    ],
)
def test_no_row_is_lost_in_another_whatever_its_quotes(
    tmp_path: Path, titles: list[str], read: list[str]
) -> None:
    lines = ["\t".join(COLUMNS)]
    for place, title in enumerate(titles):
        row = dict.fromkeys(COLUMNS, "[]") | {"title": title, "filepath": f"{place}.jpg"}
        lines.append("\t".join(row.values()))
        Image.new("RGB", (9, 9)).save(tmp_path / f"{place}.jpg")
    (tmp_path / "x.tsv").write_text("\n".join(lines) + "\n")
    store = str(tmp_path / "store")
    assert import_tsv(tmp_path / "x.tsv", store, str(tmp_path)) == {"ok": 3}
    assert asked(store, "SELECT member, caption FROM samples ORDER BY row") == [
        (f"{place}.jpg", title) for place, title in enumerate(read)
    ]


def test_an_open_quote_costs_no_more_than_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST", 1000)
    rows = [["a dog", "x.jpg", *["[]"] * 8] for _ in range(100)]
    rows[3][0] = '"a dog'
    lines = ["\t".join(row) for row in (COLUMNS, *rows)]
    (tmp_path / "x.tsv").write_text("\n".join(lines) + "\n")
    assert len(list(records.read_tsv(tmp_path / "x.tsv"))) == 100


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("\t".join([*COLUMNS, "title"]) + "\n")
    with pytest.raises(UserError, match="2 columns 'title'"):
        import_tsv(tmp_path / "x.tsv", str(tmp_path / "store"), str(tmp_path))


@pytest.mark.processes
def test_a_killed_import_leaves_no_process_and_no_lock_and_goes_on(tmp_path: Path) -> None:
    tsv, store, root = (
        write_tsv(tmp_path, rows=1, images=1),
        str(tmp_path / "store"),
        tmp_path / "coco/val2014",
    )
    header, (title, path, *lists) = lines_of(tsv)
    (root / Path(path).name).rename(root / "0.jpg")
    for number in range(1, 3000):
        os.link(root / "0.jpg", root / f"{number}.jpg")
    rewrite(tsv, [header, *([title, f"coco/val2014/{number}.jpg", *lists] for number in range(3000))])
    command = [sys.executable, "-m", "macco.preprocess", "import", str(tsv), "--out", store, "--workers", "2"]
    process = psutil.Popen([*command, "--image-root", str(tmp_path)], cwd=ROOT)
    shards = tmp_path / "store/shards"
    while process.poll() is None and not list(shards.glob(f"{tsv.stem}-*.json")):
        time.sleep(0.01)
    workers = process.children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    held = len(Store.open(store).committed())
    assert import_tsv(tsv, store, str(tmp_path), workers=2) == {"ok": 1000 * (3 - held)} if held < 3 else {}
    import_tsv(tsv, str(tmp_path / "whole"), str(tmp_path))
    assert rows(store) == rows(str(tmp_path / "whole"))


def test_a_full_disk_is_one_line_and_the_import_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system refuses what would grow too large, in the middle of the file's shards."""
    monkeypatch.setattr(importing, "ROWS_PER_SHARD", 7)
    tsv, store = write_tsv(tmp_path), str(tmp_path / "store")
    lines = lines_of(tsv)
    lines[20][0] += " It is " + "".join(map(chr, range(0x4E00, 0x7E00)))  # nothing to be packed
    rewrite(tsv, lines)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write to .*File too large; what is committed is safe"):
            import_tsv(tsv, store, str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Store.open(store).committed() == {f"{tsv.stem}-{n:05}" for n in range(2)}
    assert import_tsv(tsv, store, str(tmp_path)) == {"ok": 40 - 9 - 7}
    import_tsv(tsv, str(tmp_path / "whole"), str(tmp_path))
    assert rows(store) == rows(str(tmp_path / "whole"))
