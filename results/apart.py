"""When a change of time between two finished runs is evidence, though they took no turns with each other.

Times of the same code differ from run to run by more than the noise of rounds. A process keeps what it got of memory
and caches, so processes are what is counted. The cases of a group took turns, and share whatever the machine did in
these minutes: how far groups lie apart tells of that luck, and a case that stands out of its group need not be doubted
for it. And where instruments beside the turns read otherwise, a change in that direction, and no larger, may be theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from .alike import Pair
from .between import (
    FEWEST_CASES,
    FEWEST_OTHERS,
    MEDIAN_NOISE,
    Case,
    by_group,
    luck_of_groups,
    shifts_by_group,
)
from .conditions import EVICTION, HANDOVER
from .evidence import Evidence
from .mean_ratios import Variance, joined, lent_by_cases, student_interval, student_p
from .statistics import ALPHA, Interval, least_rank_sum_p, median_interval, rank_sum_p

NOTHING = Variance(0.0, 0.0)
USUAL_SPREAD = Variance(0.1**2, 5.0)
"""Of the logarithm of what a case takes in one process, from run to run, where others are too few to tell: two runs of
this project's benchmarks lay 10 % apart from case to case."""
SCATTER_DF = 0.55
"""Degrees of freedom of a scatter that is read off a quantile, for each that a variance would have (simulated)."""
FEWEST_FREE = 3
"""Cases, less one for each group, of fewer of which a scatter tells nothing."""
QUANTILES = {0.75: 1.150, 0.9: 1.645}
"""Shares of normal values, and within how many standard deviations these lie."""
NORMAL = 1.96
"""Standard deviations from the middle of a normal distribution to the ends of its 95 %."""
MOST_EXCUSED = 1.25
"""Times: no more is put down to neighbours. Ratios of the same sweep had differed by up to a quarter for them, before
anything was read beside turns."""


@dataclass(frozen=True)
class Judged:
    """All cases of two runs."""

    evidence: list[Evidence]
    luck: Variance
    """Of what cases of a group have in common from run to run: see `luck_of_groups`."""
    guessed: int
    """How many were measured by one process, whose spread is USUAL_SPREAD, since others were too few to tell."""


def judged(cases: Sequence[Case], threshold: float, relative: bool) -> Judged:
    """What each case says, among all of them. `relative`: by what it differs from the shift of its group."""
    known = _Known(cases)
    if relative:
        shifts = shifts_by_group(cases)
        evidence = [known.less(case, math.log(shifts[case.group])) for case in cases]
    else:
        evidence = [known.outright(case, threshold) for case in cases]
    guessed = sum(not case.own.df and known.of_variant[case.variant].of_single is USUAL_SPREAD for case in cases)
    return Judged(evidence, known.luck, guessed)


