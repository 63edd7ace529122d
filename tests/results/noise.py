"""Noise that looks like a machine's, whose truth is known."""

from __future__ import annotations

import numpy as np

from attnbench.results.statistics import Interval

REPEATS = 3000
"""Of each simulation: the share that is counted has a standard error of 0.4 %."""
MANY = 1_000_000

Simulated = tuple[np.ndarray, np.ndarray]
"""Samples (repeats, rounds), and the true median of each repeat."""


def skewed(rng: np.random.Generator, repeats: int, rounds: int) -> Simulated:
    """Lognormal, with a long tail of slow samples."""
    return rng.lognormal(0, 0.3, (repeats, rounds)), np.ones(repeats)


def spiky(rng: np.random.Generator, repeats: int, rounds: int) -> Simulated:
    """A steady machine on which one sample of twelve is interrupted, and takes two to ten times as long."""

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return rng.lognormal(0, 0.03, shape) * np.where(rng.random(shape) < 1 / 12, rng.uniform(2, 10, shape), 1.0)

    return draw((repeats, rounds)), np.full(repeats, np.median(draw((MANY,))))


def drifting(rng: np.random.Generator, repeats: int, rounds: int) -> Simulated:
    """The machine wanders by a random walk: 8 % in 60 rounds, more than twice the noise of a sample."""
    path = np.exp(np.cumsum(rng.normal(0, 0.01, (repeats, rounds)), axis=1))
    return path * rng.lognormal(0, 0.03, (repeats, rounds)), np.median(path, axis=1)


NOISES = (skewed, spiky, drifting)


def share_covered(intervals: list[Interval], truth: np.ndarray) -> float:
    return float(np.mean([i.low <= t <= i.high for i, t in zip(intervals, truth, strict=True)]))
