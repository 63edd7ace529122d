"""Which rounds of a group count: those beside which others left the shared cache alone, where these are enough.

Nothing that a guest can do drives a neighbour off, as it can bring its own cores together (placement.py), and waiting
for the end of a spell measures nothing: some last for hours. So rounds are taken beyond those that are needed. Once
there are as many calm ones as that, they count alone; where patience ends before, all count, and are the more for it.
What is read knows nothing of the variants.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median

from ..results.conditions import EVICTION

EVERY_S = 1.0
"""It is read this often at most: most spells last longer, and a turn may be shorter than a reading."""


class Rounds:
    """What others did to the shared cache beside each round. `looks`: whether it is read at all."""

    def __init__(self, looks: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.looks, self.clock = looks, clock
        self.evictions: list[float] = []
        self._readings: list[float] = []
        """In the present round."""
        self._read_at = float("-inf")
        self.others = False
        """Whether they used it when it was last read."""

    @property
    def is_due(self) -> bool:
        """Whether to read beside the next turn."""
        return self.looks and self.clock() >= self._read_at + EVERY_S

    def read(self, eviction: float) -> None:
        """Takes down what was read right after a turn."""
        self._read_at = self.clock()
        self._readings.append(eviction)
        self.others = eviction >= EVICTION

    def end(self) -> None:
        """Ends a round. For one in which nothing was read, what was read last holds."""
        if self.looks:
            self.evictions.append(median(self._readings) if self._readings else self.evictions[-1])
            self._readings = []

    def lack(self, needed: int) -> bool:
        """Whether fewer than so many were calm."""
        return self.looks and len(self._calm) < needed

    def counting(self, cases: Iterable[tuple[int, int]]) -> list[int]:
        """The numbers, from 0, of the rounds that count, the same for all cases of a group so that these stay paired.

        cases: how many rounds each needs, and how many it took, from the first on.
        """
        calm = self._calm
        if all(sum(number < took for number in calm) >= needed for needed, took in cases):
            return calm
        return list(range(len(self.evictions)))

    @property
    def _calm(self) -> list[int]:
        return [number for number, eviction in enumerate(self.evictions) if eviction < EVICTION]