class _Known:
    """What all cases of a comparison tell of each one's doubt."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.of_variant: dict[str, _Others] = {}
        for case in cases:
            if case.variant not in self.of_variant:
                self.of_variant[case.variant] = _Others([each for each in cases if each.variant != case.variant])
        several = [case.own for case in cases if case.own.df >= 1]
        self.lent = lent_by_cases([own.value for own in several], [own.df for own in several])
        self.variance = {case: self._variance(case) for case in cases}
        self.luck = luck_of_groups(cases, [self.variance[case] for case in cases])
        self.groups = by_group(cases)

    def outright(self, case: Case, threshold: float) -> Evidence:
        """Whether HEAD's time is another one. Of two tests the better, for twice its p: against the luck of runs and
        groups, and against the others of its group, from which it must differ by the threshold too. Nothing stands out
        of others that moved by more than luck does, or farther than it did itself: they may be what was changed."""
        others, to_group = self.of_variant[case.variant], None
        p = self._p(case, case.log, self.luck)
        doubt = others.doubt(case)
        if doubt is not None:
            moved = others.moved(case)
            own = case.log - moved
            by_luck = student_p(moved, least(self.luck, doubt)) >= ALPHA
            # those that moved against it may have been changed as well: it must have moved farther than they
            farther = abs(case.log) - (abs(moved) if moved * case.log < 0 else 0.0)
            if by_luck and own * case.log > 0 and min(abs(own), farther) >= math.log1p(threshold):
                by_itself = self._p(case, own, doubt)
                to_group = self._interval(case, own, doubt) if by_itself < p else None
                p = min(p, by_itself)
        tests = 1 if doubt is None else 2
        return self._evidence(case, case.log, self.luck, p, tests, to_group, excuse(case, case.log))

    def less(self, case: Case, shift: float) -> Evidence:
        """Whether it is another one than the shift of its group, or of all cases where the group is small."""
        of_group = len(self.groups[case.group]) >= FEWEST_CASES
        doubt = (self.of_variant[case.variant].doubt(case) if of_group else None) or self.luck
        log = case.log - shift
        # one that hardly feels what others do differs from its group the other way
        excused = excuse(case, log) or excuse(case, -log)
        return self._evidence(case, log, doubt, self._p(case, log, doubt), 1, None, excused)

    def _evidence(
        self, case: Case, log: float, doubt: Variance, p: float, tests: int, to_group: Interval | None, excused: str
    ) -> Evidence:
        """`p`: the best of so many tests."""
        return Evidence(
            math.exp(case.base),
            math.exp(case.head),
            self._interval(case, log, doubt),
            self._p(case, log, NOTHING),
            min(1.0, tests * p),
            0.0 if case.own.df else min(1.0, tests * least_p(case.pair)),
            to_group,
            excused,
        )

    def _p(self, case: Case, log: float, doubt: Variance) -> float:
        """Of the test that a change is none, with `doubt` on top of the variance of the case, and what others lend it.
        What it does not show alone, others do not show for it."""
        own = self.variance[case]
        p = student_p(log, least(own, doubt))
        if case.own.df:
            return student_p(log, least(joined(own, self.lent), doubt)) if p < ALPHA else p
        base, head = (record.samples_s or [] for record in case.pair)
        taken_off = math.exp(case.log - log)
        return max(p, rank_sum_p([x / taken_off for x in head], base))

    def _interval(self, case: Case, log: float, doubt: Variance) -> Interval:
        return student_interval(log, least(self.variance[case], doubt))

    def _variance(self, case: Case) -> Variance:
        """Of one process a side, how far other variants' cases lie from each other; or its rounds, where these lie
        farther."""
        if case.own.df:
            return case.own
        spread = self.of_variant[case.variant].of_single
        return Variance(max(spread.value, *(_of_rounds(record.samples_s or []) for record in case.pair)), spread.df)


class _Others:
    """The cases of all variants but one, that may have been changed, and how far they lie from the middle of their
    groups."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.groups = {group: [case.log for case in members] for group, members in by_group(cases).items()}
        groups = [logs for logs in self.groups.values() if len(logs) >= FEWEST_OTHERS]
        apart = [abs(log - median(logs)) * math.sqrt(len(logs) / (len(logs) - 1)) for logs in groups for log in logs]
        free = sum(len(logs) - 1 for logs in groups)
        self.usual = self.luck = NOTHING
        self.of_single = USUAL_SPREAD
        if free >= FEWEST_FREE:
            sigmas = [float(np.quantile(apart, share)) / normal for share, normal in QUANTILES.items()]
            self.usual = Variance(sigmas[0] ** 2, SCATTER_DF * free)
            own = [case.own.value for case in cases if case.own.df]
            self.luck = Variance(max(0.0, self.usual.value - median(own)) if own else self.usual.value, self.usual.df)
            if self.usual.df >= USUAL_SPREAD.df:  # no more: cases are not alike in what one process gets by chance
                self.of_single = Variance(max(sigmas) ** 2, USUAL_SPREAD.df)

    def moved(self, case: Case) -> float:
        """By how much those of its group became slower, in the middle: a logarithm."""
        return median(self.groups[case.group])

    def doubt(self, case: Case) -> Variance | None:
        """Of where a case lies from those of its group, that was not changed, beyond its own variance; None where they
        are too few to tell."""
        beside = len(self.groups.get(case.group, []))
        if beside < FEWEST_OTHERS or not self.usual.df:
            return None
        luck = self.luck.value if case.own.df else 0.0
        return Variance(luck + MEDIAN_NOISE * self.usual.value / beside, self.usual.df)


def least(own: Variance, doubt: Variance) -> Variance:
    """Of the sum of both, known as little as the one that is known less: a variance of few degrees of freedom may be
    small by chance, and another one must not stand in for it."""
    if not doubt.value:
        return own
    return Variance(own.value + doubt.value, min(own.df, doubt.df))


def _of_rounds(samples: Sequence[float]) -> float:
    """Variance of the logarithm of their median, by its interval."""
    found = median_interval(samples)
    return (math.log(found.high / found.low) / (2 * NORMAL)) ** 2


def least_p(pair: Pair) -> float:
    """The smallest p of the rounds of one process a side."""
    return least_rank_sum_p(*(len(record.samples_s or []) for record in pair))


def excuse(case: Case, log: float) -> str:
    """Which instrument beside the turns read otherwise, in the direction of this change and by more: what calls take
    longer for it is less than what it reads, for they do other work too."""
    base, head = case.pair
    evicted = case.evicted or (base.eviction, head.eviction)
    for name, least_times, before, after in (
        ("eviction", EVICTION, *evicted),
        ("handover_s", HANDOVER, base.handover_s, head.handover_s),
    ):
        if before and after:
            read = math.log(after / before)
            most = min(abs(read), math.log(MOST_EXCUSED))
            if abs(read) >= math.log(least_times) and read * log > 0 and abs(log) <= most:
                return f"`{name}` is {math.exp(read):.2f} times BASE's"
    return ""
