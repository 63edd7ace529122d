"""Recurrences that forget: decays that neither overflow nor cancel, schedules of rates, and spans that double."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Inputs, Shape, draw, gradients
from attnbench.variants import decay
from attnbench.variants.api import Variant, VariantError, make_extras

F64 = torch.float64


def pairwise(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """decayed_scores as its sum is written: every pair has a sum of its own."""
    c = q.shape[-2]
    i, j = torch.arange(c)[:, None, None], torch.arange(c)[None, :, None]
    between = (torch.arange(c) > j) & (torch.arange(c) <= i)  # (C, C, C): j < t <= i
    total = torch.einsum("ijt,...td->...ijd", between.to(g.dtype), g)
    return torch.einsum("...id,...jd,...ijd->...ij", q, k, total.exp()).tril()


def gates(x: Tensor, values: tuple[float, ...]) -> Tensor:
    """Each entry one of the values, at random."""
    which = torch.randint(len(values), x.shape, generator=torch.Generator().manual_seed(0))
    return torch.tensor(values, dtype=torch.float64)[which].to(x)


# -- the shared routines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1, 2, 5, 16, 33])
def test_decayed_scores_are_their_pairwise_sum(c: int) -> None:
    q, p, k, x = torch.randn(4, 2, 3, c, 7, dtype=F64, generator=torch.Generator().manual_seed(c))
    g = -x.abs()
    (a, b), before, after = decay.decayed_scores((q, p), k, g)
    torch.testing.assert_close(a, pairwise(q, k, g), rtol=0, atol=1e-13)
    torch.testing.assert_close(b, pairwise(p, k, g), rtol=0, atol=1e-13)
    torch.testing.assert_close(before, g.cumsum(-2), rtol=0, atol=1e-13)
    torch.testing.assert_close(after, g.sum(-2, keepdim=True) - g.cumsum(-2), rtol=0, atol=1e-13)


@pytest.mark.parametrize("limit", [1 << 20, 7])
def test_decayed_scores_have_the_gradients_of_all_they_give(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decay, "SLICE", limit)  # 7: one chunk at a time

    def flat(q: Tensor, p: Tensor, k: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        (a, b), before, after = decay.decayed_scores((q, p), k, g)
        return a, b, before, after

    x = torch.randn(4, 2, 5, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    inputs = tuple(t.clone().requires_grad_() for t in (*x[:3], -x[3].abs()))
    assert torch.autograd.gradcheck(flat, inputs)


def test_decayed_states_and_level_matrix_have_their_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    writes = torch.randn(1, 2, 4, 3, 2, dtype=F64, generator=generator, requires_grad=True)
    for shape in ((1, 2, 4, 3, 1), (1, 2, 4, 1, 1)):
        share = torch.rand(shape, dtype=F64, generator=generator, requires_grad=True)
        assert torch.autograd.gradcheck(decay.decayed_states, (writes, share))
    for count in (1, 3, 6):
        levels = torch.randn(2, 8, count, dtype=F64, generator=generator, requires_grad=True)
        assert torch.autograd.gradcheck(decay.level_matrix, (levels,))


def test_small_decays_beside_large_ones_are_not_rounded_away() -> None:
    """Gates of -50 between gates of -0.01, float32: a difference of running sums is far worse."""
    q, k = torch.rand(2, 4, 64, 16, generator=torch.Generator().manual_seed(0))
    g = gates(q, (-50.0, -0.01, -0.01, -0.01))
    expected = pairwise(q.double(), k.double(), g.double())
    (a,), _, _ = decay.decayed_scores((q,), k, g)
    total = g.cumsum(-2)
    naive = ((total[..., :, None, :] - total[..., None, :, :]).clamp(max=0).exp() * q[..., :, None, :]).mul(
        k[..., None, :, :]
    )
    error, rounded = (float((x.double() - expected).abs().max()) for x in (a, naive.sum(-1).tril()))
    assert error < 2e-6
    assert rounded > 20 * error


# -- hostile gates ------------------------------------------------------------------------------------------------

HOSTILE = {
    "gla": ("log_decay", (0.0, -50.0, -1.0, -0.01)),
    "log_linear": ("log_decay", (0.0, -50.0, -1.0, -0.01)),
    "ssd": ("dt", (0.0, 20.0, 1.0, 0.001)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pattern", ["open", "shut", "alternating", "any"])
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_gates_over_4096_tokens(name: str, pattern: str, dtype: str) -> None:
    attn = attnbench.get(name)
    q, k, v = draw(Shape(4096, 4096, True, dtype, batch=1, heads=1, kv_heads=1, head_dim=16, value_dim=16))
    extras = make_extras(attn, q, k, v)
    gate, (none, most, *rest) = HOSTILE[name]
    drawn = extras[gate]
    if pattern == "any":
        extras[gate] = gates(drawn, (none, most, *rest))
    else:
        extras[gate] = torch.full_like(drawn, most if pattern == "shut" else none)
        if pattern == "alternating":
            extras[gate][:, :, ::2] = most
    out = attn(q, k, v, causal=True, **extras)
    with torch.no_grad():
        expected = attn.definition(q, k, v, causal=True, rows=torch.arange(1024), **extras)
    largest = max(1.0, float(expected.abs().max()))
    error = float((out[:, :, :1024].double() - expected).abs().max()) / largest
    assert error < 4 * torch.finfo(q.dtype).eps
    grads = gradients(lambda *x, **e: attn(*x, causal=True, **e), (q, k, v), extras)
    assert out.isfinite().all()
    assert all(x.isfinite().all() for x in grads.values())


# -- retention ----------------------------------------------------------------------------------------------------


def rates(heads: int, **params: object) -> list[float]:
    """gamma of each head: what is left of the first value, read by the second token with q = k = 1."""
    one = torch.ones(1, heads, 2, 1, dtype=F64)
    v = torch.tensor([1.0, 0.0], dtype=F64).view(1, 1, 2, 1).expand(1, heads, 2, 1)
    out = attnbench.get("retention", **params)(one, one, v, causal=True)
    return [float(x) for x in out[0, :, 1, 0]]


def test_rates_of_the_heads() -> None:
    assert rates(4) == pytest.approx([1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128, 1 - 1 / 256], abs=1e-15)
    assert rates(2, gamma=0.25) == pytest.approx([0.25, 0.25])
    slopes = [-math.log(x) for x in rates(8, decay="lightning")]
    assert slopes == pytest.approx([2.0**-h for h in range(1, 9)])  # ALiBi's table for 8 heads
    slopes = [-math.log(x) for x in rates(12, decay="lightning")]
    assert slopes[8:] == pytest.approx([2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])  # and its rule beyond a power of two


@pytest.mark.parametrize("params", [{"decay": "fast"}, {"gamma": 0.0}, {"gamma": 1.5}, {"gamma": True}])
def test_retention_refuses_rates_that_are_none(params: dict[str, object]) -> None:
    with pytest.raises(VariantError, match=r"decay|gamma"):
        attnbench.get("retention", **params)


# -- ssd ----------------------------------------------------------------------------------------------------------


def test_ssd_is_not_scaled_unless_asked() -> None:
    attn = attnbench.get("ssd")
    q, k, v = inputs(20)
    extras = make_extras(attn, q, k, v)
    plain = attn(q, k, v, causal=True, **extras)
    torch.testing.assert_close(attn(q, k, v, causal=True, scale=0.5, **extras), plain / 2)
    torch.testing.assert_close(attn(q, k, v, causal=True, scale=1.0, **extras), plain)


# -- log_linear ---------------------------------------------------------------------------------------------------


def inputs(n: int) -> Inputs:
    return draw(Shape(n, n, True, batch=1, head_dim=4, value_dim=4))


def test_levels_are_the_spans_of_a_fenwick_tree() -> None:
    """Take off the lowest set bit of i, again and again: the spans before i; one of 2^b tokens is level b + 1."""
    n = 70
    attn = attnbench.get("log_linear", num_levels=8)
    one = torch.ones(1, 1, n, 1, dtype=F64)
    levels = torch.arange(1.0, 9, dtype=F64).expand(1, 1, n, 8)
    rows = attn.weights(
        one, one, causal=True, scale=1.0, rows=torch.arange(n), levels=levels, log_decay=one.squeeze(-1) * 0
    )
    expected = torch.zeros(n, n, dtype=F64)
    for i in range(n):
        expected[i, i] = 1
        end = i
        while end:
            low = end & -end
            expected[i, end - low : end] = 1 + low.bit_length()
            end -= low
    assert torch.equal(rows[0, 0], expected)


@pytest.mark.parametrize("num_levels", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("chunk_size", [1, 4, 11])
def test_few_levels_over_many_chunks(num_levels: int, chunk_size: int) -> None:
    """Chunks shorter and longer than the last span; counts of chunks that are no power of two; decoding past spans."""
    attn = attnbench.get("log_linear", num_levels=num_levels, chunk_size=chunk_size)
    for n in (1, 2, 7, 24, 45):
        q, k, v = inputs(n)
        extras = make_extras(attn, q, k, v)
        expected = attn.definition(q, k, v, causal=True, **extras)
        torch.testing.assert_close(attn(q, k, v, causal=True, **extras), expected, rtol=0, atol=1e-12)
        take = functools.partial(_tokens, q, k, v, extras)
        (x, y, z), more = take(slice(0, n // 3 + 1))
        out, state = attn.prefill(x, y, z, **more)
        parts = [out]
        for t in range(n // 3 + 1, n):
            (x, y, z), more = take(slice(t, t + 1))
            out, state = attn.decode(x, y, z, state, **more)
            parts.append(out)
        torch.testing.assert_close(torch.cat(parts, dim=2), expected, rtol=0, atol=1e-12)


def _tokens(q: Tensor, k: Tensor, v: Tensor, extras: dict[str, Tensor], at: slice) -> tuple[Inputs, dict[str, Tensor]]:
    return (q[:, :, at], k[:, :, at], v[:, :, at]), {name: x[:, :, at] for name, x in extras.items()}


@pytest.mark.parametrize("num_levels", [1, 2, 4, 9])
def test_flops_of_log_linear_count_the_spans_that_hold_something(num_levels: int) -> None:
    attn = attnbench.get("log_linear", num_levels=num_levels)
    for n in (1, 2, 3, 21, 64, 100):
        case = Shape(n, n, True, batch=1, heads=1, head_dim=8)
        last = num_levels - 1
        levels = [{min((i ^ j).bit_length(), last) for j in range(i + 1)} for i in range(n)]
        states = sum(len(seen - {0}) if last else 1 for seen in levels)
        assert attn.flops_needed(case) == 2 * 64 * (n + states) + 4 * 8 * n


# -- what all keep ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retention", "ssd", "gla", "log_linear"])
def test_the_state_holds_no_more_than_it_shows(name: str) -> None:
    attn: Variant = attnbench.get(name)
    q, k, v = inputs(300)
    _, state = attn.prefill(q, k, v, **make_extras(attn, q, k, v))
    assert state["memory"].untyped_storage().nbytes() == state["memory"].numel() * 8 == state.nbytes
