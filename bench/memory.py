"""Instrument: memory of one call, above what was there before it.

Two figures on a CPU: the allocator's peak, from the profiler's memory events and exact to the byte; and the growth of
the resident high-water mark, which also sees scratch memory that kernels take past the allocator. On CUDA: the caching
allocator's peak.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
from collections.abc import Callable
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of mallopt(3): the free memory at the heap's end from which it shrinks (-1: never), and how many blocks may live
outside of the heap, each mapped and unmapped by itself."""

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def allocator_peak(call: Callable[[], object], device: str) -> int:
    """Most bytes that torch's allocator held at once during `call`, its result included, its inputs not."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return max(0, max(itertools.accumulate(allocator_events(call)), default=0))


def allocator_events(call: Callable[[], object]) -> list[int]:
    """Bytes that torch's CPU allocator gave out (positive) and took back (negative) during `call`, in order."""
    # torch.profiler.profile spends a second on imports; the profiler beneath it records the same events
    with torch.autograd.profiler.profile(use_device=None, profile_memory=True, use_kineto=True) as profiler:
        result = call()
    del result
    assert profiler.kineto_results is not None
    events = [(e.start_ns(), e.nbytes()) for e in profiler.kineto_results.events() if e.name() == "[memory]"]
    return [change for _, change in sorted(events, key=lambda event: event[0])]  # stable: equal stamps stay in order


def resident_peak(call: Callable[[], object]) -> int | None:
    """Growth of the resident high-water mark during `call`; None where the system has no such counter."""
    gc.collect()
    trim_heap()  # freed pages that malloc keeps would be used again and not be seen to grow
    try:
        CLEAR_REFS.write_text("5")  # resets VmHWM to the present resident size
        before = _high_water()
        call()
        return max(0, _high_water() - before)
    except (OSError, LookupError):
        return None


def keep_heap() -> bool:
    """Has this process keep the memory that it frees, as a caching allocator does; False where it cannot be told to.

    By its own rules glibc gives large blocks back to the system, or keeps them, by the order in which blocks were freed
    before; every page given back must be mapped and zeroed again when it is next written to, inside the measured call.
    One such process then runs at half the speed of another that does the same work.
    """
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    if setting is None:
        return False
    return bool(setting(M_MMAP_MAX, 0)) and bool(setting(M_TRIM_THRESHOLD, -1))


def trim_heap() -> None:
    """Gives freed heap pages back to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say."""
    try:
        return _status("VmRSS:")
    except (OSError, LookupError):
        return 0


def _high_water() -> int:
    return _status("VmHWM:")


def _status(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no {field}")
