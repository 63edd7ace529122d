"""Where the cores lie: alike for all turns of a run, as far as handing work between threads tells.

The host of a virtual machine moves its cores about: two that shared a cache lie in different parts of the processor a
minute later, where what one writes reaches the other in five times the time. Calls of many small operations then take
up to a quarter longer and a large product does not, so that ratios change which no variant has changed. What handing
work to threads takes tells the two apart. It is read beside each turn, in work that knows nothing of the variant: a
turn counts where it is near the shortest that the run has seen, and others are taken again, once the cores were
brought together.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from ..results.conditions import HANDOVER
from .handover import Handover

WAKING_S = 1.0
"""For how long cores wake each other: a thirtieth of it moved them seldom, this four times of five."""
NAP_S = 1e-4
"""Of a core before it wakes the other: long enough that both fall asleep."""
TRIES = 8
"""To bring the cores together, after which turns count wherever these lie, until they come together by themselves."""
FIRST_TRIES = 4
"""At the begin of a run, which does not know yet what it may hope for."""
READINGS = 9


class Placement:
    """Which turns of several threads count.

    `read`: what handing work to so many threads takes now, in seconds. `gather`: brings the cores together.
    """

    def __init__(self, read: Callable[[int], float], gather: Callable[[], None]) -> None:
        self.read, self.gather = read, gather
        self.shortest_s: dict[int, float] = {}
        """By the number of threads: the smallest median of READINGS, so that none alone decides."""
        self.latest: dict[int, deque[float]] = {}
        """Beside turns that counted."""
        self.given_up: set[int] = set()

    def begin(self, threads: int) -> None:
        """Before the first turn of so many threads: sees what handing over takes with the cores together.

        One try leaves them apart too often, and a run that began so would take that for what the machine can do.
        """
        if threads == 1 or threads in self.shortest_s:
            return
        seen = [self.read(threads)]
        while len(seen) <= FIRST_TRIES and max(seen) < HANDOVER * min(seen):  # until both placements were seen
            self.gather()
            seen.append(self.read(threads))
        self.shortest_s[threads] = min(seen)
        self.latest[threads] = deque(maxlen=READINGS)

    def accepts(self, threads: int, handover_s: float) -> bool:
        """Whether a turn counts beside which that was read. Where it does not, the cores lie together again."""
        if self._is_near(threads, handover_s):
            self.given_up.discard(threads)
            self._learn(threads, handover_s)
            return True
        # given up; or it was that reading alone, which an interruption can spoil
        if threads in self.given_up or self._is_near(threads, self.read(threads)):
            return True
        for _ in range(TRIES):
            self.gather()
            if self._is_near(threads, self.read(threads)):
                return False
        self.given_up.add(threads)
        return True

    def _is_near(self, threads: int, handover_s: float) -> bool:
        return handover_s < HANDOVER * self.shortest_s[threads]

    def _learn(self, threads: int, handover_s: float) -> None:
        """Beside turns it is shorter than in the process that read it first; or the cores lay apart then."""
        latest = self.latest[threads]
        latest.append(handover_s)
        if len(latest) == READINGS:
            self.shortest_s[threads] = min(self.shortest_s[threads], median(latest))


def read(state: dict[str, Any], threads: int) -> float:
    """What handing work to so many threads takes now, in a process of its own: seconds."""
    torch.set_num_threads(threads)
    handover = Handover(threads)
    return median(handover.read() for _ in range(READINGS))


def gather() -> None:
    """Has the cores of this process wake each other for WAKING_S.

    A host places a core that wakes up near the one that woke it, where it can. Where nobody moves them, or the system
    has no say in which core a thread takes, it is a wait.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) < 2:
        time.sleep(WAKING_S)
    for core in cores[1:]:
        _wake(cores[0], core, WAKING_S / (len(cores) - 1))


def _wake(one: int, other: int, seconds: float) -> None:
    """Two threads, each on a core of its own, wake each other through pipes."""
    (ping, to_ping), (pong, to_pong) = os.pipe(), os.pipe()

    def answer() -> None:
        os.sched_setaffinity(0, {other})  # of this thread alone
        while os.read(ping, 1):
            time.sleep(NAP_S)
            os.write(to_pong, b".")
        os.close(to_pong)

    def ask() -> None:
        os.sched_setaffinity(0, {one})
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            os.write(to_ping, b".")
            os.read(pong, 1)
        os.close(to_ping)

    threads = [threading.Thread(target=answer), threading.Thread(target=ask)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(ping)
    os.close(pong)
