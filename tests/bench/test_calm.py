"""Turns count while others leave the shared cache alone, and are waited with where they do not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench import calm, shared_cache, timing, turn, worker
from attnbench.bench.calm import EVERY_S, LONGEST_S, PAUSE_S, REST_S, Calm
from attnbench.bench.counting import Counting
from attnbench.bench.patience import HEAD_START_S, Patience
from attnbench.bench.shared_cache import FURTHER, TABLE_BYTES, SharedCache
from attnbench.bench.turn import _evicted

ALONE, LIMIT, OTHERS = 1.05, 1.25, 1.8
SHARE = 0.2
LARGE = "4096"
"""2 heads of 16 read and write 2 MiB of it."""


class Neighbours:
    """They use the cache until a time. Pausing moves the clock, reading does not."""

    def __init__(self, until_s: float, share: float = SHARE, deadline: float = math.inf) -> None:
        self.until_s = until_s
        self.seconds, self.read = 0.0, 0
        self.patience = Patience(share, deadline, clock=lambda: self.seconds)
        self.calm = Calm(self.patience, self.pause)

    def pause(self, seconds: float) -> None:
        self.seconds += seconds

    def reading(self) -> float:
        self.read += 1
        return OTHERS if self.seconds < self.until_s else ALONE

    def turn(self, eviction: float, took_s: float = 0.01) -> bool:
        """The judgement of a turn beside which that was read."""
        self.seconds += took_s
        with self.patience.spending():
            return self.calm.judge(eviction, took_s, self.reading)


@pytest.fixture(autouse=True)
def the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calm, turn):
        monkeypatch.setattr(module, "EVICTION", LIMIT)


def test_a_turn_counts_where_others_leave_the_cache_alone() -> None:
    neighbours = Neighbours(0)
    assert neighbours.turn(1.2)
    assert neighbours.read == 0


def test_a_turn_beside_others_is_taken_again_when_they_are_gone() -> None:
    neighbours = Neighbours(3)
    assert not neighbours.turn(OTHERS)
    assert neighbours.seconds == pytest.approx(3, abs=2 * PAUSE_S)


def test_the_turn_that_is_taken_again_is_looked_at_too() -> None:
    neighbours = Neighbours(3)
    assert not neighbours.turn(OTHERS)
    assert neighbours.calm.is_due
    neighbours.until_s = 6  # they are back
    assert not neighbours.turn(OTHERS)


def test_it_is_read_now_and_then() -> None:
    neighbours = Neighbours(0)
    assert neighbours.calm.is_due
    neighbours.turn(1.1)
    assert not neighbours.calm.is_due
    neighbours.seconds += EVERY_S
    assert neighbours.calm.is_due


def test_who_never_stops_is_waited_for_less_and_less() -> None:
    neighbours = Neighbours(math.inf)
    waited = []
    for _ in range(10):
        while neighbours.seconds < 1000 * (1 + len(waited)):
            assert neighbours.turn(OTHERS, 0.1)
        waited.append(neighbours.patience.cost_s)
    assert waited[0] > REST_S / 2
    assert waited[-1] < SHARE / 2 * neighbours.seconds
    assert waited[-1] - waited[4] < waited[4]


def test_one_wait_has_an_end() -> None:
    neighbours = Neighbours(math.inf)
    neighbours.seconds = 1e6
    neighbours.turn(OTHERS)
    assert neighbours.patience.cost_s == pytest.approx(LONGEST_S, abs=PAUSE_S)


def test_who_stops_and_comes_again_is_waited_for_as_at_first() -> None:
    neighbours = Neighbours(math.inf, share=0.9)
    for _ in range(4):
        neighbours.turn(OTHERS)
        neighbours.seconds = neighbours.calm.resting
    assert neighbours.calm.rest_s > 4 * REST_S
    neighbours.turn(ALONE)
    assert neighbours.calm.rest_s == REST_S


@pytest.mark.parametrize(
    ("share", "deadline", "took_s"), [(0.0, math.inf, 0.01), (SHARE, 0.005, 0.01), (SHARE, math.inf, 60.0)]
)
def test_without_patience_for_it_a_turn_counts(share: float, deadline: float, took_s: float) -> None:
    """None at all, none past the deadline, none for a turn that takes longer than all of it."""
    neighbours = Neighbours(math.inf, share, deadline)
    assert neighbours.turn(OTHERS, took_s)
    assert neighbours.read == 0


@pytest.mark.parametrize(
    ("deadline", "allowed_s"), [(math.inf, SHARE * (100 + HEAD_START_S)), (200.0, 0.2 * 150), (110.0, 0.2 * 110)]
)
def test_patience_is_a_share_of_the_run(deadline: float, allowed_s: float) -> None:
    now = [0.0]
    patience = Patience(SHARE, deadline, clock=lambda: now[0])
    now[0] = 100.0
    assert not patience.is_over(0.99 * allowed_s)
    patience.cost_s = 0.99 * allowed_s
    assert not patience.is_over()
    assert patience.is_over(0.02 * allowed_s)
    with patience.spending():
        now[0] += 0.03 * allowed_s
        assert patience.is_over()
    assert patience.cost_s == pytest.approx(1.02 * allowed_s)


@pytest.mark.parametrize(("evictions", "which"), [([1.0, 1.3, 1.1, 1.9], "most"), ([1.0, 1.25, 1.1], "some")])
def test_what_was_measured_beside_others_says_so(evictions: list[float], which: str) -> None:
    (note,) = _evicted(evictions)
    assert note.startswith(f"beside {which} of its rounds others used the cache")
    assert _evicted([1.0, 1.24]) == _evicted([]) == []


# -- the instrument ---------------------------------------------------------------------------------------------


class Passes:
    """A clock, and a table whose readings take as told."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.left = 0.0, list(seconds)

    def max(self) -> None:
        self.now += self.left.pop(0)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("later", "read"),
    [
        ([(1.0, 1.2)], 1.1),
        ([(9.0, 1.1), (1.0, 1.0), (1.1, 1.1)], 1.1),  # one that was interrupted
        ([(1.5, 1.5), (1.8, 1.8), (1.1, 1.1)], 1.5),
    ],
)
def test_a_reading_is_the_later_passes_over_the_quickest_at_once(
    monkeypatch: pytest.MonkeyPatch, later: list[tuple[float, float]], read: float
) -> None:
    parts = [[9.0, 5.0, 2.0, 1.0, first, 3.0, 1.5, second] for first, second in later]  # two fills, then twice three
    passes = Passes(*(seconds for part in parts for seconds in part))
    monkeypatch.setattr(shared_cache, "time", passes)
    cache = SharedCache()
    cache.table = passes  # type: ignore[assignment]
    assert cache.read() == pytest.approx(read)
    assert passes.left == []
    assert passes.now == pytest.approx(sum(map(sum, parts)) + 2 * len(parts) * shared_cache.REUSE_S)
    assert len(later) in (1, 1 + FURTHER)


