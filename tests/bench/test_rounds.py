"""Rounds beside which others used the shared cache: further ones are taken, and the calm ones count alone or all do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench import rounds, sampling, turn, worker
from attnbench.bench.counting import Counting
from attnbench.bench.patience import HEAD_START_S, Patience
from attnbench.bench.rounds import EVERY_S, Rounds
from attnbench.bench.turn import Taken, Turn, _evicted
from attnbench.results.statistics import paired_ratio

ALONE, LIMIT, OTHERS = 1.05, 1.25, 1.8
SHARE = 0.2
LARGE = "4096"
"""2 heads of 16 read and write 2 MiB of it."""
FIVE = "min_rounds = 5\nmax_rounds = 5"


@pytest.fixture(autouse=True)
def the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rounds, turn):
        monkeypatch.setattr(module, "EVICTION", LIMIT)


def beside(*evictions: float) -> Rounds:
    made = Rounds(True)
    for eviction in evictions:
        made.read(eviction)
        made.end()
    return made


def test_it_is_read_now_and_then() -> None:
    now = [0.0]
    taken = Rounds(True, clock=lambda: now[0])
    assert taken.is_due
    taken.read(ALONE)
    assert not taken.is_due
    assert not taken.others
    now[0] += EVERY_S
    assert taken.is_due
    taken.read(OTHERS)
    assert taken.others


def test_a_round_is_the_median_of_what_was_read_in_it_or_as_the_one_before() -> None:
    taken = beside(ALONE)
    for eviction in (OTHERS, 1.2, 1.3):
        taken.read(eviction)
    taken.end()
    taken.end()
    assert taken.evictions == [ALONE, 1.3, 1.3]


def test_where_nothing_is_looked_at_nothing_is_lacking() -> None:
    taken = Rounds(False)
    taken.end()
    assert (taken.is_due, taken.lack(9), taken.evictions) == (False, False, [])


def test_calm_ones_count_alone_where_all_cases_have_enough() -> None:
    taken = beside(*[ALONE] * 3, *[OTHERS] * 4, *[ALONE] * 3)
    assert (taken.lack(6), taken.lack(7)) == (False, True)
    assert taken.counting([(6, 10), (5, 9), (3, 3)]) == [0, 1, 2, 7, 8, 9]
    for too_few in ((7, 10), (6, 9), (4, 4)):  # the last two ended before they had them
        assert taken.counting([(6, 10), too_few]) == list(range(10))


def test_what_ended_earlier_stays_paired_with_what_went_on() -> None:
    made: dict[str, Any] = {"planned": None, "started_at": "now", "child": None, "fields": {}}
    short, long = (
        Turn(
            **made,
            samples=[float(n) for n in range(count)],
            taken=[Taken(1 + n // 4, 2.0, 1.0, None) for n in range(count)],
        )
        for count in (10, 14)
    )
    counting, evictions = [0, 4, 5, 6, 7, 8, 9, 12], [ALONE + n for n in range(14)]
    assert len(short.count(counting, evictions)) == 3
    assert [each.process for each in long.count(counting, evictions)] == [1, 1, 1, 3, 3, 4]
    assert short.samples == [0, 4, 5, 6, 7, 8, 9] == long.samples[:7]
    assert long.evictions == [evictions[n] for n in counting]
    assert [each.process for each in long.taken] == [1, 2, 2, 2, 2, 3, 3, 4]
    assert long.interval is not None
    assert long.interval.value == 6.5


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


# -- in a sweep -------------------------------------------------------------------------------------------------


Sweep = Callable[..., tuple[list[dict[str, Any]], dict[str, float]]]


@pytest.fixture
def told(sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """The records of a sweep beside whose rounds such things are read, and where its time went."""

    def run(
        evictions: Iterator[float], patience: Patience, config: str = "", *, length: str = LARGE, looks: bool = True
    ) -> Any:
        class Told(Rounds):
            def end(self) -> None:
                if self._readings:
                    assert min(self._readings) > 0
                    self._readings = [next(evictions)]
                super().end()

        monkeypatch.setattr(rounds, "EVERY_S", 0.0)
        monkeypatch.setattr("attnbench.bench.turn.LONG_S", math.inf)  # on a slow machine too, several processes
        monkeypatch.setattr("attnbench.bench.sampling.Rounds", Told)
        monkeypatch.setattr("attnbench.bench.sweep._counting", lambda *args: Counting(patience, looks, None))
        file = tmp_path / "config.toml"
        file.write_text(config, encoding="utf-8")
        records = sweep(file, "--variants", "sdpa,naive", "--seq-lens", length).records
        return records, json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["spent_s"]

    return run


def about_others(record: dict[str, Any]) -> list[str]:
    return [reason for reason in record["reasons"] if "others used the cache" in reason]


def test_rounds_beside_others_are_made_up_for_by_further_ones_of_further_processes(told: Sweep) -> None:
    patience = Patience(0.9)
    evictions = chain(repeat(OTHERS, 12), repeat(ALONE))
    records, spent = told(evictions, patience, "min_rounds = 8\nmax_rounds = 8\nprocesses = 4")
    for record in records:
        assert (record["status"], record["eviction"], about_others(record)) == ("ok", ALONE, [])
        assert (len(record["samples_s"]), record["processes"]) == (8, 4)
        assert record["evictions"] == [ALONE] * 8
    base, other = sorted(records, key=lambda record: float(record["ratio"] != 1))
    assert paired_ratio(other["samples_s"], base["samples_s"]).value == pytest.approx(other["ratio"])
    assert patience.cost_s > 0
    assert spent["left_out"] > spent["measured"] / 2
    assert 0 < spent["measured"] <= spent["sampling"]
    assert sum(seconds for what, seconds in spent.items() if what not in ("total", "measured")) <= spent["total"]


def test_each_pass_takes_further_rounds_beside_others_and_no_case_s_own_time_for_them(
    told: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four rounds beside others are all that the first pass of two needs: it takes four more, and the second its own.
    Of the twelve, the first four are left out."""
    seen: dict[str, float] = {}
    stop = sampling.Sampling._stop

    def extra_s(turn: Turn) -> float:
        return sum(taken.took_s for taken in turn.taken) - turn.sampling_s

    def stopping(self: sampling.Sampling, turn: Turn, done: int) -> str | None:
        assert extra_s(turn) == pytest.approx(sum(taken.took_s for taken in turn.taken[4:8]))
        assert len(turn.samples) == done + 4 == 12
        seen[turn.case.variant] = extra_s(turn)
        return stop(self, turn, done)

    monkeypatch.setattr(sampling.Sampling, "_stop", stopping)
    patience = Patience(0.9)
    evictions = chain(repeat(OTHERS, 4), repeat(ALONE))
    records, spent = told(evictions, patience, "min_rounds = 8\nmax_rounds = 8\nprocesses = 2\npasses = 2")
    assert set(seen) == {"sdpa", "naive"}
    for record in records:
        assert (record["status"], record["eviction"], about_others(record)) == ("ok", ALONE, [])
        assert (len(record["samples_s"]), record["processes"]) == (8, 2)
    assert patience.cost_s >= sum(seen.values()) > 0
    assert spent["left_out"] > 0


