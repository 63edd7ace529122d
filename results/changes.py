"""What changed in one case: its time, by what its samples say; and what needs no test, for it has no noise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .evidence import Evidence, Verdict
from .record import Record
from .statistics import Interval, correct

SIZE_SHARE, SIZE_BYTES = 0.01, 4096
"""A peak that moved by no more than this share, or these bytes, is the same: allocators round."""
FIDELITY_SHARE, FIDELITY_FLOOR = 0.05, 1e-3
"""A fidelity error is worse where it grew by more than this share, and is more than rounding."""
SEVERITY = {"ok": 0, "unsupported": 1, "oom": 2, "timeout": 2, "crashed": 3, "incorrect": 4}
"""How bad a status is. `skipped` has no place: nothing is known of the case."""

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
    to_group: Interval | None = None
    """Of a time that stands out of its group: the ratio over that of the group's others, which is what `p` is of."""
    why: str = ""

    @property
    def size(self) -> float:
        """How far from no change, for sorting."""
        return math.inf if self.ratio is None else abs(math.log(self.ratio.value)) if self.ratio.value > 0 else math.inf


def times(
    pairs: Sequence[tuple[Record, Record]], found: Sequence[Evidence], threshold: float
) -> tuple[list[Finding], int]:
    """Each pair's times, by what its samples say, corrected for the number of pairs; and for how many no difference
    could have counted."""
    corrected = correct([one.p_among for one in found], [one.least_p for one in found])
    findings = []
    for (_, h), one, p in zip(pairs, found, corrected.p, strict=True):
        verdict, word = one.called(threshold, p)
        why = one.excuse if verdict == "perhaps" else ""
        findings.append(Finding(h, "time", verdict, word, one.base_s, one.head_s, one.ratio, p, one.to_group, why))
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


SIZED = {
    "error": "an error",
    "fidelity_error": "a fidelity error",
    "peak_bytes": "a memory peak",
    "state_bytes": "a state",
}
"""Fields that `certain` compares, and what they are."""


def words_of_lacking(pairs: Iterable[tuple[Record, Record]]) -> list[str]:
    """A sentence for each figure that some cases have in one of both alone, though both were measured."""
    found: dict[tuple[str, str], int] = Counter()
    for b, h in pairs:
        for name in SIZED:
            old, new = getattr(b, name), getattr(h, name)
            if (old is None) != (new is None):
                found[name, "BASE" if new is None else "HEAD"] += 1
    return [
        f"{count} cases have {SIZED[name]} (`{name}`) in {side} alone, which is not compared"
        for (name, side), count in found.items()
    ]


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
    factor = new / old if old else math.inf
    ratio = Interval(factor, factor, factor) if math.isfinite(factor) else None
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
