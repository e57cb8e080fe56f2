"""The joint objectives in the loop: losses, regions, stopping and going on, and evaluation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.cli import app
from macco.train.clip.load import load_start
from macco.train.clip.write import export_open_clip
from macco.train.data.loader import open_loader
from macco.train.data.masks import Crop
from macco.train.data.negatives import write_negatives
from macco.train.evaluation.item import Picture
from macco.train.layers import parse, preset, resolve
from macco.train.loop.run import train
from macco.train.loop.state import State, build_model
from macco.train.losses.congruence import congruence
from macco.train.losses.matching import annealing
from macco.train.objectives.joint import features
from macco.train.objectives.joint.batches import RegionBatch
from macco.train.objectives.joint.model import JointModel, read_tokens
from macco.train.objectives.joint.regions import RegionPlan, cells, regions_of
from macco.train.objectives.model import Model
from macco.train.objectives.objective import Scoring, load_objective
from macco.train.results.scorers import open_scorer, run_scorer
from macco.train.runs import checkpoint
from macco.train.runs.metrics import read as read_metrics
from tests.support.drawn import jpeg, record, rows, tar
from tests.train.loop.test_train_run import CLIP, after, equal, never, quiet, state

OBJECTIVES = ("cacr", "iais-singular", "iais-distributed", "itm")
COLOURS = ("red", "blue", "grey", "green", "black", "white", "brown", "pink")
SMALL = [
    "data.batch_size=6", "data.workers=0", "steps=4", "save_every=0", "log_every=1", "device=cpu",
    "optimizer.warmup=0", "joint.layers=2", "joint.width=16", "joint.heads=2", "joint.negatives=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three shards of eight images, whose captions differ in a colour of as many letters as "red"."""
    folder = tmp_path_factory.mktemp("drawn")
    made = Store.create(str(folder / "store"), {"made": "for tests"})
    for number in range(3):
        name, source = f"{number:05}", folder / f"{number:05}.tar"
        places = tar(source, [jpeg(60 * number + 20 * image) for image in range(8)])
        tables = rows(name, source, places)
        captions = [
            f"A {COLOURS[(row + number) % 8][:3]} dog is sitting on a small sofa." for row in range(8)
        ]
        samples = tables["samples"]
        where = samples.column_names.index("caption")
        tables["samples"] = samples.set_column(where, samples.schema.field(where), [captions])
        made.commit(name, tables, record(name, source))
    return str(folder / "store")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    export_open_clip(open_clip.model.CLIP(**CLIP), folder, CLIP)
    return str(folder)


@pytest.fixture(scope="module")
def small(store: str, clip: str) -> Any:
    """Configurations of small runs."""

    def make(objective: str, *assignments: str) -> Any:
        model = [f"objective={objective}", f"data.store={store}", f"model.name={clip}", "model.pretrained="]
        return resolve(parse([*SMALL, *model, *assignments]))

    return make


def opened(config: Any) -> tuple[Any, RegionBatch]:
    """The state of a run before its first step, and its first batch."""
    start, device, objective = (
        load_start(config.model, config.seed),
        torch.device("cpu"),
        load_objective(config),
    )
    model = build_model(objective, start.model, device)
    recipe = objective.recipe(model, start.tokenizer, config.data, device, quiet)
    loader = open_loader(config.data, recipe, seed=config.seed, log=quiet)
    return State(objective, model, config.steps), next(iter(loader))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("extra", [(), ("joint.regions=grid", "joint.tower=trained")])
