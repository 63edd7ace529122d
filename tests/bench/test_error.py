"""The check that stands before every time: what it allows, what it samples, what it catches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from attnbench.bench.error import EDGE_ROWS, allowance, check, compare, sample_rows
from attnbench.bench.fidelity import fidelity
from attnbench.variants.api import get
from attnbench.variants.full.naive import Naive


def qkv(n: int = 40, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 8, generator=generator).to(dtype) for _ in range(3))
    return q, k, v


def verdict(attn: Any, *, train: bool = False, rows: torch.Tensor | None = None, n: int = 40) -> Any:
    q, k, v = qkv(n)
    rows = torch.arange(n) if rows is None else rows
    return check(attn, q, k, v, causal=True, train=train, rows=rows, seed=0)[0]


def test_all_rows_where_affordable_else_both_ends_and_a_random_rest() -> None:
    assert sample_rows(100, 100, 2, seed=0).tolist() == list(range(100))
    rows = sample_rows(10_000, 10_000, 4, seed=0, entries=1 << 22)
    assert len(rows) == (1 << 22) // 40_000
    assert rows[:EDGE_ROWS].tolist() == list(range(EDGE_ROWS))
    assert rows[-EDGE_ROWS:].tolist() == list(range(10_000 - EDGE_ROWS, 10_000))
    assert len(set(rows.tolist())) == len(rows)
    assert not torch.equal(rows, sample_rows(10_000, 10_000, 4, seed=1, entries=1 << 22))


def test_twice_the_baseline_and_a_floor() -> None:
    eps = torch.finfo(torch.float32).eps
    assert allowance(1e-3, torch.float32, 1.0) == pytest.approx(2e-3 + 16 * eps)
    wanted = torch.tensor([1.0, 2.0], dtype=torch.float64)
    error, allowed = compare(wanted + 0.1, wanted, wanted + 0.02, dtype=torch.float32)
    assert error == pytest.approx(0.05)
    assert allowed == pytest.approx(0.02, rel=1e-3)


@dataclass(frozen=True)
class Counted(Naive):
    """Off by so many of float32's rounding steps; counts in which dtypes its definition is evaluated."""

    steps: float = 0.0
    asked: tuple[list[torch.dtype], ...] = ([],)

    def definition(self, q, k, v, *, dtype=torch.float64, **kw):  # type: ignore[no-untyped-def]
        self.asked[0].append(dtype)
        out = super().definition(q, k, v, dtype=dtype, **kw)
        return out * (1 + 50 * torch.finfo(dtype).eps) if dtype == torch.float32 else out

    def forward(self, q, k, v, **kw):  # type: ignore[no-untyped-def]
        exact = super().definition(q, k, v, **{key: value for key, value in kw.items() if key != "scale"})
        return (exact * (1 + self.steps * torch.finfo(torch.float32).eps)).float()


@pytest.mark.parametrize(("steps", "evaluated", "correct"), [(8, 1, True), (60, 2, True), (200, 2, False)])
def test_the_definition_is_evaluated_in_the_dtype_only_where_the_floor_is_passed(
    steps: float, evaluated: int, correct: bool
) -> None:
    attn = Counted(steps=steps, asked=([],))
    found = verdict(attn)
    assert attn.asked[0] == [torch.float64, torch.float32][:evaluated]
    assert found.correct is correct
    floor = 16 * torch.finfo(torch.float32).eps
    assert found.allowed == pytest.approx(floor if evaluated == 1 else floor + 100 * floor / 16, rel=0.05)


@pytest.mark.parametrize("train", [False, True])
def test_what_is_checked_in_two_dtypes_is_evaluated_once_in_float64(train: bool) -> None:
    q, k, v = qkv(dtype=torch.bfloat16)
    rows, attn, wanted = torch.arange(3, 30), Counted(asked=([],)), dict[str, torch.Tensor]()
    for dtype in (torch.float32, torch.bfloat16):
        given = [x.to(dtype) for x in (q, k, v)]
        apart = check(Naive(), *given, causal=True, train=train, rows=rows, seed=0)[0]
        shared = check(Naive(), *given, causal=True, train=train, rows=rows, seed=0, wanted=wanted)[0]
        check(attn, *given, causal=True, train=train, rows=rows, seed=0, wanted=wanted)
        assert (shared.error, shared.of, shared.allowed) == (apart.error, apart.of, apart.allowed)
    assert torch.float64 not in attn.asked[0]


def test_the_definition_itself_passes() -> None:
    for train in (False, True):
        found = verdict(Naive(), train=train)
        assert found.correct
        assert 0 < found.error < 1e-5


@dataclass(frozen=True)
class WrongInTheMiddle(Naive):
    """Wrong at one position only."""

    at: int = 20

    def forward(self, q, k, v, **kw):  # type: ignore[no-untyped-def]
        out = super().forward(q, k, v, **kw).clone()
        out[:, :, self.at] += 0.01
        return out


def test_an_error_in_a_checked_row_is_found_and_named() -> None:
    found = verdict(WrongInTheMiddle())
    assert not found.correct
    assert found.of == "out"
    assert verdict(WrongInTheMiddle(), rows=torch.tensor([0, 20, 39])).correct is False


def test_an_error_elsewhere_is_what_sampling_can_miss() -> None:
    assert verdict(WrongInTheMiddle(), rows=torch.tensor([0, 1, 39])).correct


def test_gradients_of_sampled_rows_are_exact_not_approximate() -> None:
    found = verdict(Naive(), train=True, rows=torch.tensor([3, 17, 39]))
    assert found.correct
    assert found.error < 1e-5


@dataclass(frozen=True)
class DetachedKeys(Naive):
    def forward(self, q, k, v, **kw):  # type: ignore[no-untyped-def]
        return super().forward(q, k.detach(), v, **kw)


def test_a_missing_gradient_is_found_even_where_few_rows_are_checked() -> None:
    found = verdict(DetachedKeys(), train=True, rows=torch.tensor([39]))
    assert not found.correct
    assert found.of == "dk"
    assert verdict(DetachedKeys()).correct  # forward alone is right


def test_fidelity_against_values_worked_by_hand() -> None:
    q, k, v = qkv()
    rows = torch.tensor([0, 5, 39])
    exact = get("naive").definition(q, k, v, causal=True, rows=rows)
    same = fidelity(exact, q, k, v, causal=True, rows=rows)
    assert same.error == 0
    assert same.cosine == pytest.approx(1)
    double = fidelity(2 * exact, q, k, v, causal=True, rows=rows)
    assert double.error == pytest.approx(1)
    assert double.cosine == pytest.approx(1)
    means = torch.stack([v[:, :, : i + 1].double().mean(2) for i in rows.tolist()], dim=2)
    assert same.error_uniform == pytest.approx(((means - exact).norm() / exact.norm()).item())


def test_the_uniform_null_without_a_mask() -> None:
    q, k, v = qkv()
    rows = torch.arange(40)
    exact = get("naive").definition(q, k, v, rows=rows)
    found = fidelity(exact, q, k, v, causal=False, rows=rows)
    mean = v.double().mean(2, keepdim=True)
    assert found.error_uniform == pytest.approx(((mean - exact).norm() / exact.norm()).item())
