"""What a card says of a store or a run: no folder of the machine that made it, and the licences that are known."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from macco.pipeline.yamls import read_yaml

_MANIFESTS: Final = (Path("data_manifests"), Path(__file__).parents[1] / "data_manifests")
_UNKNOWN: Final = "not known to macco: whoever publishes this is to state it here"
# A path that begins at the root, at home or here, or a URL, perhaps after its kind ("boxes:"); its last name.
_FOLDERS: Final = re.compile(r"^((?:\w+:(?!//))?)(?:/|~|\.\.?/|\w+://)(?:.*/)?([^/]+)/*$", re.DOTALL)


def without_folders(value: Any) -> Any:
    """The same settings, of paths the last names alone: where files lie is nobody's business."""
    if isinstance(value, Mapping):
        return {name: without_folders(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    if isinstance(value, str):  # "groundingdino:WEIGHTS@CONFIG" has two
        return "@".join(_FOLDERS.sub(r"\1\2", part) for part in re.split(r"@(?=[/~.])", value))
    return value


def fingerprint(settings: Mapping[str, Any]) -> str:
    """What says that two stores were made in the same way."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def licence(dataset: str) -> str:
    """What is known of a corpus: its manifest's words, where it has one."""
    for folder in _MANIFESTS:
        file = folder / f"{dataset}.yaml"
        if file.name == f"{dataset}.yaml" and file.is_file():
            return " ".join(str(read_yaml(file).get("licence", _UNKNOWN)).split())
    return _UNKNOWN