def test_the_losses_are_those_of_each_pair_by_itself(
    objective: str, extra: tuple[str, ...], small: Any
) -> None:
    config = small(objective, *extra, "joint.dropout=0", "joint.weight=3", "joint.schedule=linear")
    training, batch = opened(config)
    model: JointModel = training.model
    assert config.joint.dropout == 0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for step, anchored in enumerate((True, False)):
        training.step = step
        pairs, pooled = model.pairs(batch)
        wrong = model.negatives(batch, pooled, image_anchored=anchored)
        rank, attentive = 0.0, 0.0
        for i in range(len(batch)):
            own = one(pairs, i, i)
            positive, attention = model.encoder.with_attention(own)
            kept = wrong.places[i][wrong.valid[i]].tolist()
            others = [one(pairs, j, i) if anchored else one(pairs, i, j) for j in kept]
            hinges = [0.2 + model.encoder(o).sigmoid() - positive.sigmoid() for o in others]
            rank += sum(max(0.0, h.item()) for h in hinges) / len(hinges) / len(batch)
            if model.kind is not None:
                directed = attention.mirrored() if anchored else attention
                attentive += congruence(directed, model.kind).item() / len(batch)
        losses = training.gradients(batch)
        assert losses["rank"].item() == pytest.approx(rank, rel=1e-4)
        assert rank > 0
        if objective != "itm":
            assert losses["congruence"].item() == pytest.approx(attentive, rel=1e-3, abs=1e-7)
        expected = rank + 3 * annealing(step / 4, "linear") * attentive
        assert losses["loss"].item() == pytest.approx(expected, rel=1e-4)
    training.update(batch)
    moved = {n.split(".")[0] for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == ({"clip", "encoder"} if extra else {"encoder"})


@pytest.mark.slow
def test_a_run_starts_from_the_joint_encoder_of_another(small: Any, tmp_path: Path) -> None:
    assert train(small("itm", "steps=1"), tmp_path / "first", lambda: False, quiet)
    found = checkpoint.load(tmp_path / "first", checkpoint.LATEST)["model"]
    training, _ = opened(small("cacr", f"model.predictors={tmp_path / 'first'}"))
    for name, value in training.model.state_dict().items():
        assert torch.equal(value, found[name]), name
    for other in ("joint.width=32", "joint.layers=1"):
        with pytest.raises(UserError, match=r"other sizes.*joint\.\*"):
            opened(small("cacr", f"model.predictors={tmp_path / 'first'}", other))


def one(pairs: Any, caption: int, image: int) -> Any:
    """One caption with the regions of one image."""
    text = {name: getattr(pairs, name)[caption : caption + 1] for name in ("tokens", "present", "words")}
    seen = {name: getattr(pairs, name)[image : image + 1] for name in ("features", "boxes", "regions")}
    return replace(pairs, **text, **seen)


@pytest.mark.slow
def test_micro_batches_change_nothing_but_memory(small: Any) -> None:
    found = []
    for size in (0, 4):
        extra = ("joint.dropout=0", "joint.tower=trained", "joint.schedule=constant", f"micro_batch={size}")
        training, batch = opened(small("cacr", *extra))
        losses = training.gradients(batch)
        found.append(
            (losses, {n: p.grad for n, p in training.model.named_parameters() if p.grad is not None})
        )
    (losses, whole), (same, cut) = found
    torch.testing.assert_close(losses, same, rtol=1e-4, atol=1e-7)
    assert whole.keys() == cut.keys()
    assert any(name.startswith("clip.visual") for name in whole)
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, cut[name], rtol=1e-3, atol=1e-6, msg=name)


def test_wrong_partners_are_wrong(small: Any) -> None:
    training, batch = opened(small("itm", "joint.negatives=31"))
    model: JointModel = training.model
    batch.ids[1] = batch.ids[0].rpartition("/")[0] + "/1"  # another caption of the same image
    _, pooled = model.pairs(batch)
    for anchored in (True, False):
        wrong = model.negatives(batch, pooled, image_anchored=anchored)
        kept = [set(p[v].tolist()) for p, v in zip(wrong.places, wrong.valid, strict=True)]
        equal_captions = (batch.tokens[:, None] == batch.tokens).all(-1)
        for i, places in enumerate(kept):
            same = {j for j in range(len(batch)) if equal_captions[i, j]} | {i}
            same |= {0, 1} if i < 2 else set()
            assert places == set(range(len(batch))) - same


def test_hard_captions_made_offline_are_among_the_negatives(small: Any, store: str) -> None:
    write_negatives(Store.open(store), 0, quiet)
    training, batch = opened(small("itm", "joint.offline=2", "joint.negatives=4"))
    model: JointModel = training.model
    pairs, pooled = model.pairs(batch)
    wrong = model.negatives(batch, pooled, image_anchored=True)
    assert wrong.places.shape == (6, 2)
    assert wrong.captions_valid is not None
    assert wrong.captions_valid.any()
    others, valid = model._others(pairs, pairs, wrong, slice(None), True)
    assert valid.shape == (6, 4)
    assert batch.negatives is not None
    made = others.tokens.view(6, 4, -1)[:, 2:, : batch.negatives.shape[-1]]
    assert torch.equal(made, batch.negatives)
    assert model.negatives(batch, pooled, image_anchored=False).places.shape == (6, 4)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("joint.tower=trained", "joint.offline=1")])
