"""Which turns count: those that were taken under the conditions of the run's others.

Two things in which no variant has a part change ratios: where a host places the cores, and whether others use the
cache that these share. Both are read beside turns. A turn that was taken with the cores apart is taken again
(placement.py); where others use the cache, further rounds are taken (rounds.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from .patience import Patience
from .placement import Placement


@dataclass(frozen=True)
class Counting:
    """Which turns count."""

    patience: Patience
    looks: bool
    """Whether this machine's shared cache can be told of."""
    placement: Placement | None
    """None where the cores stay where they are, or may lie anywhere."""

    def shortest_s(self, threads: int) -> float | None:
        """What handing work to so many threads takes with the cores together, where turns are chosen by it."""
        return None if self.placement is None else self.placement.shortest_s.get(threads)
