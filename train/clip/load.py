"""Any model that open_clip can build, with the activation that was asked for."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

import open_clip
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from macco.pipeline.errors import UserError, is_failure
from macco.train.clip.convert import open_checkpoint
from macco.train.config import ModelConfig

ACTIVATIONS: Final = {"gelu": nn.GELU, "quick_gelu": QuickGELU}
SHIPPED: Final = (
    Path(__file__).parents[1] / "models"
)  # what comes with macco: folders of weights, configurations

WEIGHTS: Final = (".safetensors", ".bin", ".pth")  # what open_clip reads of a folder
TIMEOUT: Final = 5  # seconds in which the Hub answers, or is not there


class LoadedClip(NamedTuple):
    """A model with what belongs to it."""

    model: Any
    preprocess: Any  # PIL image to tensor [3, S, S]
    tokenizer: Callable[[list[str]], Tensor]


def load_clip(
    name_or_path: str | Path, pretrained: str | None = None, activation: str | None = None
) -> LoadedClip:
    """Load an open_clip architecture, an exported folder or a checkpoint file.

    name_or_path: an open_clip name (its weights: `pretrained`, a tag or a file; None: random), macco-demo (the
    small CLIP of the demo corpus that comes with macco), a folder with open_clip_config.json, the folder of a
    finished run, hf-hub:..., or a checkpoint of a ViT CLIP, whose sizes are read from its weights, or, as heads and
    pooling, from the open_clip_config.json beside it.
    activation: gelu, quick_gelu, or None for the one the model is known to have been trained with: a file of
    weights does not tell, unless the architecture is of QuickGELU.

    Raises:
        UserError: no such model or weights, weights that do not fit, or an activation that is not known.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise UserError(f"activation {activation!r} is unknown: choose gelu or quick_gelu")
    name_or_path = str(name_or_path)
    path = shipped(name_or_path) or Path(name_or_path)
    if pretrained and has_weights(name_or_path):  # which would be read, and not those
        raise UserError(f"{name_or_path} comes with weights of its own: leave {pretrained!r} out")
    if path.is_file() and not configured(path):
        return _from_checkpoint(path, activation)
    if path.is_file():
        path = path.parent
        if sum(file.suffix in (*WEIGHTS, ".pt") for file in path.iterdir()) > 1:
            raise UserError(
                f"{path} has several files of weights for its configuration: give the folder instead"
            )
    if path.is_dir():
        if (path / "model" / "open_clip_config.json").is_file():  # the folder of a training run
            path = path / "model"
        if not (path / "open_clip_config.json").is_file():
            raise UserError(
                f"{path} has no open_clip_config.json: export the model to open_clip's format first"
            )
        if not any(file.suffix in WEIGHTS for file in path.iterdir()):  # open_clip would draw random ones
            raise UserError(f"{path} has no weights ({', '.join(WEIGHTS)}): copy them there too")
        name_or_path = f"local-dir:{path}"
    elif "/" in name_or_path and ":" not in name_or_path and name_or_path.startswith((".", "/", "~")):
        raise UserError(f"no checkpoint or folder at {name_or_path}: check the path")
    file = Path(pretrained) if pretrained else None
    fetched = name_or_path.startswith("hf-hub:") or (file is not None and not file.exists())
    try:
        with _offline_at_once() if fetched else nullcontext(True) as reached:
            model, _, preprocess = open_clip.create_model_and_transforms(name_or_path, pretrained=pretrained)
            tokenizer = open_clip.get_tokenizer(name_or_path)
    except BaseException as error:  # of a damaged folder it may be of any kind
        if not is_failure(error):
            raise
        known = f" (names: {_similar(name_or_path)})" if "not found in built-ins" in str(error) else ""
        reason = re.sub(r" Available.*", "", " ".join(str(error).split()))
        if not reached and not known and (get := _how_to_get(name_or_path, pretrained)):
            raise UserError(get) from error
        raise UserError(f"open_clip cannot load {name_or_path!r}: {reason}{known}") from error
    if (
        activation is None
        and file is not None
        and file.is_file()
        and _blocks(model)
        and activation_of(model) == "gelu"
    ):
        raise _untold(file)
    set_activation(model, activation or _trained_with(name_or_path, pretrained))
    return LoadedClip(model, preprocess, tokenizer)


@contextmanager
def _offline_at_once() -> Iterator[bool]:
    """Ask the Hub once whether it is there; where not, its client looks in its cache alone."""
    from huggingface_hub import constants, get_session

    before = constants.HF_HUB_OFFLINE
    try:
        if not before:
            get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except Exception:  # of whichever HTTP library this version of the client uses
        constants.HF_HUB_OFFLINE = True
    reached = not constants.HF_HUB_OFFLINE
    level = logging.root.manager.disable
    if not reached:
        logging.disable(logging.ERROR)  # what open_clip logs is said in our one line
    try:
        yield reached
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.disable(level)


