"""When a change of time between two finished runs is evidence, though they took no turns with each other.

Times of the same code differ from run to run by more than the noise of rounds. A process keeps what it got of memory
and caches, so processes are what is counted. The cases of a group took turns, and share whatever the machine did in
these minutes: how far groups lie apart tells of that luck, and a case that stands out of its group need not be doubted
for it. And where instruments beside the turns read otherwise, a change in that direction, and no larger, may be theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

from .alike import Pair
from .between import (
    FEWEST_CASES,
    FEWEST_OTHERS,
    MEDIAN_NOISE,
    Case,
    by_group,
    luck_of_groups,
    shifts_by_group,
    total,
)
from .conditions import EVICTION, HANDOVER
from .evidence import Evidence
from .mean_ratios import Variance, joined, lent_by_cases, student_interval, student_p
from .statistics import ALPHA, Interval, least_rank_sum_p, median_interval, rank_sum_p, robust_spread

NOTHING = Variance(0.0, 0.0)
USUAL_SPREAD = Variance(0.1**2, 3.0)
"""Of the logarithm of what a case takes in one process, from run to run, where cases are too few to tell: two runs of
this project's benchmarks lay 10 % apart from case to case."""
NORMAL = 1.96
"""Standard deviations from the middle of a normal distribution to the ends of its 95 %."""
SPREAD_DF = 0.72
"""Degrees of freedom of `robust_spread`, for each value, of many; of 5 to 20 about 2 fewer in all (simulated)."""


def judged(cases: Sequence[Case], threshold: float, relative: bool) -> tuple[list[Evidence], Variance]:
    """What each case says, among all of them, and the luck of groups. `relative`: by what it differs from the shift of
    its group."""
    known = _Known(cases)
    if not relative:
        return [known.outright(case, threshold) for case in cases], known.luck
    shifts = shifts_by_group(cases)
    return [known.less(case, math.log(shifts[case.group])) for case in cases], known.luck


class _Known:
    """What all cases of a comparison tell of each one's doubt."""

    def __init__(self, cases: Sequence[Case]) -> None:
        groups = by_group(cases)
        self.others = {case: [other for other in groups[case.group] if other is not case] for case in cases}
        self.spread = self._spread([case for case in cases if not case.own.df])
        self.variance = {case: self._variance(case) for case in cases}
        several = [case.own for case in cases if case.own.df >= 1]
        self.lent = lent_by_cases([own.value for own in several], [own.df for own in several])
        self.luck = luck_of_groups(cases, [self.variance[case] for case in cases])

    def outright(self, case: Case, threshold: float) -> Evidence:
        """Whether HEAD's time is another one. Of two tests the better, for twice its p: against the luck of groups,
        and against the others of its group, from which it must differ by the threshold too."""
        doubt, to_group = self.luck, None
        p = self._p(case, case.log, doubt)
        if len(self.others[case]) >= FEWEST_OTHERS:
            own, of_others = case.log - median(other.log for other in self.others[case]), self._of_others(case)
            if abs(own) >= math.log1p(threshold) and own * case.log > 0:
                by_itself = self._p(case, own, of_others)
                to_group = self._interval(case, own, of_others) if by_itself < p else None
                p = min(p, by_itself)
        return self._evidence(case, case.log, doubt, p, 2, to_group)

    def less(self, case: Case, shift: float) -> Evidence:
        """Whether it is another one than the shift of its group, or of all cases where the group is small."""
        of_group = len(self.others[case]) + 1 >= FEWEST_CASES
        doubt = self._of_others(case) if of_group else self.luck
        return self._evidence(case, case.log - shift, doubt, self._p(case, case.log - shift, doubt), 1)

    def _evidence(
        self, case: Case, log: float, doubt: Variance, p: float, tests: int, to_group: Interval | None = None
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
            excuse(case.pair, log),
        )

    def _p(self, case: Case, log: float, doubt: Variance) -> float:
        """Of the test that a change is none, with `doubt` on top of the variance of the case, and what others lend it.
        What it does not show alone, others do not show for it."""
        own = self.variance[case]
        p = student_p(log, total(own, doubt))
        if case.own.df:
            return student_p(log, total(joined(own, self.lent), doubt)) if p < ALPHA else p
        base, head = (record.samples_s or [] for record in case.pair)
        taken_off = math.exp(case.log - log)
        return max(p, rank_sum_p([x / taken_off for x in head], base))

    def _interval(self, case: Case, log: float, doubt: Variance) -> Interval:
        return student_interval(log, total(self.variance[case], doubt))

    def _of_others(self, case: Case) -> Variance:
        """Of the median of the others of its group."""
        values = [self.variance[other].value for other in self.others[case]]
        return Variance(MEDIAN_NOISE * fmean(values) / len(values), math.inf)

    def _variance(self, case: Case) -> Variance:
        """Of one process a side, how far such cases lie from their groups; or their rounds, where these lie farther."""
        if case.own.df:
            return case.own
        return Variance(
            max(self.spread.value, *(_of_rounds(record.samples_s or []) for record in case.pair)), self.spread.df
        )

    def _spread(self, single: Sequence[Case]) -> Variance:
        """Of cases that one process measured in one of both runs: how far they lie from the others of their group."""
        if len(single) < FEWEST_CASES:
            return USUAL_SPREAD
        of_all = median(case.log for case in single)
        beside = [[other.log for other in self.others[case]] for case in single]
        apart = [
            case.log - (median(logs) if len(logs) >= FEWEST_OTHERS else of_all)
            for case, logs in zip(single, beside, strict=True)
        ]
        return Variance(robust_spread(apart) ** 2, SPREAD_DF * len(single) - 2)


def _of_rounds(samples: Sequence[float]) -> float:
    """Variance of the logarithm of their median, by its interval."""
    found = median_interval(samples)
    return (math.log(found.high / found.low) / (2 * NORMAL)) ** 2


def least_p(pair: Pair) -> float:
    """The smallest p of the rounds of one process a side."""
    return least_rank_sum_p(*(len(record.samples_s or []) for record in pair))


def excuse(pair: Pair, log: float) -> str:
    """Which instrument beside the turns read otherwise, in the direction of this change and by more: what calls take
    longer for it is less than what it reads, for they do other work too."""
    base, head = pair
    for name, least, before, after in (
        ("eviction", EVICTION, base.eviction, head.eviction),
        ("handover_s", HANDOVER, base.handover_s, head.handover_s),
    ):
        if before and after:
            read = math.log(after / before)
            if abs(read) >= math.log(least) and read * log > 0 and abs(log) <= abs(read):
                return f"`{name}` is {math.exp(read):.2f} times BASE's"
    return ""
