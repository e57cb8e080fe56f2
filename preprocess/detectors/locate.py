"""Where a detector's files lie. Nothing is downloaded: the error says which command gets what is missing."""

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from macco.pipeline.errors import UserError

MODELS_VARIABLE = "MACCO_MODELS"  # folder of official .pth files and of bert-base-uncased
FAMILY = ("grounding-dino", "mm-grounding-dino", "owlv2", "omdet-turbo", "sam3", "sam3_video", "florence2")
RELEASES = "https://github.com/IDEA-Research/GroundingDINO/releases/download/"
OFFICIAL = {  # name -> (release file, configuration that groundingdino-py ships)
    "swint": ("v0.1.0-alpha/groundingdino_swint_ogc.pth", "GroundingDINO_SwinT_OGC.py"),
    "swinb": ("v0.1.0-alpha2/groundingdino_swinb_cogcoor.pth", "GroundingDINO_SwinB_cfg.py"),
}
BERT = "bert-base-uncased"
BERT_FILES = ("config.json", "tokenizer_config.json", "vocab.txt")  # no weights: a checkpoint holds BERT's
HASHED = (".json", ".txt", ".py", ".pth", ".safetensors", ".bin")


@dataclass(frozen=True)
class DetectorFiles:
    """The files of one detector."""

    backend: str  # groundingdino | transformers
    weights: Path  # .pth file | folder of a checkpoint
    config: Path | None = None  # groundingdino: its configuration; None = the official one that fits
    bert: Path | None = None  # groundingdino: folder with BERT's configuration and vocabulary
    family: str = ""  # transformers: the model_type of its config.json

    def fingerprint(self) -> str:
        """Backend and content hash of every file that shapes the answer, wherever the files lie."""
        files = [self.weights] if self.weights.is_file() else sorted(self.weights.iterdir())
        files += [self.config] if self.config else []
        files += (
            [self.bert / name for name in BERT_FILES if (self.bert / name).is_file()] if self.bert else []
        )
        digest = hashlib.blake2b(digest_size=16)
        for file in files:
            if file.suffix in HASHED:
                stat = file.stat()
                digest.update(_hash(file, stat.st_size, stat.st_mtime_ns))
        return f"{self.backend}:{digest.hexdigest()}"


def locate(spec: str) -> DetectorFiles:
    """The files that a spec names; UserError where the spec is wrong or a file is missing."""
    if spec == "tiny":
        return _tiny()
    backend, _, name = spec.partition(":")
    if name and backend == "groundingdino":
        return _groundingdino(name)
    if name and backend == "transformers":
        return _transformers(name)
    raise UserError(
        f"detector {spec!r} names no model: choose tiny, groundingdino:swint, groundingdino:swinb, "
        "groundingdino:FILE.pth or transformers:NAME_OR_DIR"
    )


def models_folder() -> Path:
    """$MACCO_MODELS, or ~/.cache/macco/models."""
    return Path(os.environ.get(MODELS_VARIABLE) or Path.home() / ".cache/macco/models").expanduser()


def official_config(file_name: str) -> Path:
    """A configuration inside groundingdino-py (found without importing it, which takes seconds)."""
    spec = importlib.util.find_spec("groundingdino")
    if spec is None or spec.origin is None:
        raise UserError("groundingdino-py is not installed: pip install groundingdino-py")
    return Path(spec.origin).parent / "config" / file_name


def find_bert(beside: Path) -> Path:
    """BERT's folder: beside the .pth, in the models folder, or in the Hugging Face cache."""
    for folder in (beside / BERT, models_folder() / BERT):
        if (folder / "vocab.txt").is_file() and (folder / "config.json").is_file():
            return folder
    for name in (f"google-bert/{BERT}", BERT):
        cached = _cached(name, "vocab.txt")
        if cached and (cached / "config.json").is_file():
            return cached
    target = models_folder() / BERT
    raise UserError(
        f"{BERT} is not here (its vocabulary and configuration; no weights): "
        f"hf download google-bert/{BERT} {' '.join(BERT_FILES)} --local-dir {target}"
    )


def _tiny() -> DetectorFiles:
    folder = Path(__file__).parents[1] / "models" / "tiny_detector"
    if not (folder / "config.json").is_file():
        raise UserError(
            f"the embedded detector is not in {folder}: reinstall macco, or name another detector"
        )
    return DetectorFiles("transformers", folder)


def _groundingdino(name: str) -> DetectorFiles:
    if name in OFFICIAL:
        release, config_name = OFFICIAL[name]
        weights, config = models_folder() / Path(release).name, official_config(config_name)
        if not weights.is_file():
            raise UserError(
                f"{weights} is not here: curl -L --create-dirs -o {weights} {RELEASES}{release} "
                f"(or set {MODELS_VARIABLE} to the folder that has it)"
            )
        return DetectorFiles("groundingdino", weights, config, find_bert(weights.parent))
    path, _, config_path = name.partition("@")
    weights = Path(path).expanduser()
    if not weights.is_file():
        raise UserError(
            f"detector weights {path} do not exist: give a .pth file, or one of {', '.join(OFFICIAL)}"
        )
    if config_path and not Path(config_path).is_file():
        raise UserError(f"detector configuration {config_path} does not exist: give a .py file after the @")
    return DetectorFiles(
        "groundingdino", weights, Path(config_path) if config_path else None, find_bert(weights.parent)
    )


def _transformers(name: str) -> DetectorFiles:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        looks_local = name.startswith(("/", ".", "~")) or name.count("/") != 1
        cached = None if looks_local else _cached(name, "config.json")
        if cached is None:
            hint = "give the folder of a checkpoint" if looks_local else f"hf download {name}"
            raise UserError(f"detector {name} is not here: {hint}")
        folder = cached
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json: give the folder of a transformers checkpoint")
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{folder}/config.json holds no JSON object: run hf download again") from error
    if kind not in FAMILY:
        raise UserError(f"{folder} holds a {kind} model: choose a checkpoint of {' or '.join(FAMILY)}")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise UserError(f"{folder} has no weights: run hf download again, without a list of files")
    return DetectorFiles("transformers", folder, family=kind)


def _cached(name: str, file_name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file_name)
    return Path(found).parent if isinstance(found, str) else None


@lru_cache(maxsize=64)
def _hash(file: Path, size: int, modified_ns: int) -> bytes:
    """Hash of a file's content; size and time only tell the cache whether the file is still the same."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()
