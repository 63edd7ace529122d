"""The cores that two sides of a comparison share, so that where the system put each of them is no difference.

A process tends to stay on a core. Cores of a virtual machine have neighbours of their own, and those of a laptop are
not alike: of two processes with the same code, each on a core of its own, one is the slower for as long as both live.
Where two cores have busy neighbours, median ratios of pairs of such processes spread by several percent more than their
rounds explain; where both of a pair share a core, by no more.
"""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

TASKS = Path("/proc/self/task")
CPUS = Path("/sys/devices/system/cpu")


def usable() -> list[int]:
    """The cores that this process may use, second threads of a core last; empty where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0), key=lambda core: (_place_among_siblings(core), core))


def draw(threads: int, pairs: int, order: random.Random) -> list[list[int]]:
    """For each pair of processes the cores that both shall use, others for the next; none where all are needed."""
    cores = usable()
    if threads >= len(cores):
        return [[] for _ in range(pairs)]
    first = order.randrange(len(cores))
    return [
        [cores[(first + pair * threads + thread) % len(cores)] for thread in range(threads)] for pair in range(pairs)
    ]


def may_keep() -> bool:
    """Whether the system lets a thread be kept to a core, by this one: some sandboxes refuse or ignore it, and some
    systems cannot."""
    try:
        before = os.sched_getaffinity(0)
        one = {min(before)}
        os.sched_setaffinity(0, one)
        try:
            return os.sched_getaffinity(0) == one
        finally:
            os.sched_setaffinity(0, before)
    except (OSError, AttributeError):
        return False


def keep_to(cores: list[int]) -> None:
    """Keeps all threads of this process, and those that they start, to some cores; with none, the system chooses."""
    if not cores:
        return
    for task in [int(entry.name) for entry in TASKS.iterdir()]:
        with contextlib.suppress(OSError):  # it has ended, or that is forbidden: then the system chooses
            os.sched_setaffinity(task, cores)


def _place_among_siblings(core: int) -> int:
    """0 of the first thread of a core, 1 of the second; 0 where the system does not say."""
    try:
        text = (CPUS / f"cpu{core}" / "topology" / "thread_siblings_list").read_text().strip()
        ends = [part.split("-") for part in text.split(",")]
        siblings = [core for end in ends for core in range(int(end[0]), int(end[-1]) + 1)]
        return siblings.index(core)
    except (OSError, ValueError):
        return 0
