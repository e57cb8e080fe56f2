"""All settings of a run: dataclasses, which import neither PyTorch nor DuckDB.

An objective's own settings lie in its folder and are a group of TrainConfig under a name of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Annotated, Any, ClassVar, Final, Literal

from macco.pipeline.errors import UserError
from macco.pipeline.rectangle import CHANCE, SHARE

# The objectives by name: each lies in the folder of train/objectives that is named here.
OBJECTIVES: Final = {
    "macco": "macco",
    "cacr": "joint",
    "iais-singular": "joint",
    "iais-distributed": "joint",
    "itm": "joint",
    "fsc": "fsc",
    "c2lip": "c2lip",
    "csclip": "csclip",
    "read": "read",
    "degla": "degla",
}


class Limits:
    """What pydantic is to hold a number to, by the names of its own schema; models know their settings without it."""

    def __init__(self, **limits: float) -> None:
        self._limits = limits

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return handler(source) | self._limits


Count = Annotated[int, Limits(ge=0, le=2**31 - 1)]
Positive = Annotated[int, Limits(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Limits(ge=0, le=2**63 - 1)]  # what every generator takes
Number = Annotated[float, Limits(allow_inf_nan=False)]
Weight = Annotated[float, Limits(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Limits(ge=0, le=1)]
Decay = Annotated[float, Limits(ge=0, lt=1)]  # of an average: at 1 it would never move


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The CLIP to start from."""

    name: str = "ViT-B-32"  # of open_clip, or a folder or checkpoint; macco-tiny: train/models
    pretrained: str = "openai"  # open_clip's tag of its weights, or a file; empty: random weights
    activation: Literal["", "gelu", "quick_gelu"] = ""  # empty: the one it is known to be trained with
    predictors: str = ""  # a run whose predictors and mask tokens, or joint encoder, to start from
    checkpointing: bool = False  # recompute the towers' activations: less memory, more time


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """How masks are drawn; the defaults are the paper's.

    Text: the words of all attributes and relations. Image: the boxes of one phrase, drawn anew each time; the
    phrase is an object with its attributes, or a relation with its two objects.
    """

    relations: Literal["all", "content", "none"] = "all"  # content: without function words
    attributes: bool = True
    objects: bool = False  # mask head words of objects too, and draw objects without attributes
    same: bool = False  # mask the words of the drawn phrase only
    denied: bool = False  # mask what captions deny as well: "not black", "without"
    random: bool = False  # the control: tokens and a rectangle at random, whatever the concepts
    text_ratio: Share = 0.15  # share of a caption's tokens that `random` masks
    rectangle: Share = CHANCE  # how often a random rectangle is masked instead of boxes
    image_ratio: Share = SHARE  # share of the patches in that rectangle
    box_score: Share = 0.35  # boxes that score less are no boxes
    random_boxes: Share = 0.0  # how often a box lies elsewhere: of its size, at a place drawn at random

    def __post_init__(self) -> None:
        for name in ("text_ratio", "rectangle", "image_ratio", "box_score", "random_boxes"):
            value = getattr(self, name)
            # What is text yet, resolve() makes a number of and checks.
            if not isinstance(value, str) and not 0 <= value <= 1:
                raise UserError(f"mask {name} is {value}: it lies between 0 and 1")
        if self.relations not in ("all", "content", "none"):
            raise UserError(f"mask relations is {self.relations!r}: choose all, content or none")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to train on, and how it is read."""

    store: str = ""
    detector: str = ""  # whose boxes, where the store has those of several
    where: str = ""  # SQL over the columns of samples, concepts and boxes
    exclude: str = ""  # Parquet of images to leave out, by dataset, shard and key: what audit --out writes
    keep: Literal["all", "concept", "box"] = (
        "all"  # samples with any concept, or any box, that masks are made of
    )
    captions: Literal["all", "one"] = "all"  # one: each image once an epoch, with a caption of its drawn anew
    batch_size: Positive = 256  # pairs of one step, over all ranks
    cache: str = ""  # what macco-prep cache made: images read small
    crop: Literal["cpu", "device"] = "cpu"  # where crops are resized; device: best with a cache of pixels
    workers: Count = 4  # processes of each rank
    prefetch: Positive = 4  # batches that each worker has ready
    max_broken: Count = 1000  # unreadable images on one rank before the run ends


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with warm-up and cosine."""

    lr: Weight = 5e-7  # of CLIP
    predictor_lr: Weight = 1e-3  # of predictors and mask tokens, and of a joint encoder
    decay: Weight = 0.2  # of CLIP's matrices; its gains, biases and scale have none
    predictor_decay: Weight = 0.01
    scale_lr: Weight | None = None  # of CLIP's logit scale; null: CLIP's
    scale_decay: Weight = 0.0
    beta1: Decay = 0.9
    beta2: Decay = 0.98
    eps: Weight = 1e-6
    warmup: Count = 50  # steps
    warmup_share: Share = 0.0  # of all steps, in place of `warmup`; 0: `warmup` holds
    warmup_from: Share = 0.0  # of the rate, at the first step; 0: as much as one step of the rise
    floor: Share = 0.0  # of the rate, that the cosine falls to
    predictors_first: Count = (
        0  # steps, before all others, in which only predictors learn, where there are any
    )
    image_blocks: Count | None = (
        None  # only the last so many learn, and what follows them; 0: none; null: all
    )
    text_blocks: Count | None = None
    clip_norm: Weight = 0.0  # of all gradients together; 0: not clipped


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What the best checkpoint is the best on: benchmarks, or the loss on samples of a store, or nothing."""

    store: str = ""  # empty: the training store; samples are taken where `store` or `where` is given
    where: str = ""
    samples: Positive = 5000  # at most, whole batches
    benchmarks: str = ""  # names with commas: asked before the first step, then every so many
    data: str = "data"  # the folder of their files
    every: Count = 0  # steps between them, each with a checkpoint; 0: with each checkpoint
    best: str = ""  # BENCHMARK/FIGURE, of which more is better; empty: the first of the first benchmark


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A teacher, which the CLIP that learns is kept near: a term beside any objective of a plain CLIP."""

    weight: Weight = (
        0.0  # of the squared distances, summed over all features of a step; DeGLA: 0.005; 0: no teacher
    )
    teacher: Literal["averaged", "frozen"] = (
        "averaged"  # a moving average that begins at the start; or the start
    )
    decay: Share = 0.9996  # of that average, per step


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters: they learn, at optimizer.lr, and with them the scale, but nothing else of the CLIP."""

    rank: Count = 0  # 0: no adapters
    alpha: Weight = 0.0  # what they add is multiplied by alpha / rank; 0: by 1


class ObjectiveSettings:
    """What an objective's own settings say of it, before anything of it is imported."""

    group: ClassVar[str]  # its keys are GROUP.NAME
    product: ClassVar[str] = (
        ""  # the file that tells a folder of its product from a plain CLIP's; empty: it is one
    )

    @property
    def hard_negatives(self) -> int:
        """Hard negative captions of the store that each pair comes with."""
        return 0

    @property
    def reads_units(self) -> bool:
        """Whether pairs come with the units of their captions (macco-train units)."""
        return False

    @property
    def draws_masks(self) -> bool:
        """Whether batches hold masks."""
        return False

    @property
    def crops(self) -> bool:
        """Whether batches hold crops of images, and not features made before."""
        return True

    def check(self, config: "TrainConfig") -> None:
        """Raise UserError for what does not go together."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run. The defaults are the paper's for ViT-B/32."""

    objective: str = "macco"  # one of OBJECTIVES
    model: ModelConfig = field(default_factory=ModelConfig)
    own: Mapping[str, Any]  # the objectives' own settings by group; config.method is config.own["method"]
    masks: MaskConfig = field(default_factory=MaskConfig)
    # How pairs are told apart; auto: by a sigmoid where the model has its bias (SigLIP), else by a softmax.
    contrast: Literal["auto", "softmax", "sigmoid"] = "auto"
    distill: DistillConfig = field(default_factory=DistillConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    epochs: Weight = 5
    steps: Count = 0  # more than 0: so many, whatever the epochs
    micro_batch: Count = 0  # pairs of one rank that are in memory at once; 0: all of its batch
    seed: Seed = 0
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on CUDA
    compile: bool = False  # torch.compile the transformer blocks
    ema: Decay = 0.0  # decay of an exponential moving average of CLIP's weights; 0: none
    interpolate: Share = (
        1.0  # WiSE-FT: share of the trained weights in what is exported, the rest the start's
    )
    log_every: Positive = 10  # steps
    save_every: Count = 500  # steps between checkpoints, each with a validation; one is made at the end too
    tensorboard: bool = False
    wandb: str = ""  # project name

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__.get("own", {})
        if name not in own:
            raise AttributeError(name)
        return own[name]

    @property
    def settings(self) -> ObjectiveSettings:
        """The settings of this run's objective."""
        found: ObjectiveSettings = self.own[objective_settings(self.objective).group]
        return found


def check_adapters(config: TrainConfig) -> None:
    """Raise UserError for what does not go together with adapters."""
    if not config.lora.rank:
        return
    apart = {
        "ema": config.ema > 0,
        "compile": config.compile,
        "model.checkpointing": config.model.checkpointing,
        "optimizer.image_blocks": config.optimizer.image_blocks is not None,
        "optimizer.text_blocks": config.optimizer.text_blocks is not None,
        "distill.teacher=averaged": bool(config.distill.weight) and config.distill.teacher == "averaged",
        f"objective={config.objective}": bool(config.settings.product),
    }
    for name, on in apart.items():
        if on:
            raise UserError(f"lora.rank does not go together with {name}: leave one of them off")


# What may change when a run goes on: it says where and how fast, not what comes out.
FREE: Final = {
    "device", "log_every", "save_every", "tensorboard", "wandb", "interpolate", "joint.eval_store",
    "data.workers", "data.prefetch", "data.max_broken", "validation.data",
}  # fmt: skip

# What nothing reads while another setting is off (0, false or empty), by that other one's name.
READ_WITH: Final = {
    "distill.teacher": "distill.weight",
    "distill.decay": "distill.weight",
    "joint.eval_detector": "joint.eval_store",
    "lora.alpha": "lora.rank",
    "masks.text_ratio": "masks.random",
    "method.imc": "method.negatives",
    "method.cmr": "method.negatives",
    "method.margin_limit": "method.cmr",
    "method.congruence_kind": "method.congruence",
    "validation.every": "validation.benchmarks",
}  # fmt: skip

# Of `masks`, what objectives that draw none do not read: the rest also says which samples are kept.
DRAWN: Final = {"same", "random", "text_ratio", "rectangle", "image_ratio", "random_boxes"}


@cache
def objective_settings(objective: str) -> type[ObjectiveSettings]:
    """The class of an objective's own settings."""
    module = import_module(f"macco.train.objectives.{OBJECTIVES[objective]}.settings")
    found: type[ObjectiveSettings] = module.SETTINGS
    return found


def groups() -> dict[str, type[ObjectiveSettings]]:
    """The classes of all objectives' settings, by group."""
    found = (objective_settings(objective) for objective in OBJECTIVES)
    return {settings.group: settings for settings in found}
