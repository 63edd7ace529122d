"""Medians and paired ratios with intervals, from raw samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 1000
FEW = 6
"""Below this many samples a bootstrap of the median covers too little, and the interval is the samples' whole range."""


@dataclass(frozen=True)
class Interval:
    """A median and the interval that covers it."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """The larger distance to an end of the interval, as a share of the value."""
        return max(self.value - self.low, self.high - self.value) / self.value if self.value else float("inf")


def median_interval(samples: Sequence[float], *, seed: int = 0) -> Interval:
    """Median of the samples with a 95 % percentile-bootstrap interval; the range where samples are few.

    Raises ValueError for no samples.
    """
    values = np.asarray(samples, dtype=float)
    if values.size == 0:
        raise ValueError("a median needs at least one sample")
    median = float(np.median(values))
    if values.size < FEW:
        return Interval(median, float(values.min()), float(values.max()))
    from scipy.stats import bootstrap

    if values.min() == values.max():
        return Interval(median, median, median)
    result = bootstrap(
        (values,),
        np.median,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(median, float(low), float(high))


def paired_ratio(samples: Sequence[float], baseline: Sequence[float], *, seed: int = 0) -> Interval:
    """Median over rounds of samples[i] / baseline[i], with its interval.

    Both are in the order of rounds, counted from round 0; rounds that only one of them ran are left out. What slows the
    machine for a while slows both of a round's turns, and so cancels. Raises ValueError where no round is shared.
    """
    shared = min(len(samples), len(baseline))
    if shared == 0:
        raise ValueError("a paired ratio needs a round that both ran")
    return median_interval(np.asarray(samples[:shared]) / np.asarray(baseline[:shared]), seed=seed)
