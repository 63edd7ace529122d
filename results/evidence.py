"""What samples say of a change of time, and when that is called one: by effect and test together."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .mean_ratios import mean_ratios
from .statistics import ALPHA, Interval, round_ratios

Verdict = Literal["worse", "perhaps", "other", "better", "same"]


@dataclass(frozen=True)
class Evidence:
    """What the samples of one case say of HEAD's time over BASE's."""

    base_s: float
    head_s: float
    """Seconds of a call."""
    ratio: Interval
    """With the shift taken off."""
    p: float
    """Of the test that they differ, by this case alone; of two runs, as if the machine had been the same in both."""
    p_among: float
    """The same, to be corrected for the number of tests: cases lend each other what they know."""
    least_p: float
    """The smallest that it could be for so many samples."""
    to_group: Interval | None = None
    """The ratio over that of the others of its group, where it stands out of these."""
    excuse: str = ""
    """What else may have made such a change, of that size and in that direction."""

    def called(self, threshold: float, p: float) -> tuple[Verdict, str]:
        """The verdict and its word; `p` is `p_among`, corrected for the number of tests."""
        if 1 / (1 + threshold) < self.ratio.value < 1 + threshold or self.p >= ALPHA:
            return "same", "same"
        slower = self.ratio.value > 1
        word = "slower" if slower else "faster"
        if p >= ALPHA or self.excuse:  # it would count, were it the only one compared, and nothing else unlike
            return "perhaps", f"perhaps {word}"
        return ("worse" if slower else "better"), word


@dataclass(frozen=True)
class Turns:
    """One case of two sides that took turns."""

    base: Sequence[float]
    head: Sequence[float]
    """Seconds of a call in each round, in the order of rounds."""
    rounds_per_process: Sequence[int]
    """How many of the rounds each pair of processes took, in their order."""


def in_turns(cases: Sequence[Turns]) -> list[Evidence]:
    """Of cases whose sides took turns, all that are judged together.

    What a process got of memory, caches and neighbours is chance that stays with it, and looks like a change in all its
    rounds. So pairs of processes are what is counted, each by the median over its rounds.
    """
    medians = []
    for case in cases:
        rounds = iter(round_ratios(case.head, case.base))
        medians.append([statistics.median(itertools.islice(rounds, count)) for count in case.rounds_per_process])
    return [
        Evidence(
            statistics.median(case.base),
            statistics.median(case.head),
            found.ratio,
            found.p,
            found.p_among,
            least_p=0.0 if len(pairs) > 1 else 1.0,
        )
        for case, pairs, found in zip(cases, medians, mean_ratios(medians), strict=True)
    ]