def test_it_is_read_after_a_turn_where_asked_for_and_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    watch = timing.Stopwatch(lambda: calls.append("call"), "cpu")
    monkeypatch.setattr(SharedCache, "read", lambda self: calls.append("read") or 1.5)  # type: ignore[func-returns-value]
    watch.sample()
    assert (set(calls), watch.eviction, watch.shared_cache) == ({"call"}, None, None)
    watch.sample(cache=True)
    assert (calls.count("read"), calls[-1], watch.eviction) == (1, "read", 1.5)
    watch.sample()
    assert watch.eviction is None


def test_it_reads_a_table_that_is_there() -> None:
    cache = SharedCache()
    assert cache.table.nbytes == TABLE_BYTES
    assert cache.table.min() == 1  # pages of zeros would be one page
    assert cache.read() > 0


@pytest.mark.parametrize(
    ("sizes", "there"),
    [
        (["48K", "1024K", "32768K"], True),
        (["32K", "16M"], True),
        (["32K", "8192K"], False),
        (["odd"], False),
        ([], False),
    ],
)
def test_where_no_cache_has_room_nothing_is_told(tmp_path: Path, sizes: list[str], there: bool) -> None:
    for index, size in enumerate(sizes):
        home = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        home.mkdir(parents=True)
        (home / "size").write_text(size + "\n")
    assert shared_cache.is_there(tmp_path) is there


