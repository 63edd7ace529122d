"""What follows from a run's records: exponents, crossovers, gains. feasible.py adds what fits into a memory.

Each function takes the records of one run, since only what one run measured may be divided; several settings may be
among them. Every figure names the records that it rests on, and its basis:

- measured: the record is of that very case;
- fitted: a slope through measured lengths;
- interpolated: between two measured lengths;
- extrapolated: beyond them, by the fits of results/growth.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from . import growth
from .curves import fits
from .fits import Crossover, crossover, scaling_exponent
from .record import Record
from .series import REFERENCE, Series, baseline_of, needed_bytes, ratio_between, split, time_of
from .statistics import Interval

Basis = Literal["measured", "fitted", "interpolated", "extrapolated"]
Quantity = Literal["time", "memory", "needed", "state"]
"""Time of a call in s; peak memory above the inputs, memory in all (`needed_bytes`), state for decoding, in bytes."""

STEPS = 80
"""Lengths, evenly over the logarithm, at which curves are looked at for where they cross."""
TAIL = 3
"""The longest lengths of so many show where a curve is heading: short ones are mostly overhead."""


@dataclass(frozen=True)
class Figure:
    """One value with its interval, and what it rests on."""

    value: float
    low: float
    high: float
    """95 %; equal to the value where nothing varies, as with bytes."""
    basis: Basis
    case_ids: tuple[str, ...]


@dataclass(frozen=True)
class Exponent:
    """How a quantity grows with length, beside what the variant declares."""

    series: Series
    quantity: Quantity
    figure: Figure
    """Slope of its logarithm over the logarithm of length, of all lengths."""
    declared: float | None
    lengths: tuple[int, ...]

    @cached_property
    def tail(self) -> Figure:
        """The same of the longest TAIL lengths; fitted when it is asked for, since resampling takes milliseconds."""
        if len(self.lengths) <= TAIL:
            return self.figure
        return _slope(self.series, values_of(self.series, self.quantity), self.lengths[-TAIL:])


@dataclass(frozen=True)
class Crossing:
    """From which length on a variant takes less than another at every longer length measured."""

    series: Series
    quantity: Literal["time", "memory"]
    against: Literal["exact", "naive"]
    """The fastest exact variant of each length, or naive."""
    rivals: tuple[str, ...]
    """The variants that `against` was, from the shortest length on."""
    found: Crossover
    basis: Basis
    """measured: from the shortest length on, or none; interpolated: between two."""
    beyond: Figure | None
    """Where there is none yet but the ratio falls: the length at which it would, extrapolated; `high` may be inf."""
    case_ids: tuple[str, ...]

    @property
    def words(self) -> str:
        """E.g. `3,100 (2,600–3,900)`, `256 or before`, `none up to 8,192`."""
        found = self.found
        if found.length is not None and found.low == found.high and found.length > found.shortest:
            return f"{found.length:,.0f}"
        if found.length is not None or self.beyond is None:
            return found.words
        high = "never" if math.isinf(self.beyond.high) else f"{self.beyond.high:,.0f}"
        return f"{found.words}; extrapolated {self.beyond.value:,.0f} ({self.beyond.low:,.0f}–{high})"


# -- exponents ------------------------------------------------------------------------------------------------------


def exponents(records: Iterable[Record]) -> list[Exponent]:
    """Of time and of memory, for every series with at least two lengths."""
    found = []
    for series in split(records):
        for quantity, declared in (
            ("time", series.of.declared_time_exponent),
            ("memory", series.of.declared_memory_exponent),
        ):
            values = {n: y for n, y in values_of(series, quantity).items() if min(y) > 0}  # type: ignore[arg-type]
            if len(values) > 1:
                lengths = tuple(sorted(values))
                whole = _slope(series, values, lengths)
                found.append(Exponent(series, quantity, whole, declared, lengths))  # type: ignore[arg-type]
    return found


def _slope(series: Series, values: Mapping[int, Sequence[float]], lengths: Sequence[int]) -> Figure:
    return figure_of(scaling_exponent({n: values[n] for n in lengths}), "fitted", series, lengths)


def values_of(series: Series, quantity: Quantity) -> dict[int, Sequence[float]]:
    """By length: the samples of time, or the one value that does not vary."""
    if quantity == "time":
        return series.times
    found = {n: _bytes(record, quantity) for n, record in series.ok.items()}
    return {n: [float(value)] for n, value in found.items() if value is not None}


def _bytes(record: Record, quantity: Quantity) -> int | None:
    if quantity == "needed":
        return needed_bytes(record)
    return record.peak_bytes if quantity == "memory" else record.state_bytes


# -- one length -----------------------------------------------------------------------------------------------------


def estimate(series: Series, quantity: Quantity, length: int) -> Figure | None:
    """A quantity at a length: measured, interpolated or extrapolated; None where the records do not carry so far.

    They do not beyond growth.FARTHEST times the lengths measured, nor beyond any where fewer than growth.FEWEST were.
    """
    values = values_of(series, quantity)
    if quantity == "time" and length in series.timed:
        return figure_of(time_of(series.timed[length]), "measured", series, [length])
    if length in values:
        only = values[length][0]
        return figure_of(Interval(only, only, only), "measured", series, [length])
    values = {n: y for n, y in values.items() if min(y) > 0}
    lengths = sorted(values)
    if len(lengths) > 1 and lengths[0] < length < lengths[-1]:
        near = [max(n for n in lengths if n < length), min(n for n in lengths if n > length)]
        return figure_of(growth.within(values, length), "interpolated", series, near)
    try:
        return figure_of(growth.beyond(values, length), "extrapolated", series, lengths)
    except ValueError:
        return None


# -- crossovers -----------------------------------------------------------------------------------------------------


def crossings(records: Iterable[Record]) -> list[Crossing]:
    """Of time and memory: every inexact series against the fastest exact one, and every other series against naive."""
    records = list(records)
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.machine, record.group_id), []).append(record)
    found = []
    for series in split(records):
        for against in ("exact", "naive"):
            if series.of.kind == "exact" if against == "exact" else series.of.variant == REFERENCE:
                continue
            pairs = {}
            for n, record in series.timed.items():
                group = groups[record.machine, record.group_id]
                base = baseline_of(record, group)
                rival = base if against == "exact" else _reference(group)
                if rival is not None:
                    pairs[n] = record, rival, base
            for quantity in ("time", "memory"):
                one = _crossing(series, pairs, quantity, against)
                if one is not None:
                    found.append(one)
    return found


Pairs = Mapping[int, tuple[Record, Record, Record | None]]


def _crossing(
    series: Series, pairs: Pairs, quantity: Literal["time", "memory"], against: Literal["exact", "naive"]
) -> Crossing | None:
    ratios: dict[int, Interval] = {}
    values: dict[int, tuple[float, float]] = {}
    for n, (record, rival, base) in pairs.items():
        if quantity == "memory":
            mine, theirs = _taken(record), _taken(rival)
            if mine is not None and theirs is not None:
                values[n] = float(max(mine, 1)), float(max(theirs, 1))
                ratio = values[n][0] / values[n][1]
                ratios[n] = Interval(ratio, ratio, ratio)
            continue
        values[n] = time_of(record).value, time_of(rival).value
        if against == "exact" and record.ratio is not None:
            ratios[n] = Interval(record.ratio, record.ratio_low or record.ratio, record.ratio_high or record.ratio)
        else:
            ratios[n] = ratio_between(record, rival, base)
    if not ratios:
        return None
    found = crossover(ratios)
    between = found.length is not None and found.length > found.shortest
    used = [record.case_id for n in sorted(ratios) for record in pairs[n][:2]]
    rivals = tuple(dict.fromkeys(pairs[n][1].variant for n in sorted(ratios)))
    basis: Basis = "interpolated" if between else "measured"
    ids = tuple(dict.fromkeys(used))
    ahead = None if found.length is not None else _ahead(ratios, values, ids)
    return Crossing(series, quantity, against, rivals, found, basis, ahead, ids)


def _taken(record: Record) -> int | None:
    """The memory that two variants are compared by: the peak of a call; decoding, its state too, mostly more."""
    return needed_bytes(record) if record.mode == "decode" else record.peak_bytes


def _ahead(
    ratios: Mapping[int, Interval], values: Mapping[int, tuple[float, float]], case_ids: tuple[str, ...]
) -> Figure | None:
    """Where a variant comes to take less than its rival; None where that is not within growth.FARTHEST times as far.

    `values` has the medians of both by length. A straight line through the last ratios, log over log, says how far
    noise may shift it: the ratios are paired, the values are not. But a ratio of sums bends, and so both are continued
    by each kind of curve that they may be of (curves.py): the nearest gives the value, and all of them the interval,
    whose end is infinite where one of them never comes to less.
    """
    lengths = sorted(ratios)[-TAIL:]
    if len(lengths) < TAIL:
        return None
    x = np.log(np.asarray(lengths, dtype=float))
    centre = np.log([ratios[n].value for n in lengths])
    wide = np.array([math.log(ratios[n].high / ratios[n].low) for n in lengths]) / (2 * 1.96)
    drawn = np.vstack([centre, np.random.default_rng(0).normal(centre, wide, (growth.DRAWS, len(lengths)))])
    away = x - x.mean()
    slopes = drawn @ away / (away**2).sum()
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        reached = np.where(slopes < 0, x.mean() - drawn.mean(axis=1) / slopes, np.inf)
    low, high = (float(end) for end in np.quantile(reached, [0.025, 0.975], method="inverted_cdf"))
    last, straight = float(x[-1]), float(reached[0])
    bent = _bent(values)
    value = bent[0] if bent and math.isfinite(bent[0]) else straight
    if value > last + math.log(growth.FARTHEST):
        return None
    down, up = (straight - low, high - straight) if math.isfinite(straight) else (0.0, math.inf)
    every = [value, *bent, *([straight] if math.isfinite(straight) else [])]
    ends = (max(min(every) - down, last), max(value, last), max(every) + up)
    low_n, at, high_n = (math.exp(end) if end < 700 else math.inf for end in ends)
    return Figure(at, low_n, high_n, "extrapolated", case_ids)


def _bent(values: Mapping[int, tuple[float, float]]) -> list[float]:
    """Logarithms of the lengths at which the first comes to less than the second, by each pair of kinds of curves,
    the nearest first; infinite where it does not up to growth.FARTHEST² times the longest.
    """
    lengths = sorted(values)
    both = [np.array([[values[n][i] for n in lengths]]) for i in (0, 1)]
    mine, theirs = (fits(lengths, medians, medians) for medians in both)
    grid = np.linspace(math.log(lengths[-1]), math.log(lengths[-1] * growth.FARTHEST**2), STEPS)
    ours, others = ([np.array([fit.middle(math.exp(at))[0] for at in grid]) for fit in of] for of in (mine, theirs))
    found = []
    for own, other in itertools.product(ours, others):
        less = np.log(own / other)
        over = np.flatnonzero(less >= 0)
        if not over.size:
            found.append(float(grid[0]))
        elif over[-1] == STEPS - 1:
            found.append(math.inf)
        else:
            i = int(over[-1])
            found.append(float(grid[i] + (grid[i + 1] - grid[i]) * less[i] / (less[i] - less[i + 1])))
    return found


def _reference(group: Sequence[Record]) -> Record | None:
    return next((r for r in group if r.variant == REFERENCE and r.status == "ok" and r.time_s), None)


# -- a whole model --------------------------------------------------------------------------------------------------


def amdahl(ratio: Interval, share: float) -> Interval:
    """How many times as fast a whole model becomes whose attention takes `ratio` of the time it took.

    `share` of the model's time, 0 to 1, goes into attention now: the gain is 1 / (1 - share + share · ratio), and at
    most 1 / (1 - share). Amdahl 1967. Raises ValueError for a share outside of 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of attention lies between 0 and 1, not at {share}")
    value, low, high = (1 / (1 - share + share * x) for x in (ratio.value, ratio.high, ratio.low))
    return Interval(value, low, high)


def figure_of(found: Interval, basis: Basis, series: Series, lengths: Iterable[int]) -> Figure:
    """An interval as a figure that rests on the records of some lengths."""
    ids = tuple(series.ok[n].case_id for n in lengths)
    return Figure(found.value, found.low, found.high, basis, ids)
