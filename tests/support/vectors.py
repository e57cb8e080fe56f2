"""Files of reference vectors, and how far from them something is."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Row:
    name: str
    expected: float  # the value, or for an array its largest magnitude
    error: float  # relative
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Vectors:
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Vectors":
        with safe_open(path, "pt") as file:
            return cls({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def relative(
    name: str, found: Tensor, expected: Tensor, least: float = 0.0, tolerance: float = TOLERANCE
) -> Row:
    """Largest difference over the largest magnitude expected, or over `least` where that is more."""
    found, expected = found.detach().double(), expected.double()
    if found.shape != expected.shape:
        raise SystemExit(f"{name}: shape {tuple(found.shape)} where the file has {tuple(expected.shape)}")
    size = expected.abs().max().item() if expected.numel() else 0.0
    gap = (found - expected).abs().max().item() if expected.numel() else 0.0
    return Row(
        name,
        expected.item() if expected.numel() == 1 else size,
        gap / max(size, least) if size or least else gap,
        tolerance,
    )
