"""Instrument: the time of one call.

A sample is one turn of a round: enough calls in a row that the clock's grain and the call's start do not matter,
divided by their number. Garbage is collected before a turn and not during it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch

from . import gpu

SAMPLE_S = 0.005
"""Calls are repeated within a sample until it lasts this long."""
SHORT_S = 0.05
"""Calls shorter than this get one untimed call first in each turn: another worker has just used the caches."""
SETTLE_S = 0.01
"""Pause after each turn. The threads of a parallel region spin for some milliseconds before they sleep (libgomp), and
would hold a core while the next worker is timed."""
WARMUP_S = 0.1
WARMUP_CALLS = 2
MAX_CALLS = 1000
CHANGING = 1.5
"""While one call takes so many times as long as that before it, or the other way round, something is still being
compiled, tuned or loaded, and warming up goes on."""
CHANGING_S, CHANGING_CALLS = 30.0, 10
"""But for no longer than this, and no more calls: some functions are never steady."""


class Stopwatch:
    """Times repeated calls of one function on one device."""

    def __init__(self, call: Callable[[], object], device: str) -> None:
        self.call = call
        self.cuda = gpu.is_gpu(device)
        self.device = device
        self.calls = 1
        self.call_s = 0.0
        # written to before each timed call on CUDA
        self.flush = torch.empty(gpu.flush_bytes(device), dtype=torch.int8, device=device) if self.cuda else None

    def warm_up(self) -> float:
        """Calls for a while, and until calls are alike, so that a sample's size can be chosen; returns the time."""
        start = time.perf_counter()
        last = self._timed(1)
        calls, spent, best, changing = 1, time.perf_counter() - start, float("inf"), False
        while (
            calls < WARMUP_CALLS
            or (spent < WARMUP_S and calls < MAX_CALLS)
            or (changing and spent < CHANGING_S and calls < CHANGING_CALLS)
        ):
            before, last = last, self._timed(1)
            changing = max(before, last) > CHANGING * min(before, last)
            best = min(best, last)  # the last call may be one that the system interrupted
            spent, calls = time.perf_counter() - start, calls + 1
        self.call_s = best
        self.calls = 1 if self.cuda else max(1, min(MAX_CALLS, round(SAMPLE_S / max(best, 1e-9))))
        return spent

    def sample(self) -> float:
        """One turn: seconds a call."""
        gc.collect()
        gc.disable()
        try:
            if self.call_s < SHORT_S:
                self.call()
            return self._timed(self.calls)
        finally:
            gc.enable()
            if not self.cuda:
                time.sleep(SETTLE_S)

    def _timed(self, calls: int) -> float:
        if self.cuda:
            return self._timed_cuda(calls)
        start = time.perf_counter()
        for _ in range(calls):
            self.call()
        return (time.perf_counter() - start) / calls

    def _timed_cuda(self, calls: int) -> float:
        """Events around each call alone, so that neither the flush nor the launch of the next one is in it."""
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
        return float(sum(start.elapsed_time(end) for start, end in pairs)) / 1000 / calls
