"""Estimates at lengths not measured: their intervals cover the truth, and they refuse what they cannot know."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from attnbench.results.growth import FARTHEST, beyond, within

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
REPEATS = 50
"""Of each simulation: with the scenarios together, the share that is counted has a standard error of 1 %."""

CURVES: list[Callable[[float], float]] = [
    lambda n: 1e-9 * n**2,
    lambda n: 2e-4 + 1e-9 * n**2,
    lambda n: 1e-6 * n,
    lambda n: 5e-4 + 1e-6 * n,
    lambda n: 1e-6 * n + 1e-9 * n**2,
    lambda n: 5e-6 * n + 1e-9 * n**2,
    lambda n: 1e-4 + 2e-5 * n + 1e-9 * n**2,
    lambda n: 1e-7 * n * math.log2(n),
]
"""Quadratic and linear, without and with what does not depend on length; both at once, and what sorts."""
BYTES: dict[str, Callable[[float], float]] = {
    "64 N² + 20,000 N": lambda n: 64 * n**2 + 20_000 * n,
    "N² + 5,000 N": lambda n: n**2 + 5000 * n,
    "N log N": lambda n: n * math.log2(n),
    "N log N + N² / 1,000": lambda n: n * math.log2(n) + n**2 / 1000,
    "N^1.5 + 300 N": lambda n: n**1.5 + 300 * n,
    "N² + 100 N^1.5": lambda n: n**2 + 100 * n**1.5,
    "N² log N": lambda n: n**2 * math.log2(n),
    "N² in blocks of 64 + a MiB": lambda n: 8 * n * (n // 64) + 64 * n + 2**20,
    "N^1.43": lambda n: n**1.43,
}
"""What does not vary, the half of it by curves that none of the fits is of."""


def test_three_lengths_may_go_on_as_steeply_as_between_any_two() -> None:
    """Decoding over a cache that outgrows the processor's: steep while it does, and linear again after."""
    known = {1024: [50e-6], 4096: [100e-6], 16384: [800e-6]}
    found = beyond(known, 65536)
    assert found.low == pytest.approx(2 * 800e-6)
    assert found.high >= 0.999 * 8 * 800e-6
    line = beyond({n: [1e-6 * n] for n in known}, 65536)
    assert line.low == pytest.approx(65536e-6)


def test_what_grew_is_not_expected_to_shrink() -> None:
    known = {256: [1e-3], 512: [1.1e-3], 1024: [9e-3], 2048: [9.5e-3], 4096: [20e-3], 8192: [680e-3]}
    assert beyond(known, 16384).low >= 680e-3
    falls = {n: [1 / n] for n in (256, 512, 1024)}
    assert beyond(falls, 2048).low < 1 / 1024


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Median 1, with a long tail of slow samples."""
    return rng.lognormal(0, 0.15, shape)


def spiky(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Median near 1.003; one sample of twelve is interrupted and takes two to ten times as long."""
    noise = rng.lognormal(0, 0.03, shape)
    return noise * np.where(rng.random(shape) < 1 / 12, rng.uniform(2, 10, shape), 1.0)


def covered(estimate: Callable[..., object], noise: Callable[..., np.ndarray], rounds: int, length: float) -> float:
    rng = np.random.default_rng(0)
    centre = float(np.median(noise(rng, (200_000,))))
    held = 0
    for curve in CURVES:
        for _ in range(REPEATS):
            drawn = noise(rng, (len(LENGTHS), rounds)) / centre
            found = estimate({n: curve(n) * x for n, x in zip(LENGTHS, drawn, strict=True)}, length)
            held += found.low <= curve(length) <= found.high  # type: ignore[attr-defined]
    return held / (REPEATS * len(CURVES))


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "times"), [(12, 8), (30, 2)])
@pytest.mark.parametrize("noise", [skewed, spiky])
def test_the_interval_beyond_the_lengths_covers_the_truth(
    noise: Callable[..., np.ndarray], rounds: int, times: int
) -> None:
    """It errs on the wide side: it holds several kinds of curves, and none may have a negative term."""
    assert covered(beyond, noise, rounds, LENGTHS[-1] * times) >= 0.93


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("times", [2, 4, 16])
def test_what_does_not_vary_is_covered_too(name: str, times: int) -> None:
    """A fit of one power to 64 N² and a linear term once claimed 4,100 to 4,140 tokens for a budget of 4,072."""
    curve = BYTES[name]
    found = beyond({n: [float(curve(n))] for n in LENGTHS}, LENGTHS[-1] * times)
    assert found.low * (1 - 1e-6) <= curve(LENGTHS[-1] * times) <= found.high * (1 + 1e-6)
    assert found.high / found.low < 1.5 * times


