"""Rounds of the cases that wait side by side, each in a process of its own: one turn of each, in a fresh random order.

A run may go through its cases in several passes. Each takes a share of every case's fewest rounds, by processes of its
own. What a host's other guests do changes over minutes: rounds taken one after the other see one moment of it, and the
interval that they make is of that moment.
"""

from __future__ import annotations

import functools
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..results.distributions import Realised
from ..results.statistics import median_interval
from . import worker
from .asking import Asking
from .config import Config
from .counting import Counting
from .plan import Plan
from .process import ready
from .rounds import Rounds
from .turn import Taken, Turn

RETAKES = 3
"""Of a turn that does not count."""


class _Gone(Exception):
    """A case's process did not come through, and the case is saved."""


@dataclass
class Part:
    """Cases that take turns: a group, or as much of it as fits into memory."""

    turns: list[Turn]
    """Those that came through so far."""
    rounds: Rounds
    order: random.Random
    goals: list[int]
    """The rounds with which each pass but the last ends."""
    active: list[Turn] = field(init=False)
    """Those that take further rounds. None rests before it stops, so that rounds are paired by their number, whichever
    process takes part in them."""
    done: int = 0
    extra: int = 0
    """Of these, what earlier passes took beyond their goals."""
    passed: int = 0
    """Passes that ended."""

    def __post_init__(self) -> None:
        self.active = list(self.turns)

    @property
    def is_last(self) -> bool:
        return self.passed == len(self.goals)

    @property
    def goal(self) -> float:
        """After how many rounds the present pass may end before its cases do."""
        return math.inf if self.is_last else self.goals[self.passed] + self.extra

    def drop(self, turn: Turn) -> None:
        """A case that did not come through."""
        self.turns.remove(turn)
        if turn in self.active:
            self.active.remove(turn)

    def end_pass(self) -> None:
        self.extra += self.done - int(self.goal)
        self.passed += 1
        for turn in self.turns:
            turn.interval = median_interval(turn.samples)


