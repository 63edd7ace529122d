"""Rounds of two runs beside which others used the shared cache alike.

Two runs one after the other have unlike neighbours, and calls that come back to what they wrote take longer for that
alone. `evictions` say how much of the cache was lost beside each round, read in work that knows nothing of the variant.
Where they differ, rounds are compared that pair off, one of each run with like readings, and the others are left out.
What is chosen by readings, and not by what calls took, favours neither run as far as those are exact; what they miss
is left.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from .record import Record

UNLIKE = 1.1
"""Times: where medians of a case's readings differ by less, all rounds are compared. Calls hardly differ for so little,
and half of the rounds would be lost."""
ALIKE = 1.03
"""Times: by so much readings of a pair may differ."""
FEWEST = 20
"""Pairs. Of fewer, a median tells less for the rounds that it lacks than it gains by those being alike."""
FEWEST_READINGS = 8
"""Different ones among them, in each run. One holds for all rounds until the next, a second later: rounds of a few are
of a few moments and processes, and share their luck."""

Pair = tuple[Record, Record]
"""Records of one case: BASE's and HEAD's."""


def like_rounds(base: Sequence[float], head: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs of rounds, by their numbers from 0, whose readings are alike: of each step of these, as many as both have.

    Which ones these are of the run that has more is drawn, by a fixed seed: the first would be of one process. Empty
    where the runs hardly differ, or too few are alike.
    """
    if not base or not head or 1 / UNLIKE < median(head) / median(base) < UNLIKE:
        return []
    drawing = random.Random(0)
    before, after = _by_step(base), _by_step(head)
    found: list[tuple[int, int]] = []
    for step in sorted(before.keys() & after.keys()):
        both = before[step], after[step]
        count = min(map(len, both))
        found += zip(*(drawing.sample(numbers, count) for numbers in both), strict=True)
    different = min(len({base[i] for i, _ in found}), len({head[j] for _, j in found}))
    return sorted(found) if len(found) >= FEWEST and different >= FEWEST_READINGS else []


def _by_step(readings: Sequence[float]) -> dict[int, list[int]]:
    """Numbers of rounds by what was read, in steps of ALIKE."""
    found = defaultdict(list)
    for number, reading in enumerate(readings):
        found[math.floor(math.log(reading) / math.log(ALIKE))].append(number)
    return found


def of_like_rounds(base: Record, head: Record) -> Pair:
    """Both with the samples of like rounds alone; as they are where they do not tell of their rounds, or too few are
    alike."""
    pairs = like_rounds(readings_of(base), readings_of(head))
    if not pairs:
        return base, head
    return _only(base, [i for i, _ in pairs]), _only(head, [j for _, j in pairs])


def words_of_rounds(before: Sequence[Pair], after: Sequence[Pair]) -> list[str]:
    """A sentence where rounds of some cases were left out: their pairs before that, and `after`."""
    counts = [[sum(len(record.samples_s or []) for record in pair) for pair in pairs] for pairs in (before, after)]
    shares = [kept / all_of_them for all_of_them, kept in zip(*counts, strict=True) if kept < all_of_them]
    if not shares:
        return []
    return [
        f"of {len(shares)} of {len(before)} cases the rounds were compared that pair off by what others did to the "
        f"cache that cores share (`evictions`), {median(shares):.0%} of them in the median, {min(shares):.0%} at least"
    ]


def readings_of(record: Record) -> list[float]:
    """One for each of its samples; empty where it does not tell of them."""
    readings, samples = record.evictions or [], record.samples_s or []
    return readings if len(readings) == len(samples) else []


def _only(record: Record, rounds: Sequence[int]) -> Record:
    samples, readings = record.samples_s or [], record.evictions or []
    kept = [readings[number] for number in rounds]
    changes = {"samples_s": [samples[number] for number in rounds], "evictions": kept, "eviction": median(kept)}
    return record.model_copy(update=changes)
