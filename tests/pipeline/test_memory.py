"""Memory of pictures is not handed back between two of them."""

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other C library is told")
def test_memory_of_images_is_kept_for_the_next_ones() -> None:
    program = (
        "import numpy as np, resource, sys\n"
        "from macco.pipeline.memory import keep_freed\n"
        "sys.argv[1] == 'kept' and keep_freed()\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    [np.ones(2**18, np.uint8) for _ in range(256)]\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(), print(faults())"
    )
    kept, plain = (
        int(subprocess.run([sys.executable, "-c", program, how], capture_output=True, check=True).stdout)
        for how in ("kept", "plain")
    )
    assert kept < 256 < plain
