"""What lies between two finished runs that took no turns with each other: each case's change of time, what a run's
processes leave in doubt of it, and what cases have in common."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from .alike import Pair, Weights, readings_of
from .mean_ratios import Variance
from .record import Record
from .statistics import Interval, median_interval, weighted_median

FEWEST_CASES = 5
"""Fewer cases have no shift in common that could be told from their own changes, nor a spread."""
FEWEST_OTHERS = 2
"""Other cases of a group: the change of one alone would be its own as likely as the group's."""
USUAL_RUN = Variance(0.035**2, 5.0)
"""Of the logarithm of what all cases have in common, between two runs of the same code: nothing in these tells it from
a change of all. Of six pairs of runs, one after the other on a virtual machine of two cores with neighbours, medians of
48 cases each differed by .4 to 7.3 %, 3.5 % in quadratic mean."""
USUAL_LUCK = Variance(0.019**2, 3.0)
"""Of the same of what the cases of a group have in common beyond that. Medians of groups, of eight cases each, had a
standard deviation of .5 to 3.5 % in nine pairs of these runs, 1.9 % in quadratic mean. It counts as much as four groups
of a comparison's own."""
MOST_LUCK = 2 * USUAL_LUCK.value**0.5
"""Groups that lie farther apart were changed."""
TRIMMED = 0.2
"""Share of the processes at either end that do not count: what disturbs some hides no change of the others."""
MEDIAN_NOISE = math.pi / 2
"""Variance of the median of normal values, over that of their mean."""


@dataclass(frozen=True, eq=False)
class Case:
    """One case of both runs."""

    pair: Pair
    base: float
    head: float
    """Logarithms of a call's seconds."""
    own: Variance
    """Of their difference, by the processes of both; unknown where one side had one process."""
    evicted: tuple[float, float] | None
    """What was read of the shared cache beside the rounds that count, in the median; None where it was not."""

    @property
    def log(self) -> float:
        """Of HEAD's time over BASE's."""
        return self.head - self.base

    @property
    def group(self) -> str:
        return self.pair[1].group_id

    @property
    def variant(self) -> str:
        return self.pair[1].variant


def case_of(pair: Pair, weights: tuple[Weights, Weights]) -> Case:
    """A case, with what each of its rounds counts (alike.py)."""
    (base, of_base), (head, of_head) = (_side(record, each) for record, each in zip(pair, weights, strict=True))
    known = of_base.df > 0 and of_head.df > 0
    readings = [readings_of(record) for record in pair]
    evicted = [weighted_median(*each) for each in zip(readings, weights, strict=True)] if all(readings) else []
    return Case(
        pair,
        base,
        head,
        total(of_base, of_head) if known else Variance(0.0, 0.0),
        (evicted[0], evicted[1]) if evicted else None,
    )


def _side(record: Record, weights: Weights) -> tuple[float, Variance]:
    """The logarithm of a call's time: the mean over processes of the median of each, without those at either end. And
    its variance, where there are several: Yuen 1974, "The two-sample trimmed t for unequal population variances",
    Biometrika 61(1)."""
    samples, counts = record.samples_s or [], record.rounds_per_process or []
    if sum(counts) != len(samples):
        counts = [len(samples)]  # of before this was recorded, or cut: nothing is known of processes
    ends = list(itertools.accumulate(counts, initial=0))
    parts = [(samples[a:b], weights[a:b]) for a, b in itertools.pairwise(ends)]
    counted = sorted((math.log(weighted_median(*part)), sum(part[1])) for part in parts if sum(part[1]) > 0)
    logs, shares = np.array(counted).T
    shares /= shares.sum()
    cut = int(TRIMMED * len(logs))
    kept = slice(cut, len(logs) - cut)
    mean, inside = float(np.average(logs[kept], weights=shares[kept])), float(shares[kept].sum())
    as_many = 1 / float(shares @ shares)  # as many as would count alike
    if as_many * inside <= 1 + 1e-9:
        return mean, Variance(0.0, 0.0)
    pulled_in = np.clip(logs, logs[kept][0], logs[kept][-1])
    variance = float(shares @ (pulled_in - shares @ pulled_in) ** 2) * as_many / (as_many - 1)
    return mean, Variance(variance / (inside**2 * as_many), as_many * inside - 1)


def total(one: Variance, other: Variance) -> Variance:
    """Of the sum of two that have nothing to do with each other, with the degrees of freedom of Welch 1947, "The
    generalization of 'Student's' problem when several different population variances are involved", Biometrika 34."""
    value = one.value + other.value
    doubt = sum((each.value / value) ** 2 / each.df for each in (one, other) if each.value)
    return Variance(value, 1 / doubt if doubt else one.df + other.df)


def by_group(cases: Sequence[Case]) -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[case.group].append(case)
    return found


def shift_of(cases: Sequence[Case]) -> Interval | None:
    """HEAD's time over BASE's, in the median over cases; None for too few."""
    if len(cases) < FEWEST_CASES:
        return None
    found = median_interval([case.log for case in cases])
    return Interval(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def shifts_by_group(cases: Sequence[Case]) -> dict[str, float]:
    """The shift of each group, whose cases took turns and so share the machine's mood; of small ones, that of all."""
    shift = shift_of(cases)
    own = {group: shift_of(members) or shift for group, members in by_group(cases).items()}
    return {group: 1.0 if found is None else found.value for group, found in own.items()}


def luck_of_groups(cases: Sequence[Case], variances: Sequence[Variance]) -> Variance:
    """Of what the cases of a group have in common from run to run, whatever the code: of all cases, and besides by how
    far medians of groups lie apart, less what the cases' own variances explain, and by what is usual."""
    known: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for case, variance in zip(cases, variances, strict=True):
        known[case.group].append((case.log, variance.value))
    groups = [members for members in known.values() if len(members) > FEWEST_OTHERS]
    if len(groups) < 2:
        return total(USUAL_RUN, USUAL_LUCK)
    medians = [median(log for log, _ in members) for members in groups]
    noise = fmean(MEDIAN_NOISE * fmean(value for _, value in members) / len(members) for members in groups)
    seen, df = max(0.0, float(np.var(medians, ddof=1)) - noise), len(groups) - 1
    both = df + USUAL_LUCK.df
    of_group = (df * seen + USUAL_LUCK.df * USUAL_LUCK.value) / both
    return total(USUAL_RUN, Variance(min(of_group, MOST_LUCK**2), both))
