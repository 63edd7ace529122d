"""Curves that a cost may follow over length, fitted to medians: which of them it may well be, and how far each errs.

There are three kinds, each a sum of terms none of which is negative, fitted by least squares of relative distance:

- a + b·N^p: one law, whatever its power, beside what does not depend on length. A power law alone bends where short
  lengths are mostly overhead, and would then promise too little;
- a + b·N + c·N²: inputs, outputs and every pair of tokens. One power for both falls short: it lies between theirs, and
  so far out falls behind the square;
- a + b·N log N + c·N²: the same for what sorts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .statistics import LEVEL

Floats = NDArray[np.float64]

POWERS = np.arange(0.0, 3.2001, 0.02)
TELLING = 4
"""With fewer lengths every kind of curve comes near to all of them, and none can be left out."""
NEARER, NOISE = 10.0, 4.0
"""A kind is left out whose squared distance is more than so many times that of the nearest, and of what noise makes."""
ROUNDING = 1e-6
"""Relative distance that says nothing: sizes in memory are rounded up, and sums of floats to their last digits."""

Curves = Callable[[float], Floats]
"""Some fitted curves of one kind, (R,) at a length."""


@dataclass(frozen=True)
class Fit:
    """One kind of curve."""

    middle: Curves
    """Fitted to the medians: a single one."""
    drawn: Curves
    """Fitted to all draws."""
    squares: float
    """Of relative distances from the medians, summed."""
    miss: float
    """Logarithm of by how much it misses the longest length, fitted to the shorter ones; 0 where noise explains it."""


def fits(lengths: Sequence[int], medians: Floats, drawn: Floats) -> list[Fit]:
    """The kinds that medians (1, L) at ascending lengths may well be of, the nearest first; `drawn` (R, L) is their
    noise. Of three lengths, all kinds."""
    found = []
    for kind in (power, whole_powers, sorting):
        middle = kind(lengths, medians)
        squares = sum((float(middle(n)[0]) / y - 1) ** 2 for n, y in zip(lengths, medians[0], strict=True))
        others = middle if np.array_equal(drawn, medians) else kind(lengths, drawn)
        found.append(Fit(middle, others, squares, _miss(kind, lengths, medians, drawn)))
    found.sort(key=lambda fit: fit.squares)
    noise = float(np.log(drawn).var(axis=0).sum())
    most = max(NEARER * found[0].squares, NOISE * noise, len(lengths) * ROUNDING**2)
    return [fit for fit in found if fit.squares <= most or len(lengths) < TELLING]


def _miss(kind: Callable[..., Curves], lengths: Sequence[int], medians: Floats, drawn: Floats) -> float:
    if len(lengths) < TELLING:
        return 0.0
    short, longest = lengths[:-1], lengths[-1]
    off = np.log(kind(short, drawn[:, :-1])(longest) / drawn[:, -1])
    if len(off) == 1:
        return abs(float(off[0])) if abs(float(off[0])) > ROUNDING else 0.0
    low, high = np.quantile(off, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if low - ROUNDING <= 0 <= high + ROUNDING:
        return 0.0
    return abs(math.log(float(kind(short, medians[:, :-1])(longest)[0]) / medians[0, -1]))


def power(lengths: Sequence[int], values: Floats) -> Curves:
    """a + b·N^p of each row of values (R, L): for every power the best a and b, then the best power."""
    longest = lengths[-1]
    grown = (np.asarray(lengths, dtype=float) / longest) ** POWERS[:, None]  # (P, L)
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
    a, b, p = a[best, rows], b[best, rows], POWERS[best]

    def at(length: float) -> Floats:
        found: Floats = a + b * (length / longest) ** p
        return found

    return at


def whole_powers(lengths: Sequence[int], values: Floats) -> Curves:
    """a + b·N + c·N² of each row of values (R, L)."""
    return _sum(lengths, values, lambda n: n)


def sorting(lengths: Sequence[int], values: Floats) -> Curves:
    """a + b·N log(1 + N) + c·N² of each row of values (R, L)."""
    return _sum(lengths, values, lambda n: n * np.log1p(n))


def _solved(of: Floats, right: Floats) -> Floats:
    """x (R, K) of matrices (R, K, K) times x = right (R, K); the smallest where lengths far apart leave several."""
    if of.shape[-1] == 1:
        return right / of[..., 0]
    found: Floats
    try:
        found = np.asarray(np.linalg.solve(of, right[..., None])[..., 0], dtype=np.float64)
    except np.linalg.LinAlgError:
        found = np.asarray((np.linalg.pinv(of, hermitian=True) @ right[..., None])[..., 0], dtype=np.float64)
    return found


def _sum(lengths: Sequence[int], values: Floats, middle: Callable[[Floats], Floats]) -> Curves:
    """a + b·middle(N) + c·N², none of a, b and c negative: of all choices of terms the best."""

    last = np.array(float(lengths[-1]))
    most = middle(last)

    def terms(n: Floats) -> Floats:
        """(…, 3), each 1 at the longest length."""
        return np.stack([np.ones_like(n), middle(n) / most, (n / last) ** 2], axis=-1)

    w = terms(np.asarray(lengths, dtype=float)) / values[..., None]  # (R, L, 3): their sum is to be 1
    norms = np.sqrt((w * w).sum(axis=1))  # (R, 3)
    w = w / norms[:, None]
    gram, w1 = w.swapaxes(1, 2) @ w, w.sum(axis=1)  # (R, 3, 3), (R, 3)
    factors, best = np.zeros_like(w1), np.full(len(values), np.inf)
    for count in (1, 2, 3):
        for chosen in map(list, itertools.combinations(range(3), count)):
            of, right = gram[:, chosen][:, :, chosen], w1[:, chosen]
            found = _solved(of, right)
            squares = (((w[..., chosen] @ found[..., None])[..., 0] - 1) ** 2).sum(axis=-1)
            better = (found >= 0).all(axis=-1) & (squares < best)
            best[better] = squares[better]
            factors[better] = 0.0
            factors[np.ix_(better, chosen)] = found[better]

    of_terms = factors / norms

    def at(length: float) -> Floats:
        found: Floats = of_terms @ terms(np.array(float(length)))
        return found

    return at
