"""Turns count while others leave the shared cache alone, and are waited with where they do not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench import calm, shared_cache, timing, worker
from attnbench.bench.calm import EVERY_S, PAUSE_S, READINGS, Calm
from attnbench.bench.counting import Counting
from attnbench.bench.patience import HEAD_START_S, Patience
from attnbench.bench.shared_cache import SharedCache
from attnbench.bench.turn import _evicted

ALONE, OTHERS = 1.05, 1.8
SHARE = 0.2
LARGE = "4096"
"""2 heads of 16 read and write 2 MiB of it."""


class Neighbours:
    """They use the cache until a time, and from another on. Pausing moves the clock, reading does not."""

    def __init__(self, until_s: float, again_s: float = math.inf, share: float = SHARE) -> None:
        self.until_s, self.again_s = until_s, again_s
        self.seconds, self.read = 0.0, 0
        self.patience = Patience(share, clock=lambda: self.seconds)
        self.calm = Calm(self.patience, self.pause)

    def pause(self, seconds: float) -> None:
        self.seconds += seconds

    def reading(self) -> float:
        self.read += 1
        return OTHERS if self.seconds < self.until_s or self.seconds >= self.again_s else ALONE

    def turn(self, eviction: float | None) -> float | None:
        with self.patience.spending():
            return self.calm.judge(eviction, self.reading)


@pytest.fixture(autouse=True)
def the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calm, "EVICTION", 1.25)


def test_a_turn_counts_where_others_leave_the_cache_alone() -> None:
    neighbours = Neighbours(0)
    assert neighbours.turn(1.2) == 1.2
    assert neighbours.read == 0


def test_one_reading_astray_costs_no_turn_and_is_not_kept() -> None:
    neighbours = Neighbours(0)
    assert neighbours.turn(OTHERS) == ALONE
    assert neighbours.read == READINGS
    assert neighbours.seconds == 0


def test_a_turn_beside_others_is_taken_again_when_they_are_gone() -> None:
    neighbours = Neighbours(3)
    assert neighbours.turn(OTHERS) is None
    assert neighbours.seconds == pytest.approx(3, abs=PAUSE_S)


def test_who_never_rests_is_waited_for_a_share_of_the_run_and_no_more() -> None:
    neighbours = Neighbours(math.inf)
    while neighbours.seconds < 1000:
        neighbours.seconds += 0.1
        assert neighbours.turn(OTHERS) == OTHERS
    assert neighbours.patience.cost_s == pytest.approx(SHARE * (neighbours.seconds + HEAD_START_S), abs=PAUSE_S)


@pytest.mark.parametrize("limits", [{"share": 0.0}, {"share": SHARE, "deadline": 10.0}])
def test_without_patience_or_past_the_deadline_every_turn_counts(limits: dict[str, float]) -> None:
    neighbours = Neighbours(math.inf)
    neighbours.seconds = 10.0
    neighbours.calm.patience = Patience(**limits, clock=lambda: neighbours.seconds)  # type: ignore[arg-type]
    assert neighbours.turn(OTHERS) == OTHERS
    assert neighbours.read == 0


def test_it_is_read_now_and_then_and_between_these_the_latest_holds() -> None:
    neighbours = Neighbours(0)
    assert neighbours.calm.is_due
    neighbours.turn(1.1)
    assert not neighbours.calm.is_due
    assert neighbours.turn(None) == 1.1
    neighbours.seconds += EVERY_S
    assert neighbours.calm.is_due


def test_what_was_measured_beside_others_says_so() -> None:
    (note,) = _evicted([1.0, 1.3, 1.1, 1.9])
    assert note.startswith("in 2 of 4 rounds others used the cache that cores share")
    assert "took 1.6 times as long as at once" in note
    assert _evicted([1.0, 1.24]) == []


# -- the instrument ---------------------------------------------------------------------------------------------


class Passes:
    """A clock, and a table whose readings take as told."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.left = 0.0, list(seconds)

    def max(self) -> None:
        self.now += self.left.pop(0)

    def perf_counter(self) -> float:
        self.now += 1e-5  # so that waiting ends
        return self.now


