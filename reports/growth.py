"""How time and memory grow in each setting, and from which length on a variant takes less than another: fits, as rows.

The fits are those of results/derived.py; here each is joined to the setting and the entries that the report shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..results import derived
from .settings import Entry, Setting
from .words import lengths

FEWEST = 3
"""Lengths that a slope is shown of: two always lie on a line."""


@dataclass(frozen=True)
class Fit:
    """One figure fitted to one variant's records of a setting."""

    what: str
    """`time` or `memory`: a slope; a length where it is one of CROSSINGS."""
    setting: Setting
    label: str
    value: float | None
    """None: a crossover that is not there up to the longest length."""
    low: float | None
    high: float | None
    evidence: tuple[Entry, ...]
    """The records that it rests on, those of the rivals too, by length."""
    shortest: int
    longest: int
    declared: float | None = None
    """The exponent that the variant declares."""
    text: str = ""
    """A crossover in words."""
    beyond: derived.Figure | None = None
    """Where a crossover would come that is not there yet: extrapolated."""

    @property
    def mine(self) -> tuple[Entry, ...]:
        """Of the evidence, the variant's own records."""
        return tuple(entry for entry in self.evidence if entry.label == self.label)

    @property
    def lengths(self) -> str:
        return lengths(entry.length for entry in self.mine)


def fits(settings: Sequence[Setting]) -> list[Fit]:
    """All fits that the records of some settings allow."""
    return [fit for setting in settings for fit in [*slopes(setting), *crossings(setting)]]


def slopes(setting: Setting) -> list[Fit]:
    """Of time and of memory; bytes do not vary, so a slope of theirs has no interval."""
    found = []
    for each in derived.exponents(entry.record for entry in setting.entries):
        if len(each.lengths) >= FEWEST:
            evidence = _entries(setting, each.figure.case_ids)
            low, high = (each.figure.low, each.figure.high) if each.quantity == "time" else (None, None)
            found.append(
                Fit(
                    what=each.quantity,
                    setting=setting,
                    label=evidence[0].label,
                    value=each.figure.value,
                    low=low,
                    high=high,
                    evidence=evidence,
                    shortest=each.lengths[0],
                    longest=each.lengths[-1],
                    declared=each.declared,
                )
            )
    return found


CROSSINGS = {
    ("time", "exact"): "crossover",
    ("memory", "exact"): "memory-crossover",
    ("time", "naive"): "naive-crossover",
    ("memory", "naive"): "naive-memory-crossover",
}
"""What a fit is called, by what is taken less of, and than by which: the fastest exact variant, or naive."""


def crossings(setting: Setting) -> list[Fit]:
    """For variants that ran beside an exact one, or naive, at two lengths or more."""
    found = []
    for each in derived.crossings(entry.record for entry in setting.entries):
        where = each.found
        if where.longest > where.shortest:
            evidence = _entries(setting, each.case_ids)
            label = next(entry.label for entry in evidence if entry.record in each.series.records)
            ends = (where.length, where.low, where.high)
            what = CROSSINGS[each.quantity, each.against]
            found.append(
                Fit(
                    what,
                    setting,
                    label,
                    *ends,
                    evidence,
                    where.shortest,
                    where.longest,
                    text=each.words,
                    beyond=each.beyond,
                )
            )
    return found


def _entries(setting: Setting, case_ids: Sequence[str]) -> tuple[Entry, ...]:
    wanted = set(case_ids)
    return tuple(sorted((e for e in setting.entries if e.record.case_id in wanted), key=lambda entry: entry.length))
