"""Instrument: how much of what a call leaves in the cache that cores share is lost to others.

The largest cache of a processor is shared by its cores, and on a virtual machine by those of other guests, which no
counter of ours shows. Calls that find what they wrote a moment ago in that cache take up to a quarter longer while a
neighbour pushes it out, and a large product does not, so that ratios change which no variant has changed. So it is read
beside turns, in work that knows nothing of the variant: a table is read twice at once, and once more a little later.
"""

from __future__ import annotations

import time

import numpy as np

TABLE_BYTES = 8 << 20
"""More than a core's own caches hold, and less than what cores share."""
REUSE_S = 0.004
"""Between the two: about what passes in a call of some milliseconds before it comes back to what it wrote."""
FILLS, PASSES = 2, 3


class SharedCache:
    """Reads a table again."""

    def __init__(self) -> None:
        self.table = np.ones(TABLE_BYTES // 4, dtype=np.float32)

    def read(self) -> float:
        """How many times as long as at once it takes to read the table 4 ms later, in about 5 ms.

        1 where the table stays in the cache, and where it never fits into one. About 2.5 where it comes from memory.
        """
        for _ in range(FILLS):
            self._pass()
        at_once = min(self._pass() for _ in range(PASSES))
        end = time.perf_counter() + REUSE_S
        while time.perf_counter() < end:
            pass  # asleep, the core could be given to others
        return self._pass() / at_once

    def _pass(self) -> float:
        """Seconds."""
        start = time.perf_counter()
        self.table.max()  # by one thread, as fast as the cache gives it
        return time.perf_counter() - start