def test_a_reading_is_the_later_pass_over_the_quickest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(9e-3, 5e-3, 2e-3, 1e-3, 3e-3, 1.5e-3)
    monkeypatch.setattr(shared_cache, "time", passes)
    cache = SharedCache()
    cache.table = passes  # type: ignore[assignment]
    assert cache.read() == pytest.approx(1.5, rel=0.02)
    assert passes.left == []
    assert passes.now == pytest.approx(sum((9e-3, 5e-3, 2e-3, 1e-3, 3e-3, 1.5e-3)) + shared_cache.REUSE_S, rel=0.05)


def test_it_is_read_after_a_turn_where_asked_for_and_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    watch = timing.Stopwatch(lambda: calls.append("call"), "cpu")
    assert watch.shared_cache is not None
    monkeypatch.setattr(watch.shared_cache, "read", lambda: calls.append("read") or 1.5)  # type: ignore[func-returns-value]
    watch.sample()
    assert (set(calls), watch.eviction) == ({"call"}, None)
    watch.sample(cache=True)
    assert (calls.count("read"), calls[-1], watch.eviction) == (1, "read", 1.5)
    watch.sample()
    assert watch.eviction is None


def test_it_reads_for_real() -> None:
    assert 0.5 < min(SharedCache().read() for _ in range(9)) < 5


# -- in a sweep -------------------------------------------------------------------------------------------------


class Leaving(Calm):
    """Others are gone after some turns that they spoil."""

    def __init__(self, patience: Patience, spoilt: int) -> None:
        super().__init__(patience)
        self.spoilt = spoilt
        self.readings: list[float] = []

    @property
    def is_due(self) -> bool:
        return True

    def judge(self, eviction: float | None, read: Callable[[], float]) -> float | None:
        assert eviction is not None
        self.spoilt -= 1
        if self.spoilt >= 0:
            self.readings.append(read())
            return None
        return ALONE


def test_a_turn_beside_others_leaves_no_sample(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patience = Patience(SHARE)
    leaving = Leaving(patience, 2)
    monkeypatch.setattr("attnbench.bench.sweep._counting", lambda *args: Counting(patience, leaving, None))
    (record,) = sweep("--variants", "sdpa", "--seq-lens", LARGE).records
    assert (record["status"], record["eviction"], record["reasons"]) == ("ok", ALONE, [])
    assert len(leaving.readings) == 2
    assert min(leaving.readings) > 0
    assert patience.cost_s > 0
    spent = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["spent_s"]
    assert spent["waiting"] > 0
    assert 0 < spent["measured"] <= spent["sampling"]


def test_what_fits_into_a_core_s_own_caches_is_not_waited_with(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(SHARE)
    leaving = Leaving(patience, 2)
    monkeypatch.setattr("attnbench.bench.sweep._counting", lambda *args: Counting(patience, leaving, None))
    (record,) = sweep("--variants", "sdpa", "--seq-lens", "64").records
    assert (record["status"], record["eviction"]) == ("ok", None)
    assert leaving.readings == []


def test_one_that_ends_while_the_cache_is_read_has_one_record(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(SHARE)
    monkeypatch.setattr(worker.eviction, "__qualname__", "no_such_function")
    monkeypatch.setattr("attnbench.bench.sweep._counting", lambda *args: Counting(patience, Leaving(patience, 1), None))
    (record,) = sweep("--variants", "sdpa", "--seq-lens", LARGE).records
    assert record["status"] == "crashed"


@pytest.mark.parametrize(("value", "words"), [("1", "less than 1"), ("-0.1", "greater than or equal to 0")])
def test_all_of_a_run_cannot_be_spent_in_waiting(cli: Callable[..., Any], value: str, words: str) -> None:
    answer = cli("run", "--variants", "sdpa", "--patience", value)
    assert (answer.code, answer.out) == (2, "")
    assert "patience" in answer.err
    assert words in answer.err
