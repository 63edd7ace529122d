"""Attention in pieces of its scores: the same as in float64, at every shape, mask and size of a piece."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnbench.variants import blocks, pieces
from attnbench.variants.api import get


def exact(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float) -> Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(group, 1) for x in (k, v))
    scores = (q.double() @ k.mT * scale).masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("piece", [1, 50, 700, 1 << 20])
@pytest.mark.parametrize(("heads", "kv_heads"), [(3, 3), (4, 2), (4, 1)])
@pytest.mark.parametrize(
    ("n_q", "n_k", "form"), [(33, 33, "all"), (33, 33, "causal"), (17, 40, "causal"), (19, 40, "mask")]
)
def test_it_is_softmax_attention(
    monkeypatch: pytest.MonkeyPatch, piece: int, heads: int, kv_heads: int, n_q: int, n_k: int, form: str
) -> None:
    monkeypatch.setattr(pieces, "PIECE", piece)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, h, n, d, generator=draw, dtype=torch.float64)
        for h, n, d in ((heads, n_q, 8), (kv_heads, n_k, 8), (kv_heads, n_k, 5))
    )
    allowed = torch.rand(n_q, n_k, generator=draw) < 0.3
    allowed[:, 3] = True
    seen = {
        "all": torch.ones(n_q, n_k, dtype=torch.bool),
        "causal": torch.ones(n_q, n_k, dtype=torch.bool).tril(n_k - n_q),
        "mask": allowed,
    }[form]
    out = pieces.attend_in_pieces(
        q, k, v, scale=0.3, causal=form == "causal", allowed=allowed if form == "mask" else None
    )
    torch.testing.assert_close(out, exact(q, k, v, seen, 0.3), rtol=0, atol=1e-14)


def test_bfloat16_errs_no_more_than_twice_the_plain_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "multiplies_bfloat16", lambda: True)  # slower elsewhere, and as right
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 300, 64, generator=draw).bfloat16() for _ in range(3))
    wanted = exact(q, k, v, torch.ones(300, 300, dtype=torch.bool).tril(), 0.125)
    naive = (get("naive")(q, k, v, causal=True) - wanted).abs().max()
    assert (blocks.attend(q, k, v, scale=0.125, causal=True) - wanted).abs().max() <= 2 * naive


class Products(TorchDispatchMode):
    """Sees whether the scores were made by matrix products."""

    seen = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen |= "bmm" in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dtype", "differentiated", "rows", "able", "wanted"),
    [
        (torch.bfloat16, False, 64, True, True),
        (torch.bfloat16, True, 64, True, False),
        (torch.bfloat16, False, 1, True, False),
        (torch.bfloat16, False, 64, False, False),
        (torch.float32, False, 64, True, False),
    ],
)
def test_it_is_taken_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, differentiated: bool, rows: int, able: bool, wanted: bool
) -> None:
    monkeypatch.setattr(pieces, "multiplies_bfloat16", lambda: able)
    q, k, v = (torch.randn(1, 2, n, 8, dtype=dtype, requires_grad=differentiated) for n in (rows, 64, 64))
    with Products() as products:
        blocks.attend(q, k, v, scale=1.0, causal=True)
    assert products.seen is wanted
