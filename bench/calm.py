"""Whether others leave this machine's shared cache alone, and waiting until they do.

Nothing that a guest can do drives a neighbour off, as it can bring its own cores together (placement.py). Spells last
from seconds to some minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from ..results.conditions import EVICTION
from .patience import Patience

EVERY_S = 1.0
"""It is read this often at most: a spell lasts longer, and a turn may be shorter than a reading."""
READINGS = 3
"""Whose median is believed, where a first one tells of others."""
PAUSE_S = 0.5


class Calm:
    """Which turns count, by what `SharedCache` reads beside them. `pause` sleeps for so many seconds."""

    def __init__(self, patience: Patience, pause: Callable[[float], None] = time.sleep) -> None:
        self.patience, self.pause = patience, pause
        self.latest, self.read_at = 1.0, float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether to read it beside the next turn."""
        return self.patience.clock() >= self.read_at + EVERY_S

    def judge(self, eviction: float | None, read: Callable[[], float]) -> float | None:
        """What is read beside a turn that counts, lately where that was not due; None for one that does not count.

        `eviction` was read right after that turn; `read` reads again, in its process.
        """
        if eviction is None:
            return self.latest
        self._saw(eviction)
        if eviction < EVICTION or self.patience.is_over():
            return eviction
        if self._again(read) < EVICTION:
            return self.latest
        while not self.patience.is_over():
            self.pause(PAUSE_S)
            if self._again(read) < EVICTION:
                return None
        return self.latest

    def _again(self, read: Callable[[], float]) -> float:
        self._saw(median(read() for _ in range(READINGS)))
        return self.latest

    def _saw(self, eviction: float) -> None:
        self.latest, self.read_at = eviction, self.patience.clock()
