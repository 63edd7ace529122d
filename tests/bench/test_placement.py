"""Turns count while the cores lie together and nobody else uses them, and are taken again where that is not so."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench import environment, placement, sweep, worker
from attnbench.bench.counting import Counting
from attnbench.bench.patience import HEAD_START_S, Patience
from attnbench.bench.placement import FIRST_TRIES, LATEST, TRIES, WAIT_S, WAITS, Placement
from attnbench.bench.plan import ask
from attnbench.bench.sampling import RETAKES
from attnbench.bench.turn import _slowed

NEAR, APART = 3.5e-6, 4.9e-6
SHARE = 0.2
MATTERS = placement.matters


class Host:
    """A machine whose cores lie, or are used, as told each time that they were gathered or waited for, and a clock that
    this moves."""

    def __init__(self, *then: float, now: float = NEAR, threads: int = 2) -> None:
        self.handover_s, self.then, self.threads = now, list(then), threads
        self.gathered = self.waited = self.read = 0
        self.seconds = 0.0
        self.patience = Patience(SHARE, clock=lambda: self.seconds)
        self.cores = Placement(self.gather, self.patience, self.wait)

    def gather(self) -> None:
        self.gathered += 1
        self._pass(1)

    def wait(self) -> None:
        self.waited += 1
        self._pass(WAIT_S)

    def _pass(self, seconds: float) -> None:
        self.seconds += seconds
        self.handover_s = self.then.pop(0) if self.then else self.handover_s

    def reading(self) -> float:
        self.read += 1
        return self.handover_s

    def turn(self, handover_s: float, took_s: float = 0.01) -> float | None:
        """The judgement of a turn beside which that was read."""
        self.seconds += took_s
        with self.patience.spending():
            found = self.cores.judge(self.threads, handover_s, took_s, self.reading)
        self.patience.cost_s += took_s if found is None else 0.0
        return found

    def begun(self) -> Host:
        """After its first turn, from which on it is near."""
        self.turn(NEAR)
        self.patience.cost_s = 0.0
        self.counted()
        return self

    def counted(self) -> tuple[int, int]:
        """How often it was read and gathered since this was last asked."""
        assert not (self.waited if self.threads > 1 else self.gathered)
        found = self.read, self.gathered + self.waited
        self.read = self.gathered = self.waited = 0
        return found


def test_a_turn_counts_where_the_cores_lie_together() -> None:
    host = Host().begun()
    for factor in (1.0, 1.1, 0.9, 1.19):
        assert host.turn(NEAR * factor) == NEAR * factor
    assert host.counted() == (0, 0)


def test_one_reading_astray_costs_no_turn_and_is_not_kept() -> None:
    host = Host().begun()
    assert host.turn(APART) == NEAR
    assert host.counted() == (1, 0)


def test_a_turn_with_the_cores_apart_is_taken_again_when_they_lie_together() -> None:
    host = Host().begun()
    host.handover_s, host.then = APART, [APART, APART, NEAR]
    assert host.turn(APART) is None
    assert host.counted() == (4, 3)
    assert host.turn(NEAR) == NEAR


def test_a_turn_of_one_thread_is_taken_again_when_others_left_its_core() -> None:
    host = Host(threads=1).begun()
    host.handover_s, host.then = APART, [APART, APART, NEAR]
    assert host.turn(APART) is None
    assert host.counted() == (4, 3)
    assert host.turn(NEAR) == NEAR
    host.handover_s = APART
    assert host.turn(APART) == APART  # nobody leaves
    assert host.counted() == (1 + TRIES * WAITS, TRIES * WAITS)
    assert host.turn(APART) == APART
    assert host.counted() == (0, 0)  # after which it rests


def test_a_run_of_one_thread_waits_for_the_shortest_that_it_could_have() -> None:
    host = Host(*[APART] * (FIRST_TRIES * WAITS - 1), NEAR, now=APART, threads=1)
    assert host.turn(APART) is None
    assert host.cores.shortest_s == {1: NEAR}
    assert host.counted() == (1 + FIRST_TRIES * WAITS, FIRST_TRIES * WAITS)


def test_what_cannot_be_brought_together_counts_and_is_tried_again_after_a_rest() -> None:
    host = Host().begun()
    host.handover_s = APART
    assert host.turn(APART) == APART
    assert host.counted() == (1 + TRIES, TRIES)
    assert host.turn(APART) == APART
    assert host.counted() == (0, 0)
    host.then = [NEAR]
    host.seconds += 2 * TRIES / SHARE + 1
    assert host.turn(APART) is None


def test_what_cannot_be_brought_together_leaves_half_of_the_patience_to_others() -> None:
    host = Host().begun()
    host.handover_s = APART
    while host.seconds < 1000:
        assert host.turn(APART, 1.0) == APART
    assert 0.4 < host.patience.cost_s / (SHARE * host.seconds) < 0.6


def test_nothing_is_tried_beyond_the_patience_or_the_deadline() -> None:
    host = Host().begun()
    host.patience.deadline = host.seconds + 2.5
    host.patience.share = 0.99
    host.handover_s = APART
    assert host.turn(APART) == APART
    assert host.counted() == (1 + 3, 3)
    host = Host()
    host.patience.deadline = 0.0
    assert host.turn(NEAR) == NEAR
    assert host.counted() == (1, 0)


def test_who_comes_together_by_himself_is_tried_for_again() -> None:
    host = Host().begun()
    host.handover_s = APART
    assert host.turn(APART) == APART
    assert host.turn(NEAR) == NEAR
    host.then = [NEAR]
    assert host.turn(APART) is None


@pytest.mark.parametrize("took_s", [0.01, 1.0, 10.0])
def test_what_never_rests_costs_its_share_of_the_run_and_no_more(took_s: float) -> None:
    """Every turn is taken with the cores apart, and every try brings them together."""
    host = Host().begun()
    counted = 0
    while host.seconds < 1000:
        host.handover_s, host.then = APART, [NEAR]
        counted += host.turn(APART, took_s) is not None
    assert counted > 0
    assert 0.9 < host.patience.cost_s / (SHARE * (host.seconds + HEAD_START_S)) < 1.01


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (NEAR, []),
        (APART, [APART, NEAR]),
        (NEAR, [APART]),
        (APART, [APART, APART, APART, NEAR]),
        (2 * APART, [APART, NEAR]),  # a first reading astray
    ],
)
def test_a_run_begins_with_the_shortest_that_it_could_have(now: float, then: list[float]) -> None:
    host = Host(*then, now=now)
    assert host.turn(NEAR) == NEAR
    assert host.cores.shortest_s == {2: NEAR}
    assert host.counted() == (1 + FIRST_TRIES, FIRST_TRIES)


def test_the_first_turn_counts_no_more_than_others() -> None:
    assert Host(NEAR, now=APART).turn(APART) is None


def test_a_run_that_began_with_the_cores_apart_learns_of_it() -> None:
    host = Host(now=APART)
    assert host.turn(APART) == APART
    assert host.turn(NEAR / 2) == NEAR / 2  # one reading alone decides nothing
    assert host.turn(APART) == APART
    for _ in range(LATEST):
        assert host.turn(NEAR) == NEAR
    host.then = [NEAR]
    assert host.turn(APART) is None


def test_a_resumed_run_remembers() -> None:
    host = Host(now=APART)
    host.cores.knows(2, NEAR)
    assert host.turn(APART) is None
    assert host.turn(NEAR) == NEAR


def test_thread_counts_are_apart() -> None:
    cores = Placement(lambda: None, Patience(SHARE), lambda: None)
    assert cores.judge(2, NEAR, 0.01, lambda: NEAR) == NEAR
    assert cores.judge(4, 3 * NEAR, 0.01, lambda: 3 * NEAR) == 3 * NEAR
    assert cores.is_near(4, 3 * NEAR)
    assert not cores.is_near(2, 3 * NEAR)


@pytest.mark.parametrize(
    ("handovers_s", "which"), [([NEAR, APART, APART, 1.1 * NEAR], "most"), ([NEAR, NEAR, NEAR, 1.2 * NEAR], "some")]
)
def test_what_was_measured_apart_says_so(handovers_s: list[float], which: str) -> None:
    (note,) = _slowed(handovers_s, NEAR, threads=2)
    assert note.startswith(f"beside {which} of its rounds the cores lay apart")
    assert "others used its core" in _slowed(handovers_s, NEAR, threads=1)[0]
    assert _slowed(handovers_s[:1], NEAR, 2) == _slowed(handovers_s, None, 2) == _slowed([], NEAR, 2) == []


# -- for real ---------------------------------------------------------------------------------------------------


def test_waking_wakes_in_a_process_of_its_own() -> None:
    mine = os.sched_getaffinity(0)
    times = ask(placement.wake, timeout_s=30)
    assert times > (10 if len(mine) > 1 else 0)  # of up to 10,000 naps in that second
    assert os.sched_getaffinity(0) == mine


@pytest.mark.parametrize(
    ("cpuinfo", "virtual"),
    [("flags\t\t: fpu hypervisor sse\n", True), ("flags\t\t: fpu sse\n", False), (None, None)],
)
def test_a_host_is_known_by_the_processor(tmp_path: Path, cpuinfo: str | None, virtual: bool | None) -> None:
    (tmp_path / "proc").mkdir()
    if cpuinfo is not None:
        (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    assert environment.is_virtual(tmp_path) is virtual


@pytest.mark.parametrize(
    ("virtual", "cores", "matters"),
    [(True, {0, 1}, True), (True, {0}, False), (False, {0, 1}, False), (None, {0, 1}, False)],
)
def test_it_matters_where_a_host_can_move_several_cores(
    monkeypatch: pytest.MonkeyPatch, virtual: bool | None, cores: set[int], matters: bool
) -> None:
    monkeypatch.setattr(placement, "is_virtual", lambda: virtual)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    assert MATTERS() is matters


# -- in a sweep -------------------------------------------------------------------------------------------------


class Refusing(Placement):
    """Refuses the first turns, however near the cores lie."""

    def __init__(self, first: int, threads: int = 2) -> None:
        super().__init__(lambda: None, Patience(SHARE), lambda: None)
        self.threads, self.left, self.counted = threads, first, list[float]()
        self.readings = 0

    def judge(self, threads: int, handover_s: float, took_s: float, read: Callable[[], float]) -> float | None:
        assert (threads, took_s > 0) == (self.threads, True)
        self.left -= 1
        if self.left >= 0:
            self.readings += 0 < read() < 1
            return None
        self.counted.append(handover_s)
        return handover_s


def judged_by(cores: Placement) -> Counting:
    return Counting(cores.patience, False, cores)


@pytest.fixture
def of_two(sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A sweep of one case on two threads, whose turns are judged as told."""

    def run(cores: Placement | None, *args: object) -> Any:
        if cores is not None:
            monkeypatch.setattr("attnbench.bench.sweep._counting", lambda *args: judged_by(cores))
        return sweep("--variants", "sdpa", "--seq-lens", "64", "--threads", "2", *args)

    return run