def test_a_run_that_was_stopped_and_goes_on_is_bit_equal(
    extra: tuple[str, ...], small: Any, store: str, tmp_path: Path
) -> None:
    write_negatives(Store.open(store), 0, quiet)
    config = small("cacr", *extra, "validation.where=key < '000000006'", "save_every=2")
    assert train(config, tmp_path / "whole", never, quiet)
    assert not train(config, tmp_path / "cut", after(3), quiet)
    assert train(config, tmp_path / "cut", never, quiet)
    assert equal(state(tmp_path / "cut"), state(tmp_path / "whole"))
    ran, expected = read_metrics(tmp_path / "cut"), read_metrics(tmp_path / "whole")
    assert [row.get("loss") for row in ran] == [row.get("loss") for row in expected]
    assert {"rank", "congruence", "tau", "gradient/new"} <= set(ran[0])
    assert {"validation/loss"} <= set(ran[-1])


@pytest.mark.slow
def test_region_features_are_made_once_and_keyed_by_the_model(
    small: Any, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def made(config: Any) -> str:
        start = load_start(config.model, config.seed)
        model = JointModel(start.model, "cacr", config.joint)
        plan = RegionPlan("boxes", config.joint.count, config.joint.box_score, model.image.grid)
        said.clear()
        return features.prepared(Store.open(store), model, plan, torch.device("cpu"), said.append)

    config = small("cacr", "joint.count=3")
    make, calls = features._make, iter(range(9))

    def killed(*args: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return make(*args)

    monkeypatch.setattr(features, "_make", killed)
    with pytest.raises(KeyboardInterrupt):
        made(config)
    monkeypatch.setattr(features, "_make", make)
    folder = made(config)
    assert [line.split()[4] for line in said] == ["00001", "00002"]
    assert made(config) == folder
    assert not said
    other = small("cacr", "joint.count=2")
    assert made(other) != folder
    start = load_start(config.model, config.seed)
    with torch.no_grad():
        start.model.visual.proj.add_(1e-3)
    changed = JointModel(start.model, "cacr", config.joint)
    assert features.features_key(changed, {}) != features.features_key(model_of(config), {})
    # An image's features are the tower's, whatever company it was in.
    _, batch = opened(config)
    assert batch.features is not None
    assert batch.images.numel() == 0
    assert batch.regions is not None
    assert batch.regions.sum(1).tolist() == [3] * 6


def model_of(config: Any) -> Model:
    return JointModel(load_start(config.model, config.seed).model, config.objective, config.joint)


def test_regions_follow_the_crop_and_near_ones_are_one() -> None:
    plan = RegionPlan("boxes", 3, 0.3, (2, 3))
    boxes = np.array(
        [[0.5, 0.5, 1, 1, 0.9], [0.5, 0.5, 0.99, 1, 0.8], [0, 0, 0.2, 0.2, 0.7], [0, 0, 1, 1, 0.6],
         [0.5, 0, 1, 0.5, 0.5], [0.5, 0.2, 0.8, 0.5, 0.1]], np.float32,
    )  # fmt: skip
    whole = regions_of(plan, boxes)
    torch.testing.assert_close(whole, torch.tensor([[0, 0, 1, 1], [0.5, 0.5, 1, 1], [0, 0, 0.2, 0.2]]))
    right = regions_of(
        plan, boxes, Crop(top=0, left=40, height=60, width=40, image_width=80, image_height=60)
    )
    torch.testing.assert_close(right, torch.tensor([[0, 0, 1, 1], [0, 0.5, 1, 1], [0, 0, 1, 0.5]]))
    grid = cells((2, 3))
    torch.testing.assert_close(grid[4], torch.tensor([1 / 3, 0.5, 2 / 3, 1]))
    assert torch.equal(regions_of(replace(plan, kind="grid"), boxes), grid)


def test_words_are_what_lies_between_start_and_end() -> None:
    present, words = read_tokens(torch.tensor([[48, 5, 6, 49, 0], [48, 7, 49, 0, 0]]))
    assert present.tolist() == [[True] * 4 + [False], [True] * 3 + [False] * 2]
    assert words.tolist() == [[False, True, True, False, False], [False, True, False, False, False]]


def winoground(folder: Path) -> Path:
    """Two items in the official files' form."""
    images = folder / "winoground" / "images"
    images.mkdir(parents=True)
    lines = []
    for number in range(2):
        for which in (0, 1):
            name = f"ex_{number}_img_{which}"
            (images / f"{name}.png").parent.mkdir(exist_ok=True)
            pixels = np.random.default_rng(2 * number + which).integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{name}.png")
        lines.append({"id": number, "tag": "", "collapsed_tag": "Object"})
        lines[-1] |= {f"image_{i}": f"ex_{number}_img_{i}" for i in (0, 1)}
        lines[-1] |= {"caption_0": "a red dog on a sofa", "caption_1": "a dog on a red sofa"}
    (folder / "winoground" / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.mark.slow
def test_the_commands_train_and_evaluate_a_joint_encoder(
    small: Any, store: str, clip: str, tmp_path: Path
) -> None:
    runner = CliRunner()
    given = [*SMALL, f"model.name={clip}", "model.pretrained=", "joint.regions=grid", "steps=2"]
    run = tmp_path / "run"
    found = runner.invoke(app, ["run", "objective=cacr", *given, "--store", store, "--out", str(run)])
    assert found.exit_code == 0, found.output
    assert (run / "report.html").is_file()
    places = winoground(tmp_path / "data")
    common = ["--data", str(places), "--benchmark", "winoground", "--device", "cpu"]
    evaluated = runner.invoke(app, ["eval", str(run), *common, "--out", str(tmp_path / "eval")])
    assert evaluated.exit_code == 0, evaluated.output
    figures = json.loads((tmp_path / "eval" / "report.json").read_text())
    assert figures
    # A pair's score is the encoder's, from the checkpoint as from the exported folder.
    pictures = [Picture(str(p)) for p in sorted((places / "winoground" / "images").iterdir())]
    captions = ["a red dog on a sofa"] * 4
    from_folder, _ = open_scorer(str(run))
    from_checkpoint, _ = run_scorer(run)
    scores = from_folder.pairs(pictures, captions)
    np.testing.assert_array_equal(scores, from_checkpoint.pairs(pictures, captions))
    assert len(set(scores.tolist())) == 4
    refused = runner.invoke(
        app, ["eval", str(run), *common[:2], "--benchmark", "coco_retrieval", "--out", "x"]
    )
    assert refused.exit_code != 0


@pytest.mark.slow
def test_boxes_of_an_evaluation_come_from_a_store_of_its_images(
    small: Any, store: str, tmp_path: Path
) -> None:
    train(small("itm", "steps=1"), tmp_path / "run", never, quiet)
    with pytest.raises(UserError, match="give it with --store"):
        run_scorer(tmp_path / "run")
    images = tmp_path / "images"
    images.mkdir()
    made = Store.create(str(tmp_path / "store"), {"made": "for tests"})
    files = []
    for number in range(2):
        (images / f"{number}.jpg").write_bytes(jpeg(100 * number))
        files.append(str(images / f"{number}.jpg"))
    tables = rows("00000", images, [(0, 0)] * 2)
    samples = tables["samples"]
    where = samples.column_names.index("member")
    tables["samples"] = samples.set_column(where, samples.schema.field(where), [files])
    made.commit("00000", tables, record("00000", images))
    scorer, _ = run_scorer(tmp_path / "run", Scoring(store=str(tmp_path / "store")))
    assert np.isfinite(scorer.pairs([Picture(file) for file in files], ["a dog"] * 2)).all()
    (images / "new.jpg").write_bytes(jpeg(3))
    with pytest.raises(UserError, match="no image is called"):
        scorer.pairs([Picture(str(images / "new.jpg"))], ["a dog"])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("ema=0.9", "ema"),
        ("data.batch_size=1", "at least 2"),
        ("joint.offline=4", "joint.offline is more"),
        ("joint.layers=0", "at least 1"),
        ("joint.regions=everywhere", "joint.regions"),
    ],
)
def test_mistakes_are_named(assignment: str, message: str, small: Any) -> None:
    with pytest.raises(UserError, match=message):
        small("cacr", assignment)


def test_the_presets_resolve() -> None:
    assert resolve(preset("cacr")).joint.layers == 12
    assert resolve(preset("cacr-tiny")).joint.regions == "grid"
