"""What this process is set to: its memory, how its threads wait, what its output does with characters it lacks."""

import ctypes
import io
import os
import sys
from pathlib import Path

# Numbers in glibc's malloc.h of two limits: from what size on memory comes from the system each time, and goes back.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# What is asked for; the largest that older versions take.
_GIBIBYTE, _OLD_LIMIT = 2**30, 2**25


def keep_freed_memory() -> None:
    """From now on memory that tensors leave is kept for the next ones, not given back to the system in between.

    Else a step on a CPU may spend a sixth to half of its time on getting the same pages anew, and how much depends on
    what the process allocated before. With glibc, for tensors below 1 GiB (32 MiB in older versions); nothing
    elsewhere.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        # The second alone would make it worse: glibc then stops adapting the first, which is small.
        if mallopt is not None and any(mallopt(_M_MMAP_THRESHOLD, size) for size in (_GIBIBYTE, _OLD_LIMIT)):
            mallopt(_M_TRIM_THRESHOLD, _GIBIBYTE)


def cores() -> int:
    """How many cores this process may use: those it is bound to, and no more than its container's share of them."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(bound, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return bound


def print_anything() -> None:
    """From now on characters that the output's encoding lacks, such as a minus sign, are printed as ``?``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def let_threads_sleep() -> None:
    """OpenMP's threads wait for the next operation for a moment and then sleep, unless the user set how they wait.

    Asleep at once, two are slower than one on small networks; waiting for long, as is usual, they make a busy machine
    many times slower. To be called before torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "4000")
