"""Rounds of two runs beside which others used the shared cache alike.

Two runs one after the other have unlike neighbours, and calls that come back to what they wrote take longer for that
alone. `evictions` say how much of the cache was lost beside each round, read in work that knows nothing of the variant.
So rounds are compared that pair off, one of each run with like readings, and the others are left out. What is chosen by
the readings, and not by what calls took, favours neither run.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from .record import Record

ALIKE = 1.03
"""Times: by so much readings of a pair may differ."""
FEWEST = 20
"""Pairs. Of fewer, a median tells less for the rounds that it lacks than it gains by those being alike."""

Pair = tuple[Record, Record]
"""Records of one case: BASE's and HEAD's."""


def like_rounds(base: Sequence[float], head: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs of rounds, by their numbers from 0, whose readings are alike: as many as there can be, in BASE's order."""
    first, second = (sorted((x, number) for number, x in enumerate(side)) for side in (base, head))
    found = []
    i = j = 0
    while i < len(first) and j < len(second):
        (x, at), (y, to) = first[i], second[j]
        if x > ALIKE * y:
            j += 1
        elif y > ALIKE * x:
            i += 1
        else:
            found.append((at, to))
            i, j = i + 1, j + 1
    return sorted(found)


def of_like_rounds(base: Record, head: Record) -> Pair:
    """Both with the samples of like rounds alone; as they are where they do not tell of their rounds, or too few are
    alike."""
    samples, readings = [(record.samples_s or []) for record in (base, head)], (base.evictions, head.evictions)
    if any(each is None or len(each) != len(own) for each, own in zip(readings, samples, strict=True)):
        return base, head
    pairs = like_rounds(*(each or [] for each in readings))
    if len(pairs) < FEWEST:
        return base, head
    return _only(base, [i for i, _ in pairs]), _only(head, [j for _, j in pairs])


def words_of_rounds(before: Sequence[Pair], after: Sequence[Pair]) -> list[str]:
    """A sentence where rounds of some cases were left out: their pairs before that, and `after`."""
    cut = [(b, h, kept) for (b, h), (kept, _) in zip(before, after, strict=True) if kept is not b]
    shares = [2 * len(kept.samples_s or []) / len([*(b.samples_s or []), *(h.samples_s or [])]) for b, h, kept in cut]
    if not shares or min(shares) == 1:
        return []
    return [
        f"of {len(cut)} cases only rounds were compared beside which others used the cache that cores share alike in "
        f"both (`evictions`): {median(shares):.0%} of them in the median, {min(shares):.0%} at least"
    ]


def _only(record: Record, rounds: Sequence[int]) -> Record:
    samples, readings = record.samples_s or [], record.evictions or []
    kept = [readings[number] for number in rounds]
    changes = {"samples_s": [samples[number] for number in rounds], "evictions": kept, "eviction": median(kept)}
    return record.model_copy(update=changes)
