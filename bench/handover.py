"""Instrument: how long a case's threads take for one small piece of work, which they share where there are several.

A call of many small operations hands work to its threads, and waits for them, hundreds of times. What a handover costs
depends on where the system, or the host of a virtual machine, has placed the cores at that time, and on who else uses
them: a core of such a machine may be one of two threads of a real one, and while a neighbour works in the other, small
work takes longer, that of one thread too, and by another factor than a product of matrices. So it is measured beside
each turn, in the same threads, and recorded: where two runs differ in it, their times differ for a reason that no
variant has.
"""

from __future__ import annotations

import time
from statistics import median

import torch

NUMBERS = 32768
"""That each thread adds up: torch's grain, below which it takes one thread less."""
CALLS, PARTS = 20, 5


class Handover:
    """Times the addition of so few numbers that, of several threads, handing them over is the better half of it."""

    def __init__(self, threads: int) -> None:
        self.x = torch.ones(threads * NUMBERS)
        self.out = torch.empty_like(self.x)

    def read(self) -> float:
        """Seconds an addition. Takes a fraction of a millisecond, while the threads are awake from a turn."""
        return median(self._one() for _ in range(PARTS))

    def _one(self) -> float:
        start = time.perf_counter()
        for _ in range(CALLS):
            torch.add(self.x, self.x, out=self.out)
        return (time.perf_counter() - start) / CALLS
