"""Intervals cover what they claim to, on noise that looks like a machine's."""

from __future__ import annotations

import numpy as np
import pytest

from attnbench.results.statistics import median_interval, paired_ratio


def noise(rng: np.random.Generator, n: int) -> np.ndarray:
    """Skewed, with spikes: the shape of timings on a shared machine, median 1 up to a factor."""
    return rng.lognormal(0, 0.05, n) * np.where(rng.random(n) < 0.05, 1.5, 1.0)


def test_the_median_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = float(np.median(noise(np.random.default_rng(1), 1_000_000)))
    intervals = [median_interval(noise(rng, 30)) for _ in range(400)]
    covered = np.mean([i.low <= truth <= i.high for i in intervals])
    assert 0.92 <= covered <= 0.99


def test_paired_ratios_cancel_what_slows_both() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(100):
        drift = np.exp(np.cumsum(rng.normal(0, 0.1, 40)))  # the machine wanders by far more than the effect
        base, slower = drift * rng.lognormal(0, 0.01, 40), 1.05 * drift * rng.lognormal(0, 0.01, 40)
        found.append(paired_ratio(slower.tolist(), base.tolist()))
    assert np.mean([i.low <= 1.05 <= i.high for i in found]) >= 0.9
    assert np.mean([i.low > 1 for i in found]) >= 0.95
    assert np.median([i.half_width for i in found]) < 0.02


def test_few_samples_give_their_whole_range() -> None:
    interval = median_interval([3.0, 1.0, 2.0])
    assert (interval.value, interval.low, interval.high) == (2.0, 1.0, 3.0)


def test_equal_samples_give_a_point() -> None:
    interval = median_interval([2.0] * 10)
    assert (interval.low, interval.high, interval.half_width) == (2.0, 2.0, 0.0)


def test_rounds_that_one_side_missed_are_left_out() -> None:
    assert paired_ratio([2.0, 4.0, 9.0], [1.0, 2.0]).value == 2.0


def test_nothing_has_no_median() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        median_interval([])
    with pytest.raises(ValueError, match="round that both ran"):
        paired_ratio([], [1.0])
