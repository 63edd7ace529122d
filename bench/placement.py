"""Where the cores lie, and who else uses them: alike for all turns of a run, as far as small work tells.

The host of a virtual machine moves its cores about: two that shared a cache lie in different parts of the processor a
minute later. And such a core may be one of two threads of a real one: while a neighbour works in the other, it has
half of what they share, for seconds or for minutes. Calls of many small operations then take longer and a large product
does not, or less so, and ratios change which no variant has changed. What a small piece of work takes the case's
threads tells of both (handover.py). It is read beside each turn, in work that knows nothing of the variant: a turn
counts where it is near the shortest that the run has seen, and others are taken again, once the cores of several
threads were brought together, or the neighbour of one thread's core rests.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

from ..results.conditions import HANDOVER
from .environment import is_virtual
from .patience import Patience

WAKING_S = 1.0
"""For how long cores wake each other: a thirtieth of it moved them seldom, this mostly does."""
NAP_S = 1e-4
"""Of a core before it wakes the other: long enough that both fall asleep."""
FIRST_TRIES = 4
"""At the begin of a run, which does not know yet what it may hope for."""
TRIES = 8
"""To bring the cores together, after which turns count wherever these lie for a while: so long that such tries cost
half of the patience, and the rest is left to others."""
WAIT_S = 0.1
"""Until the core of one thread is looked at again: where neighbours rest for a second or two, most of that is left."""
WAITS = 10
"""For a try: it then takes as long for one thread as for several."""
LATEST = 9
"""Turns whose median tells what small work takes: a single one may be astray."""


class Placement:
    """Which turns count. `gather` brings the cores of several threads together, `wait` lets time pass for one."""

    def __init__(self, gather: Callable[[], None], patience: Patience, wait: Callable[[], None]) -> None:
        self.gather, self.patience, self.wait = gather, patience, wait
        self.shortest_s: dict[int, float] = {}
        """By the number of threads."""
        self.latest: dict[int, deque[float]] = {}
        """Beside turns that counted."""
        self.resting: dict[int, float] = {}
        """Until when nothing is tried."""

    def knows(self, threads: int, handover_s: float) -> None:
        """What small work takes, or took before this run was stopped: more than a single reading says."""
        self.shortest_s[threads] = min(handover_s, self.shortest_s.get(threads, handover_s))

    def judge(self, threads: int, handover_s: float, took_s: float, read: Callable[[], float]) -> float | None:
        """What small work takes beside a turn that counts; None for one that does not.

        `handover_s` was read right after that turn, which took `took_s`; `read` reads again, in its process.
        """
        if threads not in self.latest:
            self._begin(threads, read)
            found = handover_s if self.is_near(threads, handover_s) else None
        else:
            found = self._judge(threads, handover_s, took_s, read)
        if found is None:
            return None
        self.latest[threads].append(found)
        if len(self.latest[threads]) == LATEST:
            self.shortest_s[threads] = min(self.shortest_s[threads], median(self.latest[threads]))
        return found

    def is_near(self, threads: int, handover_s: float) -> bool:
        """Whether that tells of cores that lie together and that nobody else uses."""
        return handover_s < HANDOVER * self.shortest_s[threads]

    def _begin(self, threads: int, read: Callable[[], float]) -> None:
        """Sees what small work takes at best: all tries, since each may leave the cores apart, and without regard to
        patience, since all of the run is judged by it."""
        self.knows(threads, read())
        remedy, times = self._remedy(threads, FIRST_TRIES)
        for _ in range(times):
            if self.patience.clock() >= self.patience.deadline:
                break
            remedy()
            self.knows(threads, read())
        self.latest[threads] = deque(maxlen=LATEST)

    def _judge(self, threads: int, handover_s: float, took_s: float, read: Callable[[], float]) -> float | None:
        if self.is_near(threads, handover_s):
            self.resting.pop(threads, None)
            return handover_s
        if self.patience.is_over(took_s) or self.patience.clock() < self.resting.get(threads, 0.0):
            return handover_s
        again = read()
        if self.is_near(threads, again):
            return again  # the first was astray, as an interruption makes it
        began = self.patience.clock()
        remedy, times = self._remedy(threads, TRIES)
        for _ in range(times):
            if self.patience.is_over(took_s):
                break
            remedy()
            if self.is_near(threads, read()):
                return None
        now = self.patience.clock()
        self.resting[threads] = now + 2 * (now - began) / self.patience.share
        return handover_s

    def _remedy(self, threads: int, tries: int) -> tuple[Callable[[], None], int]:
        """What may help, and how often to do it for so many tries."""
        return (self.gather, tries) if threads > 1 else (self.wait, tries * WAITS)


def matters() -> bool:
    """Whether a host may move this machine's cores, and they can be made to wake each other."""
    return bool(is_virtual()) and hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1


def wait() -> None:
    """Lets some time pass."""
    time.sleep(WAIT_S)


def wake(state: dict[str, Any]) -> int:
    """Has the first core of this process and all others wake each other for WAKING_S; returns how often.

    A host places a core that wakes up near the one that woke it, where it can.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    pipes = [(os.pipe(), os.pipe()) for _ in others]

    def answer(core: int, ping: int, to_pong: int) -> None:
        _pin(core)
        while os.read(ping, 1) == GO:
            time.sleep(NAP_S)
            os.write(to_pong, GO)

    threads = [
        threading.Thread(target=answer, args=(core, ping, to_pong), daemon=True)
        for core, ((ping, _), (_, to_pong)) in zip(others, pipes, strict=True)
    ]
    for thread in threads:
        thread.start()
    _pin(first)
    end, times = time.monotonic() + WAKING_S, 0
    while time.monotonic() < end:
        for (_, to_ping), _ in pipes:
            os.write(to_ping, GO)
        for _, (pong, _) in pipes:
            os.read(pong, 1)
        times += 1
    for (_, to_ping), _ in pipes:
        os.write(to_ping, STOP)
    for thread in threads:
        thread.join()
    return times


GO, STOP = b"+", b"."


def _pin(core: int) -> None:
    """Keeps this thread, and it alone, on a core; where that is forbidden, the system chooses."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {core})
