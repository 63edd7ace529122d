"""What a run cost beside its measured calls: where its wall time went.

A measured call is one that a figure of a record comes from: timed calls, whose seconds are in its samples; the first
call of what compiles, whose time is `compile_s`; and calls that are weighed for their memory and operations. What of
the wall time is not inside of such calls is the price of measuring; what is not inside of timed ones is told too. The
check against the definition is part of that price and a product of its own, since no figure is published without it, so
it is told apart. The rest is the harness: planning, ceilings, starting processes, warming up, and whatever passes
between timed calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ResultsError
from .record import Record
from .run import Run
from .store import RunFolder

PARTS = {
    "measured": "inside of timed calls",
    "compiling": "compiling: the first calls of what compiles",
    "warming": "warming up: untimed calls before the first turn",
    "weighing": "weighing memory and operations",
    "checking": "drawing inputs, checking against the definition, fidelity",
    "renewing": "drawing inputs and warming up again in a case's further processes",
    "starting": "starting processes",
    "pausing": "between timed calls: one untimed, instruments, garbage, until threads sleep, passing turns on",
    "placing": "waiting for cores that others use, bringing them together, and turns taken before that",
    "left_out": "turns that do not count, as others used the shared cache beside them",
    "preloading": "starting the fork servers that processes come from: they import torch",
    "planning": "planning: finding variants, capturing input",
    "ceilings": "measuring the machine's ceilings",
    "rest": "all else",
}
MEASURED = ("measured", "compiling", "weighing")


@dataclass(frozen=True)
class Cost:
    """Where the wall time of one run went."""

    run: str
    total_s: float
    cases: int
    spent_s: dict[str, float]
    """By the keys of PARTS; they add up to the total."""
    start_s: float | None
    """Of one process, in the mean, or less where all samples of some were left out; null where none was started."""

    @property
    def untimed_share(self) -> float:
        """Of the wall time: not inside of timed calls."""
        return 1 - self.spent_s["measured"] / self.total_s

    @property
    def unmeasured_share(self) -> float:
        """Of the wall time: not inside of measured calls."""
        return 1 - sum(self.spent_s[part] for part in MEASURED) / self.total_s

    @property
    def harness_share(self) -> float:
        """Of the wall time: neither inside of measured calls nor checking a case."""
        return self.unmeasured_share - self.spent_s["checking"] / self.total_s

    @property
    def parts(self) -> list[tuple[float, str]]:
        """Seconds and words, most first."""
        return sorted(((seconds, PARTS[part]) for part, seconds in self.spent_s.items()), reverse=True)

    @property
    def sentence(self) -> str:
        checks = self.spent_s["checking"] / self.total_s
        start = "" if self.start_s is None else f"; a case's process starts in {self.start_s:.3f} s"
        return (
            f"{self.run}: {self.total_s:.1f} s, {self.unmeasured_share:.1%} of it not inside of measured calls "
            f"({self.untimed_share:.1%} not inside of timed ones): checks took {checks:.1%}, the harness "
            f"{self.harness_share:.1%}{start}"
        )


def cost_of(path: str | Path) -> Cost:
    """Of a run folder. Raises ResultsError where it does not say where its time went."""
    folder = RunFolder(path)
    return account(str(path), folder.run(), list(folder.records()))


def account(name: str, run: Run, records: Sequence[Record]) -> Cost:
    """Of what run.json and its records say. Raises ResultsError where they say nothing of it."""
    spent = run.spent_s
    total = spent.get("total", 0.0)
    if total <= 0:
        raise ResultsError(f"{name} does not say where its time went: it was killed, or is no sweep; measure it again")
    parts = {part: spent.get(part, 0.0) for part in PARTS}
    # a set-up holds its warm-up and what was compiled in it, and sampling the timed calls
    parts["warming"] = sum(record.warmup_s or 0.0 for record in records)
    parts["compiling"] = sum(record.compile_s or 0.0 for record in records)
    parts["checking"] = max(0.0, parts["checking"] - parts["warming"] - parts["compiling"])
    parts["pausing"] = max(0.0, spent.get("sampling", 0.0) - parts["measured"])
    parts["rest"] = max(0.0, total - sum(parts.values()))
    started = sum(record.processes or 1 for record in records if record.wall_s)
    return Cost(name, total, run.cases, parts, parts["starting"] / started if started else None)
