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
    logs = [np.log(np.asarray(ratios, dtype=float)) for ratios in cases]
    if any(one.size == 0 for one in logs):
        raise ValueError("a mean needs at least one ratio")
    spreading = [one for one in logs if one.size > 1]
    lent = lent_by_cases([float(one.var(ddof=1)) for one in spreading], [one.size - 1 for one in spreading])
    found = []
    for one in logs:
        mean, own = float(one.mean()), one.size - 1
        if not own:
            found.append(MeanRatio(Interval(math.exp(mean), 0.0, math.inf), 1.0, 1.0))
            continue
        each = Variance(float(one.var(ddof=1)), own)
        of_mean, among = (Variance(x.value / one.size, x.df) for x in (each, joined(each, lent)))
        p = student_p(mean, of_mean)
        found.append(MeanRatio(student_interval(mean, of_mean), p, student_p(mean, among) if p < ALPHA else p))
    return found


@dataclass(frozen=True)
class Variance:
    """A variance, and how well it is known."""

    value: float
    df: float
    """Degrees of freedom; 0: not at all."""


def student_p(mean: float, variance: Variance) -> float:
    """Two-sided, of Student's t: that a mean of such a variance is 0."""
    from scipy.special import stdtr

    if not variance.value:
        return float(mean == 0)
    return float(2 * stdtr(variance.df, -abs(mean) / math.sqrt(variance.value)))


def student_interval(mean: float, variance: Variance) -> Interval:
    """The ratio whose logarithm is this mean, with its 95 % interval."""
    from scipy.special import stdtrit

    reach = float(stdtrit(variance.df, (1 + LEVEL) / 2)) * math.sqrt(variance.value)
    return Interval(math.exp(mean), _exp(mean - reach), _exp(mean + reach))


def _exp(log: float) -> float:
    """Of few degrees of freedom an interval may reach farther than numbers do."""
    return math.exp(log) if log < 700 else math.inf


def joined(own: Variance, lent: Variance) -> Variance:
    """A case's own variance with what others lend: never smaller than its own."""
    if not lent.df:
        return own
    df = own.df + lent.df
    return Variance(max(own.value, (lent.df * lent.value + own.df * own.value) / df), df)


def lent_by_cases(variances: Sequence[float], df: Sequence[float]) -> Variance:
    """What cases know of each other's variance: no degrees of freedom for fewer than two cases.

    By the moments of log variances (Smyth 2004, section 6.2); those of equal ratios say nothing and are left out. From
    few cases these make out variances to be more alike than they are, so the degrees of freedom are held back by their
    number: simulated, the chance of a false alarm among all cases stays below 6 % where 5 % are allowed.
    """
    from scipy.special import digamma, polygamma

    positive = [(variance, count) for variance, count in zip(variances, df, strict=True) if variance > ROUNDING]
    cases = len(positive)
    if cases < 2:
        return Variance(0.0, 0.0)
    s2, d = (np.asarray(column, dtype=float) for column in zip(*positive, strict=True))
    logs = np.log(s2) - digamma(d / 2) + np.log(d / 2)
    unlike = float(logs.var(ddof=1) - polygamma(1, d / 2).mean())
    most = float(d.mean()) * (cases - 1)
    half = _inverse_trigamma(unlike) if unlike > 0 else math.inf
    shift = 0.0 if math.isinf(half) else float(digamma(half)) - math.log(half)
    return Variance(math.exp(float(logs.mean()) + shift), min(2 * half, most) * (cases - 1) / (cases + 3))


def _inverse_trigamma(value: float) -> float:
    """Where the trigamma function takes a positive value: it falls from infinity to 0, about as 1 / x + 1 / 2x²."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    low, high = min(1.0, 1 / math.sqrt(value)) / 2, 2 * max(1.0, 1 / value)
    return float(brentq(lambda x: polygamma(1, x) - value, low, high))
