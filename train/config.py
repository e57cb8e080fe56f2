"""The configuration of a run: dataclasses, from presets, a YAML file and key=value, the later winning."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from macco.pipeline.errors import UserError
from macco.train.data.masks import MaskConfig
from macco.train.objectives.joint.settings import JointConfig
from macco.train.objectives.macco.model import Method

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The CLIP to start from."""

    name: str = "ViT-B-32"  # of open_clip, or a folder or checkpoint; macco-tiny: train/models
    pretrained: str = "openai"  # open_clip's tag of its weights, or a file; empty: random weights
    activation: Literal["", "gelu", "quick_gelu"] = ""  # empty: the one it is known to be trained with
    predictors: str = ""  # a run whose predictors and mask tokens, or joint encoder, to start from
    checkpointing: bool = False  # recompute the towers' activations: less memory, more time


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to train on, and how it is read."""

    store: str = ""
    where: str = ""  # SQL over the columns of samples, concepts and boxes
    keep: Literal["all", "concept", "box"] = (
        "all"  # samples with any concept, or any box, that masks are made of
    )
    batch_size: int = 256  # pairs of one step, over all ranks
    cache: str = ""  # what macco-prep cache made: images read small
    workers: int = 4  # processes of each rank
    prefetch: int = 4  # batches that each worker has ready
    max_broken: int = 1000  # unreadable images on one rank before the run ends


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with warm-up and cosine."""

    lr: float = 5e-7  # of CLIP
    predictor_lr: float = 1e-3  # of predictors and mask tokens, and of a joint encoder
    decay: float = 0.2  # of CLIP's matrices; its gains, biases and scale have none
    predictor_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    warmup: int = 50  # steps
    predictors_first: int = 0  # steps, before all others, in which only predictors learn, where there are any
    clip_norm: float = 0.0  # of all gradients together; 0: not clipped


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What the best checkpoint is the best on; without `where` and `store` there is no best."""

    store: str = ""  # empty: the training store
    where: str = ""
    samples: int = 5000  # at most, whole batches


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run. The defaults are the paper's for ViT-B/32."""

    objective: Literal["macco", "cacr", "iais-singular", "iais-distributed", "itm"] = "macco"
    model: ModelConfig = field(default_factory=ModelConfig)
    method: Method = field(default_factory=Method)
    joint: JointConfig = field(default_factory=JointConfig)  # of the other objectives
    masks: MaskConfig = field(default_factory=MaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    epochs: float = 5
    steps: int = 0  # more than 0: so many, whatever the epochs
    micro_batch: int = 0  # pairs of one rank that are in memory at once; 0: all of its batch
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on CUDA
    compile: bool = False  # torch.compile the transformer blocks
    ema: float = 0.0  # decay of an exponential moving average of CLIP's weights; 0: none
    interpolate: float = (
        1.0  # WiSE-FT: share of the trained weights in what is exported, the rest the start's
    )
    log_every: int = 10  # steps
    save_every: int = 500  # steps between checkpoints, each with a validation; one is made at the end too
    tensorboard: bool = False
    wandb: str = ""  # project name


# What may change when a run goes on: it says where and how fast, not what comes out.
FREE = {"device", "log_every", "save_every", "tensorboard", "wandb", "interpolate", "joint.eval_store"} | {
    f"data.{name}" for name in ("workers", "prefetch", "max_broken")
}


def resolve(*layers: Mapping[str, Any]) -> TrainConfig:
    """Merge nested layers over the defaults, the later winning.

    Raises:
        UserError: an unknown key (naming the nearest), or a value that is none.
    """
    whole = merged(*layers)
    known = _keys(TrainConfig)
    for key in flat(whole):
        if key not in known:
            raise UserError(f"unknown key {key}: {_hint(key, known)}")
    try:
        config = TypeAdapter(TrainConfig).validate_python(whole)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{key} is {first['input']!r}: {first['msg']}") from error
    _check(config)
    return config


def _check(config: TrainConfig) -> None:
    least = {
        "data.batch_size": 1, "data.workers": 0, "data.prefetch": 1, "optimizer.warmup": 0,
        "optimizer.predictors_first": 0, "steps": 0, "micro_batch": 0, "log_every": 1, "save_every": 0,
        "joint.layers": 1, "joint.width": 1, "joint.heads": 1, "joint.count": 1, "joint.negatives": 1,
        "joint.offline": 0, "method.text_depth": 1, "method.image_depth": 1, "method.mir": 0, "method.mlm": 0,
        "method.mim": 0, "optimizer.lr": 0, "optimizer.predictor_lr": 0,
    }  # fmt: skip
    values = flat(asdict(config))
    for key, low in least.items():
        if not low <= values[key] < inf:
            raise UserError(f"{key} is {values[key]}: it is at least {low}")
    for key in ("ema", "interpolate"):
        if not 0 <= values[key] <= 1:
            raise UserError(f"{key} is {values[key]}: it lies between 0 and 1")
    if config.steps == 0 and config.epochs <= 0:
        raise UserError(f"epochs is {config.epochs}: it is more than 0")
    if config.objective != "macco":
        _check_joint(config)
    if config.method.congruence and config.compile:
        raise UserError("method.congruence listens to blocks that compile=true closes: leave one of them off")
    m = config.method
    if not (m.contrast or m.mir or m.mlm or m.mim):
        raise UserError("every loss is off: set one of method.contrast, method.mir, method.mlm, method.mim")


def _check_joint(config: TrainConfig) -> None:
    if config.ema:
        raise UserError("ema averages a CLIP's weights: leave it 0 for a joint objective")
    if config.interpolate < 1:
        raise UserError("interpolate mixes a CLIP with its start: leave it 1 for a joint objective")
    if config.joint.offline > config.joint.negatives:
        raise UserError("joint.offline is more than joint.negatives, of which they are a part")
    if config.data.batch_size < 2:
        raise UserError("data.batch_size is 1: in-batch negatives need at least 2")


def preset_names() -> list[str]:
    """The presets that ship with macco."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset(name: str) -> dict[str, Any]:
    """The layer of a preset: what differs from the defaults."""
    if name not in preset_names():
        near = get_close_matches(name, preset_names(), n=3) or ["macco-train presets lists them"]
        raise UserError(f"no preset {name!r}: did you mean {', '.join(near)}?")
    return read(PRESETS / f"{name}.yaml")


def read(path: Path) -> dict[str, Any]:
    """A YAML file as a layer."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the configuration {path}: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, dict | None):
        raise UserError(f"{path} holds no keys: write lines like `seed: 1`")
    return found or {}


def parse(assignments: Iterable[str]) -> dict[str, Any]:
    """`a.b=value` assignments as a layer; values are text, of which each key makes what it is."""
    layer: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise UserError(f"{assignment!r} is no key=value, e.g. method.mlm=0")
        nested: dict[str, Any] = {}
        place = nested
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = text
        _merge(layer, nested)
    return layer


def dump(config: TrainConfig) -> str:
    """The whole configuration as YAML."""
    text: str = yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
    return text


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys to dotted ones."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def require_same(saved: TrainConfig, config: TrainConfig, run: Path) -> None:
    """Raise UserError naming the first key that differs, of those that a run must keep."""
    old, new = flat(asdict(saved)), flat(asdict(config))
    for key in old:
        if key not in FREE and old[key] != new[key]:
            raise UserError(
                f"{run} was begun with {key} = {old[key]!r}, not {new[key]!r}: "
                "go on with the same, or choose another --out"
            )


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested layers as one, the later winning."""
    whole: dict[str, Any] = {}
    for layer in layers:
        _merge(whole, layer)
    return whole


def _merge(onto: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(onto.get(key), dict):
            _merge(onto[key], value)
        else:
            onto[key] = dict(value) if isinstance(value, Mapping) else value


def _keys(cls: Any, prefix: str = "") -> list[str]:
    hints = get_type_hints(cls)
    keys: list[str] = []
    for each in fields(cls):
        kind = hints[each.name]
        keys += _keys(kind, f"{prefix}{each.name}.") if is_dataclass(kind) else [f"{prefix}{each.name}"]
    return keys


def _hint(key: str, known: list[str]) -> str:
    """The known key that is nearest, whether by all of it or by its last part."""
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        return f"it is a group, of {', '.join(inside)}"
    last = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = get_close_matches(key.rpartition(".")[2], last, n=1, cutoff=0.8)
    whole = get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        same = [name for name in known if name.rpartition(".")[2] == near[0]]
        return f"did you mean {whole[0] if '.' in key and whole else ' or '.join(same)}?"
    return f"did you mean {whole[0]}?" if whole else "macco-train presets tiny shows all keys"
