"""What people want to look at: runs, evaluations, a store, and the settings that its samples are seen under."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.config import TrainConfig
from macco.train.data.detector import own_boxes
from macco.train.layers import flat, merged, parse, preset, read_saved, require_read, resolve
from macco.train.runs.weights import CONFIG, saved_config


@dataclass(frozen=True, kw_only=True)
class Look:
    """As `Look.of` makes it of a command's words."""

    folders: list[Path]  # of runs and evaluations
    given: Mapping[str, Any]  # settings over those of each run
    config: TrainConfig  # that samples are drawn under
    by: str  # the same for people
    url: str = ""  # of the store; empty: none is shown
    detector: str = ""  # whose boxes, where it has those of several

    @classmethod
    def of(cls, words: Sequence[str], presets: Sequence[str] = (), store: str | None = None) -> "Look":
        """words: folders, and key=value. Without a run samples are seen under the presets and these, over the defaults.

        Raises UserError for settings that are none, or that a run has already, and where there is nothing to look at.
        """
        folders = [Path(word) for word in words if "=" not in word or Path(word).exists()]
        assignments = [word for word in words if Path(word) not in folders]
        given = merged(parse(assignments), {"data": {"store": store}} if store else {})
        run = next((folder for folder in folders if (folder / CONFIG).is_file()), None)
        if run is None:
            config = resolve(*map(preset, presets), given)
            require_read(config, given)
            if not folders and not config.data.store:
                raise UserError("say what to look at: folders of runs or evaluations, or --store STORE")
            by = [f"preset {name}" for name in presets] or [
                "the defaults, which are the paper's for ViT-B/32"
            ]
            url, detector = config.data.store, config.data.detector
        else:
            if presets:
                raise UserError(f"{run}: a run has its settings already: leave --preset out")
            config, by, own = over(run, given), [str(run)], saved_config(run).data.store
            there = store or Path(config.data.store, "store.json").is_file()
            url = config.data.store if there else ""
            same = there and Store(own).url == Store(url).url
            detector = own_boxes(config) if same else config.data.detector
        return cls(
            folders=folders, given=given, config=config, by=", ".join([*by, *assignments]), url=url, detector=detector
        )  # fmt: skip


def over(run: Path, given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a run with other data or masks. With another store its cache is left, unless it is given.

    Raises UserError for other keys: the model is as it was trained.
    """
    if wrong := [key for key in flat(given) if key.partition(".")[0] not in ("data", "masks")]:
        raise UserError(
            f"{wrong[0]}: of a run's settings only data.* and masks.* may be others to look at it"
        )
    bare = {"data": {"cache": ""}} if "store" in given.get("data", {}) else {}
    return resolve(merged(read_saved(run / CONFIG), bare, given))