def test_who_never_stops_costs_what_was_allowed_and_is_told_of(told: Sweep) -> None:
    patience = Patience(0.02, clock=lambda: 0.0)
    records, spent = told(repeat(OTHERS), patience, FIVE)
    for record in records:
        assert (record["status"], record["eviction"]) == ("ok", OTHERS)
        assert "most of its rounds" in about_others(record)[0]
        assert len(record["samples_s"]) == len(record["evictions"]) > 5
    assert patience.cost_s > 0.02 * HEAD_START_S * 0.5
    assert "left_out" not in spent


@pytest.mark.parametrize("evictions", [repeat(ALONE), repeat(OTHERS)])
def test_without_others_or_patience_no_further_round_is_taken(told: Sweep, evictions: Iterator[float]) -> None:
    patience = Patience(0.0 if next(evictions) == OTHERS else 0.9)
    records, spent = told(evictions, patience, FIVE)
    assert [len(record["samples_s"]) for record in records] == [5, 5]
    assert patience.cost_s == 0
    assert "left_out" not in spent


def test_one_that_ends_before_anything_is_read_has_one_record(told: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.sample, "__qualname__", "no_such_function")
    records, _ = told(repeat(OTHERS), Patience(0.9))
    assert [record["status"] for record in records] == ["crashed", "crashed"]


@pytest.mark.parametrize(("length", "looks"), [("64", True), (LARGE, False)])
def test_nothing_is_read_of_what_fits_into_a_core_s_own_caches_or_without_an_instrument(
    told: Sweep, length: str, looks: bool
) -> None:
    records, _ = told(repeat(OTHERS), Patience(0.9), length=length, looks=looks)
    assert {(record["status"], record["eviction"], record["evictions"]) for record in records} == {("ok", None, None)}


@pytest.mark.parametrize(("value", "words"), [("1", "less than 1"), ("-0.1", "greater than or equal to 0")])
def test_all_of_a_run_cannot_go_to_like_conditions(cli: Callable[..., Any], value: str, words: str) -> None:
    answer = cli("run", "--variants", "sdpa", "--patience", value)
    assert (answer.code, answer.out) == (2, "")
    assert "patience" in answer.err
    assert words in answer.err
