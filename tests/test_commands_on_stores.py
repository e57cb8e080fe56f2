"""Every command that reads a store, on a store of every source: a table of cells, one claim that is true of each.

All stores hold the same three drawn images with five captions each, and, where the source can say so, a fourth
whose bytes are no image: what is asked of one must be answered alike by all.
"""

import csv
import gzip
import io
import json
import math
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.preprocess.cli import app as macco_prep
from macco.train.cli import app as macco_train
from tests.support.pages import held

pytestmark = pytest.mark.slow

START = Path(__file__).parent / "fixtures" / "v0.1" / "start"
IMAGES, CAPTIONS = 3, 15
EXTRACTED = ("tar", "tar.gz", "tsv", "csv", "parquet-bytes", "parquet-paths", "coco", "unnamed", "folder")
KINDS = (*EXTRACTED, "imported", "compacted")
BROKEN = "zzz"  # the fourth image; the last of its shard

# Once it is written a store's origin has no part in how it is read: elsewhere than on the disk lies one of each maker,
# and one whose images are files beside its source.
REMOTE = ("tar", "parquet-paths", "imported", "compacted")
STORES = [*(f"{kind} local" for kind in KINDS), *(f"{kind} memory" for kind in REMOTE)]
cells = pytest.mark.parametrize("name", STORES)


def give(app: typer.Typer, *arguments: object) -> str:
    """Give a command, which must succeed; what it said."""
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@dataclass(frozen=True)
class Sources:
    """The same images and captions in a file of each kind."""

    folder: Path

    @property
    def truth(self) -> Path:
        return self.folder / "demo" / "truth"

    def rows(self) -> list[tuple[str, bytes, list[str]]]:
        """Key, image and captions of each image."""
        with tarfile.open(self.folder / "demo" / "00000.tar") as archive:
            files = {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]
        keys = sorted(name.removesuffix(".jpg") for name in files if name.endswith(".jpg"))
        drawn = [(key, files[f"{key}.jpg"], json.loads(files[f"{key}.json"])["captions"]) for key in keys]
        return [*drawn, (BROKEN, b"no image", drawn[0][2])]

    def write(self) -> None:
        give(macco_prep, "demo", self.folder / "demo", "--images", IMAGES, "--seed", 5)
        for folder in ("tar", "tar.gz", "images"):
            (self.folder / folder).mkdir()
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            for key, image, captions in self.rows():
                (self.folder / "images" / f"{key}.jpg").write_bytes(image)
                (self.folder / "images" / f"{key}.json").write_text(json.dumps({"captions": captions}))
                for ending, content in (
                    ("jpg", image),
                    ("json", json.dumps({"captions": captions}).encode()),
                ):
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        (self.folder / "tar" / "00000.tar").write_bytes(data.getvalue())
        (self.folder / "tar.gz" / "00000.tar.gz").write_bytes(gzip.compress(data.getvalue()))
        pairs = [(f"{key}.jpg", text) for key, _, captions in self.rows() for text in captions]
        for ending, delimiter in (("tsv", "\t"), ("csv", ",")):
            with open(self.folder / f"train.{ending}", "w", newline="") as stream:
                csv.writer(stream, delimiter=delimiter).writerows([("filepath", "title"), *pairs])
        table = {"image": [row[1] for row in self.rows()], "captions": [row[2] for row in self.rows()]}
        table["key"] = [row[0] for row in self.rows()]
        pq.write_table(pa.table(table), self.folder / "bytes.parquet")
        pq.write_table(pa.table(table), self.folder / "unnamed")
        paths = table | {"image": [f"{row[0]}.jpg" for row in self.rows()]}
        pq.write_table(pa.table(paths), self.folder / "paths.parquet")
        images = [{"id": n, "file_name": f"{row[0]}.jpg"} for n, row in enumerate(self.rows())]
        annotations = [
            {"id": 100 * n + place, "image_id": n, "caption": text}
            for n, row in enumerate(self.rows())
            for place, text in enumerate(row[2])
        ]
        (self.folder / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations}))

    def extract(self, kind: str, out: str) -> None:
        in_parquet = ("--caption-field", "captions", "--image-field", "image", "--key-field", "key")
        found: tuple[object, ...] = {
            "tar": ("tar/00000.tar",),
            "tar.gz": ("tar.gz/00000.tar.gz",),
            "tsv": ("train.tsv", "--image-root", self.folder / "images"),
            "csv": ("train.csv", "--image-root", self.folder / "images"),
            "parquet-bytes": ("bytes.parquet", *in_parquet),
            "parquet-paths": ("paths.parquet", *in_parquet, "--image-root", self.folder / "images"),
            "coco": ("coco.json", "--image-root", self.folder / "images"),
            "unnamed": ("unnamed", *in_parquet),
            "folder": ("images", "--format", "folder"),
        }[kind]
        file, *options = found
        alone = ("--workers", 0, "--device", "cpu")
        give(macco_prep, "extract", "--shards", self.folder / str(file), *options, "--out", out, *alone)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    made = Sources(tmp_path_factory.mktemp("sources"))
    made.write()
    return made


