"""What several folders of tests share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # the checkout
DATA = ROOT / "tests" / "data"