def _how_to_get(name: str, pretrained: str | None) -> str | None:
    """How weights of the Hub are brought to a machine that cannot reach it; None for what does not lie there."""
    from huggingface_hub import constants

    config = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else None
    repository = (
        name.removeprefix("hf-hub:")
        if name.startswith("hf-hub:")
        else (config or {}).get("hf_hub", "").strip("/")
    )
    if not repository:
        return None
    return (
        f"the weights of {name} {pretrained or ''} are not on this machine, and the Hugging Face Hub cannot be "
        "asked: "
        f"where it can, run: hf download {repository}; copy models--{repository.replace('/', '--')} from its cache "
        f"into {constants.HF_HUB_CACHE} here; then give the same command again"
    )


def configured(weights: Path) -> bool:
    """Whether a file of weights has its configuration beside it."""
    return weights.with_name("open_clip_config.json").is_file()


def shipped(name: str) -> Path | None:
    """The folder of a model whose weights come with macco."""
    folder = SHIPPED / name
    return folder if "/" not in name and (folder / "open_clip_config.json").is_file() else None


def has_weights(name: str) -> bool:
    """Whether a name is that of weights: a folder or file, what comes with macco, or a model of the Hub."""
    return name.startswith("hf-hub:") or shipped(name) is not None or Path(name).exists()


def activation_of(model: nn.Module) -> str:
    """gelu or quick_gelu: what the transformer blocks compute with."""
    quick = any(isinstance(module, QuickGELU) for module in model.modules())
    return "quick_gelu" if quick else "gelu"


def set_activation(model: nn.Module, activation: str | None) -> None:
    """Make every block of open_clip's own transformers use `activation`; None leaves the model as it is.

    Raises UserError where the model has no such block (its towers come from timm or transformers).
    """
    if activation is None:
        return
    blocks = _blocks(model)
    if not blocks:
        raise UserError("this model's towers are not open_clip's own: its activation cannot be chosen")
    for block in blocks:
        block.mlp.gelu = ACTIVATIONS[activation]()


def _blocks(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, ResidualAttentionBlock)]


def _untold(path: Path) -> UserError:
    return UserError(
        f"weights do not tell their activation: give {path.name} with --activation quick_gelu (OpenAI's) or gelu "
        "(training: model.activation=...)"
    )


def _trained_with(name: str, pretrained: str | None) -> str | None:
    """open_clip builds the bare name with GELU even where a tag's weights were trained with QuickGELU."""
    config = open_clip.get_pretrained_cfg(name, pretrained) if pretrained and ":" not in name else None
    return "quick_gelu" if (config or {}).get("quick_gelu") else None


def _from_checkpoint(path: Path, activation: str | None) -> LoadedClip:
    if activation is None:
        raise _untold(path)
    model, config = open_checkpoint(path, quick_gelu=activation == "quick_gelu")
    text, vision = config["text_cfg"], config["vision_cfg"]
    preprocess = open_clip.image_transform(vision["image_size"], is_train=False)
    return LoadedClip(model, preprocess, open_clip.SimpleTokenizer(context_length=text["context_length"]))


def _similar(name: str) -> str:
    from difflib import get_close_matches

    return ", ".join(get_close_matches(name, open_clip.list_models(), n=3)) or "see open_clip.list_models()"


def load_start(config: ModelConfig, seed: int) -> LoadedClip:
    """Build the model, the same each time: random weights are drawn from `seed`."""
    open_clip.add_model_config(SHIPPED)
    torch.manual_seed(seed)
    if not config.pretrained:
        logging.disable(logging.WARNING)  # open_clip warns that weights are random, as is asked for here
    try:
        weights = None if has_weights(config.name) else config.pretrained or None
        loaded = load_clip(config.name, weights, config.activation or None)
    finally:
        logging.disable(logging.NOTSET)
    if config.checkpointing:
        loaded.model.set_grad_checkpointing()
    return loaded


def architecture(name: str | Path) -> dict[str, Any] | None:
    """The open_clip configuration behind a model's name or folder; None where only its weights tell."""
    open_clip.add_model_config(SHIPPED)
    name = str(name)
    file = (shipped(name) or Path(name)) / "open_clip_config.json"
    if file.is_file():
        config: dict[str, Any] = json.loads(file.read_text())["model_cfg"]
        return config
    found: dict[str, Any] | None = open_clip.get_model_config(name)
    return found
