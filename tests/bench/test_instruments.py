"""Time, operations and ceilings, with a clock that is not the machine's and counts done by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from attnbench.bench import flops, roofline, timing
from attnbench.bench.case import Case
from attnbench.bench.handover import Handover
from attnbench.results.run import Ceilings
from attnbench.results.work import moved_bytes


class Clock:
    """A clock that moves only when the timed call says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost_s: float) -> None:
        self.now, self.cost_s, self.calls = 0.0, cost_s, 0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def call(self) -> None:
        self.now += self.cost_s
        self.calls += 1


@pytest.mark.parametrize("cost_s", [1e-5, 1e-3, 0.02, 3.0])
def test_a_sample_is_the_time_of_one_call(monkeypatch: pytest.MonkeyPatch, cost_s: float) -> None:
    clock = Clock(monkeypatch, cost_s)
    watch = timing.Stopwatch(clock.call, "cpu")
    watch.warm_up()
    assert watch.sample() == pytest.approx(cost_s)
    assert watch.calls * cost_s >= min(timing.TURN_S, timing.MAX_CALLS * cost_s) * 0.5


def test_warm_up_is_kept_apart_and_slow_calls_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 3.0)
    watch = timing.Stopwatch(clock.call, "cpu")
    assert watch.warm_up() == pytest.approx(2 * 3.0)  # alike
    before = clock.calls
    watch.sample()
    assert clock.calls == before + 1


@pytest.mark.parametrize(
    ("cost_s", "earlier_s", "calls"),
    [(3.0, 3.1, 1), (3.0, 9.0, 2), (3.0, 1.0, 2), (0.1, 0.1, 2)],  # the last may have paid for its pages
)
def test_a_slow_call_that_is_like_an_earlier_one_is_warm(
    monkeypatch: pytest.MonkeyPatch, cost_s: float, earlier_s: float, calls: int
) -> None:
    clock = Clock(monkeypatch, cost_s)
    watch = timing.Stopwatch(clock.call, "cpu")
    assert watch.warm_up(earlier_s) == pytest.approx(calls * cost_s)
    assert watch.call_s == pytest.approx(cost_s)


@pytest.mark.parametrize("turn_s", [0.1, 0.4])
@pytest.mark.parametrize("cost_s", [1e-6, 0.001, 0.0016, 0.0017, 0.02])
def test_a_turn_takes_as_long_as_was_asked(monkeypatch: pytest.MonkeyPatch, turn_s: float, cost_s: float) -> None:
    clock = Clock(monkeypatch, cost_s)
    watch = timing.Stopwatch(clock.call, "cpu", turn_s=turn_s)
    watch.warm_up()
    before = clock.calls
    watch.sample()
    assert watch.calls <= clock.calls - before <= watch.calls + 1
    assert watch.calls * cost_s == pytest.approx(turn_s, rel=0.06)


@pytest.mark.parametrize(("turn_s", "untimed"), [(0.015, 1), (0.1, 0)])
def test_a_short_call_is_run_once_untimed_where_the_median_of_parts_would_see_cold_caches(
    monkeypatch: pytest.MonkeyPatch, turn_s: float, untimed: int
) -> None:
    clock = Clock(monkeypatch, 0.01)
    watch = timing.Stopwatch(clock.call, "cpu", turn_s=turn_s)
    watch.warm_up()
    start = clock.calls

    def cold_at_first() -> None:
        clock.call()
        clock.now += 0.005 if clock.calls == start + 1 else 0.0

    watch.call = cold_at_first
    assert watch.sample() == pytest.approx(0.01)
    assert clock.calls == start + watch.calls + untimed


def test_an_interruption_spoils_a_part_of_a_turn_and_not_its_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 0.001)
    watch = timing.Stopwatch(clock.call, "cpu")
    watch.warm_up()
    assert watch.size.parts > 2
    end = clock.calls + watch.calls

    def interrupted() -> None:
        clock.call()
        clock.now += 0.5 if clock.calls == end else 0.0

    watch.call, began = interrupted, clock.now
    assert watch.sample() == pytest.approx(0.001)
    # the median takes no notice of it, and it was inside of a timed call
    assert watch.timed_s == pytest.approx(0.5 + 0.001 * watch.calls)
    assert watch.timed_s <= clock.now - began


def test_a_turn_ends_when_no_other_thread_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = threading.get_native_id()
    for thread, state in ((own, "R"), (own + 1, "S"), (own + 2, "R")):
        (tmp_path / str(thread)).mkdir()
        (tmp_path / str(thread) / "stat").write_text(f"{thread} (a) name) {state} 1 1")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            (tmp_path / str(own + 2) / "stat").write_text("7 (spun) S 1 1")

    monkeypatch.setattr(timing, "TASKS", tmp_path)
    monkeypatch.setattr(timing.time, "sleep", sleep)
    timing.settle()
    assert len(waited) == 3
    timing.settle()
    assert len(waited) == 3