@pytest.fixture(scope="session")
def store(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The URL of a store by its name in STORES, which is made when it is first asked for."""
    folder = tmp_path_factory.mktemp("stores")

    @cache
    def made(name: str) -> str:
        kind, place = name.split()
        url = str(folder / kind) if place == "local" else f"memory://commands/{folder.name}/{kind}"
        if kind == "imported":
            give(macco_prep, "export", made("tar local"), "--out", folder / "m.tsv", "--format", "macco-tsv")
            if not (folder / "fiftyone").exists():
                give(
                    macco_prep,
                    "export",
                    made("tar local"),
                    "--out",
                    folder / "fiftyone",
                    "--format",
                    "fiftyone",
                )
            given = ("--image-root", folder / "fiftyone" / "data", "--out", url)
            give(macco_prep, "import", folder / "m.tsv", *given)
        elif kind == "compacted":
            give(macco_prep, "compact", made(f"tar {place}"), "--out", url)
        else:
            sources.extract(kind, url)
        return url

    return made


def asked(url: str, query: str, folder: Path) -> list[dict[str, Any]]:
    give(macco_prep, "sql", url, query, "--format", "parquet", "--out", folder / "answer.parquet")
    return pq.read_table(folder / "answer.parquet").to_pylist()


def refused(app: typer.Typer, *arguments: object) -> str:
    """The one line that a command is refused with."""
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    return str(caught.value)


@cells
def test_status(name: str, store: Callable[[str], str]) -> None:
    found = json.loads(give(macco_prep, "status", store(name), "--json"))
    failed = CAPTIONS // IMAGES * (not name.startswith("imported"))
    assert (found["samples"]["ok"], sum(found["samples"].values())) == (CAPTIONS, CAPTIONS + failed)
    assert found["shards"] == {"committed": 1, "failed": {}}


@cells
def test_stats(name: str, store: Callable[[str], str]) -> None:
    def counts(url: str) -> dict[str, int]:
        found = json.loads(give(macco_prep, "stats", url, "--json"))
        return {row["kind"]: row["concepts"] for row in found["concepts"]}

    here, tar = counts(store(name)), counts(store("tar local"))
    assert here.keys() == tar.keys() == {"object", "attribute", "relation"}
    assert here["attribute"] == tar["attribute"] > 0
    if not name.startswith("imported"):  # whose file holds only the objects that something is said of
        assert here == tar


@cells
def test_sql(name: str, store: Callable[[str], str], sources: Sources, tmp_path: Path) -> None:
    captions = sorted(text for key, _, texts in sources.rows() for text in texts if key != BROKEN)
    ok = asked(store(name), "SELECT caption FROM samples WHERE status = 'ok' ORDER BY caption", tmp_path)
    assert [row["caption"] for row in ok] == captions
    wrong = 'SELECT text FROM concepts JOIN samples USING (sample_id) WHERE caption[start + 1:"end"] <> text'
    assert asked(store(name), wrong, tmp_path) == []
    views = ("concepts", "boxes", "concept_boxes", "shards")
    counts = ", ".join(f"(SELECT count(*) FROM {view}) AS {view}" for view in views)
    (found,) = asked(store(name), f"SELECT {counts}", tmp_path)
    assert min(found.values()) == found["shards"] == 1


@cells
def test_view(name: str, store: Callable[[str], str], tmp_path: Path) -> None:
    give(macco_prep, "view", store(name), "--out", tmp_path / "v.html", "--where", "status = 'ok'")
    found = held(tmp_path / "v.html")
    assert len(found) == len([one for one in found if one["src"].startswith("data:image/jpeg")]) == IMAGES
    assert sum(len(one["boxes"]) for one in found) >= IMAGES


@cells
def test_cache(name: str, store: Callable[[str], str], tmp_path: Path) -> None:
    give(macco_prep, "cache", store(name), "--out", tmp_path / "cache", "--short-side", 32, "--workers", 1)
    ((rows, data),) = [
        (pq.read_table(path).to_pylist(), path.with_suffix(".jpegs").read_bytes())
        for path in (tmp_path / "cache").glob("*.parquet")
    ]
    keys = asked(store(name), "SELECT DISTINCT key FROM samples WHERE status = 'ok'", tmp_path)
    assert sorted(row["key"] for row in rows) == sorted(row["key"] for row in keys)
    for row in rows:
        jpeg = data[row["at"] : row["at"] + row["bytes"]]
        assert min(Image.open(io.BytesIO(jpeg)).size) == 32


@cells
def test_compact(name: str, store: Callable[[str], str], tmp_path: Path) -> None:
    give(macco_prep, "compact", store(name), "--out", tmp_path / "small")
    views = ("samples", "concepts", "boxes")
    query = "SELECT " + ", ".join(f"(SELECT list(x ORDER BY x) FROM {view} x) AS {view}" for view in views)
    (here,), (copy,) = (asked(url, query, tmp_path) for url in (store(name), str(tmp_path / "small")))
    assert here == copy
    assert all(here.values())


@cells
def test_export_coco(name: str, store: Callable[[str], str], tmp_path: Path) -> None:
    @cache
    def boxes(url: str) -> set[tuple[str, tuple[float, ...]]]:
        give(macco_prep, "export", url, "--out", tmp_path / "coco.json")
        coco = json.loads((tmp_path / "coco.json").read_text())
        assert len(coco["images"]) == IMAGES
        return {(box["phrase"], tuple(box["bbox"])) for box in coco["annotations"]}

    here, tar = boxes(store(name)), boxes(store("tar local"))
    assert here
    if not name.startswith("imported"):
        assert here == tar


@cells
def test_export_fiftyone(name: str, store: Callable[[str], str], sources: Sources, tmp_path: Path) -> None:
    give(macco_prep, "export", store(name), "--out", tmp_path / "f", "--format", "fiftyone")
    labels = json.loads((tmp_path / "f" / "labels.json").read_text())
    files = list((tmp_path / "f" / "data").iterdir())
    assert {file.stem for file in files} == labels["labels"].keys()
    assert {file.read_bytes() for file in files} == {
        image for key, image, _ in sources.rows() if key != BROKEN
    }


@cells
def test_export_macco_tsv(name: str, store: Callable[[str], str], sources: Sources, tmp_path: Path) -> None:
    give(macco_prep, "export", store(name), "--out", tmp_path / "t.tsv", "--format", "macco-tsv")
    with open(tmp_path / "t.tsv", newline="") as stream:
        titles = [row["title"] for row in csv.DictReader(stream, delimiter="\t")]
    assert sorted(titles) == sorted(
        text for key, _, texts in sources.rows() for text in texts if key != BROKEN
    )


@cells
def test_retry(name: str, store: Callable[[str], str], tmp_path: Path) -> None:
    def rows() -> list[dict[str, Any]]:
        return asked(store(name), "SELECT * FROM samples ORDER BY ALL", tmp_path)

    before, command = rows(), ("retry", store(name), "--samples", "--workers", 0, "--device", "cpu")
    if not name.startswith("imported"):
        assert give(macco_prep, *command).startswith("1 shards extracted, 0 were there, 0 failed; 20 samples")
    else:
        assert "imported" in refused(macco_prep, *command)
    assert rows() == before


@pytest.mark.parametrize(
    "name", [name for name in STORES if name.split()[0] in ("tar", "tar.gz", "compacted")]
)
def test_score(name: str, store: Callable[[str], str], sources: Sources) -> None:
    found = json.loads(give(macco_prep, "score", store(name), "--truth", sources.truth, "--json"))
    assert found["spans"]["f1"] > 0.95
    assert found["boxes"]["recall"] > 0.8


@cells
def test_negatives(name: str, store: Callable[[str], str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"  # they are written into the store
    give(macco_prep, "compact", store(name), "--out", copy)
    for url in (store(name), str(copy)):
        said = give(macco_train, "negatives", url).splitlines()[-1]
        assert said.endswith(f" negatives in {url}/negatives")
        assert int(said.split()[0]) > IMAGES


@pytest.fixture(scope="session")
def benchmarks(sources: Sources) -> Path:
    """Drawn images of which one is stored too."""
    folder = sources.folder / "benchmarks"
    give(macco_prep, "demo", folder / "demo", "--benchmark", "--split", "val", "--images", 1, "--seed", 9)
    (folder / "demo" / "images" / "seen-00000-base.jpg").write_bytes(sources.rows()[1][1])
    return folder


@cells
def test_audit(name: str, store: Callable[[str], str], benchmarks: Path, tmp_path: Path) -> None:
    out = tmp_path / "matches.parquet"
    asked = ("--data", benchmarks, "--benchmark", "demo", "--distance", 0, "--out", out)
    give(macco_train, "audit", "--store", store(name), *asked)
    matches = pq.read_table(out).to_pylist()
    assert {(Path(row["image"]).name, row["by_name"], row["by_hash"]) for row in matches} == {
        ("seen-00000-base.jpg", False, True)
    }


@cells
def test_run(name: str, store: Callable[[str], str], tmp_path: Path) -> None:
    tiny = ("method.text_depth=1", "method.image_depth=1", f"model.name={START}", "model.pretrained=")
    steps = (
        "steps=2",
        "data.batch_size=4",
        "data.workers=0",
        "log_every=1",
        "device=cpu",
        "optimizer.warmup=1",
    )
    give(macco_train, "run", "--store", store(name), "--out", tmp_path / "run", *tiny, *steps)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(row["loss"]) and row["mlm"] > 0 and row["broken_images"] == 0 for row in rows)
    assert (tmp_path / "run" / "model" / "open_clip_model.safetensors").is_file()
