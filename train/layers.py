"""Settings from layers: presets, a YAML file and key=value, the later winning."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_type_hints

import yaml

from macco.pipeline.checked import valid
from macco.pipeline.errors import UserError
from macco.pipeline.yamls import read_yaml
from macco.train.config import DRAWN, FREE, OBJECTIVES, READ_WITH, TrainConfig, check_adapters, groups

PRESETS = Path(__file__).parent / "presets"


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
    objective = whole.get("objective", TrainConfig.objective)
    if objective not in OBJECTIVES:
        raise UserError(f"objective is {objective!r}: choose one of {', '.join(OBJECTIVES)}")
    own = {group: valid(kind, whole.pop(group, {}), group) for group, kind in groups().items()}
    config: TrainConfig = valid(TrainConfig, whole | {"own": own})
    if config.steps == 0 and config.epochs <= 0:
        raise UserError(f"epochs is {config.epochs}: it is more than 0")
    check_adapters(config)
    config.settings.check(config)
    return config


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
    found = read_yaml(path)
    if not isinstance(found, dict | None):
        raise UserError(f"{path} holds no keys: write lines like `seed: 1`")
    return found or {}


# What was so before there was a key for it: settings that a run saved by an earlier version does not name.
FORMER: Final[dict[str, Any]] = {"method": {"duplicate_negatives": True}, "contrast": "softmax"}


def read_saved(path: Path) -> dict[str, Any]:
    """The settings that a run saved, as a layer."""
    return merged(FORMER, read(path))


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


def values(config: TrainConfig) -> dict[str, Any]:
    """All settings, nested as in YAML."""
    whole = asdict(config)
    head = {"objective": whole.pop("objective"), "model": whole.pop("model")}
    return {**head, **whole.pop("own"), **whole}


def dump(config: TrainConfig) -> str:
    """The whole configuration as YAML."""
    text: str = yaml.safe_dump(values(config), sort_keys=False, allow_unicode=True)
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
    old, new = flat(values(saved)), flat(values(config))
    for key in old:
        if key not in FREE and old[key] != new[key]:
            if key == "data.detector" and {old[key], new[key]} == {"", _own_boxes(config)}:
                continue
            raise UserError(
                f"{run} was begun with {key} = {old[key]!r}, not {new[key]!r}: "
                "go on with the same, or choose another --out"
            )


def _own_boxes(config: TrainConfig) -> str | None:
    """What the boxes are called that a configuration means which names nobody's."""
    from macco.pipeline.store import Store  # which settings do without

    try:
        return Store.open(config.data.store).detector
    except UserError:
        return None


def require_read(config: TrainConfig, given: Mapping[str, Any]) -> None:
    """Raise UserError for a key that the user gives and this run does not read: another objective's, or one of what
    is off.

    Presets and files may hold keys of several objectives; what is given by hand is meant for this run. What is turned
    off by hand as well is the user's own: the arms of a comparison differ so.
    """
    own, by_hand, now = config.settings.group, flat(given), flat(values(config))
    for key in by_hand:
        group, _, name = key.partition(".")
        if group in groups() and group != own:
            raise UserError(
                f"{key} is a setting of another objective: {config.objective} has its own, {own}.*; leave it out"
            )
        if group == "masks" and name in DRAWN and not config.settings.draws_masks:
            raise UserError(f"{key} says how masks are drawn: {config.objective} draws none; leave it out")
        switch = READ_WITH.get(key)
        if switch and now[key] and not now[switch] and switch not in by_hand:
            raise UserError(
                f"{key} is read with {switch} alone, which is off: give that too, or leave {key} out"
            )
    if "epochs" in by_hand and config.steps and "steps" not in by_hand:
        raise UserError(
            f"epochs is not read: steps is {config.steps}, by a preset or file; give steps=0 with it"
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
        kind, name = hints[each.name], f"{prefix}{each.name}"
        if name == "own":
            keys += [key for group, settings in groups().items() for key in _keys(settings, f"{group}.")]
        else:
            keys += _keys(kind, f"{name}.") if is_dataclass(kind) else [name]
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
