"""How far two runs agree on what they are made for: the ratio of each case to the baseline of its group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from .alike import Pair, readings_of, weights
from .record import Record
from .series import baseline_of, took_turns
from .statistics import round_ratios, weighted_median


@dataclass(frozen=True)
class Agreement:
    """Ratios to the baseline in two runs of the same cases."""

    cases: int
    """With a ratio to the same baseline in both, the baselines themselves left out."""
    median: float
    """By what share the larger of the two exceeds the other, in the median over cases."""
    worst: float
    """The same of the case where it is most."""
    worst_case: Record

    def __str__(self) -> str:
        worst = self.worst_case
        return (
            f"ratios to the same baseline, of {self.cases} cases, differ by {self.median:.1%} in the median and by "
            f"{self.worst:.1%} at most ({worst.variant}, {worst.mode}, {worst.n_k:,} tokens, {worst.dtype}, "
            f"threads {worst.threads})"
        )


def agreement(pairs: Iterable[Pair], base: Sequence[Record], head: Sequence[Record]) -> Agreement | None:
    """Of these pairs, with all records of each run; None where no ratio is in both.

    Rounds are weighed by what others did to the shared cache, where records tell of that (alike.py).
    """
    found = []
    for pair in pairs:
        baselines = baseline_of(pair[0], base), baseline_of(pair[1], head)
        ratios = _ratios(pair, baselines)
        if ratios is not None:
            found.append((max(ratios) / min(ratios) - 1, pair[1]))
    if not found:
        return None
    worst, case = max(found, key=lambda each: each[0])
    return Agreement(len(found), median(difference for difference, _ in found), worst, case)


def _ratios(pair: Pair, baselines: tuple[Record | None, Record | None]) -> tuple[float, float] | None:
    """Of one case in both; None where there is none, or it is the baseline itself."""
    old, new = (record.ratio for record in pair)
    sides = [(record, own) for record, own in zip(pair, baselines, strict=True) if own is not None]
    if not old or not new or len(sides) < 2 or any(record.case_id == own.case_id for record, own in sides):
        return None
    if len({(own.variant, str(own.params)) for _, own in sides}) > 1:
        return None
    if all(took_turns(record, own) for record, own in sides):
        rounds = [round_ratios(record.samples_s or [], own.samples_s or []) for record, own in sides]
        readings = [readings_of(record)[: len(own)] for record, own in zip(pair, rounds, strict=True)]
        if all(readings):
            both = weights(readings[0], readings[1])
            return weighted_median(rounds[0], both[0]), weighted_median(rounds[1], both[1])
    return old, new
