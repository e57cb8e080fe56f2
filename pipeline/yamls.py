"""YAML files whose mistakes are named in a line."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from macco.pipeline.errors import UserError

M = TypeVar("M", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; raises UserError where it cannot be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except (
        Exception
    ) as error:  # dates and numbers that are none, and nesting without end, have errors of their own
        raise UserError(f"{path.name}: not readable as YAML: {' '.join(str(error).split())}") from error


def read_model(path: Path, kind: type[M]) -> M:
    """A YAML file as a pydantic model; raises UserError that names the file and the first field that is wrong."""
    try:
        return kind.model_validate(read_yaml(path))
    except ValidationError as error:
        first, *more = error.errors()
        field = ".".join(map(str, first["loc"])) or "(the whole file)"
        others = f" (and {len(more)} more)" if more else ""
        raise UserError(f"{path.name}: field {field!r}: {first['msg']}{others}") from error
