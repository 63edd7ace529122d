"""Runs the planned cases and turns each into exactly one record.

The variants of a group live side by side, each in a process of its own, and take turns: every round times each of them
once, in a fresh random order, while nobody else runs. Drift of the machine then hits all alike, and ratios are paired
by round.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from ..results.record import Record
from ..results.run import Ceilings
from ..results.statistics import Interval, median_interval, paired_ratio
from . import worker
from .case import Case, groups
from .config import Config
from .plan import Plan, Planned
from .process import Child, Died, OutOfMemory, Raised, TookTooLong
from .roofline import share

RAN_OUT = ("oom", "timeout")


class Watcher(Protocol):
    """Whoever shows the progress."""

    def group(self, setting: str, cases: int) -> None: ...
    def step(self, text: str) -> None: ...
    def done(self, record: Record) -> None: ...


@dataclass
class Turn:
    """One variant of the group that is being measured."""

    planned: Planned
    started_at: str
    child: Child
    fields: dict[str, Any]
    samples: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    """All time that its process worked on it."""
    sampling_s: float = 0.0
    interval: Interval | None = None
    stopped_by: str | None = None

    @property
    def interrupted(self) -> bool:
        """Most samples took over twice the fastest: the system gave the cores to others, in slices as regular as a
        steady time."""
        assert self.interval is not None
        return self.interval.value > 2 * min(self.samples)

    @property
    def case(self) -> Case:
        return self.planned.case


class Scheduler:
    """Measures the cases of a plan that have no record yet."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        *,
        machine: str,
        ceilings: Callable[[Case], Ceilings],
        save: Callable[[list[Record]], None],
        watcher: Watcher,
        deadline: float = float("inf"),
        finished: Collection[str] = (),
    ) -> None:
        self.config, self.plan, self.machine = config, plan, machine
        self.ceilings, self.save, self.watcher, self.finished = ceilings, save, watcher, finished
        self.planned = {planned.case.case_id: planned for planned in plan.cases}
        self.ran_out: dict[tuple[Any, ...], tuple[int, str]] = {}
        self.deadline = deadline  # by time.monotonic()
        self.plugins = list(config.plugins)

    def run(self) -> None:
        """Goes through all groups, short lengths first. Every case is saved as one record, whatever happens to it."""
        for group in groups(planned.case for planned in self.plan.cases):
            left = [self.planned[case.case_id] for case in group if case.case_id not in self.finished]
            if left:
                self.watcher.group(left[0].case.setting, len(left))
                self._group(left)

    # -- one group ----------------------------------------------------------------------------------------------

    def _group(self, group: list[Planned]) -> None:
        able = []
        for planned in group:
            if planned.reasons:
                self._finish([self._bare(planned, "unsupported", planned.reasons)])
            elif why := self._skip(planned.case):
                self._finish([self._bare(planned, "skipped", [why])])
            else:
                able.append(planned)
        turns: list[Turn] = []
        # what was measured before a resume did not take turns with these: no ratio may join them
        apart = any(
            p.case.case_id in self.finished and p.case.group_id == group[0].case.group_id for p in self.plan.cases
        )
        try:
            for planned in able:
                if (turn := self._set_up(planned)) is not None:
                    turns.append(turn)
            turns = self._rounds(turns)
            turns = [turn for turn in turns if self._weigh(turn)]
            self._finish(self._measured(turns, apart))
        finally:
            for turn in turns:
                turn.child.close()

    def _set_up(self, planned: Planned) -> Turn | None:
        """Starts a case's process and checks it; a case that does not come through is saved, and None returned."""
        case = planned.case
        self.watcher.step(f"checking {case.variant}")
        turn = Turn(planned, datetime.now(UTC).isoformat(timespec="milliseconds"), Child(), {})
        answer = self._ask(turn, worker.set_up, case, self.plugins, self.plan.capture_path(case))
        if answer is None:
            return None
        turn.fields = answer["fields"]
        if not answer["correct"]:
            turn.child.close()
            why = answer["problem"] or (
                f"{turn.fields['error_of']} differs from the definition by {turn.fields['error']:.3g} of its largest "
                f"value, {turn.fields['error_allowed']:.3g} is allowed"
            )
            self._finish([self._bare(planned, "incorrect", [why], turn)])
            return None
        return turn

    def _rounds(self, turns: list[Turn]) -> list[Turn]:
        """Takes samples in turns until each is precise enough or out of time; returns those that came through."""
        order = random.Random(f"{self.machine}{[turn.case.case_id for turn in turns]}")
        alive, active = list(turns), list(turns)
        for done in range(1, self.config.max_rounds + 1):
            for turn in order.sample(active, len(active)):
                self.watcher.step(f"round {done}: {turn.case.variant}")
                before = turn.wall_s
                seconds = self._ask(turn, worker.sample)
                if seconds is None:
                    alive.remove(turn)
                    active.remove(turn)
                    continue
                turn.samples.append(seconds)
                turn.sampling_s += turn.wall_s - before
            if done < self.config.min_rounds:
                continue
            for turn in list(active):
                turn.interval = median_interval(turn.samples)
                turn.stopped_by = self._stop(turn, done)
                if turn.stopped_by:
                    active.remove(turn)
            if not active:
                break
        return alive

    def _stop(self, turn: Turn, done: int) -> str | None:
        assert turn.interval is not None
        if turn.interval.half_width <= self.config.precision and not turn.interrupted:
            return "precision"
        if turn.sampling_s >= self.config.case_time or time.monotonic() > self.deadline:
            return "time"
        return "rounds" if done == self.config.max_rounds else None

    def _weigh(self, turn: Turn) -> bool:
        self.watcher.step(f"memory of {turn.case.variant}")
        answer = self._ask(turn, worker.weigh)
        if answer is None:
            return False
        turn.fields |= answer
        turn.child.close()
        return True

    def _ask(self, turn: Turn, function: Callable[..., Any], *args: Any) -> Any:
        """An answer of the case's process. Where it has none, the case is saved with the reason, and None returned."""
        began = time.monotonic()
        try:
            return turn.child.call(function, *args, timeout_s=self.config.timeout)
        except OutOfMemory as error:
            status, why = "oom", str(error)
        except TookTooLong:
            status, why = "timeout", f"took longer than {self.config.timeout:g} s in {function.__name__}"
        except Died as error:
            status, why = "crashed", error.why
        except Raised as error:
            status, why = "crashed", str(error)
        finally:
            turn.wall_s += time.monotonic() - began
        turn.child.close()
        if status in RAN_OUT:
            self.ran_out.setdefault(turn.case.series(), (turn.case.n_k, status))
        self._finish([self._bare(turn.planned, status, [why], turn)])
        return None

    def _skip(self, case: Case) -> str | None:
        if time.monotonic() > self.deadline:
            return f"the time budget of {self.config.time_budget:g} s was used up"
        ran_out = self.ran_out.get(case.series())
        if ran_out is not None and case.n_k > ran_out[0]:
            return f"ended as {ran_out[1]} at length {ran_out[0]} already"
        return None

    # -- records ------------------------------------------------------------------------------------------------

    def _finish(self, records: list[Record]) -> None:
        if records:
            self.save(records)
        for record in records:
            self.watcher.done(record)

    def _bare(self, planned: Planned, status: str, reasons: list[str], turn: Turn | None = None) -> Record:
        fields = dict(turn.fields) if turn else {}
        fields["wall_s"] = turn.wall_s if turn else 0.0
        fields["started_at"] = turn.started_at if turn else datetime.now(UTC).isoformat(timespec="milliseconds")
        return self._record(planned, status=status, reasons=reasons, **fields)

    def _record(self, planned: Planned, **fields: Any) -> Record:
        case = planned.case
        return Record(
            case_id=case.case_id,
            group_id=case.group_id,
            machine=self.machine,
            **case.identity(),
            **{**planned.fields, **fields},
        )

    def _measured(self, turns: list[Turn], apart: bool) -> list[Record]:
        """The records of a group, with ratios to its fastest exact variant: none where it was measured in two parts."""
        exact = [turn for turn in turns if turn.planned.fields["kind"] == "exact" and not apart]
        baseline = min(exact, key=lambda turn: turn.interval.value, default=None)  # type: ignore[union-attr]
        return [self._record(turn.planned, **self._figures(turn, baseline)) for turn in turns]

    def _figures(self, turn: Turn, baseline: Turn | None) -> dict[str, Any]:
        assert turn.interval is not None
        case, time_s = turn.case, turn.interval.value
        figures: dict[str, Any] = {
            **turn.fields,
            "status": "ok",
            "started_at": turn.started_at,
            "wall_s": turn.wall_s,
            "time_s": time_s,
            "time_s_low": turn.interval.low,
            "time_s_high": turn.interval.high,
            "samples_s": turn.samples,
            "stopped_by": turn.stopped_by,
            "tokens_per_s": case.batch * case.n_q / time_s,
        }
        figures["reasons"] = notes = []
        if turn.interrupted:
            notes.append(
                f"half of its samples took over twice the fastest, {min(turn.samples):.3g} s: the machine was busy"
            )
        reached = share(case, turn.planned.fields["flops_needed"], time_s, self.ceilings(case))
        if reached <= 1:
            figures["ceiling_share"] = reached
        else:
            notes.append("no share of the ceiling: its `flops_needed` is more than this machine can do in its time")
        if baseline is not None:
            ratio = paired_ratio(turn.samples, baseline.samples)
            figures |= {
                "baseline": baseline.case.variant,
                "ratio": ratio.value,
                "ratio_low": ratio.low,
                "ratio_high": ratio.high,
            }
        return figures
