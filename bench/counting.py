"""Which turns count: those that were taken under the conditions of the run's others.

Two things in which no variant has a part change ratios: where a host places the cores, and whether others use the
cache that these share. Both are read beside turns, and a turn that was taken under other conditions is taken again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .calm import Calm
from .patience import Patience
from .placement import Placement


@dataclass(frozen=True)
class Beside:
    """What was read right after a turn; None for what was not."""

    handover_s: float | None = None
    """See handover.py."""
    eviction: float | None = None
    """See shared_cache.py."""


class Counting:
    """Which turns count. `placement`: None where the cores stay where they are, or may lie anywhere."""

    def __init__(self, patience: Patience, calm: Calm, placement: Placement | None) -> None:
        self.patience, self.calm, self.placement = patience, calm, placement

    def of_cores(self, threads: int, beside: Beside, read: Callable[[], float]) -> Beside | None:
        """What is true beside a turn that counts for where the cores lie; None for one that does not."""
        if beside.handover_s is None or self.placement is None:
            return beside
        with self.patience.spending():
            found = self.placement.judge(threads, beside.handover_s, read)
        return None if found is None else Beside(found, beside.eviction)

    def of_cache(self, beside: Beside, read: Callable[[], float]) -> Beside | None:
        """The same for who uses the shared cache."""
        with self.patience.spending():
            found = self.calm.judge(beside.eviction, read)
        return None if found is None else Beside(beside.handover_s, found)

    def shortest_s(self, threads: int) -> float | None:
        """What handing work to so many threads takes with the cores together, where turns are chosen by it."""
        return None if self.placement is None else self.placement.shortest_s.get(threads)
