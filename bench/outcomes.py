"""The record that each case ends in, and what the records so far say of cases that are still to come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from ..results.record import Record
from .case import Case
from .config import Config
from .estimate import Series
from .plan import Plan, Planned
from .turn import Turn

RAN_OUT = ("oom", "timeout")


class Outcomes:
    """Exactly one record of each case of a plan.

    `save` keeps records, and `done` is told of each. `deadline`, by time.monotonic(), is when nothing is begun any
    more. `finished`: records of this run from before it was stopped.
    """

    def __init__(
        self,
        config: Config,
        plan: Plan,
        *,
        machine: str,
        save: Callable[[list[Record]], None],
        done: Callable[[Record], None],
        deadline: float,
        finished: Iterable[Record],
    ) -> None:
        self.config, self.machine, self.save, self.done, self.deadline = config, machine, save, done, deadline
        self.planned = {planned.case.case_id: planned for planned in plan.cases}
        self.ran_out: dict[tuple[Any, ...], tuple[int, str]] = {}
        self.series: dict[tuple[Any, ...], Series] = {}
        self.finished = {record.case_id: record for record in finished}
        for record in self.finished.values():
            self.learn(record)

    def left(self, group: Iterable[Case]) -> list[Planned]:
        """Those of a group that had no record when the run began."""
        return [self.planned[case.case_id] for case in group if case.case_id not in self.finished]

    def timed_before(self, group_id: str) -> bool:
        """Whether some of a group were timed before the run was stopped."""
        return any(record.status == "ok" and record.group_id == group_id for record in self.finished.values())

    def why_not(self, case: Case, free: float) -> str | None:
        """Why a case is not begun, with so many bytes of memory free; None where it is."""
        if time.monotonic() > self.deadline:
            return f"the time budget of {self.config.time_budget:g} s was used up"
        ran_out = self.ran_out.get(case.series())
        if ran_out is not None and case.n_k > ran_out[0]:
            return f"ended as {ran_out[1]} at length {ran_out[0]} already"
        series = self.series.get(_shape(case))
        return series.why_not(case, free, self.config.timeout) if series else None

    def keep(self, records: list[Record]) -> None:
        """Saves them, together."""
        if records:
            self.save(records)
        for record in records:
            self.learn(record)
            self.done(record)

    def keep_bare(self, planned: Planned, status: str, reasons: list[str], turn: Turn | None = None) -> None:
        """Saves a record without figures, but for what its turn has learned."""
        fields = dict(turn.fields) if turn else {}
        fields["wall_s"] = turn.wall_s if turn else 0.0
        fields["started_at"] = turn.started_at if turn else datetime.now(UTC).isoformat(timespec="milliseconds")
        self.keep([self.record(planned, status=status, reasons=reasons, **fields)])

    def record(self, planned: Planned, **fields: Any) -> Record:
        """A case with what was found."""
        case = planned.case
        return Record(
            case_id=case.case_id,
            group_id=case.group_id,
            machine=self.machine,
            **case.identity(),
            **{**planned.fields, **fields},
        )

    def learn(self, record: Record) -> None:
        """Takes down what a record, saved or not yet, says of longer cases of its series."""
        planned = self.planned.get(record.case_id)
        if planned is None:
            return  # of a variant that is no longer what it was when the run began
        series = planned.case.series()
        if record.status in RAN_OUT and record.n_k < self.ran_out.get(series, (math.inf, ""))[0]:
            self.ran_out[series] = record.n_k, record.status
        if record.status == "ok":
            self.series.setdefault(_shape(planned.case), Series()).learn(record)


def _shape(case: Case) -> tuple[Any, ...]:
    """The series whose time and memory follow one curve: square, or with the same number of queries."""
    return (*case.series(), "square" if case.n_q == case.n_k else case.n_q)