class Sampling:
    """`realised`: what the inputs of each group are like. `how`: how processes measure. `step` is told what goes on.
    `deadline`: by time.monotonic()."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        asking: Asking,
        counting: Counting,
        *,
        how: worker.How,
        realised: dict[str, Realised | None],
        step: Callable[[str], None],
        deadline: float,
    ) -> None:
        self.config, self.plan, self.asking, self.counting = config, plan, asking, counting
        self.how, self.realised, self.step, self.deadline = how, realised, step, deadline
        self.spent_s = asking.spent_s

    def part(self, turns: list[Turn], seed: str, passes: int) -> Part:
        """Cases that have been set up and are to take turns, in an order that the seed draws."""
        least = self.config.min_rounds
        return Part(
            list(turns),
            Rounds(self.counting.looks and any(turn.shares_cache for turn in turns)),
            random.Random(f"{seed}{[turn.case.case_id for turn in turns]}"),
            [least * number // passes for number in range(1, passes)],
        )

    def take(self, part: Part) -> bool:
        """Takes samples in turns until each case is precise enough or out of time; or until the end of a pass: then
        True, and it is to be called again, for which processes may end meanwhile (`resume`).

        Where others use the shared cache, further rounds are taken as patience allows (rounds.py).
        """
        while part.active:
            part.done += 1
            is_extra = part.done > part.goal
            further = [(turn, turn.wall_s) for turn in part.active if turn.needed or is_extra]
            for turn in list(part.active):
                if self._is_due(turn, part) and not (self._look_back(turn) and self._go_on(turn)):
                    part.drop(turn)
            for turn in part.order.sample(part.active, len(part.active)):
                self.step(f"round {part.done}: {turn.case.variant}")
                if not self._take(turn, part.rounds):
                    part.drop(turn)
            if not part.active:
                break
            part.rounds.end()
            if not is_extra:
                for turn in part.active:
                    turn.sampling_s += turn.taken[-1].took_s
            self.counting.patience.cost_s += sum(turn.wall_s - before_s for turn, before_s in further)
            if part.is_last:
                if part.done - part.extra >= self.config.min_rounds:
                    part.active = [turn for turn in part.active if self._goes_on(turn, part)]
            elif part.done >= part.goal:
                round_s = sum(turn.taken[-1].took_s for turn in part.active)
                if not self._lacks(part, part.goals[part.passed], round_s):
                    part.end_pass()
                    return True
        if part.rounds.looks:
            self._count(part)
        return False

    def resume(self, part: Part) -> None:
        """Fresh processes for another pass, but for cases that go on in the one that they have."""
        for turn in list(part.turns):
            if turn.resumable and not self._go_on(turn):
                part.drop(turn)

    def _take(self, turn: Turn, rounds: Rounds) -> bool:
        """One turn. False where its process did not come through, and its case is saved."""
        for left in reversed(range(RETAKES + 1)):
            before = turn.wall_s
            answer = self.asking(turn, worker.sample, rounds.is_due, rounds.others)
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
        taken = Taken(turn.processes, took_s, beside.timed_s, handover_s)
        turn.samples.append(seconds)
        turn.taken.append(taken)
        self.spent_s["measured"] += taken.timed_s
        return True

    def _judge(self, turn: Turn, handover_s: float, took_s: float) -> float | None:
        """What small work took beside a turn, or None where it does not count for that.

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
        """What small work takes now, in a case's process. Raises _Gone where that did not come through."""
        answer = self.asking(turn, worker.handover)
        if answer is None:
            raise _Gone
        return float(answer)

    def _goes_on(self, turn: Turn, part: Part) -> bool:
        """Whether a case takes another round: it needs one, or others used the cache beside those it had."""
        if not turn.needed:
            turn.interval = median_interval(turn.samples)
            turn.stopped_by = self._stop(turn, part.done - part.extra)
            if turn.stopped_by is None:
                return True
            turn.needed = part.done - part.extra
        return self._lacks(part, turn.needed, turn.call_s)

    def _lacks(self, part: Part, needed: int, another_s: float) -> bool:
        """Whether fewer than the needed rounds were calm, and patience has room for another of so many seconds."""
        return part.rounds.lack(needed) and not self.counting.patience.is_over(another_s)

    def _stop(self, turn: Turn, done: int) -> str | None:
        assert turn.interval is not None
        if turn.interval.half_width <= self.config.precision and not turn.interrupted:
            return "precision"
        if turn.sampling_s >= self.config.case_time or time.monotonic() > self.deadline:
            return "time"
        return "rounds" if done == self.config.max_rounds else None

    def _count(self, part: Part) -> None:
        """Keeps what was sampled in rounds that count."""
        counting = part.rounds.counting((turn.needed, len(turn.samples)) for turn in part.turns)
        for turn in part.turns:
            for left_out in turn.count(counting, part.rounds.evictions):
                self.spent_s["measured"] -= left_out.timed_s
                self.spent_s["sampling"] -= left_out.took_s
                self.spent_s["left_out"] += left_out.took_s

    def _is_due(self, turn: Turn, part: Part) -> bool:
        """Whether its process has had its share: of the fewest rounds; then of the case's time or of the most rounds,
        of both of which half a share must be left for another one; and of further rounds as of those that were needed.
        """
        if part.done == 1 or not turn.renewable:
            return False
        config, done = self.config, part.done - part.extra - 1
        rounds, seconds = turn.of_this_process
        if done < config.min_rounds or turn.needed:
            return rounds >= math.ceil((turn.needed or config.min_rounds) / config.processes)
        share_s, share = config.case_time / config.processes, config.max_rounds / config.processes
        has_had = seconds >= share_s or rounds >= share
        return has_had and config.case_time - turn.sampling_s >= share_s / 2 and config.max_rounds - done >= share / 2

    def _look_back(self, turn: Turn) -> bool:
        """Whether the process that a case leaves has not written into its inputs; it is ended."""
        self.step(f"another process for {turn.case.variant}")
        if self.asking.untouched(turn, worker.look_back) is None:
            return False
        turn.end_process()
        return True

    def _go_on(self, turn: Turn) -> bool:
        """Goes on with a case in a fresh process. What it computes was checked in the first one."""
        if not self.asking.fresh(turn, turn.processes) or self.asking(turn, ready) is None:
            return False
        case = turn.case
        known, capture = self.realised[case.group_id], self.plan.capture_path(case)
        answer = self.asking(turn, worker.set_up_again, case, self.how, capture, known, turn.call_s)
        if answer is None:
            return False
        turn.fields["calls_per_sample"], turn.held_bytes = answer["calls_per_sample"], answer["held_bytes"]
        turn.renewed()
        return True
