"""Instrument: the time of one call.

A sample is one turn of a round. A turn is cut into parts, each of enough calls in a row that the clock's grain and the
call's start do not matter, and the median over parts counts: of three or more, an interruption of some milliseconds
spoils one and not the turn. Garbage is collected before a turn and not during it.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from . import gpu
from .handover import Handover
from .shared_cache import SharedCache

PART_S = 0.0025
"""Calls are repeated within a part until it lasts this long."""
TURN_S = 0.015
"""Of a turn, where calls are short and nothing else is asked for; a longer call is a turn by itself."""
MOST_LAUNCHED = 100
"""Calls of a turn on CUDA. A processor that was idle launches the first of them later than the flush before it ends, so
that the gap is in its time; it runs ahead of the others, and their median takes no notice."""
SHORT_S = 0.05
"""Calls shorter than this get one untimed call first in each turn: another worker has just used the caches. Where a
turn has MANY_PARTS, their median takes no notice of the first one."""
MANY_PARTS = 10
SETTLE_S = 0.05
"""Longest wait after a turn until this process's other threads sleep. Those of a parallel region spin for 5 to 25
milliseconds before they do (libgomp), and would hold a core while the next worker is timed."""
POLL_S = 0.001
READINGS = 9
"""Between turns: the first of them wake the threads."""
TASKS = Path("/proc/self/task")
WARMUP_S = 0.05
"""Warming up takes this long at least,"""
AGAIN_S = 0.03
"""or this long in a case's further processes: what a call takes is known then."""
LONG_S = 0.15
"""A single call that is longer, and like one before, warms up; of others the first pays for the pages it touches."""
MAX_CALLS = 1000
CHANGING = 1.5
"""While one call takes so many times as long as that before it, or the other way round, something is still being
compiled, tuned or loaded, and warming up goes on."""
CHANGING_S, CHANGING_CALLS = 30.0, 10
"""But for no longer than this, and no more calls: some functions are never steady."""


class Size(NamedTuple):
    """What a turn consists of. Medians over unlike parts differ where their noise is skewed: sides that are compared by
    a percent have turns of one size."""

    parts: int
    calls_per_part: int
    untimed_first: bool
    """One call goes before the parts."""


class Stopwatch:
    """Times repeated calls of one function on one device.

    `turn_s`: about how long the timed calls of a turn take, one call at least. `handover`: is read right after them.
    """

    def __init__(
        self, call: Callable[[], object], device: str, turn_s: float = TURN_S, handover: Handover | None = None
    ) -> None:
        self.call = call
        self.turn_s = turn_s
        self.cuda = gpu.is_gpu(device)
        self.device = device
        self.size = Size(1, 1, untimed_first=True)
        """Chosen by warming up, and may be set to another's after it."""
        self.call_s = 0.0
        self.timed_s = 0.0
        """Of the latest turn: inside of its timed calls, interrupted ones too."""
        self.handover = handover
        self.handover_s: float | None = None
        """After the latest turn, where that is read."""
        self.shared_cache: SharedCache | None = None
        """Made when it is first read."""
        self.eviction: float | None = None
        """After the latest turn, where that was asked for."""
        # written to before each timed call on CUDA
        self.flush = torch.empty(gpu.flush_bytes(device), dtype=torch.int8, device=device) if self.cuda else None

    def warm_up(self, earlier_s: float | None = None, least_s: float = WARMUP_S) -> float:
        """Calls for `least_s`, and until calls are alike, so that a turn's size can be chosen; returns the time.

        `earlier_s`: what a call before took. One call that is like it is enough where calls are long.
        """
        start = time.perf_counter()
        last, best, calls, spent, changing = earlier_s, float("inf"), 0, 0.0, True
        while (
            not calls
            or (calls == 1 and best < LONG_S)
            or (spent < least_s and calls < MAX_CALLS)
            or (changing and spent < CHANGING_S and calls < CHANGING_CALLS)
        ):
            before, last = last, self._timed_cuda(1)[0] if self.cuda else self._timed(1)
            changing = before is None or max(before, last) > CHANGING * min(before, last)
            best = min(best, last)  # the last call may be one that the system interrupted
            spent, calls = time.perf_counter() - start, calls + 1
        self.call_s = best
        self.size = self._chosen(max(best, 1e-9))
        return spent

    def _chosen(self, call_s: float) -> Size:
        """By what one call takes."""
        in_a_row = 1 if self.cuda else max(1, min(MAX_CALLS, round(PART_S / call_s)))
        parts = max(1, round(self.turn_s / (call_s * in_a_row)))
        if self.cuda:
            parts = min(MOST_LAUNCHED, parts)
        return Size(parts, in_a_row, untimed_first=call_s < SHORT_S and parts < MANY_PARTS)

    @property
    def calls(self) -> int:
        """Timed calls of a turn."""
        return self.size.parts * self.size.calls_per_part

    def sample(self, cache: bool = False, others: bool = False) -> float:
        """One turn: seconds a call. `cache`: read what others do to the shared cache right after it; `others`: they
        did when it was last read."""
        gc.collect()
        gc.disable()
        try:
            if self.size.untimed_first:
                self.call()
            if self.cuda:
                parts = self._timed_cuda(self.size.parts)
            else:
                parts = [self._timed(self.size.calls_per_part) for _ in range(self.size.parts)]
            self.timed_s = sum(parts) * self.size.calls_per_part
            if self.handover is not None:
                self.handover_s = self.handover.read()
            self.eviction = self._read_eviction(others) if cache else None
            return median(parts)
        finally:
            gc.enable()
            if not self.cuda:
                settle()

    def read_handover(self) -> float:
        """The same between turns: seconds."""
        assert self.handover is not None
        try:
            return median(self.handover.read() for _ in range(READINGS))
        finally:
            settle()

    def _read_eviction(self, others: bool) -> float:
        self.shared_cache = self.shared_cache or SharedCache()
        return self.shared_cache.read(expected=others)

    def _timed(self, calls: int) -> float:
        """Seconds a call, of some in a row on a CPU."""
        start = time.perf_counter()
        for _ in range(calls):
            self.call()
        return (time.perf_counter() - start) / calls

    def _timed_cuda(self, calls: int) -> list[float]:
        """Seconds of each of some calls that are launched one behind the other. Events stand around each alone, so that
        neither the flush nor the launch of the next one is in it."""
        assert self.flush is not None
        pairs = []
        for _ in range(calls):
            self.flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self.call()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize(self.device)
        return [float(start.elapsed_time(end)) / 1000 for start, end in pairs]


def settle() -> None:
    """Waits until no other thread of this process runs, SETTLE_S at most; so long where the system does not say."""
    end = time.monotonic() + SETTLE_S
    while _others_run() and time.monotonic() < end:
        time.sleep(POLL_S)


def _others_run() -> bool:
    own = str(threading.get_native_id())
    try:
        threads = [name for name in os.listdir(TASKS) if name != own]
    except OSError:
        return True
    return any(_runs(name) for name in threads)


def _runs(thread: str) -> bool:
    """Whether a thread runs, or would if it had a core: the state behind the name in /proc/PID/task/TID/stat."""
    try:
        return (TASKS / thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "R"
    except (OSError, IndexError):  # it has ended
        return False
