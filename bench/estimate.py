"""What a case would take, from the shorter ones of its series: one that would clearly run out is not begun.

Careful on purpose: what is skipped for a wrong estimate is a hole in a table, and what is begun in vain costs a little
time. So a curve is followed from its last point with no more than the declared exponent, and must pass a limit by a
margin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..results.record import Record
from .case import Case

FITTED = 3
"""The longest lengths of so many make the slope: what is constant bends the curve at the short ones."""
MARGIN = 1.5
"""By how much an estimate must pass its limit, where at least two lengths made it."""
MARGIN_OF_ONE = 4.0
"""The same where one length and the declared exponent made it: much of what a short length takes may be constant."""
LEAST_OF_ONE_S = 0.01
"""A shorter time says more of how long calls take to start than of the work, and makes no estimate by itself."""
CALLS = 2
"""A case's set-up is one step, and it calls at least so often: once to be checked, once to warm up."""


@dataclass(frozen=True)
class Estimate:
    """What one call would take at a longer length."""

    value: float
    exponent: float
    lengths: tuple[int, ...]

    @property
    def margin(self) -> float:
        return MARGIN if len(self.lengths) > 1 else MARGIN_OF_ONE

    @property
    def source(self) -> str:
        how = "as fitted" if len(self.lengths) > 1 else "as declared"
        lengths = f"length{'s' * (len(self.lengths) > 1)} {', '.join(map(str, self.lengths))}"
        return f"from {lengths}, growing by the power {self.exponent:.2g} {how}"


def expect(seen: Mapping[int, float], length: int, declared: float | None) -> Estimate | None:
    """The value at `length`, from those at shorter lengths; None where they say nothing.

    The slope of log value over log length, by least squares over the longest of them, but at most the declared exponent
    where there is one; the declared one alone where there is one length.
    """
    shorter = sorted(n for n, value in seen.items() if n < length and value > 0)[-FITTED:]
    if not shorter:
        return None
    if len(shorter) > 1:
        slope = float(np.polyfit(np.log(shorter), np.log([seen[n] for n in shorter]), 1)[0])
        exponent = min(slope, declared) if declared is not None else slope
    elif declared is not None:
        exponent = declared
    else:
        return None
    exponent = max(0.0, exponent)
    last = shorter[-1]
    return Estimate(seen[last] * (length / last) ** exponent, exponent, tuple(shorter))


@dataclass
class Series:
    """What was measured of one variant at the lengths so far: one call's time and memory, by length."""

    time_s: dict[int, float] = field(default_factory=dict)
    peak_bytes: dict[int, float] = field(default_factory=dict)
    peak_rss_bytes: dict[int, float] = field(default_factory=dict)
    declared_time: float | None = None
    declared_memory: float | None = None

    def learn(self, record: Record) -> None:
        """Takes a record's figures, where it has any."""
        for name in ("time_s", "peak_bytes", "peak_rss_bytes"):
            value = getattr(record, name)
            if value is not None:
                getattr(self, name)[record.n_k] = value
        if record.n_q == record.n_k:  # what is declared is said of such
            self.declared_time, self.declared_memory = record.declared_time_exponent, record.declared_memory_exponent

    def why_not(self, case: Case, free: float, timeout_s: float) -> str | None:
        """In words, why a longer case would run out of memory or time; None where it may well come through.

        `free` are the bytes that it may have, and `timeout_s` the seconds for any one step.
        """
        found = [] if case.device != "cpu" else [expect(self.peak_bytes, case.n_k, self.declared_memory)]
        if case.device == "cpu" and len(self.peak_rss_bytes) > 1:  # of one length, much may be libraries' own buffers
            found.append(expect(self.peak_rss_bytes, case.n_k, self.declared_memory))
        memory = max((each for each in found if each), key=lambda each: each.value / each.margin, default=None)
        if memory is not None and memory.value > memory.margin * free:
            return (
                f"one call would take about {_bytes(memory.value)} ({memory.source}), over {memory.margin:g} times the "
                f"{_bytes(free)} that are free"
            )
        time = expect(self.time_s, case.n_k, self.declared_time)
        if time is None or (len(time.lengths) == 1 and self.time_s[time.lengths[0]] < LEAST_OF_ONE_S):
            return None
        if CALLS * time.value > time.margin * timeout_s:
            return (
                f"one call would take about {time.value:.3g} s ({time.source}), and the {CALLS} calls of its set-up "
                f"over {time.margin:g} times the {timeout_s:g} s that a step may take"
            )
        return None


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"
