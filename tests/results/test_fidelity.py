"""Curves and rankings read off records, and their figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attnbench.reports.accuracy import save_fidelity
from attnbench.reports.errors import ReportsError
from attnbench.results.fidelity import agreements, points
from attnbench.results.record import Record

from .identified import identified


def record(variant: str, inputs: str, error: float | None, budget: int | None = 64, **changes: Any) -> Record:
    fixed = {
        "params": {"size": budget or 0},
        "head_dim": 64,
        "inputs": inputs,
        "family": "sparse",
        "kind": "approximate",
        "budget": budget,
        "budget_unit": "keys" if budget else None,
        "fidelity_error": error,
        "fidelity_error_uniform": 0.9,
    }
    return Record.model_validate(identified(variant, 512, **{**fixed, **changes}))


def made(errors: dict[str, tuple[float, float]], budget: int | None = 64, **changes: Any) -> list[Record]:
    return [
        record(variant, name, error, budget, **changes)
        for variant, both in errors.items()
        for name, error in zip(("gaussian", "captured"), both, strict=True)
    ]


def test_points_are_forward_square_and_approximate() -> None:
    records = [
        record("a", "gaussian", 0.5),
        record("a", "gaussian", 0.4),  # measured again
        record("exact", "gaussian", None),
        record("a", "gaussian", 0.5, mode="train"),
        record("a", "gaussian", 0.5, n_q=1),
    ]
    (point,) = points(records)
    assert (point.variant, point.error, point.budget, point.unit, point.label) == ("a", 0.4, 64, "keys", "a 64")


def test_the_same_order_and_the_reverse() -> None:
    same = made({"a": (0.1, 0.2), "b": (0.3, 0.4), "c": (0.5, 0.6)})
    (one,) = agreements(points(same))
    assert (one.tau, one.variants, one.swaps) == (1.0, 3, [])
    turned = made({"a": (0.1, 0.6), "b": (0.3, 0.4), "c": (0.5, 0.2)})
    (one,) = agreements(points(turned))
    assert one.tau == -1.0
    assert len(one.swaps) == 3
    plainest = one.swaps[0]
    assert (plainest.better, plainest.worse) == ("a", "c"), "the pair that differs by the largest factors"
    assert (plainest.first, plainest.second) == ((0.1, 0.5), (0.6, 0.2))


def test_budgets_and_masks_are_ranked_apart_and_what_has_none_stands_in_each() -> None:
    records = [
        *made({"a": (0.1, 0.2), "b": (0.3, 0.4)}, 64),
        *made({"a": (0.1, 0.6), "b": (0.3, 0.4)}, 128),
        *made({"none": (0.2, 0.9)}, None),
        *made({"a": (0.1, 0.2)}, 64, causal=False),
    ]
    found = {one.budget: one for one in agreements(points(records))}
    assert set(found) == {64, 128}, "two variants have no order worth a figure"
    assert all(one.causal and one.variants == 3 for one in found.values())
    assert [(s.better, s.worse) for s in found[64].swaps] == [("none", "b")]
    assert {(s.better, s.worse) for s in found[128].swaps} == {("none", "b"), ("a", "b")}


def test_the_figure_has_a_panel_for_each_input_and_every_variant(tmp_path: Path) -> None:
    records = [
        *made({"first": (0.1, 0.2), "second": (3.0, 40.0)}, 64),
        *made({"first": (0.1, 0.2)}, 128),
        *made({"third": (1, 2)}, None),
    ]
    drawn = save_fidelity(points(records), tmp_path / "fidelity.svg").read_text()
    for words in ("gaussian, causal, N 512", "captured, causal, N 512", "first", "second", "third", "plain mean"):
        assert f"<!-- {words} -->" in drawn, words
    assert "dotted lines across" in drawn
    assert "above 4 are drawn there" in drawn.replace("\n", " ")
    assert "oracle" not in drawn, "topk is not in it"
    near = save_fidelity(points(made({"topk": (0.6, 1.1)}, 64)), tmp_path / "near.svg").read_text()
    assert "topk is the oracle" in near
    assert "drawn there" not in near
    assert "<!-- 0.5 -->" in near, "the axis is that of the errors"
    assert "<!-- 0.01 -->" not in near
    with pytest.raises(ReportsError, match="none of these runs has a record with a fidelity"):
        save_fidelity([], tmp_path / "none.svg")
    with pytest.raises(ReportsError, match="must end with"):
        save_fidelity(points(records), tmp_path / "fidelity.gif")
