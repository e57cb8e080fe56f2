"""How many examples of a property that takes seconds are tried: few, or many with HYPOTHESIS_PROFILE=thorough."""

import os
from typing import Any

from hypothesis import settings


def examples(few: int, many: int, **more: Any) -> settings:
    thorough = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
    return settings(max_examples=many if thorough else few, deadline=None, **more)
