"""spaCy pipelines: the embedded English one, or any other that gives tags, a parse, lemmas and noun chunks."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macco.pipeline.errors import UserError

if TYPE_CHECKING:
    from spacy.language import Language

EMBEDDED = "en_caption"
MODELS = Path(__file__).parents[1] / "models"
# Components that the extraction reads, directly or through another; the rest (ner, senter, ...) is not loaded.
NEEDED = frozenset(
    {"tok2vec", "transformer", "curated_transformer", "tagger", "morphologizer"}
    | {"parser", "attribute_ruler", "lemmatizer", "trainable_lemmatizer"}
)
SAMPLE = "A red dog is sitting on a small sofa."


def load_pipeline(name: str = EMBEDDED) -> "Language":
    """The pipeline `name`: "en_caption", an installed spaCy package, or a folder written by `to_disk`.

    Raises UserError if it is missing, or does not give what SceneGraphParser reads.
    """
    check_pipeline(name)
    import spacy
    from thinc.api import NumpyOps, get_current_ops, set_current_ops

    folder = _folder(name)
    unneeded = [component for component in _meta(folder)["pipeline"] if component not in NEEDED]
    before = get_current_ops()
    if type(before) is NumpyOps:
        # numpy's own matrix product is several times as fast as that of blis; a model keeps what it is built with.
        set_current_ops(NumpyOps(use_blis=False))
    try:
        nlp = spacy.load(folder, exclude=unneeded)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"parser {name!r} does not load: {' '.join(str(error).split())[:200]}") from error
    finally:
        set_current_ops(before)
    _check_output(nlp, name)
    return nlp


def check_pipeline(name: str = EMBEDDED) -> None:
    """Raise UserError unless `name` is a pipeline with a parser, by its meta.json alone (spaCy is not imported)."""
    meta = _meta(_folder(name))
    missing = {"parser"} - set(meta["pipeline"])
    if meta.get("lang") != "en" or missing:
        raise UserError(
            f"parser {name!r} is no English pipeline with a parser; use {EMBEDDED} or en_core_web_sm"
        )


def pipeline_fingerprint(pipeline: "str | Language") -> str:
    """Name, version and content hash of a pipeline, given by name or loaded from disk: equal means equal output."""
    if isinstance(pipeline, str):
        folder = _folder(pipeline)
    elif pipeline.path is not None:
        folder = pipeline.path
    else:
        raise UserError(
            "a pipeline that was never on disk has no fingerprint; write it with nlp.to_disk first"
        )
    meta = _meta(folder)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in {".md", ".pyc"}:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return f"{meta['lang']}_{meta['name']}-{meta['version']}-{digest.hexdigest()[:16]}"


def _folder(name: str) -> Path:
    """Where meta.json and config.cfg of the pipeline lie."""
    if name == EMBEDDED:
        return MODELS / EMBEDDED
    path = Path(name)
    if not path.is_dir() and name.isidentifier() and (spec := find_spec(name)) and spec.origin:
        package = Path(spec.origin).parent
        path = next((found.parent for found in sorted(package.glob("*/config.cfg"))), package)
    if not (path / "meta.json").is_file():
        raise UserError(f"parser {name!r} is not installed; run: python -m spacy download {name}")
    return path


def _meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf8"))
        return {"pipeline": [], "name": "", "version": "", **meta}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / 'meta.json'}: {error}; install the pipeline again") from error


def _check_output(nlp: "Language", name: str) -> None:
    doc = nlp(SAMPLE)
    attributes = {"part-of-speech tags": "POS", "a parse": "DEP", "lemmas": "LEMMA"}
    lacking = [what for what, attribute in attributes.items() if not doc.has_annotation(attribute)]
    if not lacking and "dog" not in {chunk.root.text for chunk in doc.noun_chunks}:
        lacking = ["noun chunks"]
    if lacking:
        raise UserError(
            f"parser {name!r} gives no {' and no '.join(lacking)}; use {EMBEDDED} or en_core_web_sm"
        )
