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

from .alike import Pair, Weights
from .mean_ratios import Variance
from .record import Record
from .statistics import Interval, median_interval, weighted_median

FEWEST_CASES = 5
"""Fewer cases have no shift in common that could be told from their own changes, nor a spread."""
FEWEST_OTHERS = 2
"""Other cases of a group: the change of one alone would be its own as likely as the group's."""
USUAL_LUCK = Variance(0.019**2, 3.0)
"""Of the logarithm of what a group's cases have in common, between two runs of the same code. Of nine pairs of runs, of
six groups of eight cases each, on a virtual machine of two cores with neighbours, medians of groups had a standard
deviation of .5 to 3.5 %, 1.9 % in quadratic mean. It counts as much as four groups of a comparison's own."""
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

    @property
    def log(self) -> float:
        """Of HEAD's time over BASE's."""
        return self.head - self.base

    @property
    def group(self) -> str:
        return self.pair[1].group_id


def case_of(pair: Pair, weights: tuple[Weights, Weights]) -> Case:
    """A case, with what each of its rounds counts (alike.py)."""
    (base, of_base), (head, of_head) = (_side(record, each) for record, each in zip(pair, weights, strict=True))
    known = of_base.df > 0 and of_head.df > 0
    return Case(pair, base, head, total(of_base, of_head) if known else Variance(0.0, 0.0))


def _side(record: Record, weights: Weights) -> tuple[float, Variance]:
    """The logarithm of a call's time: the mean over processes of the median of each. And its variance, where there are
    several."""
    samples, counts = record.samples_s or [], record.rounds_per_process or []
    if sum(counts) != len(samples):
        counts = [len(samples)]  # of before this was recorded, or cut: nothing is known of processes
    ends = list(itertools.accumulate(counts, initial=0))
    parts = [(samples[a:b], weights[a:b]) for a, b in itertools.pairwise(ends)]
    counted = [(times, each, sum(each)) for times, each in parts if sum(each) > 0]
    logs = np.array([math.log(weighted_median(times, each)) for times, each, _ in counted])
    shares = np.array([weight for *_, weight in counted])
    shares /= shares.sum()
    mean, as_many = float(shares @ logs), 1 / float(shares @ shares)  # as many as would count alike
    if len(counted) < 2:
        return mean, Variance(0.0, 0.0)
    return mean, Variance(float(shares @ (logs - mean) ** 2) / (as_many - 1), as_many - 1)


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
    return median_interval([math.exp(case.log) for case in cases]) if len(cases) >= FEWEST_CASES else None


def shifts_by_group(cases: Sequence[Case]) -> dict[str, float]:
    """The shift of each group, whose cases took turns and so share the machine's mood; of small ones, that of all."""
    shift = shift_of(cases)
    own = {group: shift_of(members) or shift for group, members in by_group(cases).items()}
    return {group: 1.0 if found is None else found.value for group, found in own.items()}


def luck_of_groups(cases: Sequence[Case], variances: Sequence[Variance]) -> Variance:
    """Of what the cases of a group have in common from run to run, whatever the code: by how far medians of groups lie
    apart, less what the cases' own variances explain, and by what is usual."""
    known: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for case, variance in zip(cases, variances, strict=True):
        known[case.group].append((case.log, variance.value))
    groups = [members for members in known.values() if len(members) > FEWEST_OTHERS]
    if len(groups) < 2:
        return USUAL_LUCK
    medians = [median(log for log, _ in members) for members in groups]
    noise = fmean(MEDIAN_NOISE * fmean(value for _, value in members) / len(members) for members in groups)
    seen, df = max(0.0, float(np.var(medians, ddof=1)) - noise), len(groups) - 1
    both = df + USUAL_LUCK.df
    return Variance((df * seen + USUAL_LUCK.df * USUAL_LUCK.value) / both, both)
