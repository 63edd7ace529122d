"""Time, operations and ceilings, with a clock that is not the machine's and counts done by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from attnbench.bench import flops, roofline, timing
from attnbench.bench.case import Case
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
    assert watch.calls * cost_s >= min(timing.SAMPLE_S, timing.MAX_CALLS * cost_s) * 0.5


def test_warm_up_is_kept_apart_and_slow_calls_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 3.0)
    watch = timing.Stopwatch(clock.call, "cpu")
    assert watch.warm_up() == pytest.approx(3.0 * timing.WARMUP_CALLS)
    before = clock.calls
    watch.sample()
    assert clock.calls == before + 1


def test_a_short_call_is_run_once_untimed_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 0.01)
    watch = timing.Stopwatch(clock.call, "cpu")
    watch.warm_up()
    before = clock.calls
    watch.sample()
    assert clock.calls == before + watch.calls + 1


def test_garbage_is_not_collected_inside_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    import gc

    seen: list[bool] = []
    watch = timing.Stopwatch(lambda: seen.append(gc.isenabled()), "cpu")
    watch.call_s = 1.0
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
