"""Intervals cover what they claim to, on noise that looks like a machine's: 93 to 97 times of 100.

Each simulation knows the truth, draws what a run would have measured, and counts how often the interval holds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from attnbench.results.fits import crossover, crossover_of, scaling_exponent
from attnbench.results.statistics import (
    ALPHA,
    LEVEL,
    RESAMPLES,
    Interval,
    correct,
    least_rank_sum_p,
    log_contrast,
    median_interval,
    paired_ratio,
    rank_sum_p,
    ratio_of_medians,
    spread,
    weighted_median,
)

from .noise import NOISES, REPEATS, Simulated, share_covered, skewed, spiky


@pytest.mark.parametrize("rounds", [6, 8, 12, 20, 60])
@pytest.mark.parametrize("noise", NOISES)
def test_the_interval_of_a_median_covers_the_truth(noise: Callable[..., Simulated], rounds: int) -> None:
    samples, truth = noise(np.random.default_rng(rounds), REPEATS, rounds)
    assert 0.93 <= share_covered([median_interval(x) for x in samples], truth) <= 0.97


@pytest.mark.parametrize("rounds", [6, 8, 12, 20, 60])
@pytest.mark.parametrize("noise", [skewed, spiky])
def test_the_interval_of_a_paired_ratio_covers_the_truth(noise: Callable[..., Simulated], rounds: int) -> None:
    """Both turns of a round share a drift far greater than their noise; it cancels."""
    rng = np.random.default_rng(rounds)
    shared = np.exp(np.cumsum(rng.normal(0, 0.1, (REPEATS, rounds)), axis=1))
    base, other = (noise(rng, REPEATS, rounds)[0] * shared for _ in range(2))
    found = [paired_ratio(1.05 * x, y) for x, y in zip(other, base, strict=True)]
    assert 0.93 <= share_covered(found, np.full(REPEATS, 1.05)) <= 0.97


SLOW = pytest.mark.slow


@pytest.mark.parametrize("sizes", [(20, 20, 20), (7, 12, 1), (6, 31)])
def test_the_interval_of_a_contrast_is_that_of_scipys_bootstrap(sizes: tuple[int, ...]) -> None:
    """The same resamples, drawn in the same order, so that the two agree to rounding."""
    from scipy.stats import bootstrap

    rng = np.random.default_rng(1)
    samples = [rng.lognormal(0, 0.2, size) for size in sizes]
    weights = [1.0, -2.0, 0.5][: len(sizes)]

    def contrast(*drawn: Any, axis: int) -> Any:
        return np.sum([w * np.median(x, axis=axis) for w, x in zip(weights, drawn, strict=True)], axis=0)

    logs = [np.log(x if x.size > 1 else np.repeat(x, 2)) for x in samples]
    how = {"n_resamples": RESAMPLES, "method": "percentile", "rng": np.random.default_rng(0)}
    theirs = bootstrap(logs, contrast, confidence_level=LEVEL, **how).confidence_interval
    ours = log_contrast([x.tolist() for x in samples], weights)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert ours.low < ours.value < ours.high


@pytest.mark.parametrize("rounds", [(8, 20), *(pytest.param(n, marks=SLOW) for n in [(6, 6), (20, 20), (60, 12)])])
@pytest.mark.parametrize("noise", [skewed, spiky])
def test_the_interval_of_a_ratio_of_medians_covers_the_truth(
    noise: Callable[..., Simulated], rounds: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    one, other = (noise(rng, 700, n)[0] for n in rounds)
    found = [ratio_of_medians(1.05 * x, y) for x, y in zip(one, other, strict=True)]
    assert 0.93 <= share_covered(found, np.full(700, 1.05)) <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [*range(6, 13), 15, 20, 30, 45, 60])
@pytest.mark.parametrize("noise", NOISES)
def test_at_no_number_of_rounds_does_the_interval_of_a_median_cover_less(
    noise: Callable[..., Simulated], rounds: int
) -> None:
    samples, truth = noise(np.random.default_rng(rounds), 2 * REPEATS, rounds)
    assert 0.93 <= share_covered([median_interval(x) for x in samples], truth) <= 0.97


@pytest.mark.parametrize(("rounds", "share"), [(5, 0.9375), (4, 0.875), (3, 0.75), (2, 0.5)])
def test_few_samples_give_their_range_which_covers_as_often_as_documented(rounds: int, share: float) -> None:
    samples, truth = skewed(np.random.default_rng(0), REPEATS, rounds)
    found = [median_interval(x) for x in samples]
    assert all((i.low, i.high) == (x.min(), x.max()) for i, x in zip(found, samples, strict=True))
    assert share_covered(found, truth) == pytest.approx(share, abs=0.025)


def test_stopping_when_narrow_enough_costs_little() -> None:
    """Rounds end when the interval is narrow, which prefers intervals that are narrow by chance."""
    rng = np.random.default_rng(0)
    samples, truth = spiky(rng, 600, 60)

    def stopped(x: np.ndarray) -> Interval:
        for n in range(5, 61):
            interval = median_interval(x[:n])
            if interval.half_width <= 0.02:
                break
        return interval

    assert share_covered([stopped(x) for x in samples], truth) >= 0.90


def test_paired_ratios_resolve_what_drift_would_hide() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(100):
        drift = np.exp(np.cumsum(rng.normal(0, 0.1, 40)))  # the machine wanders by far more than the effect
        base, slower = drift * rng.lognormal(0, 0.01, 40), 1.05 * drift * rng.lognormal(0, 0.01, 40)
        found.append(paired_ratio(slower.tolist(), base.tolist()))
    assert np.mean([i.low > 1 for i in found]) >= 0.95
    assert np.median([i.half_width for i in found]) < 0.02


def test_an_interval_needs_no_luck_and_no_seed() -> None:
    samples = np.random.default_rng(0).lognormal(0, 0.1, 20)
    assert median_interval(samples) == median_interval(samples[::-1])


def test_few_samples_give_their_whole_range() -> None:
    interval = median_interval([3.0, 1.0, 2.0])
    assert (interval.value, interval.low, interval.high) == (2.0, 1.0, 3.0)
    assert median_interval([2.0]) == Interval(2.0, 2.0, 2.0)


def test_equal_samples_give_a_point() -> None:
    interval = median_interval([2.0] * 10)
    assert (interval.low, interval.high, interval.half_width) == (2.0, 2.0, 0.0)


def test_rounds_that_one_side_missed_are_left_out() -> None:
    assert paired_ratio([2.0, 4.0, 9.0], [1.0, 2.0]).value == 2.0


@pytest.mark.parametrize("count", [5, 12, 60])
def test_the_spread_of_normal_values_is_their_standard_deviation_however_few(count: int) -> None:
    values = np.random.default_rng(0).normal(0, 0.02, (REPEATS, count))
    assert np.mean([spread(x) for x in values]) == pytest.approx(0.02, rel=0.08)
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_a_weighted_median_is_the_median_of_what_counts() -> None:
    samples = np.random.default_rng(0).lognormal(0, 0.3, 21).tolist()
    for few in (samples, samples[:20], samples[:1]):
        assert weighted_median(few, [0.7] * len(few)) == pytest.approx(np.median(few))
        assert weighted_median([*few, 99.0], [0.7] * len(few) + [0.0]) == pytest.approx(np.median(few))
    # half of the weight, 3, lies two fifths of the way from the middle of the second, 2, to that of the third, 4.5
    assert weighted_median([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == pytest.approx(2.4)
    assert weighted_median([3.0, 1.0], [1.0, 1.0]) == 2.0
    with pytest.raises(ValueError, match="at least one sample that counts"):
        weighted_median([1.0], [0.0])


def test_nothing_has_no_median() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        median_interval([])
    with pytest.raises(ValueError, match="round that both ran"):
        paired_ratio([], [1.0])
    with pytest.raises(ValueError, match="at least one sample"):
        ratio_of_medians([], [1.0])
    with pytest.raises(ValueError, match="must be positive"):
        log_contrast([[0.0, 1.0]], [1.0])


# -- tests of a difference --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rounds", "other"), [(5, 5), (6, 9), (20, 20), (50, 60)])
def test_the_same_code_differs_by_the_rank_sum_as_rarely_as_it_should(rounds: int, other: int) -> None:
    rng = np.random.default_rng(0)
    ps = [rank_sum_p(x, y) for x, y in zip(*(spiky(rng, 1000, n)[0] for n in (rounds, other)), strict=True)]
    assert np.mean([p < ALPHA for p in ps]) == pytest.approx(0.045, abs=0.02)
    assert rank_sum_p(np.arange(rounds), 100 + np.arange(other)) < 0.01


def test_the_least_p_is_what_total_separation_gives() -> None:
    for n, m in ((3, 4), (5, 5), (10, 12), (40, 40)):
        assert rank_sum_p(np.arange(n), 1000.0 + np.arange(m)) == pytest.approx(least_rank_sum_p(n, m))


def test_equal_samples_are_no_difference() -> None:
    assert rank_sum_p([1.0] * 8, [1.0] * 8) == 1.0
    assert rank_sum_p([], [1.0]) == least_rank_sum_p(0, 1) == 1.0


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    found = correct([0.01, 0.04, 0.03, 0.005], [1e-9] * 4)
    assert found.p == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct([], []).p == []


def test_tests_that_can_never_count_do_not_weaken_the_others() -> None:
    """One case of 20 rounds among 99 of 5: alone it needs no correction for the others."""
    found = correct([1e-4] + [0.5] * 99, [least_rank_sum_p(20, 20)] + [least_rank_sum_p(5, 5)] * 99)
    assert found.able == [True] + [False] * 99
    assert found.p[0] < 0.05
    assert found.p[1:] == [1.0] * 99


def test_any_false_alarm_among_many_is_rare() -> None:
    rng = np.random.default_rng(0)

    def alarm() -> bool:
        ps = [rank_sum_p(x, y) for x, y in zip(*(skewed(rng, 20, 12)[0] for _ in range(2)), strict=True)]
        return min(correct(ps, [least_rank_sum_p(12, 12)] * 20).p) < ALPHA

    assert np.mean([alarm() for _ in range(150)]) <= 0.10


# -- fits -------------------------------------------------------------------------------------------------------

LENGTHS = (256, 512, 1024, 2048, 4096)


@pytest.mark.parametrize("rounds", [12, *(pytest.param(n, marks=SLOW) for n in (6, 40))])
@pytest.mark.parametrize("noise", [skewed, spiky])
def test_the_interval_of_an_exponent_covers_the_truth(noise: Callable[..., Simulated], rounds: int) -> None:
    """From six rounds it errs on the wide side."""
    rng = np.random.default_rng(0)
    drawn = {n: noise(rng, 500, rounds)[0] * 1e-6 * n**1.5 for n in LENGTHS}
    found = [scaling_exponent({n: drawn[n][i] for n in LENGTHS}) for i in range(500)]
    assert 0.93 <= share_covered(found, np.full(500, 1.5)) <= 0.99


def test_an_exponent_needs_two_lengths() -> None:
    assert scaling_exponent({10: [1.0], 100: [100.0]}).value == pytest.approx(2.0)
    with pytest.raises(ValueError, match="at least two lengths"):
        scaling_exponent({10: [1.0, 2.0]})


@pytest.mark.parametrize("rounds", [8, 30])
def test_the_interval_of_a_crossover_covers_the_truth(rounds: int) -> None:
    """A linear variant with a large constant against a quadratic one: equal at 1,500, midway between two lengths."""
    rng = np.random.default_rng(0)
    held, truth = 0, 1500.0
    for _ in range(300):
        drift = np.exp(np.cumsum(rng.normal(0, 0.05, (len(LENGTHS), rounds)), axis=1))
        ours = {n: d * rng.lognormal(0, 0.2, rounds) * n * truth for n, d in zip(LENGTHS, drift, strict=True)}
        theirs = {n: d * rng.lognormal(0, 0.2, rounds) * n * n for n, d in zip(LENGTHS, drift, strict=True)}
        found = crossover_of(ours, theirs)
        held += (found.low or 0) <= truth <= (found.high or math.inf)
    assert held / 300 >= 0.93


def about(value: float, spread: float = 0.05) -> Interval:
    return Interval(value, value * (1 - spread), value * (1 + spread))


def test_a_crossover_lies_where_the_line_of_log_ratios_meets_one() -> None:
    found = crossover({1000: about(2.0), 4000: about(0.5)})
    assert found.length == pytest.approx(2000)
    assert found.low is not None
    assert found.high is not None
    assert 1000 < found.low < 2000 < found.high < 4000
    assert found.words == "2,000 (1,900–2,100)"


def test_a_crossover_may_not_happen_or_lie_before_the_first_length_or_be_unsure() -> None:
    assert crossover({100: about(2.0), 200: about(1.5)}).words == "none up to 200"
    assert crossover({100: about(0.5), 200: about(0.4)}).words == "100 or before"
    unsure = crossover({100: about(2.0), 200: about(0.98)})
    assert unsure.high is None
    assert unsure.words == "196, but not surely: perhaps 187, perhaps none up to 200"
    perhaps = crossover({100: about(2.0), 200: about(1.02)})
    assert perhaps.length is None
    assert perhaps.words == "none up to 200, though perhaps 194"
    again = crossover({100: about(0.5), 200: about(2.0), 400: about(0.5)})
    assert again.length == pytest.approx(282.8, abs=0.1), "faster for good only from here on"
    with pytest.raises(ValueError, match="at least one length"):
        crossover({})
    with pytest.raises(ValueError, match="at least one length"):
        crossover_of({100: [1.0]}, {200: [1.0]})
