"""Settings of an extraction. Each stands here once: its name, default and help are those of its option, too."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Final

from macco.pipeline.errors import UserError
from macco.pipeline.settings import difference

GROUNDING: Final = ("detector", "dtype", "box_threshold", "nms_iou", "max_boxes")  # settings that shape boxes
DEFAULT_THRESHOLD = 0.35  # of box scores, where a command shows or counts boxes: GroundingDINO's own default


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how fast the detector works; no row depends on it."""

    device: Annotated[str, "auto, cpu, cuda, cuda:N or mps."] = "auto"
    batch_size: Annotated[int, "(image, prompt) pairs that the detector sees at once."] = 16


@dataclass(frozen=True, kw_only=True)
class Parsing:
    """How captions are parsed."""

    parser: Annotated[
        str,
        "en_caption (ships with macco) or any installed spaCy pipeline, e.g. en_core_web_sm; graphs:FILE; "
        "factual:NAME_OR_DIR; or another package's, NAME or NAME:ARGUMENT.",
    ] = "en_caption"
    rules: Annotated[str, "repaired, or original: SceneGraphParser's plain rules."] = "repaired"


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(Compute, Parsing):
    """What shapes the rows of a store, and how they are computed. Small and picklable: it travels to every worker.

    All fields but those of Compute are compared when a store is extended.
    """

    detector: Annotated[
        str,
        "tiny (ships with macco), none, boxes:FILE, groundingdino:swint|swinb|FILE.pth, transformers:NAME_OR_DIR; "
        "another package's, NAME or NAME:ARGUMENT; see macco-prep models.",
    ] = "tiny"
    dtype: Annotated[str, "fp32 or bf16."] = "fp32"
    box_threshold: Annotated[float, "Keep boxes down to this score; choose a higher one later, in SQL."] = 0.1
    nms_iou: Annotated[float, "Of two boxes of one phrase that overlap more, the better stays."] = 0.5
    max_boxes: Annotated[int, "At most so many boxes of one phrase in an image."] = 20
    max_caption_chars: Annotated[int, "Longer captions are failed rows."] = 1000
    max_pixels: Annotated[int, "Larger images are failed rows (decompression bombs)."] = 100_000_000

    def settings(self) -> dict[str, Any]:
        """What store.json records: the fields that shape rows, and the fingerprints of both models."""
        from macco.preprocess.graph.parsers import parser_fingerprint

        shaping = {name: value for name, value in asdict(self).items() if name not in asdict(Compute())}
        shaping["parser_fingerprint"] = parser_fingerprint(self.parser)
        return shaping | self.grounding_settings()

    def grounding_settings(self) -> dict[str, Any]:
        """Those of them that shape boxes, by which a further set of these is told."""
        from macco.preprocess.detectors import detector_fingerprint

        shaping = {name: getattr(self, name) for name in GROUNDING}
        return shaping | {"detector_fingerprint": detector_fingerprint(self.detector)}

    @classmethod
    def from_settings(
        cls, settings: dict[str, Any], compute: Compute, detector: str | None = None
    ) -> "ExtractConfig":
        """The configuration that made a store, to go on with it; whose store it is, nobody knows.

        detector: as the user gives it again. Raises UserError for a setting that is none, and for a detector whose
        configuration is a program, unless the user gives that one.
        """
        mine = {name: value for name, value in settings.items() if not name.endswith("_fingerprint")}
        if "imported" in mine:
            raise UserError("this store was imported, not extracted: import it again instead")
        defaults = asdict(cls())
        for name, value in mine.items():
            if name not in defaults or name in asdict(Compute()):
                raise UserError(f"store.json has {name}, a setting that this macco does not know")
            kind = type(defaults[name])
            if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
                raise UserError(f"store.json has {name} = {value!r}, which is no {kind.__name__}")
        own = str(mine.get("detector", ""))
        if detector is not None and detector != own:
            from macco.preprocess.detectors import detector_fingerprint

            asked = {"detector": detector, "detector_fingerprint": detector_fingerprint(detector)}
            if difference({name: settings.get(name) for name in asked}, asked):
                raise UserError(f"the store was made with --detector {own!r}, not {detector!r}")
            mine["detector"] = detector
        if detector is None and own.startswith("groundingdino:") and "@" in own:
            raise UserError(
                f"store.json names {own.rpartition('@')[2]}, a program that would be run: if you trust it, "
                f"give it again with --detector {own}"
            )
        return cls(**mine, **asdict(compute))

    def with_graphs(self, file: str, *, asked: bool) -> "ExtractConfig":
        """The same with the graphs of a file for a parser. Raises UserError where another one was `asked` for."""
        if asked and self.parser != f"graphs:{file}":
            raise UserError(
                f"--graphs stands for a parser, and --parser {self.parser} is another: give one of them"
            )
        return replace(self, parser=f"graphs:{file}")

    def check(self) -> None:
        """Raise UserError for a missing model or an impossible value, before anything is written."""
        from macco.preprocess.detectors import check_detector
        from macco.preprocess.graph.parsers import check_parser

        if self.rules not in ("repaired", "original"):
            raise UserError(f"--rules is {self.rules!r}: choose repaired or original")
        self._check_values()
        check_parser(self.parser)
        check_detector(self.detector)

    def check_grounding(self) -> None:
        """The same of what shapes boxes: nothing is parsed."""
        from macco.preprocess.detectors import check_detector

        self._check_values()
        check_detector(self.detector)

    def _check_values(self) -> None:
        if self.dtype not in ("fp32", "bf16"):
            raise UserError(f"--dtype is {self.dtype!r}: choose fp32 or bf16")
        for name in ("box_threshold", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}: it lies between 0 and 1"
                )
        for name in ("max_boxes", "max_caption_chars", "max_pixels", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}: it is at least 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where the work is done, and how stubbornly."""

    workers: Annotated[
        int | None, "Grounding actors; 0: in this process, without Ray. Default: as many as fit."
    ] = None
    parse_workers: Annotated[
        int | None,
        "Parsing actors; 0: grounding actors parse, too. Default: by the number of those, as many as fit.",
    ] = None
    gpus_per_actor: Annotated[
        float | None, "GPUs of one grounding actor, e.g. 1 or 0.5. Default: 1 if there are any."
    ] = None
    ray_address: Annotated[
        str | None, "A Ray cluster (auto, or host:port). Default: Ray on this machine."
    ] = None
    retries: Annotated[int, "Further tries before a shard is given up."] = 2
    shard_timeout: Annotated[
        float | None,
        "Seconds after which an actor is ended, its shard tried again; 0: never. Default: 20 times what "
        "half of the shards took, at least 600; 6 hours before any is done.",
    ] = None
    start_timeout: Annotated[
        float, "Seconds that a run waits, while no grounding actor is up, before it gives up."
    ] = 600.0
    tensorboard: Annotated[
        str | None, "Folder for TensorBoard: samples/s, what failed, what share of its time each step takes."
    ] = None
    wandb: Annotated[str, "A W&B project for the same numbers."] = ""

    def check(self) -> None:
        """Raise UserError for an impossible value."""
        for name in (
            "workers", "parse_workers", "gpus_per_actor", "retries", "shard_timeout", "start_timeout",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"--{name.replace('_', '-')} is {value}: it is not negative")
