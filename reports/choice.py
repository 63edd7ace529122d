"""Which records of the given runs a figure or a table for papers is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..results.record import Record
from .load import LoadedRun
from .settings import Setting, captured, split


@dataclass(frozen=True)
class Choice:
    """What of the runs is drawn; None: all."""

    mode: str | None = None
    variants: tuple[str, ...] = ()
    dtype: str | None = None
    causal: bool | None = None
    inputs: str | None = None

    def holds(self, record: Record) -> bool:
        return (
            self.mode in (None, record.mode)
            and (not self.variants or record.variant in self.variants)
            and self.dtype in (None, record.dtype)
            and self.causal in (None, record.causal)
            and (self.inputs is None or self.inputs in (record.inputs, record.inputs.partition(":")[0]))
        )


def settings_of(runs: Sequence[LoadedRun], choice: Choice) -> list[Setting]:
    """Settings with the records that were chosen, the most telling first."""
    found = []
    for setting in split(runs):
        entries = tuple(entry for entry in setting.entries if choice.holds(entry.record))
        if entries:
            found.append(Setting(setting.run, entries, setting.number, setting.told_apart_by))
    # those with most lengths, drawn inputs before captured ones
    return sorted(found, key=lambda s: (captured(s.of), -len(s.timed_lengths), s.number))
