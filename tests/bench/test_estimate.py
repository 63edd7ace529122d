"""A length that would clearly run out is skipped with the estimate, and one that may come through is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from attnbench.bench.case import Case
from attnbench.bench.estimate import CALLS, MARGIN, MARGIN_OF_ONE, Series, expect
from attnbench.bench.limits import memory_available

from .test_faults import PLUGIN

GIB = 1 << 30


def case(n: int, device: str = "cpu") -> Case:
    return Case("naive", {}, "forward", True, 1, 2, 2, n, n, 16, "float32", device, 1, "gaussian", 0)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5, 2.0])
def test_a_power_law_is_followed(exponent: float) -> None:
    seen = {n: 3.0 * n**exponent for n in (128, 256, 512)}
    found = expect(seen, 4096, declared=2.0)
    assert found is not None
    assert found.value == pytest.approx(3.0 * 4096**exponent)
    assert found.lengths == (128, 256, 512)


def test_what_is_constant_at_short_lengths_makes_the_estimate_too_small_never_too_large() -> None:
    def true(n: int) -> float:
        return 5e6 + 8.0 * n**2

    for longest in (256, 512, 1024, 4096):
        found = expect({n: true(n) for n in (64, 128, longest)}, 16384, declared=2.0)
        assert found is not None
        assert found.value <= true(16384)


def test_no_more_than_what_is_declared_is_believed() -> None:
    noisy = {1000: 1.0, 1010: 1.5}  # a slope of 40
    found = expect(noisy, 100_000, declared=1.0)
    assert found is not None
    assert found.exponent == 1.0
    assert found.value == pytest.approx(1.5 * 100_000 / 1010)


def test_a_curve_that_falls_is_taken_as_flat() -> None:
    found = expect({100: 3.0, 200: 1.0}, 10_000, declared=2.0)
    assert found is not None
    assert found.value == 1.0


def test_longer_lengths_and_nothing_say_nothing() -> None:
    assert expect({}, 64, 2.0) is None
    assert expect({128: 1.0, 256: 2.0}, 64, 2.0) is None
    assert expect({32: 0.0}, 64, 2.0) is None
    assert expect({32: 1.0}, 64, None) is None


@pytest.mark.parametrize("lengths", [(1024,), (512, 1024)])
def test_a_limit_must_be_passed_by_the_margin(lengths: tuple[int, ...]) -> None:
    margin = MARGIN if len(lengths) > 1 else MARGIN_OF_ONE
    series = Series(peak_bytes={n: 64.0 * n**2 for n in lengths}, declared_memory=2.0)
    needed = 64.0 * 8192**2
    assert series.why_not(case(8192), needed / margin * 1.01, 300) is None
    why = series.why_not(case(8192), needed / margin * 0.99, 300)
    assert why is not None
    assert "4 GiB" in why
    assert f"over {margin:g} times" in why
    assert series.why_not(case(8192, "cuda"), 1.0, 300) is None  # the GPU's memory is not what is free here

    series = Series(time_s={n: 1e-6 * n**2 for n in lengths}, declared_time=2.0)
    step = CALLS * 1e-6 * 8192**2
    assert series.why_not(case(8192), math.inf, step / margin * 1.01) is None
    why = series.why_not(case(8192), math.inf, step / margin * 0.99)
    assert why is not None
    assert "67.1 s" in why


def test_one_very_short_time_makes_no_estimate() -> None:
    assert Series(time_s={64: 1e-4}, declared_time=2.0).why_not(case(1 << 20), math.inf, 1.0) is None


def test_resident_memory_of_one_length_makes_no_estimate() -> None:
    assert Series(peak_rss_bytes={64: 1e7}, declared_memory=2.0).why_not(case(1 << 20), GIB, 1.0) is None


def test_memory_that_would_run_out_is_skipped_with_the_estimate(sweep: Callable[..., Any]) -> None:
    free = memory_available()
    if free is None:
        pytest.skip("this system does not say how much memory is free")
    far = math.ceil(math.sqrt(4 * free / 1024))
    answer = sweep("--plugin", PLUGIN, "--variants", "takes_memory", "--seq-lens", f"64,128,256,{far}")
    assert answer.code == 0, answer.err
    *measured, skipped = answer.records
    assert [record["status"] for record in measured] == ["ok"] * 3
    assert [record["peak_bytes"] >= 1024 * record["n_k"] ** 2 for record in measured] == [True] * 3
    assert skipped["status"] == "skipped", skipped["reasons"]
    assert "from lengths 64, 128, 256, growing by the power 2 as fitted" in skipped["reasons"][0]
    assert "times the" in skipped["reasons"][0]
    assert "that are free" in skipped["reasons"][0]


def test_time_that_would_run_out_is_skipped_with_the_estimate_also_after_a_resume(
    sweep: Callable[..., Any], cli: Callable[..., Any], tmp_path: Any
) -> None:
    answer = sweep(*("--plugin", PLUGIN, "--variants", "takes_time", "--seq-lens", "150,300,30000", "--timeout", "10s"))
    records = answer.records
    assert [record["status"] for record in records] == ["ok", "ok", "skipped"]
    (why,) = records[-1]["reasons"]
    assert "one call would take about" in why
    assert "from lengths 150, 300" in why
    assert "the 10 s that a step may take" in why
    path = tmp_path / "run" / "results.jsonl"
    first, _, _ = path.read_text().splitlines(keepends=True)
    path.write_text(first)
    drawn = cli("run", "--resume", "--out", tmp_path / "run", "--json").records
    assert [record["status"] for record in drawn] == ["ok", "ok", "skipped"]
    assert "from lengths 150, 300" in drawn[-1]["reasons"][0]


def test_one_length_and_what_is_declared_can_say_so_too(sweep: Callable[..., Any]) -> None:
    first, second = sweep(
        *("--plugin", PLUGIN, "--variants", "takes_time", "--seq-lens", "200,20000", "--timeout", "10s")
    ).records
    assert (first["status"], second["status"]) == ("ok", "skipped")
    assert "from length 200, growing by the power 2 as declared" in second["reasons"][0]
