"""What a series of lengths says of a length between them or beyond: on the curve, or by a fit, with an interval.

Between measured lengths: a monotone cubic through the logarithms (scipy's PCHIP), whose interval also holds the
straight line, so that it covers what a curve may do that bends.

Beyond: by the fits of results/curves.py. The interval comes from resampling the samples of each length, and holds all
kinds of curves that the samples may well be of: which one it is matters more, far out, than noise. And each is tried on
what is known: it predicts the longest measured length from the shorter ones, and where it misses it by more than noise
explains, its interval grows by MISSES times as much for every such step beyond. A fit to all lengths has bent to the
last one, too, so that its first step beyond goes as far astray as two such steps did. Three lengths have none to spare
for that: their interval holds what comes of growing on as steeply as between any two of them. And what has grown so far
is not expected to come to less, further on, than it did at the longest length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .curves import TELLING, fits
from .statistics import LEVEL, Interval, median_interval

Floats = NDArray[np.float64]

DRAWS = 400
"""Times that the samples are drawn again."""
FEWEST = 3
"""Fewer lengths have no curve."""
FARTHEST = 16
"""By how many times beyond the measured lengths a fit is still worth saying."""
MISSES = 2.5
"""How often a miss counts for each step; tests/results/test_growth.py holds it to curves that no fit is of."""
SHORTEST_STEP = math.log(1.25)
"""What is missed over less is a bump, and no bend that goes on for as many steps as there are of so short ones."""
WIDEST = 50.0
"""Logarithm of the most that a miss can come to: nothing is known there, but it is still a number."""


def within(samples: Mapping[int, Sequence[float]], length: float) -> Interval:
    """The median at a length between the shortest and the longest measured.

    Raises ValueError for a length outside of them, or a sample that is not positive.
    """
    lengths = sorted(samples)
    if len(lengths) < 2 or not lengths[0] <= length <= lengths[-1]:
        raise ValueError(f"{length} is not between two measured lengths")
    if length in samples:
        return median_interval(samples[int(length)])
    place = next(i for i, n in enumerate(lengths) if n > length)
    near = lengths[max(0, place - 2) : place + 2]
    logs = np.log([[median_interval(samples[n]).value for n in near], *_draws([samples[n] for n in near])])
    x, at = np.log(near), math.log(length)
    if len(near) > 2:
        from scipy.interpolate import PchipInterpolator

        bent = PchipInterpolator(x, logs, axis=1)(at)
    else:
        bent = None
    i = near.index(lengths[place])
    share = (at - x[i - 1]) / (x[i] - x[i - 1])
    straight = logs[:, i - 1] * (1 - share) + logs[:, i] * share
    found = straight if bent is None else bent
    low, high = (
        pick(_quantile(line[1:], tail) for line in (straight, found))
        for pick, tail in ((min, (1 - LEVEL) / 2), (max, (1 + LEVEL) / 2))
    )
    value = float(found[0])
    return Interval(math.exp(value), math.exp(min(low, value)), math.exp(max(high, value)))


def beyond(samples: Mapping[int, Sequence[float]], length: float) -> Interval:
    """The median at a length outside of those measured, by the fits.

    Raises ValueError for fewer than FEWEST lengths, for a length over FARTHEST times away, or a sample that is not
    positive.
    """
    return continued(samples)(length)


def continued(samples: Mapping[int, Sequence[float]]) -> Callable[[float], Interval]:
    """`beyond`, fitted once, to be asked for many lengths. Raises ValueError as it does."""
    if len(samples) < FEWEST:
        raise ValueError(f"a fit needs at least {FEWEST} lengths")
    lengths = sorted(samples)
    medians = np.array([[float(np.median(samples[n])) for n in lengths]])
    draws = _draws([samples[n] for n in lengths])
    found = fits(lengths, medians, draws)
    last_step = max(math.log(lengths[-1] / lengths[-2]), SHORTEST_STEP)
    last = float(medians[0, -1])
    slopes = (np.diff(np.log(medians[0])) / np.diff(np.log(lengths))).tolist()
    grows = last >= medians[0, :-1].max()
    least = min(last, _quantile(draws[:, -1], (1 - LEVEL) / 2))

    def at(length: float) -> Interval:
        if not lengths[0] / FARTHEST <= length <= lengths[-1] * FARTHEST:
            raise ValueError(f"{length} is over {FARTHEST} times away from what was measured")
        steps = MISSES * math.log(length / lengths[-1]) / last_step if length > lengths[-1] else 1.0
        value = float(found[0].middle(length)[0])
        low = high = value
        for fit in found:
            middle, drawn = float(fit.middle(length)[0]), fit.drawn(length)
            wider = math.exp(min(fit.miss * steps, WIDEST))
            low = min(low, min(_quantile(drawn, (1 - LEVEL) / 2), middle) / wider)
            high = max(high, max(_quantile(drawn, (1 + LEVEL) / 2), middle) * wider)
        if length > lengths[-1]:
            if len(lengths) < TELLING:
                steep = [last * (length / lengths[-1]) ** slope for slope in slopes]
                low, high = min(low, *steep), max(high, *steep)
            if grows:
                value, low, high = max(value, last), max(low, least), max(high, last)
        return Interval(value, low, high)

    return at


def _draws(samples: Sequence[Sequence[float]]) -> Floats:
    """(DRAWS, L): medians of samples drawn again, each length's on its own; one row where nothing varies."""
    rng = np.random.default_rng(0)
    columns = [np.asarray(x, dtype=float) for x in samples]
    if any(x.size == 0 or x.min() <= 0 for x in columns):
        raise ValueError("each length needs samples, and all of them positive")
    if all(x.min() == x.max() for x in columns):
        return np.array([[x[0] for x in columns]])
    return np.stack([np.median(x[rng.integers(0, x.size, (DRAWS, x.size))], axis=1) for x in columns], axis=1)


def _quantile(values: Floats, share: float) -> float:
    return float(values[0] if values.size == 1 else np.quantile(values, share))
