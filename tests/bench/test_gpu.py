"""What is done for a GPU, as far as stand-ins can show it: no GPU is at hand here."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attnbench.bench import asking, gpu, memory, scheduler, timing
from attnbench.bench.beside import Beside
from attnbench.bench.config import build
from attnbench.bench.counting import Counting
from attnbench.bench.errors import BenchError
from attnbench.bench.patience import Patience
from attnbench.bench.plan import Plan, Planned
from attnbench.bench.process import Child
from attnbench.bench.progress import Quiet
from attnbench.results.record import Record
from attnbench.results.run import Ceilings

from .test_instruments import case

HOLD = """
import sys
from pathlib import Path
from attnbench.bench import gpu
with gpu.alone({"cuda:0": "one"}, "wait", Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_run_measures_on_a_gpu_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        words = "another run measures on cuda:1, and both would be wrong; go on later"
        with pytest.raises(BenchError, match=words), gpu.alone({"cuda:1": "one"}, "go on later", tmp_path):
            raise AssertionError("the same one, by another number, was let in")
        with gpu.alone({"cuda:0": "two"}, "", tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    with gpu.alone({"cuda:0": "one"}, "", tmp_path), pytest.raises(BenchError), gpu.alone({"x": "one"}, "", tmp_path):
        pass


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "attnbench-gpu-one.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(BenchError, match="remove that file"), gpu.alone({"cuda:0": "one"}, "", tmp_path):
        pass
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize(("cache", "flushed"), [(50 << 20, 256 << 20), (300 << 20, 600 << 20), (None, 256 << 20)])
def test_what_is_flushed_is_twice_the_cache_at_least(
    monkeypatch: pytest.MonkeyPatch, cache: int | None, flushed: int
) -> None:
    facts = SimpleNamespace() if cache is None else SimpleNamespace(L2_cache_size=cache)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    assert gpu.flush_bytes("cuda:0") == flushed


def test_the_device_by_number_is_made_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    for device in ("cpu", "cuda", "cuda:1"):
        gpu.use(device)
    assert used == ["cuda:1"]


class Device:
    """A GPU's clock and queue: what is launched takes its time there, and events stamp when they are reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms, self.log, device = 0.0, [], self  # type: ignore[var-annotated]

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = device.now_ms
                device.log.append("event")

            def elapsed_time(self, end: Any) -> float:
                assert device.log[-1] == "synchronized"
                return float(end.at - self.at)

        class Flush:
            def zero_(self) -> None:
                device.run("flush", 0.1)

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: self.log.append("synchronized"))
        monkeypatch.setattr(torch, "empty", lambda *_, **__: Flush())
        monkeypatch.setattr(gpu, "flush_bytes", lambda device: 1)

    def run(self, what: str, ms: float) -> None:
        self.now_ms += ms
        self.log.append(what)


def test_events_stand_around_the_call_alone_and_the_cache_is_flushed_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(monkeypatch)
    watch = timing.Stopwatch(lambda: device.run("call", 2.5), "cuda:0")
    watch.size = timing.Size(1, 1, untimed_first=False)
    assert watch.sample() == pytest.approx(2.5e-3)
    assert device.log == ["flush", "event", "call", "event", "synchronized"]


def test_calls_of_a_turn_are_launched_behind_each_other_and_a_gap_before_the_first_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, costs = Device(monkeypatch), iter([90.0, 1.0, 1.0, 2.5, 80.0, *[2.5] * 4])
    watch = timing.Stopwatch(lambda: device.run("call", next(costs)), "cuda:0", turn_s=0.005)
    watch.warm_up(least_s=0.0)
    assert watch.call_s == pytest.approx(1e-3)
    assert watch.calls == 5
    device.log.clear()
    assert watch.sample() == pytest.approx(2.5e-3)
    assert device.log == ["call", *["flush", "event", "call", "event"] * 5, "synchronized"]
    assert watch.timed_s == pytest.approx(90e-3)


@pytest.mark.parametrize(("call_ms", "calls"), [(1e-3, timing.MOST_LAUNCHED), (5.0, 3), (400.0, 1)])
def test_a_turn_on_cuda_has_as_many_calls_as_its_time_allows_and_no_more_than_are_of_use(
    monkeypatch: pytest.MonkeyPatch, call_ms: float, calls: int
) -> None:
    device = Device(monkeypatch)
    watch = timing.Stopwatch(lambda: device.run("call", call_ms), "cuda:0", turn_s=0.015)
    watch.warm_up(least_s=0.0)
    assert watch.calls == calls


@pytest.mark.parametrize(
    ("costs", "calls", "settled"),
    [
        ([9.0, 4.0, 1.0, 0.02], 5, 0.02),  # tuned, tuned again, loaded; then two calls alike
        ([3.0, 3.0], 2, 3.0),
        ([3.0, 1.0, 1.0], 3, 1.0),
        ([1.0, 2.0] * 20, timing.CHANGING_CALLS, 1.0),  # never steady
    ],
)
def test_warming_up_goes_on_while_calls_change(
    monkeypatch: pytest.MonkeyPatch, costs: list[float], calls: int, settled: float
) -> None:
    clock = SimpleNamespace(now=0.0, calls=0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)

    def call() -> None:
        clock.now += costs[min(clock.calls, len(costs) - 1)]
        clock.calls += 1

    watch = timing.Stopwatch(call, "cpu")
    assert watch.warm_up() == pytest.approx(clock.now)
    assert clock.calls == calls
    assert watch.call_s == pytest.approx(settled)


def test_the_peak_is_what_was_allocated_above_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"now": 1000, "peak": 9000}

    def call() -> None:
        state["peak"] = max(state["peak"], state["now"] + 300)

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: state.update(peak=state["now"]))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state["peak"])
    assert memory.allocator_peak(call, "cuda:0") == 300


def test_a_group_that_does_not_fit_on_the_gpu_is_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process holds 30 of 80 bytes there, so two may wait beside the one that is set up."""
    alive: set[object] = set()
    beside: list[int] = []

    class Process:
        def __init__(self, server: int, timeout_s: float) -> None: ...

        def call(self, function: Callable[..., Any], *args: Any, timeout_s: float) -> Any:
            if function.__name__ == "set_up":
                alive.add(self)
                beside.append(len(alive))
                fields = {"calls_per_sample": 1, "error": 0.0, "error_allowed": 1.0}
                held = {"held_bytes": 30, "free_bytes": 80 - 30 * len(alive)}
                return {"correct": True, "problem": None, "fields": fields, "realised": None, **held}
            return {"sample": (0.01, Beside()), "weigh": {"fields": {}, "problem": None}}.get(function.__name__, True)

        def close(self) -> None:
            alive.discard(self)

    monkeypatch.setattr(asking, "Child", Process)
    about = {"kind": "exact", "family": "full", "flops_needed": 1}
    cases = [Planned(case(variant=f"v{i}", device="cuda"), [], about) for i in range(4)]
    saved: list[Record] = []
    scheduler.Scheduler(
        build(options={"min_rounds": 5, "max_rounds": 5}),
        Plan(cases),
        machine="m",
        ceilings=lambda case: Ceilings(
            device="cuda", dtype="float32", threads=1, matmul_flops_per_s=1e15, copy_bytes_per_s=1e15
        ),
        save=saved.extend,
        watcher=Quiet(),
        counting=Counting(Patience(0.2), False, None),
    ).run()
    assert [record.status for record in saved] == ["ok"] * 4
    assert max(beside) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_a_worker_forked_after_the_imports_may_use_the_gpu() -> None:
    with contextlib.closing(Child()) as child:
        assert child.call(gpu.names, ["cuda"])["cuda"]