def test_three_lengths_cannot_tell_curves_apart() -> None:
    """Of so few every kind is near. One power alone foretold 0.45 of this, with an interval of no width."""
    found = beyond({n: [n**2 + 5000.0 * n] for n in (256, 512, 1024)}, 16384)
    assert found.low < 16384**2 + 5000 * 16384 < found.high * (1 + 1e-6)
    assert found.high > 1.5 * found.low


def test_two_lengths_side_by_side_do_not_blow_a_bump_up() -> None:
    samples = {n: [1e-9 * n**2 * (1 + 0.01 * k) for k in (-2, -1, 0, 1, 2)] for n in (256, 512, 1024, 2048, 2049)}
    samples[2049] = [1.1 * x for x in samples[2049]]
    found = beyond(samples, 32768)
    assert found.low < 1e-9 * 32768**2 < found.high < 1000 * found.low


@pytest.mark.slow
@pytest.mark.parametrize("noise", [skewed, spiky])
def test_the_interval_between_lengths_covers_the_truth(noise: Callable[..., np.ndarray]) -> None:
    """Where a curve bends, it holds the straight line too, and so errs on the wide side."""
    assert 0.93 <= covered(within, noise, 20, 2900) <= 0.995


def test_an_exact_curve_is_followed_exactly() -> None:
    found = beyond({n: [1e-3 + 1e-9 * n**2] for n in LENGTHS}, 65536)
    assert found.value == pytest.approx(1e-3 + 1e-9 * 65536**2, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((found.value, found.value), rel=1e-6)


def test_a_power_law_alone_would_promise_too_little() -> None:
    """Why there is a constant: overhead makes the slope of all lengths 1.1 here, where time grows as the square."""
    curve = {n: 2e-3 + 1e-10 * n**2 for n in LENGTHS}
    slope, start = np.polyfit(np.log(list(curve)), np.log(list(curve.values())), 1)
    truth = 2e-3 + 1e-10 * 65536**2
    assert math.exp(start + slope * math.log(65536)) < 0.3 * truth
    assert beyond({n: [x] for n, x in curve.items()}, 65536).value == pytest.approx(truth, rel=1e-3)


def test_what_the_fit_got_wrong_on_known_lengths_widens_its_interval() -> None:
    """A cache that overflows at the last length: twice as slow as the shorter lengths foretell."""
    samples = {n: [1e-9 * n**2 * (1 + 0.01 * k) for k in (-2, -1, 0, 1, 2)] for n in LENGTHS}
    smooth = beyond(samples, 32768)
    samples[8192] = [2 * x for x in samples[8192]]
    bent = beyond(samples, 32768)
    assert smooth.high / smooth.low < 1.3
    assert bent.high / bent.low > 8
    assert bent.low < 2 * smooth.value < bent.high, "it may go on as steeply, or as before"


def test_below_the_lengths_too() -> None:
    found = beyond({n: [2e-4 + 1e-6 * n] for n in LENGTHS}, 100)
    assert found.value == pytest.approx(3e-4, rel=1e-3)


def test_what_it_cannot_know_it_refuses() -> None:
    some = {n: [1.0 * n] for n in LENGTHS}
    with pytest.raises(ValueError, match=f"over {FARTHEST} times"):
        beyond(some, LENGTHS[-1] * FARTHEST + 1)
    with pytest.raises(ValueError, match=f"over {FARTHEST} times"):
        beyond(some, LENGTHS[0] / FARTHEST - 1)
    with pytest.raises(ValueError, match="at least 3 lengths"):
        beyond({256: [1.0], 512: [2.0]}, 1024)
    with pytest.raises(ValueError, match="positive"):
        beyond({**some, 256: [0.0]}, 16384)
    with pytest.raises(ValueError, match="not between"):
        within(some, 8193)


def test_a_measured_length_is_what_was_measured() -> None:
    samples = {n: [1.0 * n, 1.1 * n, 1.2 * n] for n in LENGTHS}
    found = within(samples, 1024)
    assert (found.value, found.low, found.high) == pytest.approx((1.1 * 1024, 1024, 1.2 * 1024))


def test_two_lengths_are_joined_by_a_straight_line() -> None:
    assert within({100: [1.0], 10_000: [100.0]}, 1000).value == pytest.approx(10.0)
