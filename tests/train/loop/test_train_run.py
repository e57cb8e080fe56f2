"""The training loop: what it reads, what it moves, and that stopping and going on changes nothing."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import open_clip
import pytest
import torch
import yaml
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.cli import app
from macco.train.clip.load import load_clip
from macco.train.clip.write import export_open_clip
from macco.train.data.negatives import write_negatives
from macco.train.layers import PRESETS, dump, parse, preset, preset_names, read, require_same, resolve
from macco.train.loop.optimizer import factor
from macco.train.loop.run import train
from macco.train.results.product import export_run
from macco.train.results.report import write_report
from macco.train.runs import checkpoint
from macco.train.runs.metrics import read as read_metrics
from macco.train.runs.weights import trained_clip
from tests.support import ROOT
from tests.support.commands import Command
from tests.support.drawn import drawn_store

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
# 60 samples: three steps to the epoch. All have one caption, so equal captions must count as wrong answers.
SMALL = [
    "method.duplicate_negatives=true",
    "data.batch_size=20", "data.workers=0", "steps=5", "save_every=0", "log_every=1", "device=cpu",
    "optimizer.warmup=2", "optimizer.lr=1e-3", "method.text_depth=1", "method.image_depth=1", "method.heads=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return drawn_store(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a small random model."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    export_open_clip(open_clip.model.CLIP(**CLIP), folder, CLIP)
    return str(folder)


@pytest.fixture(scope="module")
def small(store, clip):
    """Configurations of small runs, from presets and key=value."""

    def make(*assignments, presets=()):
        model = [f"data.store={store}", f"model.name={clip}", "model.pretrained="]
        return resolve(*map(preset, presets), parse([*SMALL, *model, *assignments]))

    return make


def never():
    return False


def quiet(line):
    pass


def after(steps):
    """Ask to stop in the middle of step number `steps`, as a signal would."""
    asked = iter([False] * (steps - 1))
    return lambda: next(asked, True)


def state(run, name=checkpoint.LATEST):
    return checkpoint.load(run, name)


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """A run that was never stopped."""
    run = tmp_path_factory.mktemp("whole")
    assert train(small(*EXTRAS), run, never, quiet)
    return run


EXTRAS = ["ema=0.9", "validation.where=key < '000000010'", "save_every=2"]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_run_that_was_stopped_and_goes_on_is_bit_equal(steps, small, whole, tmp_path):
    config = small(*EXTRAS)
    assert not train(config, tmp_path, after(steps), quiet)
    assert state(tmp_path)["step"] == steps
    assert train(config, tmp_path, never, quiet)
    assert equal(state(tmp_path), state(whole))
    rows, expected = read_metrics(tmp_path), read_metrics(whole)
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    assert [row.get("loss") for row in rows] == [row.get("loss") for row in expected]


def test_metrics_the_best_checkpoint_and_the_configuration_are_kept(small, whole):
    rows = read_metrics(whole)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5]
    assert {"gradient/image", "gradient/text", "gradient/new", "mlm", "mim", "mir", "contrast"} <= set(
        rows[0]
    )
    judged = {row["step"]: row["validation/loss"] for row in rows if "validation/loss" in row}
    assert list(judged) == [2, 4, 5]
    assert state(whole, checkpoint.BEST)["step"] == min(judged, key=judged.__getitem__)
    assert resolve(read(whole / "config.yaml")) == small(*EXTRAS)


@pytest.mark.slow
def test_losses_fall(small, tmp_path):
    train(small("steps=25", "optimizer.lr=3e-3", "optimizer.predictor_lr=1e-2"), tmp_path, never, quiet)
    rows = read_metrics(tmp_path)
    for name in ("loss", "mlm", "mim"):
        assert sum(row[name] for row in rows[-3:]) < 0.8 * sum(row[name] for row in rows[:3])


def test_an_other_configuration_does_not_go_on(small, whole, capsys):
    with pytest.raises(UserError, match=r"begun with seed = 0, not 1"):
        train(small(*EXTRAS, "seed=1"), whole, never, quiet)
    require_same(small(*EXTRAS), small(*EXTRAS, "data.workers=2", "log_every=3"), whole)


def test_the_first_loss_that_is_not_finite_ends_the_run_and_names_its_samples(small, tmp_path):
    config = small("optimizer.lr=1e30", "optimizer.warmup=0", "save_every=1")
    with pytest.raises(UserError, match="not finite at step 2"):
        train(config, tmp_path, never, quiet)
    found = json.loads((tmp_path / "nonfinite-rank0.json").read_text())
    assert found["step"] == 2
    assert len(found["ids"]) == 20
    assert state(tmp_path)["step"] == 1


@pytest.mark.parametrize("name", [n for n in preset_names() if n.startswith("ablation")])
def test_each_preset_moves_the_right_parameters(name, small, tmp_path):
    # A preset may name boxes that this store does not have.
    config = small("steps=1", "optimizer.warmup=0", "data.detector=", presets=[name])
    train(config, tmp_path, never, quiet)
    start, trained = load_clip(config.model.name).model.state_dict(), state(tmp_path)["model"]
    moved = {n for n, value in start.items() if not torch.equal(value, trained[f"clip.{n}"])}
    frozen = {n for n in start if n.startswith("visual.")} if config.method.freeze else set()
    assert moved == start.keys() - frozen
    heads = {n.split(".")[0] for n in trained if n.startswith("prediction_")}
    wanted = {"prediction_text": config.method.mlm, "prediction_image": config.method.mim}
    assert heads == {n for n, weight in wanted.items() if weight}
    losses = ("contrast", "mir", "mlm", "mim")
    assert {n for n in losses if n in read_metrics(tmp_path)[0]} == {
        n for n in losses if getattr(config.method, n)
    }


@pytest.mark.slow
def test_hard_negatives_and_their_margins_go_on_bit_equal(small, store, tmp_path):
    write_negatives(Store.open(store), 0, quiet)
    config = small("steps=3", presets=["ceclip-macco"])
    assert train(config, tmp_path / "whole", never, quiet)
    assert not train(config, tmp_path / "cut", after(2), quiet)
    assert train(config, tmp_path / "cut", never, quiet)
    assert equal(state(tmp_path / "cut"), state(tmp_path / "whole"))
    assert state(tmp_path / "cut")["model"]["margin"].any()
    assert {"imc", "cmr"} <= set(read_metrics(tmp_path / "cut")[0])


# A large eps makes AdamW's steps as smooth as the gradients: rounding stays rounding.
SMOOTH = ["optimizer.eps=0.1", "steps=3"]


@pytest.mark.slow
def test_micro_batches_change_nothing_but_memory(small, tmp_path):
    for name, size in (("whole", 0), ("cut", 6)):
        train(small(*SMOOTH, f"micro_batch={size}"), tmp_path / name, never, quiet)
    assert_close(tmp_path / "whole", tmp_path / "cut")


def assert_close(one, other):
    found, expected = state(other)["model"], state(one)["model"]
    for name, value in expected.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, found[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.processes
def test_two_ranks_do_what_one_does(small, tmp_path):
    # One step is an epoch, so that both see the same samples in each step.
    config = small(*SMOOTH, "data.batch_size=60")
    train(config, tmp_path / "one", never, quiet)
    (tmp_path / "config.yaml").write_text(dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    given = ("run", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "two"))
    ranks = [Command("macco-train", *given, **address, RANK=str(i), LOCAL_RANK=str(i)) for i in (0, 1)]
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.err for rank in ranks]
    assert_close(tmp_path / "one", tmp_path / "two")
    for row, other in zip(read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two"), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert (tmp_path / "two" / "report.html").is_file()
    assert "step 3/3" in ranks[0].out
    assert not ranks[1].out


@pytest.mark.processes
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(small, tmp_path, number, code):
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(dump(small("steps=100000")))
    process = Command("macco-train", "run", "--config", str(config), "--out", str(run))
    deadline = time.monotonic() + 240
    while not read_metrics(run) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait() == code, process.err
    assert f"macco-train run --out {run}" in process.err
    assert state(run)["step"] == read_metrics(run)[-1]["step"] > 0


@pytest.mark.slow
def test_export_mixes_the_weights_that_are_asked_for(small, whole, clip, tmp_path):
    start, trained = load_clip(clip).model.state_dict(), trained_clip(whole, "latest").model.state_dict()
    kept = state(whole)
    assert all(torch.equal(value, kept["model"][f"clip.{n}"]) for n, value in trained.items())
    averaged = trained_clip(whole).model.state_dict()
    assert all(torch.equal(value, kept["ema"][f"module.{n}"]) for n, value in averaged.items())
    half = trained_clip(whole, "latest", 0.5).model.state_dict()
    for name, value in half.items():
        torch.testing.assert_close(value, (start[name] + trained[name]) / 2)
    export_run(whole, tmp_path / "open_clip", "open_clip", "latest")
    written = load_clip(str(tmp_path / "open_clip")).model.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in written.items())
    with pytest.raises(UserError, match="choose one of latest, best, ema"):
        trained_clip(whole, "newest")


def test_the_report_is_one_page_with_curves_and_reconstructions(whole):
    write_report(whole)
    page = (whole / "report.html").read_text()
    assert page.count("<polyline") >= 8
    assert page.count("<img") == 18
    assert re.search(r"<figcaption>a <mark>red</mark> <small>.*</small> dog is <mark>sitting</mark>", page)
    assert re.search(r"</small> sofa \.<br>", page)
    assert not re.search(r"<script|https?://|src=\"(?!data:)", page)


def test_the_report_of_crops_made_on_the_device(small, tmp_path):
    train(small("steps=1", "data.crop=device"), tmp_path / "run", never, quiet)
    write_report(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_text().count("<img") == 18


def test_each_layer_wins_over_the_one_before(tmp_path):
    (tmp_path / "config.yaml").write_text("optimizer: {lr: 1e-6, warmup: 7}\nmethod: {mlm: 3}\n")
    config = resolve(preset("tiny"), read(tmp_path / "config.yaml"), parse(["optimizer.warmup=9"]))
    assert (config.optimizer.lr, config.optimizer.warmup, config.method.mlm) == (1e-6, 9, 3.0)
    assert config.model.name == "macco-tiny"
    assert resolve(yaml.safe_load(dump(config))) == config


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("method.text_depth=0", "method.text_depth is 0: it is at least 1"),
        ("optimizer.lr=nan", "optimizer.lr is nan"),
        ("method.mlm=-1", "method.mlm is -1"),
        ("mlm=0", "unknown key mlm: did you mean method.mlm?"),
        ("optimizer.warmpu=3", "did you mean optimizer.warmup?"),
        ("store=x", "did you mean data.store or validation.store?"),
        ("epochs=soon", "epochs is 'soon'"),
        ("method.freeze=both", "method.freeze is 'both'"),
        ("masks.text_ratio=2", "between 0 and 1"),
        ("data.batch_size=0", "at least 1"),
        ("seed", "no key=value"),
        ("method=3", "it is a group"),
    ],
)
def test_mistakes_are_named(assignment, message):
    with pytest.raises(UserError, match=re.escape(message)):
        resolve(parse([assignment]))


def test_every_preset_resolves():
    assert {"paper-vitb32", "paper-vitb16", "paper-vitl14", "siglip-b16", "tiny"} <= set(preset_names())
    for name in preset_names():
        resolve(preset(name))
        assert (PRESETS / f"{name}.yaml").read_text().startswith("# ")
    assert resolve(preset("paper-vitb32")) == resolve({"data": {"captions": "one"}})


def test_the_rate_rises_and_falls_to_zero():
    rates = [factor(step, 10, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.processes
def test_the_commands(whole, clip, tmp_path):
    runner = CliRunner()
    assert "ablation-mlm-mim" in runner.invoke(app, ["presets"]).output
    assert yaml.safe_load(runner.invoke(app, ["presets", "tiny"]).output)["model"]["name"] == "macco-tiny"
    weights = f"{clip}/open_clip_model.safetensors"
    out = str(tmp_path / "imported")
    assert runner.invoke(app, ["import", weights, "--out", out, "--activation", "gelu"]).exit_code == 0
    assert load_clip(out).model.state_dict().keys() == load_clip(clip).model.state_dict().keys()
    images = torch.rand(2, 3, *[load_clip(clip).model.visual.image_size[0]] * 2)
    with torch.no_grad():
        features = [load_clip(name).model.eval().encode_image(images) for name in (clip, weights, out)]
    assert torch.equal(
        features[0], features[1]
    )  # heads and pooling are in the configuration beside the weights
    assert torch.equal(features[0], features[2])
    shutil.copy(weights, tmp_path / "imported" / "other.safetensors")
    with pytest.raises(UserError, match=r"several files of weights.*give the folder"):
        load_clip(f"{out}/other.safetensors")
    given = ["bench", f"model.name={clip}", "model.pretrained=", *SMALL, "--steps", "1"]
    assert "samples/s" in runner.invoke(app, given).output
    code = "import sys, macco.train.cli; assert not {'torch', 'duckdb'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_predictors_may_learn_first_on_towers_as_they_are(small, clip, tmp_path):
    config = small("optimizer.predictors_first=2", "steps=3")
    assert not train(config, tmp_path, after(2), quiet)
    begun, start = state(tmp_path)["model"], load_clip(clip).model.state_dict()
    assert all(torch.equal(begun[f"clip.{name}"], value) for name, value in start.items())
    assert train(config, tmp_path, never, quiet)
    ended = state(tmp_path)
    assert ended["step"] == 5  # `steps` of the towers, after those of the predictors
    moved = {
        name.split(".")[0] for name, value in begun.items() if not torch.equal(value, ended["model"][name])
    }
    assert {"clip", "prediction_text", "prediction_image", "text_mask_token"} <= moved


def test_without_predictors_none_learn_first(small, tmp_path):
    train(
        small("optimizer.predictors_first=2", "steps=1", "method.mlm=0", "method.mim=0"),
        tmp_path,
        never,
        quiet,
    )
    assert state(tmp_path)["step"] == 1


@pytest.mark.slow
def test_predictors_come_from_another_run(small, whole, clip, tmp_path):
    config = small(f"model.predictors={whole}", "steps=1", "optimizer.predictor_lr=0", "optimizer.lr=0")
    train(config, tmp_path / "a", never, quiet)
    begun, before = state(tmp_path / "a")["model"], state(whole)["model"]
    assert torch.equal(begun["prediction_text.linear.weight"], before["prediction_text.linear.weight"])
    start = load_clip(clip).model.state_dict()
    assert all(torch.equal(begun[f"clip.{name}"], value) for name, value in start.items())
    with pytest.raises(UserError, match="other sizes"):
        train(small(f"model.predictors={whole}", "method.text_depth=2"), tmp_path / "b", never, quiet)
    train(small("steps=1", "method.mim=0", "method.mir=0"), tmp_path / "c", never, quiet)
    with pytest.raises(UserError, match="has no prediction_image: train it with all losses"):
        train(small(f"model.predictors={tmp_path / 'c'}"), tmp_path / "d", never, quiet)
