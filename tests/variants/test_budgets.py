"""Declared budgets: the parameters that a variant names for some keys a query come to about as many."""

from __future__ import annotations

import pytest
import torch

import attnbench
from attnbench.bench.fidelity_nulls import chooses_keys, kept
from attnbench.variants.api import make_extras

N = 768
DECLARING = [name for name in attnbench.names() if attnbench.get(name).budget is not None]


def test_approximate_methods_declare_one() -> None:
    """Taylor features have no size but the head dimension's."""
    lacking = {name for name in attnbench.names() if attnbench.get(name).kind == "approximate"} - set(DECLARING)
    assert lacking == {"based"}


@pytest.mark.parametrize("name", DECLARING)
def test_budgets_are_kept(name: str) -> None:
    attn = attnbench.get(name)
    assert attn.budget is not None
    q, k, v = torch.randn(3, 1, 12, N, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    asked = 0
    for causal in (True, False):
        if not (attn.supports.causal if causal else attn.supports.noncausal):
            continue
        for budget in (48, 128):
            params = attn.budget.at(budget, causal, N)
            assert params is not None
            sized = attnbench.get(name, **dict(params))
            asked += 1
            if attn.budget.unit != "keys":
                assert list(params.values()) == [budget]
                continue
            assert chooses_keys(sized)
            # the rows of a long text's later part: a causal query near the start has fewer
            rows = torch.arange(N // 3, N, 9)
            found = kept(sized, q, k, v, causal=causal, rows=rows, extras=make_extras(sized, q, k, v)).keys
            assert 0.75 * budget <= found <= 1.3 * budget, (causal, budget, params, found)
    assert asked


def test_a_budget_that_cannot_be_is_none() -> None:
    for name, budget in (("quest", 15), ("bigbird", 7), ("moba", 3), ("sink_window", 4), ("strided", 8)):
        declared = attnbench.get(name).budget
        assert declared is not None
        assert declared.at(budget, True, N) is None
    strided = attnbench.get("strided").budget
    assert strided is not None
    assert strided.at(40, True, N) == {"stride": 24}, "24 + 768 / 48"
