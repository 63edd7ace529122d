"""What a series of lengths says of a length between them or beyond: on the curve, or by a fit, with an interval.

Between measured lengths: a monotone cubic through the logarithms (scipy's PCHIP), whose interval also holds the
straight line, so that it covers what a curve may do that bends.

Beyond: a + b·N^p with a, b >= 0, by least squares of relative distance. A power law alone bends where short lengths are
mostly overhead, and would then promise too little. The interval comes from resampling the samples of each length.
Noise is not all that an extrapolation can get wrong, so the fit is tried on what is known: it predicts the longest
measured length from the shorter ones, and where it misses it by more than its interval, the interval grows by as much
for every such step beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .statistics import LEVEL, Interval, median_interval

Floats = NDArray[np.float64]

DRAWS = 400
"""Times that the samples are drawn again."""
POWERS = np.arange(0.0, 3.2001, 0.02)
FEWEST = 3
"""Fewer lengths have no curve."""
FARTHEST = 16
"""By how many times beyond the measured lengths a fit is still worth saying."""


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
    """The median at a length outside of those measured, by the fit.

    Raises ValueError for fewer than FEWEST lengths, for a length over FARTHEST times away, or a sample that is not
    positive.
    """
    return continued(samples)(length)


def continued(samples: Mapping[int, Sequence[float]]) -> Callable[[float], Interval]:
    """`beyond`, fitted once, to be asked for many lengths. Raises ValueError as it does."""
    lengths = _checked(samples)
    medians = np.array([[float(np.median(samples[n])) for n in lengths]])
    drawn = _draws([samples[n] for n in lengths])
    middle, others = _fit(lengths, medians), _fit(lengths, drawn)
    step = _miss(lengths, medians, drawn)

    def at(length: float) -> Interval:
        if not lengths[0] / FARTHEST <= length <= lengths[-1] * FARTHEST:
            raise ValueError(f"{length} is over {FARTHEST} times away from what was measured")
        value = float(_value(middle, length / lengths[-1])[0])
        found = _value(others, length / lengths[-1])
        low, high = _quantile(found, (1 - LEVEL) / 2), _quantile(found, (1 + LEVEL) / 2)
        miss = step
        if length > lengths[-1]:
            miss *= math.log(length / lengths[-1]) / math.log(lengths[-1] / lengths[-2])
        return Interval(value, min(low, value) * math.exp(-miss), max(high, value) * math.exp(miss))

    return at


def _miss(lengths: Sequence[int], medians: Floats, drawn: Floats) -> float:
    """Logarithm of by how much the fit of the shorter lengths misses the longest, beyond what noise explains."""
    if len(lengths) <= FEWEST:
        return 0.0
    known = float(np.log(medians[0, -1]))
    short = lengths[:-1]
    value = float(np.log(_at(short, medians[:, :-1], lengths[-1])[0]))
    off = np.log(_at(short, drawn[:, :-1], lengths[-1])) - np.log(drawn[:, -1])
    low, high = _quantile(off, (1 - LEVEL) / 2), _quantile(off, (1 + LEVEL) / 2)
    return 0.0 if low - 1e-9 <= 0 <= high + 1e-9 else abs(value - known)


def _at(lengths: Sequence[int], values: Floats, length: float) -> Floats:
    return _value(_fit(lengths, values), length / lengths[-1])


def _value(fitted: tuple[Floats, Floats, Floats], share: float) -> Floats:
    """Of each row's fit, at a share of the longest length."""
    a, b, p = fitted
    found: Floats = a + b * share**p
    return found


def _fit(lengths: Sequence[int], values: Floats) -> tuple[Floats, Floats, Floats]:
    """a, b and p of each row of values (R, L): for every power the best a and b, then the best power."""
    grown = (np.asarray(lengths, dtype=float) / lengths[-1]) ** POWERS[:, None]  # (P, L)
    u = 1 / values  # (R, L): a·u + b·w is to be 1
    w = grown[:, None, :] * u  # (P, R, L)
    uu, u1 = (u * u).sum(-1), u.sum(-1)  # (R,)
    uw, ww, w1 = (w * u).sum(-1), (w * w).sum(-1), w.sum(-1)  # (P, R)
    with np.errstate(divide="ignore", invalid="ignore"):
        det = uu * ww - uw**2
        a, b = (u1 * ww - w1 * uw) / det, (uu * w1 - uw * u1) / det
    alone = ~(np.isfinite(a) & np.isfinite(b) & (a >= 0) & (b >= 0))
    a, b = np.where(alone, 0.0, a), np.where(alone, w1 / ww, b)
    squares = a * a * uu + b * b * ww + 2 * a * b * uw - 2 * a * u1 - 2 * b * w1
    best, rows = squares.argmin(axis=0), np.arange(len(values))
    return a[best, rows], b[best, rows], POWERS[best]


def _draws(samples: Sequence[Sequence[float]]) -> Floats:
    """(DRAWS, L): medians of samples drawn again, each length's on its own; one row where nothing varies."""
    rng = np.random.default_rng(0)
    columns = [np.asarray(x, dtype=float) for x in samples]
    if any(x.size == 0 or x.min() <= 0 for x in columns):
        raise ValueError("each length needs samples, and all of them positive")
    if all(x.min() == x.max() for x in columns):
        return np.array([[x[0] for x in columns]])
    return np.stack([np.median(x[rng.integers(0, x.size, (DRAWS, x.size))], axis=1) for x in columns], axis=1)


def _checked(values: Mapping[int, object]) -> list[int]:
    if len(values) < FEWEST:
        raise ValueError(f"a fit needs at least {FEWEST} lengths")
    return sorted(values)


def _quantile(values: Floats, share: float) -> float:
    return float(values[0] if values.size == 1 else np.quantile(values, share))
