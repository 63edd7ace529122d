"""Ratios of pairs of processes: intervals cover the truth, the same code is called as rarely as it should be, and what
cases know of each other's spread finds more without more false alarms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from attnbench.results.mean_ratios import MeanRatio, Variance, lent_by_cases, mean_ratios
from attnbench.results.statistics import ALPHA, Interval, correct

from .noise import REPEATS, Simulated, share_covered, skewed, spiky

PAIRS = 6


def alone(ratios: np.ndarray) -> list[MeanRatio]:
    """Each row judged as if it were the only case."""
    return [mean_ratios([x])[0] for x in ratios]


# -- one case ---------------------------------------------------------------------------------------------------


def of_processes(rng: np.random.Generator, noise: Callable[..., Simulated], luck: float) -> np.ndarray:
    """(REPEATS, PAIRS): median ratios of pairs of processes, each with some luck of its own, of the same code."""
    base, other = (noise(rng, PAIRS * REPEATS, 15)[0] for _ in range(2))
    medians = np.median(other / base, axis=1) * rng.lognormal(0, luck, PAIRS * REPEATS)
    return medians.reshape(REPEATS, PAIRS)


@pytest.mark.parametrize("luck", [0.0, 0.02])
@pytest.mark.parametrize("noise", [skewed, spiky])
def test_ratios_of_processes_cover_the_truth_whatever_their_luck(noise: Callable[..., Simulated], luck: float) -> None:
    found = alone(1.05 * of_processes(np.random.default_rng(0), noise, luck))
    assert 0.93 <= share_covered([one.ratio for one in found], np.full(REPEATS, 1.05)) <= 0.97


def test_ratios_of_processes_differ_from_one_as_rarely_as_they_should_and_are_scipys() -> None:
    from scipy.stats import ttest_1samp

    medians = of_processes(np.random.default_rng(1), spiky, 0.02)
    ps = [one.p for one in alone(medians)]
    assert ps == pytest.approx(ttest_1samp(np.log(medians), 0, axis=1).pvalue)
    assert np.mean([p < ALPHA for p in ps]) == pytest.approx(ALPHA, abs=0.015)
    assert np.mean([one.p < ALPHA for one in alone(1.1 * medians)]) > 0.99


@pytest.mark.parametrize("states", [2, 3])
def test_processes_that_fall_into_one_of_few_states_raise_no_more_alarms(states: int) -> None:
    """E.g. aligned well or badly. Of two states six pairs all differ alike once in 2048 comparisons; a test at a level
    far below ALPHA, as among 30 cases, must not take every such chance for a change."""
    rng = np.random.default_rng(2)
    base, head = 0.03 * rng.integers(0, states, (2, 5 * REPEATS, PAIRS))
    found = alone(np.exp(head - base + rng.normal(0, 0.002, base.shape)))
    assert np.mean([one.p < ALPHA for one in found]) <= 1.1 * ALPHA
    assert np.mean([one.p < ALPHA / 30 and abs(one.ratio.value - 1) > 0.01 for one in found]) <= 1.5 * ALPHA / 30


def test_one_process_says_nothing_of_the_spread_and_equal_ones_leave_no_doubt() -> None:
    assert mean_ratios([[1.25]]) == [MeanRatio(Interval(1.25, 0.0, math.inf), 1.0, 1.0)]
    (one,) = mean_ratios([[1.25] * PAIRS])
    assert (one.ratio.low, one.ratio.value, one.ratio.high) == pytest.approx((1.25, 1.25, 1.25))
    assert one.p == one.p_among < 1e-12
    assert mean_ratios([[1.0] * PAIRS])[0].p == 1.0
    assert mean_ratios([]) == []
    with pytest.raises(ValueError, match="at least one ratio"):
        mean_ratios([[1.0, 1.1], []])


# -- many cases -------------------------------------------------------------------------------------------------


def alike(rng: np.random.Generator, cases: int) -> np.ndarray:
    return np.full(cases, 0.015)


def unlike(rng: np.random.Generator, cases: int) -> np.ndarray:
    return rng.lognormal(math.log(0.015), 0.5, cases)


def one_is_noisy(rng: np.random.Generator, cases: int) -> np.ndarray:
    return np.where(np.arange(cases) == 0, 0.06, 0.01)


def half_are_noisy(rng: np.random.Generator, cases: int) -> np.ndarray:
    return np.where(np.arange(cases) < cases // 2, 0.03, 0.005)


def counted(sigma: np.ndarray, rng: np.random.Generator, slower: float = 1.0, lent: bool = True) -> list[bool]:
    """Which cases a test corrected for their number calls changed, where the first one was."""
    ratios = np.exp(sigma[:, None] * rng.standard_normal((len(sigma), PAIRS)))
    ratios[0] *= slower
    found = mean_ratios(ratios.tolist()) if lent else alone(ratios)
    return [p < ALPHA for p in correct([one.p_among for one in found], [0.0] * len(found)).p]


@pytest.mark.parametrize("cases", [3, 5, 12, 30])
@pytest.mark.parametrize("spreads", [alike, unlike, one_is_noisy, half_are_noisy])
def test_any_false_alarm_among_cases_is_rare_however_unlike_their_noise(
    spreads: Callable[[np.random.Generator, int], np.ndarray], cases: int
) -> None:
    rng = np.random.default_rng(3)
    repeats = 1000
    alarmed = np.mean([any(counted(spreads(rng, cases), rng)) for _ in range(repeats)])
    assert alarmed <= 0.06 + 2 * math.sqrt(ALPHA / repeats)


def test_cases_that_know_of_each_others_spread_find_a_change_that_each_alone_would_miss() -> None:
    """4 % at a spread of 1.5 % from pair to pair, among 30 cases."""
    found = {}
    for lent in (True, False):
        rng = np.random.default_rng(4)
        found[lent] = np.mean([counted(alike(rng, 30), rng, 1.04, lent)[0] for _ in range(300)])
    assert found[True] > 0.95
    assert found[False] < 0.75


def test_a_case_is_never_taken_for_less_noisy_than_it_is() -> None:
    rng = np.random.default_rng(5)
    quiet = np.exp(0.001 * rng.standard_normal((30, PAIRS)))
    noisy = [1.3, 1.0, 1.0, 1.0, 1.0, 1.0]
    (one,) = mean_ratios([noisy])
    assert mean_ratios([noisy, *quiet])[0] == one
    assert one.p == one.p_among > ALPHA


def test_what_is_said_of_a_case_alone_does_not_depend_on_others() -> None:
    rng = np.random.default_rng(7)
    cases = np.exp(0.01 * rng.standard_normal((30, PAIRS)))
    for one, same in zip(alone(cases), mean_ratios(cases.tolist()), strict=True):
        assert (one.ratio, one.p) == (same.ratio, same.p)


@pytest.mark.parametrize("df", [4, 20])
def test_what_cases_lend_is_what_their_variances_were_drawn_from(df: int) -> None:
    rng = np.random.default_rng(6)
    cases = 20000
    variances = 0.01**2 * df / rng.chisquare(df, cases)
    drawn = variances * rng.chisquare(PAIRS - 1, cases) / (PAIRS - 1)
    lent = lent_by_cases(drawn.tolist(), [PAIRS - 1] * cases)
    assert lent.df == pytest.approx(df, rel=0.1)
    assert lent.value == pytest.approx(0.01**2, rel=0.05)


def test_few_cases_lend_little_and_one_nothing() -> None:
    assert lent_by_cases([1e-4], [5]) == Variance(0.0, 0.0)
    assert lent_by_cases([1e-4, 0.0], [5, 5]) == Variance(0.0, 0.0)
    lent = lent_by_cases([1e-4, 1e-4, 1e-4], [5, 5, 5])
    assert 0 < lent.df <= 5
    assert lent.value == pytest.approx(1e-4, rel=0.3)
