"""Reads times of a claim's sweep: raw samples by length, and ratios paired round by round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...results.record import Record
from ...results.statistics import Interval, paired_ratio
from ...variants.registry import parse_spec
from .claim import Estimate, Untestable


def samples_of(records: Sequence[Record], spec: str, **fields: Any) -> dict[int, list[float]]:
    """The times of a variant at each length, as its spec was written in the sweep; of records with these fields.

    Raises Untestable with the record's own reasons where a length has no time.
    """
    found = {}
    for record in matching(records, spec, **fields):
        if record.status != "ok" or not record.samples_s:
            why = "; ".join(record.reasons) or "no samples"
            raise Untestable(f"{spec} has no time at {record.n_k:,} tokens ({record.status}): {why}")
        found[record.n_k] = record.samples_s
    if not found:
        raise Untestable(f"the sweep has no record of {spec}")
    return dict(sorted(found.items()))


def matching(records: Sequence[Record], spec: str, **fields: Any) -> list[Record]:
    """The records of a variant whose parameters have the values of the spec, and which have these fields."""
    name, params = parse_spec(spec)
    return [
        record
        for record in records
        if record.variant == name
        and all(record.params.get(key) == value for key, value in params.items())
        and all(getattr(record, key) == value for key, value in fields.items())
    ]


def speed_up(reference: Sequence[float], samples: Sequence[float]) -> Estimate:
    """How many times faster than the reference, from rounds in which both took turns."""
    ratio = paired_ratio(reference, samples)
    rounds = min(len(reference), len(samples))
    return Estimate(ratio, f"median of {rounds} rounds in turns, 95 %" if rounds > 5 else f"range of {rounds} rounds")


def table(reference: Mapping[int, Sequence[float]], others: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    """A sentence of speed-ups: each variant's at each length."""
    rows = []
    for name, samples in others.items():
        cells = ", ".join(f"{n:,}: {speed_up(reference[n], samples[n]).interval.value:.2g}" for n in samples)
        rows.append(f"{name} {cells}")
    return "times faster, by length: " + "; ".join(rows)


def exponent(samples: Mapping[int, Sequence[float]]) -> Estimate:
    """How time grows with length: the slope of log time over log length, with its interval."""
    from ...results.fits import scaling_exponent

    return Estimate(scaling_exponent(samples), f"slope over {len(samples)} lengths, 95 % of the samples' noise")


def rank_correlation(published: Sequence[float], measured: Sequence[Interval], *, apart: float = 1.0) -> Estimate:
    """Kendall's tau over the pairs whose published values differ by a factor of `apart` or more.

    Its range is that where each measured value may be anywhere in its own interval. A pair whose intervals overlap
    could stand either way round: the ends of the range count all such pairs for and against.
    """
    value = low = high = 0
    pairs = 0
    for i in range(len(published)):
        for j in range(i):
            due = math.copysign(1, published[i] - published[j])
            larger, smaller = max(published[i], published[j]), min(published[i], published[j])
            if larger == smaller or larger < apart * smaller:
                continue
            pairs += 1
            a, b = measured[i], measured[j]
            agrees = 1 if (a.value - b.value) * due > 0 else -1
            certain = a.low > b.high or b.low > a.high
            value += agrees
            low += agrees if certain else -1
            high += agrees if certain else 1
    return Estimate(
        Interval(value / pairs, low / pairs, high / pairs), f"all {pairs} pairs; ends: pairs that noise could turn"
    )
