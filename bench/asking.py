"""Asks the process of a case. Where it has no answer, that is what the case's record says."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from .outcomes import Outcomes
from .process import Child, Died, OutOfMemory, Raised, TookTooLong
from .turn import Turn

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


class Asking:
    """`spent_s`: seconds by what they went to, which it adds to. `timeout_s`: for one step. `servers`: how many fork
    servers there are."""

    def __init__(self, outcomes: Outcomes, spent_s: defaultdict[str, float], timeout_s: float, servers: int) -> None:
        self.outcomes, self.spent_s, self.timeout_s, self.servers = outcomes, spent_s, timeout_s, servers

    def fresh(self, turn: Turn, number: int) -> bool:
        """Gives a process to a case that had `number` before, from one server after the other. Where there is none,
        the case is saved with the reason, and False returned."""
        began, why = time.monotonic(), ""
        try:
            turn.child = Child(number % self.servers, self.timeout_s)
        except Died as error:
            why = error.why
        took = time.monotonic() - began
        turn.wall_s += took
        self.spent_s["starting"] += took
        if why:
            self.fail(turn, "crashed", why)
        return not why

    def __call__(self, turn: Turn, function: Callable[..., Any], *args: Any, may_wait: bool = False) -> Any:
        """An answer of the case's process. Where it has none, the case is saved with the reason, and None returned.

        Raises OutOfMemory, with nothing saved, for a case that may wait.
        """
        assert turn.child is not None
        began = time.monotonic()
        try:
            return turn.child.call(function, *args, timeout_s=self.timeout_s)
        except OutOfMemory as error:
            if may_wait:
                turn.end_process()
                raise
            status, why = "oom", str(error)
        except TookTooLong:
            status, why = "timeout", f"took longer than {self.timeout_s:g} s in {function.__name__}"
        except Died as error:
            status, why = "crashed", error.why
        except Raised as error:
            status, why = "crashed", str(error)
        finally:
            took = time.monotonic() - began
            turn.wall_s += took
            self.spent_s[STEPS.get(function.__name__, function.__name__)] += took
        self.fail(turn, status, why)
        return None

    def untouched(self, turn: Turn, function: Callable[..., Any]) -> dict[str, Any] | None:
        """The answer of a step that looks at the inputs; a case whose calls wrote into them is saved as incorrect, and
        None returned, as where there is no answer."""
        answer: dict[str, Any] | None = self(turn, function)
        if answer is not None and answer["problem"]:
            self.fail(turn, "incorrect", answer["problem"])
            return None
        return answer

    def fail(self, turn: Turn, status: str, why: str) -> None:
        """Ends a case. One that has its record keeps that, whatever happens to it as the baseline of another part."""
        turn.end_process()
        if not turn.recorded:
            self.outcomes.keep_bare(turn.planned, status, [why], turn)