def test_a_thread_that_never_rests_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]
    monkeypatch.setattr(timing, "TASKS", tmp_path / "absent")
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    timing.settle()
    assert now[0] == pytest.approx(timing.SETTLE_S, abs=2 * timing.POLL_S)


def test_what_small_work_takes_is_read_after_each_turn_and_not_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch, 0.001)
    handover = Handover(threads=1)
    watch = timing.Stopwatch(clock.call, "cpu", handover=handover)

    def read() -> float:
        clock.now += 0.7
        return 0.7

    monkeypatch.setattr(handover, "read", read)
    watch.warm_up()
    assert [watch.sample() for _ in range(3)] == pytest.approx([0.001] * 3)
    assert watch.handover_s == 0.7


def test_a_handover_is_the_time_of_one_addition(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 3e-6)
    monkeypatch.setattr(torch, "add", lambda x, y, out: clock.call())
    assert Handover(threads=2).read() == pytest.approx(3e-6)


def test_garbage_is_not_collected_inside_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    import gc

    seen: list[bool] = []
    watch = timing.Stopwatch(lambda: seen.append(gc.isenabled()), "cpu")
    watch.size = timing.Size(1, 1, untimed_first=False)
    watch.sample()
    assert seen == [False]
    assert gc.isenabled()


def tensors(n: int, m: int, h: int = 3, d: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(2, h, n, d), torch.randn(2, h, m, d), torch.randn(2, h, m, d)


def test_matrix_products_are_counted() -> None:
    q, k, v = tensors(5, 7)
    assert flops.count(lambda: (q @ k.mT).softmax(-1) @ v) == 4 * 2 * 3 * 5 * 7 * 8


@pytest.mark.parametrize(("causal", "pairs"), [(False, 5 * 7), (True, 1 + 2 + 3 + 4 + 5)])
def test_the_fused_kernel_of_the_cpu_is_counted_and_its_mask_seen(causal: bool, pairs: int) -> None:
    q, k, v = tensors(5, 7)
    assert flops.count(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)) == 4 * 2 * 3 * pairs * 8


def test_the_backward_of_the_fused_kernel_costs_two_and_a_half_times_its_forward() -> None:
    q, k, v = (t.requires_grad_() for t in tensors(6, 6))
    forward = 4 * 2 * 3 * 21 * 8
    call = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()  # noqa: E731
    assert flops.count(call) == forward * 3.5


def case(**changes: object) -> Case:
    fields = {
        "variant": "naive", "params": {}, "mode": "forward", "causal": True, "batch": 2, "heads": 4, "kv_heads": 2,
        "n_q": 10, "n_k": 10, "head_dim": 8, "dtype": "float32", "device": "cpu", "threads": 1, "inputs": "gaussian",
        "seed": 0,
    }  # fmt: skip
    return Case(**{**fields, **changes})  # type: ignore[arg-type]


def ceilings(flops_per_s: float, bytes_per_s: float) -> Ceilings:
    return Ceilings(
        device="cpu", dtype="float32", threads=1, matmul_flops_per_s=flops_per_s, copy_bytes_per_s=bytes_per_s
    )


def test_the_share_is_of_whichever_ceiling_is_lower() -> None:
    assert roofline.share(1000, 4, 10.0, ceilings(1000.0, 1e12)) == pytest.approx(0.1)
    numbers = 2 * 8 * (4 * 10 * 2 + 2 * 10 * 2)  # q and out of 4 heads, k and v of 2
    for moved, passes in (({}, 1), ({"mode": "train"}, 2), ({"dtype": "bfloat16"}, 0.5)):
        needed = moved_bytes(case(**moved), 1)
        assert roofline.share(1, needed, 1.0, ceilings(1e12, numbers * 4.0)) == pytest.approx(passes)


def test_measured_ceilings_are_above_what_a_plain_loop_reaches() -> None:
    found = roofline.measure({}, "cpu", "float32", 1)
    assert found.matmul_flops_per_s > 1e9
    assert found.copy_bytes_per_s > 1e8


@pytest.mark.parametrize(("seconds", "tried"), [(0.02, [256]), (0.002, [256, 1024, 2048])])
def test_no_product_is_tried_that_would_take_minutes_in_a_dtype_without_instructions(
    monkeypatch: pytest.MonkeyPatch, seconds: float, tried: list[int]
) -> None:
    sizes = []

    def product(a: torch.Tensor) -> Callable[[], None]:
        sizes.append(len(a))
        return lambda: time.sleep(seconds)

    monkeypatch.setattr(roofline, "_product", product)
    roofline.measure({}, "cpu", "bfloat16", 1)
    assert sizes == tried
