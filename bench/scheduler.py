"""Runs the planned cases and turns each into exactly one record.

The variants of a group live side by side, each in a process of its own, and take turns: every round times each of them
once, in a fresh random order, while nobody else runs. Drift of the machine then hits all alike, and ratios are paired
by round. A group that does not fit into memory side by side is measured in parts, its baseline in each of them.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

from ..results.distributions import Realised
from ..results.record import Record
from ..results.run import Ceilings
from ..results.statistics import median_interval
from . import worker
from .case import Case, groups
from .config import Config
from .counting import Counting
from .limits import memory_available
from .outcomes import Outcomes
from .plan import Plan, Planned
from .process import Child, Died, OutOfMemory, Raised, TookTooLong, ready
from .rounds import Rounds
from .turn import Taken, Turn, figures

HELD_SHARE = 0.5
"""Waiting variants keep the memory that they freed. Together they may hold this share of what was free before them."""
LITTLE_SHARE = 0.02
"""Where they hold more than this, one that runs out of memory beside them is tried again without them."""
RETAKES = 3
"""Of a turn that does not count."""
STEPS = {
    "ready": "starting",
    "set_up": "checking",
    "look_back": "renewing",
    "set_up_again": "renewing",
    "sample": "sampling",
    "handover": "placing",
    "weigh": "weighing",
}
"""What run.json calls the steps of a case, where it says how much time went to each."""


class _Gone(Exception):
    """A case's process did not come through, and the case is saved."""


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
        deadline: float = float("inf"),
        finished: Iterable[Record] = (),
        spent_s: defaultdict[str, float] | None = None,
    ) -> None:
        self.config, self.plan, self.machine = config, plan, machine
        self.ceilings, self.watcher, self.counting = ceilings, watcher, counting
        self.deadline = deadline  # by time.monotonic()
        self.how = worker.How(list(config.plugins), config.allocator == "keep", config.turn_time)
        # seconds by what they went to: the steps of cases, and `measured`, those inside of timed calls
        self.spent_s = defaultdict(float) if spent_s is None else spent_s
        self.realised: dict[str, Realised | None] = {}
        """What the inputs of each group are like: the same for all of its cases, and measured once."""
        self.outcomes = Outcomes(
            config, plan, machine=machine, save=save, done=watcher.done, deadline=deadline, finished=finished
        )
        for record in self.outcomes.finished.values():
            if counting.placement is not None and record.handover_s and record.machine == machine:
                counting.placement.knows(record.threads, record.handover_s)

    def run(self) -> None:
        """Goes through all groups, short lengths first. Every case is saved as one record, whatever happens to it."""
        for group in groups(planned.case for planned in self.plan.cases):
            if left := self.outcomes.left(group):
                self.watcher.group(left[0].case.setting, len(left))
                self._group(left)

    # -- one group ----------------------------------------------------------------------------------------------

    def _group(self, group: list[Planned]) -> None:
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
        part = 0
        try:
            while waiting:
                part += 1
                turns = [baseline] if baseline else []
                waiting = self._admit(waiting, turns, part)
                turns = self._rounds(turns)
                measured = [turn for turn in turns if not turn.recorded and self._weigh(turn)]
                if baseline is None and not apart:
                    exact = [turn for turn in measured if turn.planned.fields["kind"] == "exact"]
                    baseline = min(exact, key=lambda turn: turn.interval.value, default=None)  # type: ignore[union-attr]
                beside = baseline if baseline in [*turns, *measured] else None
                self.outcomes.keep(
                    [
                        self.outcomes.record(
                            turn.planned,
                            **figures(
                                turn,
                                beside,
                                self.ceilings(turn.case),
                                self.counting.shortest_s(turn.case.threads),
                            ),
                        )
                        for turn in measured
                    ]
                )
                for turn in measured:
                    if turn is not baseline:
                        turn.child.close()
                if waiting and beside is not None:
                    self._ask(beside, worker.rest)
                    baseline = beside.anew()
        finally:
            for turn in [*turns, *([baseline] if baseline else [])]:
                turn.child.close()

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
        began = time.monotonic()
        turn = Turn(planned, datetime.now(UTC).isoformat(timespec="milliseconds"), Child(), {}, part=part)
        self._started(turn, time.monotonic() - began)
        try:
            if self._ask(turn, ready) is None:
                return None
            answer = self._ask(
                turn,
                worker.set_up,
                case,
                self.how,
                self.plan.capture_path(case),
                self.realised.get(case.group_id),
                may_wait=may_wait,
            )
        except BaseException:  # Ctrl-C, a full disk: `turns` does not hold it yet, so nobody else would end it
            turn.child.close()
            raise
        if answer is None:
            return None
        self.realised[case.group_id] = answer["realised"]
        turn.fields = answer["fields"]
        turn.held_bytes, turn.free_bytes = answer["held_bytes"], answer.get("free_bytes")
        if not answer["correct"]:
            turn.child.close()
            why = answer["problem"] or (
                f"{turn.fields['error_of']} differs from the definition by {turn.fields['error']:.3g} of its largest "
                f"value, {turn.fields['error_allowed']:.3g} is allowed"
            )
            self.outcomes.keep_bare(planned, "incorrect", [why], turn)
            return None
        return turn

    def _rounds(self, turns: list[Turn]) -> list[Turn]:
        """Takes samples in turns until each is precise enough or out of time; returns those that came through.

        None rests before it stops, so that rounds are paired by their number, whichever process takes part in them.
        Where others use the shared cache, further rounds are taken as patience allows (rounds.py).
        """
        order = random.Random(f"{self.machine}{[turn.case.case_id for turn in turns]}")
        alive, active = list(turns), list(turns)
        rounds = Rounds(self.counting.looks and any(turn.shares_cache for turn in turns))
        for done in itertools.count(1):
            further = [(turn, turn.wall_s) for turn in active if turn.needed]
            for turn in list(active):
                if self._is_due(turn, done) and not self._renew(turn):
                    alive.remove(turn)
                    active.remove(turn)
            for turn in order.sample(active, len(active)):
                self.watcher.step(f"round {done}: {turn.case.variant}")
                if not self._take(turn, rounds):
                    alive.remove(turn)
                    active.remove(turn)
            if not active:
                break
            rounds.end()
            self.counting.patience.cost_s += sum(turn.wall_s - before_s for turn, before_s in further)
            if done < self.config.min_rounds:
                continue
            active = [turn for turn in active if self._goes_on(turn, done, rounds)]
            if not active:
                break
        if rounds.looks:
            self._count(alive, rounds)
        return alive

    def _take(self, turn: Turn, rounds: Rounds) -> bool:
        """One turn. False where its process did not come through, and its case is saved."""
        for left in reversed(range(RETAKES + 1)):
            before = turn.wall_s
            answer = self._ask(turn, worker.sample, rounds.is_due)
            if answer is None:
                return False
            (seconds, beside), took_s = answer, turn.wall_s - before
            if beside.eviction is not None:
                rounds.read(beside.eviction)
            handover_s = beside.handover_s
            if handover_s is None or not left:
                break
            try:
                handover_s = self._judge(turn, handover_s, took_s)
            except _Gone:
                return False
            if handover_s is not None:
                break
            self.counting.patience.cost_s += took_s
            self.spent_s["sampling"] -= took_s
            self.spent_s["placing"] += took_s
        taken = Taken(turn.processes, took_s, seconds * turn.fields["calls_per_sample"], handover_s)
        turn.samples.append(seconds)
        turn.taken.append(taken)
        turn.sampling_s += took_s
        self.spent_s["measured"] += taken.timed_s
        return True

    def _judge(self, turn: Turn, handover_s: float, took_s: float) -> float | None:
        """What handing work over took beside a turn, or None where it does not count for that.

        Raises _Gone where its process did not come through.
        """
        placement = self.counting.placement
        if placement is None:
            return handover_s
        # accounts for the time within, whatever was asked meanwhile
        before, began = self.spent_s["placing"], time.monotonic()
        try:
            with self.counting.patience.spending():
                return placement.judge(turn.case.threads, handover_s, took_s, functools.partial(self._read, turn))
        finally:
            self.spent_s["placing"] = before + time.monotonic() - began

    def _read(self, turn: Turn) -> float:
        """What handing work over takes now, in a case's process. Raises _Gone where that did not come through."""
        answer = self._ask(turn, worker.handover)
        if answer is None:
            raise _Gone
        return float(answer)

    def _goes_on(self, turn: Turn, done: int, rounds: Rounds) -> bool:
        """Whether a case takes another round: it needs one, or others used the cache beside those it had."""
        if not turn.needed:
            turn.interval = median_interval(turn.samples)
            turn.stopped_by = self._stop(turn, done)
            if turn.stopped_by is None:
                return True
            turn.needed = done
        return rounds.lack(turn.needed) and not self.counting.patience.is_over(turn.call_s)

    def _count(self, turns: list[Turn], rounds: Rounds) -> None:
        """Keeps what was sampled in rounds that count."""
        counting = rounds.counting((turn.needed, len(turn.samples)) for turn in turns)
        for turn in turns:
            for left_out in turn.count(counting, rounds.evictions):
                self.spent_s["measured"] -= left_out.timed_s
                self.spent_s["sampling"] -= left_out.took_s
                self.spent_s["left_out"] += left_out.took_s

    def _is_due(self, turn: Turn, done: int) -> bool:
        """Whether its process has had its share: of the fewest rounds, then of the case's time, of which another one
        must have half a share left, and of further rounds as of those that were needed."""
        if done == 1 or not turn.renewable:
            return False
        rounds, seconds = turn.of_this_process
        if done <= self.config.min_rounds or turn.needed:
            return rounds >= math.ceil((turn.needed or self.config.min_rounds) / self.config.processes)
        share = self.config.case_time / self.config.processes
        return seconds >= share and self.config.case_time - turn.sampling_s >= share / 2

    def _renew(self, turn: Turn) -> bool:
        """Goes on with a case in a fresh process. What it computes was checked in the first one."""
        self.watcher.step(f"another process for {turn.case.variant}")
        answer = self._ask(turn, worker.look_back)
        if answer is None or not self._is_untouched(turn, answer):
            return False
        turn.child.close()
        began = time.monotonic()
        turn.child = Child()
        self._started(turn, time.monotonic() - began)
        if self._ask(turn, ready) is None:
            return False
        case = turn.case
        known = self.realised[case.group_id]
        capture = self.plan.capture_path(case)
        answer = self._ask(turn, worker.set_up_again, case, self.how, capture, known, turn.call_s)
        if answer is None:
            return False
        turn.fields["calls_per_sample"], turn.held_bytes = answer["calls_per_sample"], answer["held_bytes"]
        turn.renewed()
        return True

    def _started(self, turn: Turn, took_s: float) -> None:
        """Accounts for the start of a process."""
        turn.wall_s += took_s
        self.spent_s["starting"] += took_s

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
        if answer is None or not self._is_untouched(turn, answer):
            return False
        turn.fields |= answer["fields"]
        return True

    def _is_untouched(self, turn: Turn, answer: dict[str, Any]) -> bool:
        """Whether no call has written into its inputs; a case whose calls did is saved as incorrect."""
        if not answer["problem"]:
            return True
        turn.child.close()
        self.outcomes.keep_bare(turn.planned, "incorrect", [answer["problem"]], turn)
        return False

    def _ask(self, turn: Turn, function: Callable[..., Any], *args: Any, may_wait: bool = False) -> Any:
        """An answer of the case's process. Where it has none, the case is saved with the reason, and None returned.

        Raises OutOfMemory, with nothing saved, for a case that may wait.
        """
        began = time.monotonic()
        try:
            return turn.child.call(function, *args, timeout_s=self.config.timeout)
        except OutOfMemory as error:
            if may_wait:
                turn.child.close()
                raise
            status, why = "oom", str(error)
        except TookTooLong:
            status, why = "timeout", f"took longer than {self.config.timeout:g} s in {function.__name__}"
        except Died as error:
            status, why = "crashed", error.why
        except Raised as error:
            status, why = "crashed", str(error)
        finally:
            took = time.monotonic() - began
            turn.wall_s += took
            self.spent_s[STEPS.get(function.__name__, function.__name__)] += took
        turn.child.close()
        if turn.recorded:
            return None
        self.outcomes.keep_bare(turn.planned, status, [why], turn)
        return None
