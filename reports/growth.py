"""How time and memory grow in each setting, and from which length on leaving exact attention pays: fits, as rows.

Each fit names the records that it rests on. Fits are of the lengths that were measured, and of nothing beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..results.fits import Crossover, crossover, scaling_exponent
from ..results.statistics import Interval
from .settings import Entry, Setting
from .words import lengths


@dataclass(frozen=True)
class Fit:
    """One figure fitted to one variant's records of a setting."""

    what: str
    """`time` or `memory`: a slope; `crossover` or `memory-crossover`: a length."""
    setting: Setting
    label: str
    value: float | None
    """None: a crossover that is not there up to the longest length."""
    low: float | None
    high: float | None
    evidence: tuple[Entry, ...]
    declared: float | None = None
    """The exponent that the variant declares."""
    text: str = ""
    """A crossover in words."""

    @property
    def lengths(self) -> str:
        return lengths(entry.length for entry in self.evidence)


def fits(settings: Sequence[Setting]) -> list[Fit]:
    """All fits that the records of some settings allow."""
    found: list[Fit] = []
    for setting in settings:
        for label in setting.labels:
            mine = sorted((e for e in setting.entries if e.label == label), key=lambda entry: entry.length)
            each = (time_slope, memory_slope, pays_from, saves_from)
            found += [fit for make in each if (fit := make(setting, label, mine)) is not None]
    return found


def time_slope(setting: Setting, label: str, mine: Sequence[Entry]) -> Fit | None:
    """Slope of log time over log length, from the samples; None for fewer than three lengths."""
    entries = tuple(entry for entry in mine if entry.timed and entry.record.samples_s)
    if len(entries) < 3:
        return None
    slope = scaling_exponent({entry.length: entry.record.samples_s or [] for entry in entries})
    declared = entries[0].record.declared_time_exponent
    return Fit("time", setting, label, slope.value, slope.low, slope.high, entries, declared)


def memory_slope(setting: Setting, label: str, mine: Sequence[Entry]) -> Fit | None:
    """Slope of log peak bytes over log length; bytes are counted, so it has no interval."""
    entries = tuple(entry for entry in mine if entry.weighed and entry.record.peak_bytes)
    if len(entries) < 3:
        return None
    slope = np.polyfit(
        [math.log(entry.length) for entry in entries], [math.log(entry.record.peak_bytes or 1) for entry in entries], 1
    )[0]
    return Fit("memory", setting, label, float(slope), None, None, entries, entries[0].record.declared_memory_exponent)


def pays_from(setting: Setting, label: str, mine: Sequence[Entry]) -> Fit | None:
    """The length from which a variant that is not exact stays faster than the fastest exact one."""
    entries = tuple(entry for entry in mine if not entry.exact and entry in setting.compared(entry.length))
    ratios = {
        entry.length: Interval(record.ratio, record.ratio_low or record.ratio, record.ratio_high or record.ratio)
        for entry in entries
        if (record := entry.record).ratio is not None
    }
    return _crossing("crossover", setting, label, entries, crossover(ratios)) if len(ratios) > 1 else None


def saves_from(setting: Setting, label: str, mine: Sequence[Entry]) -> Fit | None:
    """The length from which its peak stays below that of the exact variant with the smallest. Bytes have no noise."""
    ratios, entries = {}, []
    for entry in mine:
        exact = setting.at(entry.length, lambda other: other.exact and other.weighed and bool(other.record.peak_bytes))
        if entry.exact or not entry.weighed or not entry.record.peak_bytes or not exact:
            continue
        least = min(exact, key=lambda other: other.record.peak_bytes or 0)
        ratio = entry.record.peak_bytes / (least.record.peak_bytes or 1)
        ratios[entry.length] = Interval(ratio, ratio, ratio)
        entries.append(entry)
    return _crossing("memory-crossover", setting, label, tuple(entries), crossover(ratios)) if len(ratios) > 1 else None


def _crossing(what: str, setting: Setting, label: str, entries: tuple[Entry, ...], found: Crossover) -> Fit:
    return Fit(what, setting, label, found.length, found.low, found.high, entries, text=found.words)
