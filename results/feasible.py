"""The longest length whose memory a budget holds, from the memory that a run's records measured."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from . import growth
from .derived import Figure, figure_of, values_of
from .record import Record
from .series import Series, most_tokens, split
from .statistics import Interval


@dataclass(frozen=True)
class Feasible:
    """The longest length whose memory in all stays within a budget."""

    series: Series
    budget_bytes: float
    length: Figure | None
    """None: not even the shortest length measured fits."""
    at_least: bool
    """It would still fit at this length, which is as far as a fit is followed."""

    @property
    def words(self) -> str:
        if self.length is None:
            return f"not even {self.series.of.n_k:,}"
        return f"{'at least ' if self.at_least else ''}{self.length.value:,.0f} ({self.length.basis})"


def feasible(records: Iterable[Record], *budgets_bytes: float) -> list[Feasible]:
    """For every series whose memory was measured, and every budget, the longest length that the budget holds.

    What counts is `needed_bytes`: the peak of a call above its inputs, and q, k, v; or, decoding, the state and the
    peak of a step. Weights of a model, and other layers, are not in it. Raises ValueError for a budget not positive.
    """
    for budget in budgets_bytes:
        if not budget > 0:
            raise ValueError(f"a budget of {budget} bytes holds nothing")
    found = []
    for series in split(records):
        values = {n: y[0] for n, y in values_of(series, "needed").items() if y[0] > 0}
        if values:
            beyond = growth.continued({n: [y] for n, y in values.items()}) if len(values) >= growth.FEWEST else None
            found += [_longest(series, values, beyond, budget) for budget in budgets_bytes]
    return found


def _longest(
    series: Series, values: Mapping[int, float], beyond: Callable[[float], Interval] | None, budget: float
) -> Feasible:
    lengths = sorted(values)
    if values[lengths[0]] > budget:
        return Feasible(series, budget, None, False)
    over = next((i for i, n in enumerate(lengths) if values[n] > budget), None)
    if over is not None:
        near = lengths[over - 1 : over + 1]
        if values[near[0]] == budget:
            at = float(near[0])
            return Feasible(series, budget, figure_of(Interval(at, at, at), "measured", series, near), False)
        found = _between(values, lengths[max(0, over - 2) : over + 2], near[1], budget)
        return Feasible(series, budget, figure_of(found, "interpolated", series, near), False)
    last = lengths[-1]
    if beyond is None:
        return Feasible(series, budget, figure_of(Interval(last, last, last), "measured", series, [last]), True)
    farthest, most = last * growth.FARTHEST, most_tokens(series.of.params)
    found = _reach(beyond, budget, last, farthest if most is None else max(last, min(farthest, most)))
    return Feasible(series, budget, figure_of(found, "extrapolated", series, lengths), found.value >= farthest)


def _between(values: Mapping[int, float], lengths: Sequence[int], after: int, budget: float) -> Interval:
    """Where memory comes to the budget on the curve through these lengths, `after` being the first that is over it.

    As growth.within has it: a monotone cubic through the logarithms, and an interval that holds the straight line.
    """
    x, y, due = np.log(lengths), np.log([values[n] for n in lengths]), math.log(budget)
    i = lengths.index(after)
    straight = float(x[i - 1] + (due - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]))
    bent = straight
    if len(lengths) > 2:
        from scipy.interpolate import PchipInterpolator
        from scipy.optimize import brentq

        curve = PchipInterpolator(x, y)
        bent = float(brentq(lambda at: float(curve(at)) - due, x[i - 1], x[i]))
    return Interval(*(math.exp(at) for at in (bent, min(bent, straight), max(bent, straight))))


def _reach(needed: Callable[[float], Interval], budget: float, first: float, last: float) -> Interval:
    """The lengths beyond `first` at which what is needed, and the ends of its interval, come to the budget.

    By halving, for memory grows with length; `last` where they do not come to it.
    """

    needed = functools.cache(needed)

    def one(pick: str) -> float:
        low, high = float(first), float(last)
        if getattr(needed(high), pick) <= budget:
            return high
        while high / low > 1.0005:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if getattr(needed(middle), pick) <= budget else (low, middle)
        return low

    return Interval(*(one(pick) for pick in ("value", "high", "low")))
