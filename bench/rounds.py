"""Whether others leave this machine's shared cache alone, and waiting until they do.

Nothing that a guest can do drives a neighbour off, as it can bring its own cores together (placement.py). Spells last
from seconds to some minutes.
"""

from __future__ import annotations

from collections.abc import Callable

from ..results.conditions import EVICTION
from .patience import Patience

EVERY_S = 1.0
"""It is read this often at most: a spell lasts longer, and a turn may be shorter than a reading."""
PAUSE_S = 0.5
LONGEST_S = 180.0
"""Of waiting at once."""
REST_S = 30.0
"""After a wait in vain every turn counts for so long, and for twice as long after the next: there may be no other
state to wait for."""


class Calm:
    """Which turns count, by what `SharedCache` reads beside them. `pause` sleeps for so many seconds."""

    def __init__(self, patience: Patience, pause: Callable[[float], None]) -> None:
        self.patience, self.pause = patience, pause
        self.read_at = self.resting = float("-inf")
        """When it was last read, and until when nothing is waited for."""
        self.rest_s = REST_S

    @property
    def is_due(self) -> bool:
        """Whether to read it beside the next turn."""
        return self.patience.clock() >= self.read_at + EVERY_S

    def judge(self, eviction: float, took_s: float, read: Callable[[], float]) -> bool:
        """Whether a turn of so many seconds counts beside which that was read; `read` reads again, in its process."""
        began = self.read_at = self.patience.clock()
        if eviction < EVICTION:
            self.rest_s = REST_S
            return True
        if began < self.resting:
            return True
        while not self.patience.is_over(took_s) and self.patience.clock() < began + LONGEST_S:
            self.pause(PAUSE_S)
            if read() < EVICTION:
                self.read_at = float("-inf")  # the turn that is taken again is looked at, too
                return False
        if self.patience.clock() > began:
            self.resting = self.patience.clock() + self.rest_s
            self.rest_s *= 2
        return True
