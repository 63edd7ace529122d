"""Two sides that are compared take turns, one at a time, in a fresh random order each round."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

PAIRS = 6
"""Pairs of processes for each comparison. Where a process lies in memory is chance that lasts as long as it does, and
can cost some percent: pairs are what a test of a change counts, and three have too few degrees of freedom for one."""
MIN_ROUNDS = 3
"""Of one pair."""
TURN_S = 0.005
"""Of timed calls. What disturbs a machine often lasts for longer, and spoils few of many short rounds."""


def take_turns(
    sides: Sequence[Callable[[], float | None]], order: random.Random, time_s: float, wanted: int | None = None
) -> list[tuple[float, ...]]:
    """What each side gave in each round that both came through: until the time is up and MIN_ROUNDS are taken, or for
    the rounds wanted.

    A side that answers None has failed, and ends it.
    """
    began = time.monotonic()
    rounds: list[tuple[float, ...]] = []
    while len(rounds) < (wanted or MIN_ROUNDS) or (not wanted and time.monotonic() - began < time_s):
        got: dict[int, float] = {}
        for side in order.sample(range(len(sides)), len(sides)):
            answer = sides[side]()
            if answer is None:
                return rounds
            got[side] = answer
        rounds.append(tuple(got[side] for side in range(len(sides))))
    return rounds
