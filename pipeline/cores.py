"""How many processors there are to use."""

import os


def cores() -> int:
    """Processors this process may use: a container or a scheduler may give it fewer than the machine has."""
    # macOS and Windows have no affinity to ask for.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
