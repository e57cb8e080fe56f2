"""Studies: what a plan resolves to, what a kill costs, what tuning chooses, and the numbers of the table."""

import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import open_clip
import psutil
import pytest
import torch
import yaml
from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.clip.write import export_open_clip
from macco.train.layers import dump, parse
from macco.train.runs.metrics import FILE as METRICS
from macco.train.study.plan import Limit, Measure, StudyPlan, Tuning, load_plan
from macco.train.study.plot import svg
from macco.train.study.record import Record, read_record, training_seconds
from macco.train.study.study import Order, Study
from macco.train.study.table import control_lines, difference, shown, spread, summary
from macco.train.study.trial import Trial
from macco.train.study.tuning import choose, judge
from macco.train.study.workers import Workers
from tests.support.commands import Command
from tests.support.drawn import drawn_store

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


VERDICT = (
    r"control: NegCLIP (moves text by|does NOT move text,) \S+ ± \S+ points over contrastive \(2 seeds\)"
)


def never() -> bool:
    return False


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a model, benchmark data, and study.yaml on them."""
    folder = tmp_path_factory.mktemp("study")
    drawn_store(folder)
    torch.manual_seed(0)
    export_open_clip(open_clip.model.CLIP(**CLIP), folder / "clip", CLIP)
    random = np.random.default_rng(0)

    def draw(path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
        return f"http://x/{path.name}"

    items = [
        [
            draw(folder / f"data/cola/images/{n}a.jpg"),
            f"a red {n}",
            draw(folder / f"data/cola/images/{n}b.jpg"),
            f"a {n} red",
        ]
        for n in range(20)
    ]
    (folder / "data/cola/COLA_multiobjects_matching_benchmark.json").write_text(json.dumps(items))
    for name in ("dog", "cat", "sofa"):
        for n in range(4):
            draw(folder / f"classes/test/{name}/{n}.jpg")
    (folder / "study.yaml").write_text(yaml.safe_dump(tiny(folder), sort_keys=False))
    return folder


def tiny(folder: Path) -> dict[str, Any]:
    classify = f"classify:{folder / 'classes'}"
    text = {"title": "text", "benchmark": "cola", "figures": ["text"]}
    return {
        "title": "A tiny study",
        "base": {
            "model": {"name": str(folder / "clip"), "pretrained": ""},
            "method": {"text_depth": 1, "image_depth": 1, "heads": 2},
            "data": {"batch_size": 10},
            "optimizer": {"lr": 1e-2, "warmup": 1},
            "steps": 2,
            "log_every": 1,
            "device": "cpu",
        },
        "seeds": [0, 1],
        "benchmarks": ["cola", classify],
        "templates": "simple",
        "baseline": "contrastive",
        "control": {"arm": "negclip", "figures": [text]},
        "arms": {
            "contrastive": {"title": "contrastive", "presets": ["ablation-fine-tuned"]},
            "negclip": {"title": "NegCLIP", "presets": ["negclip"]},
            "longer": {"title": "longer", "presets": ["ablation-fine-tuned"], "times_steps": 1.5},
        },
        "columns": [
            text | {"plot": True},
            {"title": "both", "benchmark": "cola", "figures": ["accuracy", "text"], "plot": True},
            {"title": "top-1", "benchmark": classify, "figures": ["top-1"]},
        ],
        "tune": {
            "seed": 7,
            "benchmarks": ["cola"],
            "best": [text],
            "limits": [{"title": "images", "benchmark": "cola", "figures": ["accuracy"], "within": 5}],
            "families": {
                "contrastive": {
                    "arm": "contrastive",
                    "arms": ["contrastive", "longer"],
                    "grid": {"optimizer.lr": [1e-3, 1e-2]},
                    "values": {"optimizer.lr": 1e-4},
                },
            },
        },
    }  # fmt: skip


def study_in(place: Path, out: Path, *assignments: str, stop: Any = never, **changes: Any) -> Study:
    overrides = parse([f"data.store={place / 'store'}", *assignments])
    given = {"test": place / "data", "val": place / "data"} | changes
    order = Order(out=out, overrides=overrides, **given)
    return Study(load_plan(str(place / "study.yaml")), order, stop, quiet)


def results(out: Path) -> Any:
    """study.json without what a clock says."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "time_ratio")}
        return [timeless(one) for one in value] if isinstance(value, list) else value

    return timeless(json.loads((out / "study.json").read_text()))


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was never stopped, in this process."""
    out = tmp_path_factory.mktemp("whole")
    study = study_in(place, out)
    assert study.run()
    assert not study.failed
    return out


@pytest.mark.slow
def test_arms_start_from_their_warm_up(place: Path, tmp_path: Path) -> None:
    plan = tiny(place)
    plan["warm_up"] = {"first": {"steps": 1}, "second": {"steps": 1, "seed": 5}}
    plan["arms"]["macco"] = {"title": "MACCO", "warm_up": "second"}
    plan["arms"]["c2lip"] = {"title": "C2LIP", "layer": {"objective": "c2lip"}, "warm_up": ""}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(plan))
    order = Order(
        out=tmp_path / "out",
        test=place / "data",
        val=place / "data",
        overrides=parse([f"data.store={place / 'store'}"]),
        arms=["contrastive", "macco", "c2lip"],
        seeds=[0],
        tune=False,
    )
    study = Study(load_plan(str(file)), order, never, quiet)
    assert study.run()
    assert not study.failed
    for arm, start in (("contrastive", "first"), ("macco", "second"), ("c2lip", None)):
        saved = yaml.safe_load((tmp_path / f"out/runs/{arm}-0/config.yaml").read_text())
        assert saved["model"]["predictors"] == (str(tmp_path / "out/warm-up" / start) if start else "")
    plan["arms"]["macco"]["warm_up"] = "third"
    file.write_text(yaml.safe_dump(plan))
    with pytest.raises(UserError, match=r"arms\.macco\.warm_up"):
        load_plan(str(file)).check({})


@pytest.mark.slow
def test_a_study_makes_the_texts_that_its_arms_read(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "store", tmp_path / "store")
    plan = tiny(place)
    plan["arms"]["csclip"] = {"title": "CS-CLIP", "layer": {"objective": "csclip"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))
    order = Order(
        out=tmp_path / "out",
        test=place / "data",
        val=place / "data",
        overrides=parse([f"data.store={tmp_path / 'store'}", "steps=1"]),
        arms=["csclip"],
        seeds=[0],
        tune=False,
    )
    study = Study(load_plan(str(tmp_path / "study.yaml")), order, never, quiet)
    assert study.run()
    assert not study.failed
    store = Store.open(str(tmp_path / "store"))
    for table in ("negatives", "units"):
        assert store.names(".parquet", table) == store.committed()


def test_the_bake_off_differs_in_the_objective_alone() -> None:
    plan = load_plan("bakeoff")
    plan.check({})
    configs = {arm: plan.config(arm, 3, {"optimizer.lr": 1e-5}, {}) for arm in plan.arms}
    one = configs["contrastive"]
    assert {config.objective for config in configs.values()} == {
        "macco",
        "fsc",
        "c2lip",
        "csclip",
        "degla",
        "read",
    }
    for config in configs.values():
        assert (config.data, config.optimizer, config.steps) == (one.data, one.optimizer, one.steps)
        assert not config.settings.duplicate_negatives
    assert len({dump(config) for config in configs.values()}) == len(configs)  # no arm twice
    assert all(plan.family(arm) for arm in plan.arms)


def test_every_arm_of_the_shipped_study_resolves() -> None:
    plan = load_plan("demo")
    plan.check({})
    configs = {arm: plan.config(arm, 3, {"optimizer.lr": 1e-5}, {}) for arm in plan.arms}
    assert {config.seed for config in configs.values()} == {3}
    assert {config.optimizer.lr for config in configs.values()} == {1e-5}
    assert {config.data for config in configs.values()} == {configs["macco"].data}
    assert {c.steps for arm, c in configs.items() if arm != "contrastive-equal-time"} == {
        configs["macco"].steps
    }
    assert configs["contrastive-equal-time"].steps > configs["contrastive"].steps
    del configs["contrastive-equal-time"]
    assert len({dump(config) for config in configs.values()}) == len(configs)  # no arm twice
    assert all(plan.family(arm) for arm in plan.arms)
    macco, negclip, ceclip = (configs[name].method for name in ("macco", "negclip", "ceclip"))
    assert macco.mlm
    assert macco.mim
    assert [negclip.mlm, negclip.mim, negclip.mir, negclip.mca, negclip.imc] == [0] * 5
    assert [ceclip.mlm, ceclip.mim, ceclip.mir, ceclip.mca] == [0] * 4
    assert ceclip.imc
    assert ceclip.cmr


def test_an_ablation_wins_over_what_was_tuned_and_the_command_line_over_both() -> None:
    plan = load_plan("demo")
    values = {"method.mlm": 3.0, "optimizer.lr": 1e-5}
    assert plan.config("macco", 0, values, {}).method.mlm == 3
    assert plan.config("mca-mir", 0, values, {}).method.mlm == 0
    assert plan.config("mca-mir", 0, values, parse(["method.mlm=2", "optimizer.lr=1"])).method.mlm == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "contrastiv"}, "did you mean contrastive"),
        ({"control": {"arm": "negclip", "figures": [{"title": "t", "benchmark": "colla", "figures": ["x"]}]}},
         "'colla'"),
        ({"seeds": [0, 7]}, "tune.seed 7"),
        ({"arms": {"contrastive": {"title": "x", "layer": {"method": {"mlmm": 1}}}, "negclip": {"title": "y"},
                   "longer": {"title": "z"}}}, "unknown key method.mlmm"),
        ({"seedz": [1]}, "seedz"),
        ({"arms": {"contrastive": {"title": "x", "layer": {"optimizer": {"lr": 1}}}, "negclip": {"title": "y"},
                   "longer": {"title": "z"}}}, "tunes optimizer.lr, which is given"),
    ],
)  # fmt: skip
def test_mistakes_in_a_plan_are_named(
    change: dict[str, Any], message: str, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny(place) | change, sort_keys=False))
    with pytest.raises(UserError, match=message):
        load_plan(str(tmp_path / "study.yaml")).check({})


@pytest.mark.slow
def test_a_study_leaves_tables_a_plot_and_small_runs(whole: Path) -> None:
    found = json.loads((whole / "study.json").read_text())
    assert list(found["arms"]) == ["contrastive", "negclip", "longer"]
    assert {len(arm["runs"]) for arm in found["arms"].values()} == {2}
    assert {run["steps"] for run in found["arms"]["longer"]["runs"].values()} == {3}
    assert found["arms"]["contrastive"]["time_ratio"]["mean"] == 1
    tuned = yaml.safe_load((whole / "tuned.yaml").read_text())["contrastive"]
    assert len(tuned["candidates"]) == 2
    config = yaml.safe_load((whole / "runs/longer-1/config.yaml").read_text())
    assert config["optimizer"]["lr"] == tuned["chosen"]["optimizer.lr"]
    assert {path.name for path in (whole / "runs/negclip-0").iterdir()} == {
        "config.yaml", "metrics.jsonl", "eval", "record.json",
    }  # fmt: skip
    page = (whole / "study.md").read_text()
    assert "| NegCLIP |" in page
    assert re.search(VERDICT, page)
    plot = ElementTree.parse(whole / "study.svg").getroot()
    assert len([one for one in plot if one.tag.endswith("circle")]) == 2 * 3


@pytest.mark.slow
def test_a_finished_study_does_nothing_again_and_refuses_other_settings(place: Path, whole: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in whole.rglob("record.json")}
    before = results(whole)
    assert study_in(place, whole).run()
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("record.json")} == times
    assert results(whole) == before
    with pytest.raises(UserError, match="begun with steps = 2, not 5"):
        study_in(place, whole, "steps=5").run()
    with pytest.raises(UserError, match=r"begun with optimizer\.lr"):
        study_in(place, whole, tune=False).run()


@pytest.mark.slow
def test_a_study_that_is_stopped_anywhere_goes_on_to_the_same(
    place: Path, whole: Path, tmp_path: Path
) -> None:
    rounds = 0
    while True:
        looks = iter([False] * 6)  # fewer than two runs take
        rounds += 1
        if study_in(place, tmp_path, stop=lambda looks=looks: next(looks, True)).run():
            break
    assert rounds > 4
    assert results(tmp_path) == results(whole)


@pytest.mark.slow
@pytest.mark.processes
def test_a_command_that_is_killed_takes_its_workers_along_and_goes_on(
    place: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for run in ("negclip-1", "longer-0", "longer-1"):
        shutil.rmtree(out / "runs" / run)
    data = ["--val", str(place / "data"), "--test", str(place / "data"), "--store", str(place / "store")]
    command = ["macco-train", "study", str(place / "study.yaml"), "--out", str(out), *data, "--jobs", "1"]
    process = Command(*command)
    deadline = time.monotonic() + 240
    while not (out / "runs/negclip-1").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    assert not psutil.wait_procs(workers, 60)[1]
    assert not (out / "runs/longer-1").exists()
    again = Command(*command)
    assert again.wait(480) == 0, again.err
    assert re.search(VERDICT, again.out)
    assert results(out) == results(whole)


@pytest.mark.slow
def test_a_run_that_fails_costs_only_itself(place: Path, tmp_path: Path) -> None:
    plan = load_plan(str(place / "study.yaml"))
    store = parse([f"data.store={place / 'store'}"])
    bad = plan.config(
        "contrastive", 0, {}, parse([f"data.store={place / 'store'}", "data.where=nothing = 1"])
    )
    good = plan.config("contrastive", 0, {}, store)
    jobs = [
        Trial(name, tmp_path / name, config, ["cola"], place / "data", "simple")
        for name, config in (("bad", bad), ("good", good))
    ]
    with Workers(0, never) as workers:
        done = list(workers.do(jobs))
    assert [bool(one.error) for one in done] == [True, False]
    assert read_record(tmp_path / "good") is not None
    assert read_record(tmp_path / "bad") is None


def record(seconds: float = 1.0, **figures: float | None) -> Record:
    return Record(steps=10, seconds=seconds, device="cpu", figures={"b": figures})


X = Measure(title="x", benchmark="b", figures=["x"])
XY = Measure(title="xy", benchmark="b", figures=["x", "y"])


@pytest.mark.slow
def test_a_figure_that_is_not_there_stops_a_study_at_its_start(place: Path, tmp_path: Path) -> None:
    wrong = {"title": "t", "benchmark": "cola", "figures": ["txt"]}
    for change in ({"control": {"arm": "negclip", "figures": [wrong]}}, {"columns": [wrong]}):
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny(place) | change))
        order = Order(
            out=tmp_path / "out",
            test=place / "data",
            val=place / "data",
            overrides=parse([f"data.store={place / 'store'}"]),
        )
        with pytest.raises(UserError, match="no figure 'txt'"):
            Study(load_plan(str(tmp_path / "study.yaml")), order, never, quiet).run()
        assert not (tmp_path / "out" / "tune").exists()


@pytest.mark.slow
def test_what_was_tuned_stays_when_other_arms_are_asked_for(place: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    assert study_in(place, out, arms=["negclip"], seeds=[0, 0]).run()
    assert results(out)["tuned"] == results(whole)["tuned"]


def test_means_deviations_and_differences() -> None:
    assert spread([1.0, 2.0, 6.0]) == {"mean": 3.0, "sd": pytest.approx(7**0.5), "n": 3}
    assert spread([5.0, None]) == {"mean": 5.0, "sd": None, "n": 1}
    assert spread([]) == {"mean": None, "sd": None, "n": 0}
    base = {0: record(x=10, y=20), 1: record(x=50, y=60), 2: record(x=90, y=0)}
    arm = {0: record(x=11, y=20), 1: record(x=53, y=60)}
    assert difference(arm, base, X) == {"mean": 2.0, "sd": pytest.approx(2**0.5), "n": 2}  # not of 10 to 90
    assert XY.of(base[1].figures) == 55
    assert XY.of({"b": {"x": 1.0, "y": None}}) is None
    with pytest.raises(UserError, match="no figure 'y': it has x"):
        XY.of({"b": {"x": 1.0}})
    assert shown(spread([1.0, 3.0])) == "2.0 ± 1.4"
    assert shown(spread([1.25]), signed=True, digits=2) == "+1.25"


def test_time_is_paired_by_seed_and_summed_over_stops(place: Path, tmp_path: Path) -> None:
    x = {"title": "x", "benchmark": "b", "figures": ["x"]}
    plan = StudyPlan.model_validate(
        tiny(place) | {"columns": [x], "control": {"arm": "negclip", "figures": [x]}}
    )
    runs = {
        "contrastive": {0: record(10, x=1.0), 1: record(20, x=1.0)},
        "negclip": {0: record(20, x=3.0), 1: record(60, x=5.0)},
    }
    found = summary(plan, runs, record(0, x=0.0))
    assert found["arms"]["negclip"]["time_ratio"]["mean"] == 2.5
    assert found["control"]["x"]["mean"] == 3
    (verdict,) = control_lines(plan, found["control"])  # 2 and 4: two standard errors are 2
    assert verdict == "control: NegCLIP moves x by +3.0 ± 1.4 points over contrastive (2 seeds)"
    for values, word in (
        ([1.0, 3.0, 5.0], "moves"),
        ([1.0, 3.0, 6.0, -4.0], "does NOT move"),
        ([3.0], "too few"),
        ([], "not tried"),
    ):
        assert word in control_lines(plan, {"x": spread(values)})[0]
    assert "<circle" not in svg(plan, found)  # no column asks for a panel
    rows = [
        {"step": 5, "samples_per_second": 100.0},
        {"step": 5, "validation/loss": 1.0},
        {"step": 7, "samples_per_second": 10.0},
    ]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert training_seconds(tmp_path, 20) == pytest.approx(5 * 20 / 100 + 2 * 20 / 10)


def test_tuning_chooses_the_best_within_the_limits() -> None:
    limit = Limit(title="y", benchmark="b", figures=["y"], within=2)
    tuning = Tuning(seed=9, benchmarks=["b"], best=[X], limits=[limit], families={})
    start = {"b": {"x": 0.0, "y": 50.0}}

    def chosen(*found: Record | None) -> int:
        candidates = [judge(tuning, {"k": number}, one, start) for number, one in enumerate(found)]
        return int(choose("f", candidates).values["k"])

    assert chosen(record(x=60, y=48), record(x=70, y=47.9), record(x=65, y=50)) == 2
    assert chosen(record(x=60, y=50), record(x=60, y=51)) == 0  # the first of equals
    assert chosen(record(x=60, y=30), record(x=50, y=40), None) == 1  # none within: the nearest
    assert chosen(None, record(x=None, y=50), record(x=1, y=48)) == 2
    with pytest.raises(UserError, match="no candidate"):
        chosen(None)


def test_overrides_of_what_is_tuned_are_refused() -> None:
    plan = load_plan("demo")
    with pytest.raises(UserError, match=r"tunes optimizer\.lr, which is given"):
        plan.check(parse(["optimizer.lr=1"]))
    plan.check(parse(["optimizer.lr=1"]), tune=False)
