"""The runs of a report: what was recorded, and what a reader must know about how it was read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..results.benchmark_file import opened
from ..results.errors import NewerWarning, ResultsWarning
from ..results.record import Record
from ..results.run import Run
from ..results.store import kinds_in
from .errors import ReportsError
from .words import count, percent, plural

UNSTEADY = 0.1
"""Half width of a time's interval, as a share of the time, above which the machine is called unsteady,"""
UNSTEADY_SHARE = 0.1
"""where more than this share of a run's times is so wide."""


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """One run folder, read."""

    number: int
    """Counted from 1, in the order in which the runs were named."""
    path: Path
    run: Run
    records: list[Record]
    warnings: list[str] = field(default_factory=list)
    cards: list[dict[str, Any]] = field(default_factory=list)
    """What the variants of the run say of themselves; [] of a run that kept no cards."""
    unread: int = 0
    """Lines of its result file that were passed over."""

    @property
    def name(self) -> str:
        return self.path.name or str(self.path)

    @property
    def missing(self) -> int:
        """How many cases were asked for and have no record."""
        return max(0, self.run.cases - len(self.records))


def load_runs(paths: Sequence[str | Path]) -> list[LoadedRun]:
    """Reads the run folders; a folder that is named twice counts once.

    Raises ResultsError for a folder that is no run, and ReportsError where none is named or none holds a record.
    """
    if not paths:
        raise ReportsError("name at least one run folder")
    folders = {os.path.realpath(path): Path(path) for path in paths}
    runs = [_load(number, path) for number, path in enumerate(folders.values(), start=1)]
    if not any(run.records for run in runs):
        found = " and ".join(str(run.path) for run in runs)
        if others := list(dict.fromkeys(kind for run in runs for kind in kinds_in(run.path))):
            raise ReportsError(
                f"{found} {'holds' if len(runs) == 1 else 'hold'} {' and '.join(others)}, and no record of a sweep; "
                "name a folder that `attnbench run` wrote"
            )
        torn = sum(run.unread for run in runs)
        unread = f" ({plural(torn, 'line')} could not be read)" if torn else ""
        raise ReportsError(
            f"{found} {'holds' if len(runs) == 1 else 'hold'} no record yet{unread}, so there is nothing to report; "
            "go on with `attnbench run --resume`, or name another run"
        )
    return runs


def _load(number: int, path: Path) -> LoadedRun:
    folder = opened(path)
    run = folder.run()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(folder.records())
    with warnings.catch_warnings(record=True) as caught_cards:
        warnings.simplefilter("always")
        cards = folder.cards()
    notes, unread = [], 0
    for warning in caught:
        if issubclass(warning.category, ResultsWarning):
            unread += not issubclass(warning.category, NewerWarning)
            notes.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    notes += [str(warning.message) for warning in caught_cards]
    # a case that was measured again after an interruption: what came last stands
    records = {record.case_id: record for record in found}
    if twice := len(found) - len(records):
        notes.append(f"{path}: {plural(twice, 'case')} recorded more than once; the last record stands")
    loaded = LoadedRun(number, path, run, list(records.values()), notes, cards, unread)
    if loaded.missing:
        state = "ended" if run.finished_at else "was interrupted, or still runs,"
        have = f"{count(len(records))} of its {plural(run.cases, 'case')}"
        notes.insert(0, f"{path} {state} with {have}; {count(loaded.missing)} have no record")
    elif run.finished_at is None:
        notes.insert(
            0, f"{path} has all of its {plural(run.cases, 'record')}, but was stopped before its end was noted"
        )
    return loaded


def unsteady(runs: Sequence[LoadedRun]) -> list[str]:
    """A warning for each run whose machine was too restless for many of its times to be relied on."""
    found = []
    for run in runs:
        widths = [
            max(r.time_s - r.time_s_low, r.time_s_high - r.time_s) / r.time_s
            for r in run.records
            if r.status == "ok" and r.time_s and r.time_s_low is not None and r.time_s_high is not None
        ]
        wide = sum(width > UNSTEADY for width in widths)
        if wide > len(widths) * UNSTEADY_SHARE:
            cases = f"{count(wide)} of {plural(len(widths), 'timed case')}"
            found.append(
                f"{run.path}: in {cases} the 95 % interval reaches more than {percent(UNSTEADY)} from the median: "
                "the machine was busy or unsteady; measure again on a quiet one before choosing by these times"
            )
    return found
