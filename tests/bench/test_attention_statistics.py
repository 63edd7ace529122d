"""Statistics of attention: those that the whole matrix gives, from the rows that are looked at."""

from __future__ import annotations

import pytest
import torch

from attnbench.bench.distributions.statistics import key_rank, sample_rows, statistics_of

from .test_distributions import matrix


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n_q", "kv_heads"), [(200, 4), (200, 2), (70, 1)])
def test_statistics_by_hand(causal: bool, n_q: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    q = 2 * torch.randn(2, 4, n_q, 16, generator=generator)
    k = torch.randn(2, kv_heads, 200, 16, generator=generator)
    p = matrix(q, k, causal)
    i, j = torch.arange(n_q)[:, None] + 200 - n_q, torch.arange(200)[None]
    rows = torch.arange(n_q)
    found = statistics_of(q, k, causal=causal, rows=rows)
    entropy = -(p * p.clamp(min=1e-300).log()).sum(-1).mean()
    assert found.effective_keys == pytest.approx(float(entropy.exp()), rel=1e-4)
    assert found.mass_first == pytest.approx(float(p[..., 0].mean()), abs=1e-5)
    assert found.mass_local == pytest.approx(float((p * ((i - j).abs() < 64)).sum(-1).mean()), abs=1e-5)
    assert found.mass_top == pytest.approx(float(p.sort(-1).values[..., -64:].sum(-1).mean()), abs=1e-5)
    columns = p[..., 1:].sum(2).sort(-1).values[..., -20:].sum(-1) / n_q
    assert found.mass_hitters == pytest.approx(float(columns.mean()), abs=1e-5)
    assert found.rows == 8 * n_q
    assert found.mass_planted is None


def test_statistics_of_what_is_known() -> None:
    q, k = torch.zeros(1, 2, 300, 8), torch.randn(1, 2, 300, 8)
    even = statistics_of(q, k, causal=False)
    assert even.effective_keys == pytest.approx(300, rel=1e-4)
    assert (even.mass_first, even.mass_top) == (pytest.approx(1 / 300), pytest.approx(64 / 300))
    own = statistics_of(1e3 * torch.eye(64)[None, None], torch.eye(64)[None, None], causal=True)
    assert own.effective_keys == pytest.approx(1)
    assert own.mass_local == pytest.approx(1)


def test_rank_of_keys() -> None:
    generator = torch.Generator().manual_seed(0)
    k = torch.randn(2, 3, 5000, 16, generator=generator)
    assert key_rank(k) == 15  # 90 % of 16 even directions
    k[..., 4:] = 0
    assert key_rank(k) == 4
    assert key_rank(k + 100) == 4, "what all keys share is no direction"


def test_rows_see_half_of_the_keys_and_are_not_too_many() -> None:
    rows = sample_rows(1000, 1000, True, 4)
    assert rows.min() >= 499
    assert len(rows.unique()) == len(rows) == 256
    assert sample_rows(10, 1000, True, 4).tolist() == list(range(10)), "late queries all see enough"
    assert len(sample_rows(1 << 17, 1 << 17, True, 32)) == 8


def test_rows_that_see_nothing_do_not_count() -> None:
    q, k = torch.randn(1, 1, 6, 8), torch.randn(1, 1, 4, 8)
    assert statistics_of(q, k, causal=True, rows=torch.arange(6)).rows == 4
    with pytest.raises(ValueError, match="name other rows"):
        statistics_of(q, k, causal=True, rows=torch.tensor([0, 1]))