# -- in a sweep -------------------------------------------------------------------------------------------------


@pytest.fixture
def beside(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[dict[str, Any], dict[str, float]]]:
    """The record of a sweep of one case whose turns are judged as told, and where its time went."""

    def run(patience: Patience, judge: Calm | None, length: str = LARGE) -> tuple[dict[str, Any], dict[str, float]]:
        monkeypatch.setattr("attnbench.bench.sweep._counting", lambda *args: Counting(patience, judge, None))
        (record,) = sweep("--variants", "sdpa", "--seq-lens", length).records
        return record, json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["spent_s"]

    return run


class Judging(Calm):
    """Waits with the first turns, whatever is read."""

    def __init__(self, patience: Patience, first: int) -> None:
        super().__init__(patience, lambda seconds: None)
        self.left = first
        self.readings: list[float] = []

    def judge(self, eviction: float, took_s: float, read: Callable[[], float]) -> bool:
        self.readings += [eviction, read()]
        self.left -= 1
        return self.left < 0


Beside = Callable[..., tuple[dict[str, Any], dict[str, float]]]


def test_a_turn_beside_others_leaves_no_sample(beside: Beside) -> None:
    patience = Patience(SHARE)
    judging = Judging(patience, 2)
    record, spent = beside(patience, judging)
    assert record["status"] == "ok"
    assert min(judging.readings) > 0
    assert record["eviction"] in judging.readings[4::2] or len(judging.readings) > 6
    assert patience.cost_s > 0
    assert spent["waiting"] > 0
    assert 0 < spent["measured"] <= spent["sampling"]
    assert sum(seconds for what, seconds in spent.items() if what not in ("total", "measured")) <= spent["total"]


def test_who_never_stops_costs_what_was_allowed_and_is_told_of(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (calm, turn):
        monkeypatch.setattr(module, "EVICTION", 0.0)  # whatever is read tells of others
    paused: list[float] = []
    patience = Patience(0.01, clock=lambda: sum(paused))
    record, spent = beside(patience, Calm(patience, paused.append))
    assert record["status"] == "ok"
    assert any("most of its rounds others used the cache" in reason for reason in record["reasons"])
    assert record["eviction"] > 0
    assert paused == [PAUSE_S]
    assert spent["waiting"] > 0


@pytest.mark.parametrize(("length", "shared"), [("64", True), (LARGE, False)])
def test_nothing_is_read_of_what_fits_into_a_core_s_own_caches_or_without_an_instrument(
    beside: Beside, length: str, shared: bool
) -> None:
    patience = Patience(SHARE)
    record, spent = beside(patience, Judging(patience, 2) if shared else None, length)
    assert (record["status"], record["eviction"]) == ("ok", None)
    assert "waiting" not in spent


def test_one_that_ends_while_the_cache_is_read_has_one_record(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.eviction, "__qualname__", "no_such_function")
    patience = Patience(SHARE)
    record, _ = beside(patience, Judging(patience, 1))
    assert record["status"] == "crashed"


@pytest.mark.parametrize(("value", "words"), [("1", "less than 1"), ("-0.1", "greater than or equal to 0")])
def test_all_of_a_run_cannot_be_spent_in_waiting(cli: Callable[..., Any], value: str, words: str) -> None:
    answer = cli("run", "--variants", "sdpa", "--patience", value)
    assert (answer.code, answer.out) == (2, "")
    assert "patience" in answer.err
    assert words in answer.err
