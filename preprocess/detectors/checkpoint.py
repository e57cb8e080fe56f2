"""Loading a checkpoint of transformers: whole, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from macco.pipeline.errors import UserError, is_failure


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """What transformers makes of a file that is damaged may be an error of any kind: one line."""
    try:
        yield
    except BaseException as error:
        if not is_failure(error):
            raise
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise UserError(f"{folder}: its {what} cannot be read ({why}): run hf download again") from error


def load_model(model_class: Any, folder: Path) -> Any:
    """A model for inference, in float32. Raises UserError where weights are missing or of another size."""
    logging.disable_progress_bar()
    with reading(folder, "model"):
        model, report = model_class.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    wrong = {kind: sorted(map(str, report[kind])) for kind in ("missing_keys", "mismatched_keys")}
    if any(wrong.values()):
        told = ", ".join(f"{len(keys)} {kind} {keys[:3]}" for kind, keys in wrong.items() if keys)
        raise UserError(f"{folder}: the weights do not fit config.json: {told}")
    return model.eval()
