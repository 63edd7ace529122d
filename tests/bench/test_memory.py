"""Memory figures against sums that can be done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attnbench.bench import memory
from attnbench.bench.calls import make_call
from attnbench.bench.case import Case
from attnbench.variants.api import get

MIB = 1 << 20


def peak(variant: str, n: int, *, mode: str = "forward", heads: int = 1, dim: int = 64, **params: object) -> int:
    attn = get(variant, **params)
    case = Case(variant, attn.params(), mode, True, 1, heads, heads, n, n, dim, "float32", "cpu", 1, "gaussian", 0)
    q, k, v = (torch.randn(1, heads, n, dim) for _ in range(3))
    call = make_call(attn, case, q, k, v, {})
    call()
    return memory.allocator_peak(call, "cpu")


def test_a_known_allocation_is_counted_to_the_byte() -> None:
    assert memory.allocator_peak(lambda: torch.empty(1000, dtype=torch.uint8), "cpu") == 1000
    assert memory.allocator_peak(lambda: torch.empty(1000, dtype=torch.uint8).clone(), "cpu") == 2000


def test_what_is_freed_before_more_is_taken_does_not_add_up() -> None:
    def call() -> None:
        for _ in range(5):
            held = torch.empty(3 * MIB, dtype=torch.uint8)
            del held

    assert memory.allocator_peak(call, "cpu") == 3 * MIB


def test_what_was_there_before_does_not_count_even_if_it_is_freed_inside() -> None:
    held = [torch.empty(50 * MIB, dtype=torch.uint8)]

    def call() -> None:
        held.clear()
        torch.empty(2 * MIB, dtype=torch.uint8)

    assert memory.allocator_peak(call, "cpu") <= 2 * MIB


def test_naive_at_2048_equals_the_sum_of_its_own_tensors() -> None:
    heads, n, dim = 2, 2048, 64
    scores = heads * n * n * 4  # float32
    scaled_q = heads * n * dim * 4
    mask = n * n  # bool
    # while softmax runs: scores and weights both stand, beside the mask and the scaled q that went into the scores
    by_hand = 2 * scores + mask
    found = peak("naive", n, heads=heads, dim=dim)
    assert found - by_hand in (0, scaled_q), (found, by_hand)


def test_naive_grows_quadratically() -> None:
    lengths = [512, 1024, 2048, 4096]
    slope = np.polyfit(np.log(lengths), np.log([peak("naive", n) for n in lengths]), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)


def memory_slope(variant: str, mode: str, longest: int) -> float:
    """Slope of log allocator peak over log length, from 2k."""
    lengths = [n for n in (2048, 4096, 8192, 16384, 32768) if n <= longest]
    return float(np.polyfit(np.log(lengths), np.log([peak(variant, n, mode=mode) for n in lengths]), 1)[0])


@pytest.mark.parametrize(
    ("variant", "mode", "longest"),
    [
        # linear in memory, quadratic in time
        pytest.param("chunked_exact", "forward", 32768, marks=pytest.mark.slow),
        pytest.param("chunked_exact", "train", 16384, marks=pytest.mark.slow),
        ("sliding_window", "forward", 32768),
        ("sliding_window", "train", 32768),
        ("linear_elu", "forward", 32768),
        ("linear_elu", "train", 32768),
    ],
)
def test_linear_forms_grow_linearly_from_2k_on(variant: str, mode: str, longest: int) -> None:
    assert memory_slope(variant, mode, longest) == pytest.approx(1.0, abs=0.1)


def test_the_resident_mark_sees_memory_past_the_allocator() -> None:
    def scratch() -> None:
        np.ones(64 * MIB, dtype=np.uint8)

    grown = memory.resident_peak(scratch)
    if grown is None:
        pytest.skip("this system has no resettable high-water mark")
    assert 60 * MIB <= grown <= 80 * MIB
    assert memory.allocator_peak(scratch, "cpu") == 0
    assert memory.resident_peak(lambda: None) < 4 * MIB  # type: ignore[operator]


def test_peaks_are_equal_between_repeats() -> None:
    assert len({peak("naive", 300) for _ in range(3)}) == 1
