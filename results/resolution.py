"""What a machine can resolve, from comparisons whose answer is known: its false alarms, and what differences it finds.

Every comparison is judged as `compare --git` judges, at several thresholds, from the same samples. A planted 3 % has
its estimate above 3 % only half of the time, so a threshold must lie below what is to be found, and above what the
machine itself pretends. A few comparisons say more than their own count: their pairs of processes are joined anew, each
with its sides swapped or not, into many comparisons that might as well have been. A planted share multiplies HEAD's
times there; the comparisons in which it was real work say whether that is true.
"""

from __future__ import annotations

import functools
import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .evidence import Evidence, Turns, Verdict, in_turns
from .statistics import Interval, median_interval, round_ratios, spread
from .trial import Trial

THRESHOLDS = (0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15)
DIFFERENCES = (*(step / 200 for step in range(1, 21)), 0.12, 0.15, 0.2, 0.3, 0.5)
"""Half a percent to ten in steps of a half, and some beyond."""
JOINED, JOINED_PLANTED = 1000, 300
"""Comparisons that are joined from pairs of processes, of code with itself and for each difference: standard errors of
0.3 % at 1 %, and of 2.3 % at 80 %."""
FALSE_ALARMS = 0.01
"""Most that a threshold may have."""
FOUND = 0.8
"""A difference is resolved where it is found as often."""


@dataclass(frozen=True)
class Rate:
    """How many of some comparisons were called."""

    called: int
    of: int

    @property
    def share(self) -> float:
        return self.called / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of Clopper and Pearson, Biometrika 1934: it covers the true rate at least so often."""
        from scipy.stats import beta

        low = 0.0 if self.called == 0 else float(beta.ppf(0.025, self.called, self.of - self.called + 1))
        high = 1.0 if self.called == self.of else float(beta.ppf(0.975, self.called + 1, self.of - self.called))
        return low, high


@dataclass(frozen=True)
class AtThreshold:
    """What came of the comparisons at one threshold."""

    threshold: float
    alarms: Rate
    """Of code against itself, called slower or faster."""
    alarms_joined: float
    """Their share among comparisons joined anew."""
    found: dict[float, Rate]
    """By planted share: called slower."""
    resolved: float | None
    """Smallest difference that FOUND of the comparisons joined anew call, of one case each; None where it is more than
    all tried."""

    @property
    def quiet(self) -> bool:
        """Whether false alarms are as rare as they must be, both counted and joined anew."""
        return self.alarms.share <= FALSE_ALARMS and self.alarms_joined <= FALSE_ALARMS


@dataclass(frozen=True)
class Resolution:
    """What a machine can resolve in comparisons of this length."""

    table: list[AtThreshold]
    noise: float
    """Of a round: half the width that holds the middle 68 % of ratios of code to itself, as a share."""
    processes: float
    """The same of the median ratios of pairs of processes."""
    planted: dict[float, Interval]
    """By planted share: median ratio of the comparisons, with its interval. 0 is code against itself."""
    pairs: int
    """Of processes, in each comparison."""
    rounds: float
    """Of a comparison, in the median."""
    wall_s: float

    @property
    def error_of_pair(self) -> float:
        """How far, at most, a pair's median over rounds lies from what its processes would give in endless rounds: the
        standard error of a median of normal noise. More rounds make it smaller, and the luck of processes not."""
        return self.noise * math.sqrt(math.pi / 2 / (self.rounds / self.pairs))

    @property
    def best(self) -> AtThreshold | None:
        """At the smallest threshold with few enough false alarms; None where there is none."""
        return next((row for row in self.table if row.quiet), None)


def resolution(trials: Sequence[Trial], seed: int = 0) -> Resolution:
    """Judges comparisons at all thresholds. Raises ValueError where none is of code against itself."""
    selves = [trial for trial in trials if trial.planted == 0]
    if not selves:
        raise ValueError("nothing was compared with itself")
    shares = sorted({trial.planted for trial in trials})
    judged = {share: [_judged(trial) for trial in trials if trial.planted == share] for share in shares}
    pairs = [pair for trial in selves for pair in _pairs(trial)]
    count = round(median(trial.pairs for trial in selves))
    rng = random.Random(seed)
    drawn = [[(rng.choice(pairs), rng.random() < 0.5) for _ in range(count)] for _ in range(JOINED)]
    alone = [_joined(chosen, 0.0) for chosen in drawn]

    @functools.cache
    def planted(share: float) -> list[Evidence]:
        return [_joined(chosen, share) for chosen in drawn[:JOINED_PLANTED]]

    table = []
    for threshold in THRESHOLDS:
        alarms = Rate(_called(judged[0.0], threshold, "worse", "better"), len(selves))
        found = {
            share: Rate(_called(judged[share], threshold, "worse"), len(judged[share])) for share in shares if share
        }
        alarms_joined = _called(alone, threshold, "worse", "better") / JOINED
        # the larger the difference, the more often it is found
        first = bisect_left(
            DIFFERENCES,
            FOUND * JOINED_PLANTED,
            key=lambda share: _called(planted(share), threshold, "worse"),
        )
        resolved = DIFFERENCES[first] if first < len(DIFFERENCES) else None
        table.append(AtThreshold(threshold, alarms, alarms_joined, found, resolved))
    return Resolution(
        table=table,
        noise=spread([ratio for trial in selves for ratio in round_ratios(trial.head_s, trial.base_s)]),
        processes=spread([median(head / base for base, head in pair) for pair in pairs]),
        planted={share: median_interval([one.ratio.value for one in found]) for share, found in judged.items()},
        pairs=count,
        rounds=median(len(trial.base_s) for trial in trials),
        wall_s=median(trial.wall_s for trial in trials),
    )


Pair = list[tuple[float, float]]
"""What one pair of processes took in each round: BASE's seconds and HEAD's."""


def _pairs(trial: Trial) -> list[Pair]:
    rounds, pairs = list(zip(trial.base_s, trial.head_s, strict=True)), []
    for count in trial.rounds_per_process:
        pairs.append(rounds[:count])
        rounds = rounds[count:]
    return pairs


def _judged(trial: Trial) -> Evidence:
    return in_turns([Turns(trial.base_s, trial.head_s, trial.rounds_per_process)])[0]


def _joined(chosen: Sequence[tuple[Pair, bool]], share: float) -> Evidence:
    """A comparison of pairs of processes that were measured apart, with a share of work added to HEAD."""
    rounds = [(b, h) if not swapped else (h, b) for pair, swapped in chosen for b, h in pair]
    base, head = [b for b, _ in rounds], [h * (1 + share) for _, h in rounds]
    return in_turns([Turns(base, head, [len(pair) for pair, _ in chosen])])[0]


def _called(evidence: Sequence[Evidence], threshold: float, *verdicts: Verdict) -> int:
    return sum(one.called(threshold, one.p)[0] in verdicts for one in evidence)