def spent(tmp_path: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["spent_s"]
    return found


def test_a_turn_that_does_not_count_leaves_no_sample(of_two: Callable[..., Any], tmp_path: Path) -> None:
    cores = Refusing(RETAKES)
    (record,) = of_two(cores).records
    assert record["status"] == "ok"
    assert cores.readings == RETAKES
    assert len(cores.counted) == len(record["samples_s"]) - 1  # one had been refused often enough
    assert min(cores.counted) <= record["handover_s"] <= max(cores.counted)
    where = spent(tmp_path)
    assert where["placing"] > 0
    assert 0 < where["measured"] <= where["sampling"]
    assert sum(seconds for what, seconds in where.items() if what not in ("total", "measured")) <= where["total"]


def test_one_that_ends_while_it_is_read_has_one_record(
    of_two: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.handover, "__qualname__", "no_such_function")
    (record,) = of_two(Refusing(1)).records
    assert record["status"] == "crashed"


@pytest.mark.parametrize(("options", "judged"), [((), True), (("--patience", "0"), False)])
def test_without_patience_the_cores_may_lie_anywhere(
    of_two: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, ...],
    judged: bool,
) -> None:
    monkeypatch.setattr(placement, "matters", lambda: True)
    monkeypatch.setattr(sweep, "WAKING_TIMEOUT_S", 0.001)  # gathers nothing
    (record,) = of_two(None, *options).records
    assert record["status"] == "ok"
    assert ("placing" in spent(tmp_path)) is judged


def test_one_thread_is_judged_by_the_same_work(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cores = Refusing(1, threads=1)
    monkeypatch.setattr("attnbench.bench.sweep._counting", lambda *args: judged_by(cores))
    (record,) = sweep("--variants", "sdpa", "--seq-lens", "64").records
    assert record["status"] == "ok"
    assert cores.readings == 1
    assert len(cores.counted) == len(record["samples_s"])
    assert 0 < min(cores.counted) <= record["handover_s"] <= max(cores.counted)
    assert spent(tmp_path)["placing"] > 0
