"""Rounds of two runs beside which others used the shared cache alike.

Two runs one after the other have unlike neighbours, and calls that come back to what they wrote take longer for that
alone. `evictions` say how much of the cache was lost beside each round, read in work that knows nothing of the variant.
Where they differ, rounds are weighed so that both runs have as many of each reading; those that only one of them has do
not count. What is weighed by readings, and not by what calls took, favours neither run as far as those are exact; what
they miss is left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median

from .record import Record

UNLIKE = 1.1
"""Times: where medians of a case's readings differ by less, all rounds count. Calls hardly differ for so little, and
half of the rounds would be lost."""
ALIKE = 1.03
"""Times: by so much readings of one step may differ."""
FEWEST = 20
"""Rounds of each run that weights add up to. Of fewer, a median tells less for the rounds that it lacks than it gains
by those being alike."""
FEWEST_READINGS = 8
"""Different ones that count, in each run. One holds for all rounds until the next, a second later: rounds of a few are
of a few moments and processes, and share their luck."""

Pair = tuple[Record, Record]
"""Records of one case: BASE's and HEAD's."""
Weights = list[float]
"""What each round of a record counts: at most 1."""


def weights(base: Sequence[float], head: Sequence[float]) -> tuple[Weights, Weights]:
    """What each round of both runs counts, by their readings: of each step of these, as many rounds as both have, of
    which all of the step in one run have the same share.

    All count in full where there are no readings, where the runs hardly differ, or where too few are alike.
    """
    full = [1.0] * len(base), [1.0] * len(head)
    if not base or not head or 1 / UNLIKE < median(head) / median(base) < UNLIKE:
        return full
    steps = [_step(reading) for reading in base], [_step(reading) for reading in head]
    before, after = (Counter(side) for side in steps)
    common = before & after  # of each step, the smaller count
    different = [
        len({reading for reading, step in zip(readings, side, strict=True) if step in common})
        for readings, side in zip((base, head), steps, strict=True)
    ]
    if common.total() < FEWEST or min(different) < FEWEST_READINGS:
        return full
    return [common[step] / before[step] for step in steps[0]], [common[step] / after[step] for step in steps[1]]


def _step(reading: float) -> int:
    """Which step of ALIKE a reading lies in."""
    return math.floor(math.log(reading) / math.log(ALIKE))


def weights_of(base: Record, head: Record) -> tuple[Weights, Weights]:
    """What each of their samples counts; all in full where records do not tell of their rounds."""
    readings = readings_of(base), readings_of(head)
    if not all(readings):
        return [1.0] * len(base.samples_s or []), [1.0] * len(head.samples_s or [])
    return weights(*readings)


def words_of_rounds(weighed: Sequence[tuple[Weights, Weights]]) -> list[str]:
    """A sentence where rounds of some cases do not count in full: the weights of each."""
    shares = [sum(map(sum, both)) / sum(map(len, both)) for both in weighed]
    found = [share for both, share in zip(weighed, shares, strict=True) if min(map(min, both)) < 1]
    if not found:
        return []
    return [
        f"of {len(found)} of {len(weighed)} cases rounds were weighed by what others did to the cache that cores share "
        f"(`evictions`), so that both runs have as many of each reading: {median(found):.0%} of them count in the "
        f"median, {min(found):.0%} at least"
    ]


def readings_of(record: Record) -> list[float]:
    """One for each of its samples; empty where it does not tell of them."""
    readings, samples = record.evictions or [], record.samples_s or []
    return readings if len(readings) == len(samples) else []
