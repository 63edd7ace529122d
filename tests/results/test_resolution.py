"""False alarms and differences found, on noise whose truth is known: skewed, drifting, spiky, biased by process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnbench.results import resolution as resolving
from attnbench.results.errors import ResultsError, ResultsWarning
from attnbench.results.resolution import Rate, Resolution, resolution
from attnbench.results.trial import Trial, load_trials

ROUNDS, PAIRS = 25, 6
Noise = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""BASE's and HEAD's times of the same work, PAIRS · ROUNDS of each."""


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many joined comparisons as these tests need."""
    monkeypatch.setattr(resolving, "JOINED", 200)
    monkeypatch.setattr(resolving, "JOINED_PLANTED", 50)


def skewed(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    base, head = 1 + rng.exponential(0.03, (2, PAIRS * ROUNDS))
    return base, head


def spiky(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One sample of ten is interrupted, and takes up to twice as long."""
    shape = (2, PAIRS * ROUNDS)
    base, head = rng.lognormal(0, 0.02, shape) * np.where(rng.random(shape) < 0.1, rng.uniform(1, 2, shape), 1.0)
    return base, head


def drifting(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The machine wanders, for both alike."""
    path = np.exp(np.cumsum(rng.normal(0, 0.02, PAIRS * ROUNDS)))
    base, head = path * rng.lognormal(0, 0.02, (2, PAIRS * ROUNDS))
    return base, head


def biased(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each process is faster or slower by 2 % than it should be, for as long as it lives."""
    luck = np.repeat(np.exp(rng.normal(0, 0.02, (2, PAIRS))), ROUNDS, axis=1)
    base, head = luck * rng.lognormal(0, 0.02, (2, PAIRS * ROUNDS))
    return base, head


def trial(noise: Noise, rng: np.random.Generator, planted: float = 0.0) -> Trial:
    base, head = noise(rng)
    return made(base.tolist(), (head * (1 + planted)).tolist(), planted)


def made(base: list[float], head: list[float], planted: float = 0.0) -> Trial:
    return Trial(
        planted=planted,
        base_s=base,
        head_s=head,
        rounds_per_process=[len(base) // PAIRS] * PAIRS,
        wall_s=5.0,
        asked_s=5.0,
        dtype="float32",
        threads=1,
        units=100,
        seed=0,
        machine="f",
        started_at="2026-01-01T00:00:00+00:00",
    )


def resolved(noise: Noise, count: int, *plants: float, seed: int = 0) -> Resolution:
    rng = np.random.default_rng(seed)
    return resolution([trial(noise, rng, planted) for planted in (0.0, *plants) for _ in range(count)])


@pytest.mark.parametrize("noise", [skewed, spiky, drifting])
def test_a_threshold_below_the_difference_finds_it_without_alarms(noise: Noise) -> None:
    found = resolved(noise, 30, 0.03, 0.05)
    best = found.best
    assert best is not None
    assert 0.01 <= best.threshold <= 0.02
    assert best.alarms == Rate(0, 30)
    assert best.found[0.03].share >= 0.8
    assert best.found[0.05].share >= 0.95
    assert best.resolved is not None
    assert best.resolved <= 0.03
    at = {row.threshold: row.found[0.03].share for row in found.table}
    assert 0.2 <= at[0.03] <= 0.8, "half of the estimates of 3 % lie below 3 %"


def test_luck_of_processes_is_not_resolved_and_the_threshold_says_so() -> None:
    found, calm = resolved(biased, 30, 0.03), resolved(spiky, 30, 0.03)
    assert found.best is not None
    assert calm.best is not None
    assert found.table[0].alarms_joined > 0.02
    assert found.best.threshold > calm.best.threshold
    assert found.best.resolved is None or found.best.resolved > 0.04
    assert found.processes > 3 * calm.processes


def test_comparisons_joined_anew_alarm_as_often_as_fresh_ones() -> None:
    few, many = resolved(biased, 15, seed=1), resolved(biased, 600, seed=2)
    for row, truth in zip(few.table[:4], many.table[:4], strict=True):
        assert row.alarms_joined == pytest.approx(truth.alarms.share, abs=0.04)
    assert many.table[0].alarms.share > 0.04, "else there is nothing to agree on"


def test_a_planted_share_multiplies_as_real_work_would() -> None:
    found = resolved(spiky, 30, 0.05)
    assert found.planted[0.0].value == pytest.approx(1.0, abs=0.004)
    assert found.planted[0.05].value == pytest.approx(1.05, abs=0.004)


def test_a_slow_down_that_is_called_faster_is_not_found() -> None:
    rng = np.random.default_rng(0)
    pairs = [spiky(rng) for _ in range(10)]
    wrong = [made(base.tolist(), (head * 0.95).tolist(), 0.05) for base, head in pairs]
    found = resolution([*(trial(spiky, rng) for _ in range(10)), *wrong])
    assert all(row.found[0.05].called == 0 for row in found.table)


def test_noise_beyond_all_thresholds_leaves_none_to_take() -> None:
    base = [1.0, 1.01, 0.99, 1.02, 0.98, 1.03, 0.97, 1.04, 0.96, 1.0, 1.005, 0.995]
    always_slower = [made(base, [1.5 * x for x in base]) for _ in range(3)]
    found = resolution(always_slower)
    assert found.best is None
    assert found.table[0].alarms == Rate(3, 3)


def test_what_was_never_compared_with_itself_has_no_alarms_to_count() -> None:
    with pytest.raises(ValueError, match="itself"):
        resolution([trial(spiky, np.random.default_rng(0), 0.03)])


def test_an_interval_of_a_rate_is_clopper_and_pearsons() -> None:
    assert Rate(0, 10).interval == pytest.approx((0.0, 1 - 0.025**0.1))
    assert Rate(100, 100).interval == pytest.approx((0.025**0.01, 1.0))
    low, high = Rate(1, 100).interval
    assert (low, high) == pytest.approx((0.000253, 0.05446), abs=1e-5)


def test_the_same_samples_give_the_same_answer() -> None:
    assert resolved(skewed, 3) == resolved(skewed, 3)


# -- files ------------------------------------------------------------------------------------------------------


def test_comparisons_come_back_from_their_file_but_for_torn_lines(tmp_path: Path) -> None:
    one = made([1.0, 1.1, 1.2] * 2, [1.0, 1.2, 1.1] * 2)
    line = one.model_dump_json()
    short = line.replace('"rounds_per_process":[1,1,1,1,1,1]', '"rounds_per_process":[1,1]')
    assert short != line
    empty = line.replace('"rounds_per_process":[1,1,1,1,1,1]', '"rounds_per_process":[6,0,0,0,0,0]')
    file = tmp_path / "trials.jsonl"
    file.write_text(f"{line}\n{line[:50]}\n{short}\n{line}\n{empty}\n")
    with pytest.warns(ResultsWarning) as caught:
        assert load_trials(file) == [one, one]
    assert [str(warning.message).partition(" skipped")[0][-6:] for warning in caught] == ["line 2", "line 3", "line 5"]


def test_comparisons_of_a_newer_version_are_read_and_warned_of_once(tmp_path: Path) -> None:
    line = made([1.0, 1.1, 1.2] * 2, [1.0, 1.2, 1.1] * 2).model_copy(update={"schema_version": 3}).model_dump_json()
    file = tmp_path / "trials.jsonl"
    file.write_text(f"{line}\n\n{line}\n")
    with pytest.warns(ResultsWarning, match=r"written by a newer attnbench \(schema 3; this one knows 2\)") as caught:
        assert len(load_trials(file)) == 2
    assert len(caught) == 1


def test_no_file_holds_nothing_and_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    assert load_trials(tmp_path / "none.jsonl") == []
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ResultsError, match="it is not a regular file; remove it, or choose another --out"):
            load_trials(place)
