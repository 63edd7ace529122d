"""Instrument: how much of what a call leaves in the cache that cores share is lost to others.

The largest cache of a processor is shared by its cores, and on a virtual machine by those of other guests, which no
counter of ours shows. Calls that come back to what they wrote a moment ago take longer while a neighbour pushes that
out of the cache, and a large product does not, so that ratios change which no variant has changed. So it is read beside
turns, in work that knows nothing of the variant: a table is read several times at once, and once more a little later.
"""

from __future__ import annotations

import mmap
import re
import time
from pathlib import Path
from statistics import fmean, median

import numpy as np

from ..results.conditions import EVICTION
from .counters import text

TABLE_BYTES = 8 << 20
"""More than a core's own caches hold, and less than what cores share."""
REUSE_S = 0.004
"""Between the two: about what passes in a call of some milliseconds before it comes back to what it wrote."""
FILLS, TIMES, PASSES = 2, 2, 2
FURTHER = 2
"""Readings, where one tells of others who were not expected: an interruption does so too, and the median of all does
not."""
UNITS = {"K": 1 << 10, "M": 1 << 20}


class SharedCache:
    """Reads a table again."""

    def __init__(self) -> None:
        # apart from the heap, in which measured calls find their memory
        self.table = np.frombuffer(mmap.mmap(-1, TABLE_BYTES), dtype=np.float32)
        self.table.fill(1)

    def read(self, expected: bool = False) -> float:
        """How many times as long as at once it takes to read the table 4 ms later, in about 10 ms, or 30.

        1 where all of it stays in the cache, and about 2.5 where it comes from memory. `expected`: others were seen
        shortly before, so that one reading that tells of them is enough.
        """
        found = self._one()
        return found if expected or found < EVICTION else median([found, *(self._one() for _ in range(FURTHER))])

    def _one(self) -> float:
        for _ in range(FILLS):
            self._pass()
        at_once, later = [], []
        for _ in range(TIMES):
            at_once += [self._pass() for _ in range(PASSES)]
            time.sleep(REUSE_S)
            later.append(self._pass())
        return fmean(later) / min(at_once)

    def _pass(self) -> float:
        """Seconds."""
        start = time.perf_counter()
        self.table.max()  # by one thread, as fast as the cache gives it
        return time.perf_counter() - start


def is_there(root: Path = Path("/")) -> bool:
    """Whether the system tells of a cache with room for the table twice: in a smaller one, nothing can be told."""
    return largest(root) >= 2 * TABLE_BYTES


def largest(root: Path) -> int:
    """Bytes of the first core's largest cache; 0 where the system does not say."""
    found = [0]
    for file in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KM]?)", text(file) or "")
        if match:
            found.append(int(match[1]) * UNITS.get(match[2], 1))
    return max(found)
