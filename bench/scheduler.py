"""Runs the planned cases and turns each into exactly one record.

The variants of a group live side by side, each in a process of its own, and take turns: every round times each of them
once, in a fresh random order, while nobody else runs. Drift of the machine then hits all alike, and ratios are paired
by round. A group that does not fit into memory side by side is measured in parts, its baseline in each of them.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Protocol

from ..results.distributions import Realised
from ..results.record import Record
from ..results.run import Ceilings
from . import gpu, worker
from .asking import Asking
from .case import Case, groups
from .config import Config
from .counting import Counting
from .kept import KeptGroup
from .limits import memory_available
from .outcomes import Outcomes
from .plan import Plan, Planned
from .process import OutOfMemory, ready
from .sampling import Part, Sampling
from .turn import Turn, figures

HELD_SHARE = 0.5
"""Waiting variants keep the memory that they freed. Together they may hold this share of what was free before them."""
LITTLE_SHARE = 0.02
"""Where they hold more than this, one that runs out of memory beside them is tried again without them."""
DONE = object()


class Watcher(Protocol):
    """Whoever shows the progress."""

    def group(self, setting: str, cases: int) -> None: ...
    def step(self, text: str) -> None: ...
    def done(self, record: Record) -> None: ...


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
        counting: Counting,
        kept: Mapping[str, KeptGroup] | None = None,
        keep: Callable[[KeptGroup], None] | None = None,
        deadline: float = float("inf"),
        finished: Iterable[Record] = (),
        spent_s: defaultdict[str, float] | None = None,
    ) -> None:
        self.plan, self.machine, self.passes = plan, machine, config.passes
        self.kept, self.keep = kept or {}, keep
        self.waiting_bytes: dict[str, int] = {}
        """Memory of processes that wait for another pass, by group."""
        self.ceilings, self.watcher, self.counting = ceilings, watcher, counting
        self.how = worker.How(list(config.plugins), config.allocator == "keep", config.turn_time)
        # seconds by what they went to: the steps of cases, and `measured`, those inside of timed calls
        self.spent_s = defaultdict(float) if spent_s is None else spent_s
        self.realised: dict[str, Realised | None] = {}
        """What the inputs of each group are like: the same for all of its cases, and measured once."""
        self.outcomes = Outcomes(
            config, plan, machine=machine, save=save, done=watcher.done, deadline=deadline, finished=finished
        )
        self.asking = Asking(self.outcomes, self.spent_s, config.timeout, config.servers)
        self.sampling = Sampling(
            config,
            plan,
            self.asking,
            counting,
            how=self.how,
            realised=self.realised,
            step=watcher.step,
            deadline=deadline,
        )
        for record in self.outcomes.finished.values():
            if counting.placement is not None and record.handover_s and record.machine == machine:
                counting.placement.knows(record.threads, record.handover_s)

    def run(self) -> None:
        """Goes through all groups, short lengths first, and again while there are passes left. Every case is saved as
        one record, whatever happens to it."""
        found = (self.outcomes.left(group) for group in groups(planned.case for planned in self.plan.cases))
        going = deque((left, self._group(left)) for left in found if left)
        try:
            while going:
                left, group = going.popleft()
                self.watcher.group(left[0].case.setting, len(left))
                if next(group, DONE) is not DONE:
                    going.append((left, group))
        finally:
            for _, group in going:
                group.close()

    # -- one group ----------------------------------------------------------------------------------------------

    def _group(self, group: list[Planned]) -> Generator[None, None, None]:
        """Measures a group; yields where it goes on in another pass, which few of its processes wait for."""
        able = []
        for planned in group:
            if planned.reasons:
                self.outcomes.keep_bare(planned, "unsupported", planned.reasons)
            else:
                able.append(planned)
        # what was measured before a resume did not take turns with these: no ratio may join them
        apart = self.outcomes.timed_before(group[0].case.group_id)
        waiting = sorted(able, key=lambda planned: planned.fields["kind"] != "exact")  # one of them is the baseline
        baseline: Turn | None = None
        turns: list[Turn] = []
        number = 0
        before = self._kept(able)
        try:
            while waiting:
                number += 1
                turns = [baseline] if baseline else []
                if before is None:
                    waiting = self._admit(waiting, turns, number)
                    part = self.sampling.part(turns, self.machine, self._passes(turns))
                else:
                    part, waiting = before, []
                    before, turns = None, part.turns
                    self.sampling.resume(part)
                while self.sampling.take(part):
                    self._pause(part)
                    if number == 1 and not waiting:
                        self._keep_group(part)
                    yield
                    self.sampling.resume(part)
                turns = part.turns
                measured = [turn for turn in turns if not turn.recorded and self._weigh(turn)]
                if baseline is None and not apart:
                    exact = [turn for turn in measured if turn.planned.fields["kind"] == "exact"]
                    baseline = min(exact, key=lambda turn: turn.interval.value, default=None)  # type: ignore[union-attr]
                beside = baseline if baseline in [*turns, *measured] else None
                self.outcomes.keep([self._record(turn, beside) for turn in measured])
                for turn in measured:
                    if turn is not baseline:
                        turn.end_process()
                if waiting and beside is not None:
                    self.asking(beside, worker.rest)
                    baseline = beside.anew()
        finally:
            for turn in [*turns, *([baseline] if baseline else [])]:
                turn.end_process()
            self.waiting_bytes.pop(group[0].case.group_id, None)

    def _admit(self, waiting: list[Planned], turns: list[Turn], part: int) -> list[Planned]:
        """Sets up, beside `turns`, as many of those who wait as fit into memory; returns those who must wait on."""
        free = memory_available() or math.inf
        for index, planned in enumerate(waiting):
            if why := self.outcomes.why_not(planned.case, free):
                self.outcomes.keep_bare(planned, "skipped", [why])
                continue
            held = sum(turn.held_bytes for turn in turns)
            others = any(not turn.recorded for turn in turns)
            if others and held > HELD_SHARE * free:
                return waiting[index:]
            try:
                turn = self._set_up(planned, part, may_wait=others and held > LITTLE_SHARE * free)
            except OutOfMemory:
                return waiting[index:]
            if turn is not None:
                turns.append(turn)
                if turn.free_bytes is not None:  # of the GPU, which is where its memory is held
                    free = turn.free_bytes + held + turn.held_bytes
        return []

    def _set_up(self, planned: Planned, part: int, may_wait: bool) -> Turn | None:
        """Starts a case's process and checks it; a case that does not come through is saved, and None returned.

        Raises OutOfMemory for one that may wait until it is alone.
        """
        case = planned.case
        self.watcher.step(f"checking {case.variant}")
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        turn = Turn(planned, started_at, None, {}, part=part)
        try:
            if not self.asking.fresh(turn, 0) or self.asking(turn, ready) is None:
                return None
            answer = self.asking(
                turn,
                worker.set_up,
                case,
                self.how,
                self.plan.capture_path(case),
                self.realised.get(case.group_id),
                may_wait=may_wait,
            )
        except BaseException:  # Ctrl-C, a full disk: `turns` does not hold it yet, so nobody else would end it
            turn.end_process()
            raise
        if answer is None:
            return None
        self.realised[case.group_id] = answer["realised"]
        turn.fields = answer["fields"]
        turn.held_bytes, turn.free_bytes = answer["held_bytes"], answer.get("free_bytes")
        if not answer["correct"]:
            why = answer["problem"] or (
                f"{turn.fields['error_of']} differs from the definition by {turn.fields['error']:.3g} of its largest "
                f"value, {turn.fields['error_allowed']:.3g} is allowed"
            )
            self.asking.fail(turn, "incorrect", why)
            return None
        return turn

    def _pause(self, part: Part) -> None:
        """Ends a part's processes until another pass. What was found so far tells what longer lengths would take."""
        for turn in list(part.turns):
            if not turn.recorded:
                is_new = not turn.weighed
                if not self._weigh(turn):
                    part.drop(turn)
                    continue
                if is_new:
                    self.outcomes.learn(self._record(turn, None))
            if turn.resumable:
                turn.end_process()

    def _passes(self, turns: list[Turn]) -> int:
        """In how many passes cases are measured that wait side by side: those that no other process can go on with keep
        theirs, whose memory others then lack."""
        if self.passes == 1 or not turns:
            return 1
        held = sum(turn.held_bytes for turn in turns if not turn.resumable)
        of_all = held + sum(self.waiting_bytes.values())
        if any(gpu.is_gpu(turn.case.device) for turn in turns) or of_all > HELD_SHARE * (
            memory_available() or math.inf
        ):
            for turn in turns:
                turn.at_once = True
            return 1
        self.waiting_bytes[turns[0].case.group_id] = held
        return self.passes

    def _keep_group(self, part: Part) -> None:
        """Sees a group to the disk, of which all cases are in one part and other processes go on with them."""
        if self.keep is None or not part.turns or not all(turn.resumable for turn in part.turns):
            return
        self.keep(KeptGroup.of(part, self.realised[part.turns[0].case.group_id]))

    def _kept(self, group: list[Planned]) -> Part | None:
        """A group that waits for another pass, as it was before the run was stopped; None where it begins."""
        kept = self.kept.get(group[0].case.group_id) if group else None
        turns = kept.turns(group) if kept is not None else None
        if kept is None or turns is None:
            return None
        part = self.sampling.part(turns, f"{self.machine}{kept.passed}", self.passes)
        kept.onto(part)
        self.realised[kept.group_id] = kept.realised
        for turn in turns:
            self.outcomes.learn(self._record(turn, None))
            if self.counting.placement is not None and turn.handovers:
                self.counting.placement.knows(turn.case.threads, median(turn.handovers))
        return part

    def _weigh(self, turn: Turn) -> bool:
        """Weighs a case that was not weighed yet. False where it did not come through, and is saved."""
        if turn.weighed:
            return self.asking.untouched(turn, worker.look_back) is not None
        self.watcher.step(f"memory of {turn.case.variant}")
        answer = self.asking.untouched(turn, worker.weigh)
        if answer is None:
            return False
        turn.fields |= answer["fields"]
        turn.weighed = True
        return True

    def _record(self, turn: Turn, baseline: Turn | None) -> Record:
        shortest_s = self.counting.shortest_s(turn.case.threads)
        return self.outcomes.record(turn.planned, **figures(turn, baseline, self.ceilings(turn.case), shortest_s))
