"""What disturbs measurements on this machine: each sign with what was found, and what to do about it.

Read from /proc and /sys of Linux, whose files are described in the kernel's own documentation (admin-guide: cpufreq,
cgroup-v2, pressure stall information, transparent hugepages). Much of it is absent in containers, virtual machines and
other systems: that is said, and nothing is assumed in its place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from . import disturbances_by_machine, disturbances_by_others
from .counters import Used
from .sign import Sign


def signs(
    idle: Used, trials: Used, threads: int, cores: set[int], evictions: Sequence[float], root: Path = Path("/")
) -> list[Sign]:
    """All signs, in the order in which to read them.

    idle: counters over a while in which nothing of ours ran. trials: counters while the comparisons ran. threads: how
    many a measured process uses. cores: numbers of those that it may run on. evictions: what the instrument of the
    shared cache read while nothing else of ours ran, empty where there is none.
    """
    return [
        *disturbances_by_others.signs(idle, trials, threads, cores, evictions, root),
        *disturbances_by_machine.signs(trials, threads, cores, root),
    ]


def own_cores() -> set[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))
