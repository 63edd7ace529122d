"""How much of a run may go to conditions that are alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

HEAD_START_S = 50.0
"""A run is taken for so much longer than it is, or one that has just begun would have none."""


class Patience:
    """Turns that do not count, and what is done for the others, may cost a share of the run's time: where others use
    the machine throughout, there would be no end.

    `share`: 0 for none. `deadline`: when nothing is waited for any more, by `clock`, which tells seconds.
    """

    def __init__(
        self, share: float, deadline: float = float("inf"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.share, self.deadline, self.clock = share, deadline, clock
        self.began = clock()
        self.cost_s = 0.0
        self.since: float | None = None
        """When the time began that is being spent."""

    def is_over(self, more_s: float = 0.0) -> bool:
        """Whether all of it was spent, or would be with so many seconds more."""
        now = self.clock()
        spent_s = self.cost_s + (0.0 if self.since is None else now - self.since)
        length_s = min(now - self.began + HEAD_START_S, self.deadline - self.began)
        return now >= self.deadline or spent_s + more_s >= self.share * length_s

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Of the time within."""
        self.since = self.clock()
        try:
            yield
        finally:
            self.cost_s += self.clock() - self.since
            self.since = None
