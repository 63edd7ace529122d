"""From measured values to a verdict.

A figure *holds* where its value lies within the tolerance and nothing of its interval points in another direction than
the claimed one. Where the value is out of tolerance but the whole interval points in the claimed direction, it *holds
in direction only*: a direction that noise could turn is none. A claim is as good as the worst of its figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...results.claim_record import DIRECTION, FAILS, HOLDS, Quantity, VerdictWord
from ...results.statistics import Interval
from .claim import Band, Claim, Estimate, Measured, Target

ORDER: tuple[VerdictWord, ...] = (HOLDS, DIRECTION, FAILS)
"""From the best to the worst."""


def judge(target: Target, measured: Interval) -> VerdictWord:
    """The verdict on one figure."""
    directed = target.toward is None or target.toward.holds(measured.low, measured.high)
    if target.within.holds(measured.value) and directed:
        return HOLDS
    return DIRECTION if target.toward is not None and directed else FAILS


def sure(target: Target, measured: Interval, verdict: VerdictWord) -> bool:
    """Whether every value of the interval would have had the same verdict."""
    if verdict == HOLDS:
        return target.within.holds(measured.low, measured.high)
    missed = target.within if verdict == DIRECTION or target.toward is None else target.toward
    return not _overlap(missed, measured)


def overall(verdicts: Iterable[VerdictWord]) -> VerdictWord:
    """The verdict on a claim: the worst of its figures'."""
    return max(verdicts, key=ORDER.index)


def quantities(claim: Claim, measured: Measured) -> list[Quantity]:
    """Each figure of a claim with its verdict. Raises ValueError where one was not measured, or is not a number."""
    return [_quantity(claim, target, measured.estimates.get(target.name)) for target in claim.targets]


def _quantity(claim: Claim, target: Target, estimate: Estimate | None) -> Quantity:
    if estimate is None:
        raise ValueError(f"{claim.name} did not measure {target.name!r}")
    found = estimate.interval
    if not all(math.isfinite(x) for x in (found.value, found.low, found.high)):
        raise ValueError(f"{claim.name} measured no number for {target.name!r}: {found}")
    verdict = judge(target, found)
    return Quantity(
        name=target.name,
        unit=target.unit,
        published=target.published,
        obtained=target.obtained,
        within_low=_closed(target.within.low),
        within_high=_closed(target.within.high),
        toward_low=_closed(target.toward.low) if target.toward else None,
        toward_high=_closed(target.toward.high) if target.toward else None,
        value=found.value,
        low=found.low,
        high=found.high,
        of=estimate.of,
        difference=None if target.published is None else found.value - target.published,
        verdict=verdict,
        sure=sure(target, found, verdict),
        samples=list(estimate.samples) or None,
    )


def _closed(end: float) -> float | None:
    return end if math.isfinite(end) else None


def _overlap(band: Band, measured: Interval) -> bool:
    return max(measured.low, band.low) <= min(measured.high, band.high)
