"""How time grows with length, and the length from which one variant is faster than another: fits, with intervals.

Both speak of the lengths that were measured, and of nothing beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import Interval, log_contrast, paired_ratio


def scaling_exponent(samples: Mapping[int, Sequence[float]]) -> Interval:
    """Slope of log median time over log length, by least squares, with its 95 % bootstrap interval.

    `samples` has the times at each length. The interval is of the samples' noise alone, not of a curve that bends: a
    slope of the measured lengths is no slope of greater ones. Raises ValueError for fewer than two lengths.
    """
    if len(samples) < 2:
        raise ValueError("a slope needs at least two lengths")
    lengths = np.log(np.asarray(sorted(samples), dtype=float))
    away = lengths - lengths.mean()
    weights = away / (away**2).sum()
    return log_contrast([samples[length] for length in sorted(samples)], weights.tolist())


@dataclass(frozen=True)
class Crossover:
    """From which length on a variant is faster than another at every longer length that was measured."""

    length: float | None
    """Between two measured lengths, on a straight line of log ratio over log length; None: not up to `longest`."""
    low: float | None
    high: float | None
    """The interval's ends. At `shortest`: there or before. None: not up to `longest`."""
    shortest: int
    longest: int

    @property
    def words(self) -> str:
        """E.g. `3,100 (2,600–3,900)`, `256 or before`, `none up to 8,192`."""
        at, low, high = (self._one(length) for length in (self.length, self.low, self.high))
        if self.length is None:
            return at if self.low is None else f"{at}, though perhaps {low}"
        if self.high is None:
            return f"{at}, but not surely: perhaps {low}, perhaps {high}"
        return at if self.high <= self.shortest else f"{at} ({low}–{high})"

    def _one(self, length: float | None) -> str:
        if length is None:
            return f"none up to {self.longest:,}"
        return f"{self.shortest:,} or before" if length <= self.shortest else f"{length:,.0f}"


def crossover(ratios: Mapping[int, Interval]) -> Crossover:
    """The length from which a ratio of times stays below 1, with its interval.

    `ratios` has the paired ratio with its interval at each length. The interval holds the lengths at which the ratio's
    own interval, drawn straight between measured lengths, holds 1: Fieller's way of inverting a test. Raises ValueError
    for no length.
    """
    if not ratios:
        raise ValueError("a crossover needs at least one length")
    lengths = sorted(ratios)
    found = _last_fall(lengths, [ratios[n].value for n in lengths])
    low = _last_fall(lengths, [ratios[n].low for n in lengths])
    high = _last_fall(lengths, [ratios[n].high for n in lengths])
    return Crossover(found, low, high, lengths[0], lengths[-1])


def crossover_of(samples: Mapping[int, Sequence[float]], reference: Mapping[int, Sequence[float]]) -> Crossover:
    """The crossover of a variant with a reference that took turns with it, from the raw samples of both.

    Lengths at which only one of them ran are left out. Raises ValueError where none is left.
    """
    return crossover({n: paired_ratio(samples[n], reference[n]) for n in samples if n in reference})


def _last_fall(lengths: Sequence[int], ratios: Sequence[float]) -> float | None:
    """Where the line through the ratios falls below 1 for good: the first length where it always is, None if never."""
    if ratios[-1] >= 1:
        return None
    for i in range(len(lengths) - 1, 0, -1):
        if ratios[i - 1] >= 1:
            before, after = math.log(ratios[i - 1]), math.log(ratios[i])
            share = before / (before - after)
            return math.exp(math.log(lengths[i - 1]) * (1 - share) + math.log(lengths[i]) * share)
    return float(lengths[0])
