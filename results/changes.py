"""What changed in one case: its time, by effect and test together; and what needs no test, for it has no noise."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .mean_ratios import mean_ratios
from .record import Record
from .statistics import (
    ALPHA,
    Interval,
    correct,
    least_rank_sum_p,
    rank_sum_p,
    ratio_of_medians,
    round_ratios,
)

SIZE_SHARE, SIZE_BYTES = 0.01, 4096
"""A peak that moved by no more than this share, or these bytes, is the same: allocators round."""
FIDELITY_SHARE, FIDELITY_FLOOR = 0.05, 1e-3
"""A fidelity error is worse where it grew by more than this share, and is more than rounding."""
SEVERITY = {"ok": 0, "unsupported": 1, "oom": 2, "timeout": 2, "crashed": 3, "incorrect": 4}
"""How bad a status is. `skipped` has no place: nothing is known of the case."""

Verdict = Literal["worse", "perhaps", "other", "better", "same"]
ORDER: tuple[Verdict, ...] = ("worse", "perhaps", "other", "better", "same")


@dataclass(frozen=True)
class Finding:
    """One figure of one case, in both runs."""

    case: Record
    """HEAD's record: it says which case it is."""
    measure: Literal["status", "error", "fidelity", "time", "peak", "state"]
    verdict: Verdict
    word: str
    """E.g. slower, perhaps slower, bigger, incorrect, works again."""
    base: float | str
    head: float | str
    """Seconds, bytes, a relative error or a status."""
    ratio: Interval | None = None
    """HEAD over BASE, and over the shift where that is taken off. Without noise its interval is a point."""
    p: float | None = None
    """Of the test that times differ, corrected for the number of tests."""
    why: str = ""

    @property
    def size(self) -> float:
        """How far from no change, for sorting."""
        return math.inf if self.ratio is None else abs(math.log(self.ratio.value)) if self.ratio.value > 0 else math.inf


@dataclass(frozen=True)
class Evidence:
    """What the samples of one case say of HEAD's time over BASE's."""

    ratio: Interval
    """With the shift taken off."""
    p: float
    """Of the test that they differ, by this case alone."""
    p_among: float
    """The same, to be corrected for the number of tests: sides that took turns lend each other what they know."""
    least_p: float
    """The smallest that it could be for so many samples."""

    def called(self, threshold: float, p: float) -> tuple[Verdict, str]:
        """The verdict and its word; `p` is `p_among`, corrected for the number of tests."""
        if 1 / (1 + threshold) < self.ratio.value < 1 + threshold or self.p >= ALPHA:
            return "same", "same"
        slower = self.ratio.value > 1
        word = "slower" if slower else "faster"
        if p >= ALPHA:  # it would count, were it the only one that is compared
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
        Evidence(found.ratio, found.p, found.p_among, least_p=0.0 if len(pairs) > 1 else 1.0)
        for pairs, found in zip(medians, mean_ratios(medians), strict=True)
    ]


def _apart(old: Sequence[float], new: Sequence[float], shift: float) -> Evidence:
    """Of two sides that were measured one after the other."""
    ratio = ratio_of_medians(new, old)
    without = Interval(ratio.value / shift, ratio.low / shift, ratio.high / shift)
    p = rank_sum_p([x / shift for x in new], old)
    return Evidence(without, p, p, least_rank_sum_p(len(new), len(old)))


def times(
    pairs: Sequence[tuple[Record, Record]], threshold: float, shifts: Sequence[float], paired: bool
) -> tuple[list[Finding], int]:
    """Each pair's times, judged with its shift taken off, and for how many no difference could have counted."""
    samples = [(b.samples_s or [], h.samples_s or []) for b, h in pairs]
    if paired:
        lasted = [(h.model_extra or {})["rounds_per_process"] for _, h in pairs]
        found = in_turns([Turns(old, new, counts) for (old, new), counts in zip(samples, lasted, strict=True)])
    else:
        found = [_apart(old, new, shift) for (old, new), shift in zip(samples, shifts, strict=True)]
    corrected = correct([one.p_among for one in found], [one.least_p for one in found])
    findings = []
    for (b, h), one, p in zip(pairs, found, corrected.p, strict=True):
        verdict, word = one.called(threshold, p)
        old_s, new_s = (statistics.median(record.samples_s or []) for record in (b, h))
        findings.append(Finding(h, "time", verdict, word, old_s, new_s, one.ratio, p))
    return findings, corrected.able.count(False)


def certain(b: Record, h: Record) -> Iterable[Finding]:
    """Status, error, fidelity, peak and state: measured without noise."""
    yield _status(b, h)
    if not b.status == h.status == "ok":
        return
    if b.error is not None and h.error is not None:
        # BASE's record may hold the floor alone, less than it would have allowed: an error must have doubled too
        allowed = None if b.error_allowed is None else max(b.error_allowed, 2 * b.error)
        grown = allowed is not None and b.error <= allowed < h.error
        why = f"BASE was held to {b.error_allowed:.3g}" if grown else ""
        yield Finding(
            h, "error", "worse" if grown else "same", "less exact" if grown else "same", b.error, h.error, why=why
        )
    if b.fidelity_error is not None and h.fidelity_error is not None:
        old, new = b.fidelity_error, h.fidelity_error
        yield _sized(h, "fidelity", old, new, FIDELITY_SHARE, 0.0, FIDELITY_FLOOR, ("farther off", "closer"))
    if b.peak_bytes is not None and h.peak_bytes is not None:
        yield _sized(h, "peak", b.peak_bytes, h.peak_bytes, SIZE_SHARE, SIZE_BYTES, 0.0, ("bigger", "smaller"))
    if b.state_bytes is not None and h.state_bytes is not None:
        yield _sized(h, "state", b.state_bytes, h.state_bytes, SIZE_SHARE, 0.0, 0.0, ("bigger", "smaller"))


def _sized(
    case: Record,
    measure: Literal["fidelity", "peak", "state"],
    old: float,
    new: float,
    share: float,
    least: float,
    floor: float,
    words: tuple[str, str],
) -> Finding:
    """A figure without noise: another one where it moved by more than a share and a least amount, above a floor."""
    ratio = Interval(new / old, new / old, new / old) if old else None
    moved = abs(new - old) > max(share * old, least) and max(old, new) > floor
    if not moved:
        return Finding(case, measure, "same", "same", old, new, ratio)
    worse = new > old
    return Finding(case, measure, "worse" if worse else "better", words[0 if worse else 1], old, new, ratio)


def _status(b: Record, h: Record) -> Finding:
    if b.status == h.status:
        return Finding(h, "status", "same", "same", b.status, h.status)
    why = h.reasons[0] if h.reasons else b.reasons[0] if b.reasons and h.status == "ok" else ""
    if "skipped" in (b.status, h.status):
        word = "not measured" if h.status == "skipped" else "measured now"
        return Finding(h, "status", "other", word, b.status, h.status, why=why)
    worse = SEVERITY[h.status] - SEVERITY[b.status]
    verdict: Verdict = "worse" if worse > 0 else "better" if worse < 0 else "other"
    return Finding(h, "status", verdict, "works again" if h.status == "ok" else h.status, b.status, h.status, why=why)
