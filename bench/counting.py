"""Which turns count: those that were taken under the conditions of the run's others.

What no variant has a part in changes ratios: where a host places the cores, and whether others use these, or the cache
that they share. All are read beside turns. A turn that was taken with the cores apart, or used, is taken again
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
    """None where no host has a hand in the cores, or every turn counts."""

    def shortest_s(self, threads: int) -> float | None:
        """What small work takes so many threads at best, where turns are chosen by it."""
        return None if self.placement is None else self.placement.shortest_s.get(threads)
