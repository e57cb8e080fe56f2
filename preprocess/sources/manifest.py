"""data_manifests/*.yaml: what a corpus is, under which licence, where it comes from, and where its shards lie."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from macco.pipeline.errors import UserError
from macco.pipeline.yamls import read_model
from macco.preprocess.sources.formats import Format

FOLDER: Final = Path(__file__).parents[2] / "data_manifests"

_VARIABLE = re.compile(r"\$\{(\w+)\}")
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Counts(_Strict):
    """What a complete copy holds; `about` where links die and every download differs."""

    images: int | None = None
    captions: int | None = None
    shards: int | None = None
    about: bool = False


class Fields(_Strict):
    """Names of columns, or of json keys; None stands for the format's usual ones."""

    caption: list[Text] | None = None
    image: Text | None = None
    key: Text | None = None


class ShardSet(_Strict):
    """One split. `{root}` stands for the corpus's folder, `${NAME}` for an environment variable."""

    split: Text
    pattern: Text
    image_root: Text | None = None
    counts: Counts = Counts()


class Manifest(_Strict):
    """A corpus: enough to find it, to cite it, to get it and to read it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: Text
    licence: Text
    homepage: Text
    citation: Text
    get: Text  # how to get it, for a person with a shell
    root_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
    format: Format
    shards: Annotated[list[ShardSet], Field(min_length=1)]
    fields: Fields = Fields()
    notes: str = ""

    def located(self, root: str | None, environment: Mapping[str, str] = os.environ) -> list[ShardSet]:
        """Return the shard sets with every placeholder filled: by `root`, else by the root variable.

        Raises UserError where a placeholder has no value.
        """
        root = root or environment.get(self.root_variable)

        def fill(text: str) -> str:
            if "{root}" in text and not root:
                raise UserError(
                    f"where is {self.title}? Give --root DIR or set {self.root_variable}; to get it: "
                    f"see 'get' in the manifest of {self.name}"
                )
            for name in _VARIABLE.findall(text):
                if name not in environment:
                    raise UserError(f"the manifest of {self.name} needs the environment variable {name}")
            text = _VARIABLE.sub(lambda match: environment[match[1]], text)
            return text.replace("{root}", (root or "").rstrip("/"))

        return [
            one.model_copy(
                update={"pattern": fill(one.pattern), "image_root": one.image_root and fill(one.image_root)}
            )
            for one in self.shards
        ]


def load_manifest(path_or_name: str) -> Manifest:
    """Load a YAML file, or the one of that name in data_manifests/ (of macco, or of this folder).

    Raises UserError that names the file and the field.
    """
    if path_or_name.endswith((".yaml", ".yml")):
        path = Path(path_or_name)
        if not path.is_file():
            raise UserError(f"no manifest {path_or_name}; check the path, or give a name: {_known()}")
    else:
        places = [folder / f"{path_or_name}.yaml" for folder in (Path("data_manifests"), FOLDER)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise UserError(
                f"no manifest is called {path_or_name!r}; there are {_known()}, or give a .yaml file"
            )
        path = found
    return read_model(path, Manifest)


def _known() -> str:
    return ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml"))) or "none"
