"""Mean ratios of some cases, each from a few pairs of processes, with intervals and tests.

Each pair gives the median over its rounds, and such are normal enough for Student's t. Six pairs leave it 5 degrees of
freedom: among 30 cases, whose p are corrected for their number, a mean must lie 6.1 standard errors from no change. So
for that test cases lend each other what they know of their spread, as Smyth 2004, "Linear models and empirical Bayes
methods for assessing differential expression in microarray experiments", Statistical Applications in Genetics and
Molecular Biology 3(1): the more their variances are alike, the more degrees of freedom that is worth. Two things keep a
noisy case from being called for the quiet of others: its own variance never becomes smaller, and what it does not show
alone, others do not show for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import ALPHA, LEVEL, Interval

ROUNDING = 1e-24
"""Variances of logarithms that are no more than this are those of equal ratios."""


@dataclass(frozen=True)
class MeanRatio:
    """What the ratios of one case say."""

    ratio: Interval
    """Geometric mean, with its 95 % interval by this case alone."""
    p: float
    """Two-sided, that it is 1; by this case alone."""
    p_among: float
    """The same by what others know of the spread too: to be corrected for the number of cases."""


def mean_ratios(cases: Sequence[Sequence[float]]) -> list[MeanRatio]:
    """The mean of each case's ratios, which are independent.

    One ratio alone says nothing of its spread: its interval has no ends and p is 1. Raises ValueError for a case that
    has none.
    """
    from scipy.special import stdtrit

    logs = [np.log(np.asarray(ratios, dtype=float)) for ratios in cases]
    if any(one.size == 0 for one in logs):
        raise ValueError("a mean needs at least one ratio")
    spreading = [one for one in logs if one.size > 1]
    lent, typical = lent_by_cases([float(one.var(ddof=1)) for one in spreading], [one.size - 1 for one in spreading])
    found = []
    for one in logs:
        mean, own = float(one.mean()), one.size - 1
        if not own:
            found.append(MeanRatio(Interval(math.exp(mean), 0.0, math.inf), 1.0, 1.0))
            continue
        variance = float(one.var(ddof=1))
        reach = float(stdtrit(own, (1 + LEVEL) / 2)) * math.sqrt(variance / one.size)
        p = _p(mean, variance / one.size, own)
        joint = max(variance, (lent * typical + own * variance) / (own + lent))
        found.append(
            MeanRatio(
                Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach)),
                p,
                _p(mean, joint / one.size, own + lent) if lent and p < ALPHA else p,
            )
        )
    return found


def _p(mean: float, variance: float, df: float) -> float:
    """Two-sided, of Student's t: that a mean of such a variance is 0."""
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(mean) / math.sqrt(variance))) if variance else float(mean == 0)


def lent_by_cases(variances: Sequence[float], df: Sequence[int]) -> tuple[float, float]:
    """What cases know of each other's variance: degrees of freedom, 0 for fewer than two cases, and their variance.

    By the moments of log variances (Smyth 2004, section 6.2); those of equal ratios say nothing and are left out. From
    few cases these make out variances to be more alike than they are, so the degrees of freedom are held back by their
    number: simulated, the chance of a false alarm among all cases stays below 6 % where 5 % are allowed.
    """
    from scipy.special import digamma, polygamma

    positive = [(variance, count) for variance, count in zip(variances, df, strict=True) if variance > ROUNDING]
    cases = len(positive)
    if cases < 2:
        return 0.0, 0.0
    s2, d = (np.asarray(column, dtype=float) for column in zip(*positive, strict=True))
    logs = np.log(s2) - digamma(d / 2) + np.log(d / 2)
    unlike = float(logs.var(ddof=1) - polygamma(1, d / 2).mean())
    most = float(d.mean()) * (cases - 1)
    half = _inverse_trigamma(unlike) if unlike > 0 else math.inf
    shift = 0.0 if math.isinf(half) else float(digamma(half)) - math.log(half)
    return min(2 * half, most) * (cases - 1) / (cases + 3), math.exp(float(logs.mean()) + shift)


def _inverse_trigamma(value: float) -> float:
    """Where the trigamma function takes a positive value: it falls from infinity to 0, about as 1 / x + 1 / 2x²."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    low, high = min(1.0, 1 / math.sqrt(value)) / 2, 2 * max(1.0, 1 / value)
    return float(brentq(lambda x: polygamma(1, x) - value, low, high))
