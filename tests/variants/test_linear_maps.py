"""cosformer, linformer and based: what their papers promise beyond the contract that every variant keeps."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.battery import Check, battery
from attnbench.bench.contract.growth import allocated
from attnbench.bench.contract.shapes import Inputs, Shape, draw, gradients
from attnbench.bench.contract.sizes import shrunk
from attnbench.variants.errors import VariantError
from attnbench.variants.linear import based as based_module
from attnbench.variants.linear.linformer import gaussian
from attnbench.variants.registry import variant_class

N = 53


def inputs(n: int = N, heads: int = 2, kv_heads: int = 2) -> Inputs:
    return draw(Shape(n, n, True, heads=heads, kv_heads=kv_heads))


def same(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def recurrent(fq: Tensor, fk: Tensor, v: Tensor) -> Tensor:
    """Token by token: the sums of phi(k) vᵀ and of phi(k), then phi(q) over both."""
    mixed, total, rows = torch.zeros(*fk.shape[:2], fk.shape[3], v.shape[3]).to(v), torch.zeros_like(fk[:, :, 0]), []
    for t in range(v.shape[2]):
        mixed = mixed + fk[:, :, t, :, None] * v[:, :, t, None, :]
        total = total + fk[:, :, t]
        rows.append((fq[:, :, t, None] @ mixed).squeeze(2) / (fq[:, :, t] * total).sum(-1, keepdim=True))
    return torch.stack(rows, dim=2)


def mean_projection() -> list:
    attn = replace(shrunk(variant_class("linformer")), projection="mean")  # type: ignore[type-var]
    return [pytest.param(check, id=check.label) for check in battery(attn)]


@pytest.mark.parametrize("check", mean_projection())
def test_linformer_keeps_the_contract_with_its_other_projection(check: Check) -> None:
    check.run()


@pytest.mark.parametrize("chunk_size", [1, 8, N, 200])
@pytest.mark.parametrize("span", [1, 100, 1 << 20])
def test_based_parallel_equals_chunked_equals_recurrent(
    chunk_size: int, span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recurrence has the paper's d² products of second order, each pair twice."""
    monkeypatch.setattr(based_module, "SPAN", span)
    q, k, v = inputs()

    def features(x: Tensor) -> Tensor:
        x = x / 8**0.25
        return torch.cat([torch.ones_like(x[..., :1]), x, (x[..., None] * x[..., None, :]).flatten(-2) / 2**0.5], -1)

    attn = attnbench.get("based", chunk_size=chunk_size)
    expected = recurrent(features(q), features(k), v)
    same(attn(q, k, v, causal=True), expected)
    same(attn.definition(q, k, v, causal=True), expected)


@pytest.mark.parametrize("span", [1, 500])
def test_based_gradients_are_the_same_span_by_span(span: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(heads=4)
    attn = attnbench.get("based", chunk_size=8)
    for causal in (True, False):
        monkeypatch.setattr(based_module, "SPAN", 1 << 20)
        whole = gradients(functools.partial(attn, causal=causal), (q, k, v), {})
        monkeypatch.setattr(based_module, "SPAN", span)
        parts = gradients(functools.partial(attn, causal=causal), (q, k, v), {})
        for name in whole:
            same(parts[name], whole[name])


def test_based_never_holds_the_features_of_all_tokens() -> None:
    """At N = 4096 and D = 64 the features of q and k would be 72 times q, and several such tensors in training."""
    q, k, v = (
        x.float() for x in draw(Shape(4096, 4096, True, batch=1, heads=1, kv_heads=1, head_dim=64, value_dim=64))
    )
    attn = attnbench.get("based")
    forward = allocated(lambda: attn(q, k, v, causal=True))
    train = allocated(lambda: gradients(functools.partial(attn, causal=True), (q, k, v), {}))
    assert forward.peak < 12 * q.nbytes
    assert train.peak < 36 * q.nbytes
    assert max(forward.largest, train.largest) <= 2 * q.nbytes + 4 * 2 * based_module.SPAN


@pytest.mark.parametrize("name", ["cosformer", "based"])
def test_decode_state_has_a_fixed_size(name: str) -> None:
    attn = shrunk(variant_class(name))
    sizes = set()
    for n in (1, 17, N):
        _, state = attn.prefill(*inputs(n))
        sizes.add(state.nbytes)
        assert all(x.untyped_storage().nbytes() == x.nbytes for x in state.tensors.values())
    assert len(sizes) == 1


def test_cosformer_at_the_edge_of_its_length_is_the_formula() -> None:
    """M = N, where the cosine all but vanishes between the first token and the last; positions count from anywhere."""
    q, k, v = inputs()
    at = torch.arange(N, dtype=q.dtype) + 1  # the public code counts from 1
    near = (math.pi / 2 / N * (at[:, None] - at)).cos()
    scores = (q.relu() @ k.relu().mT) * near
    attn = attnbench.get("cosformer", max_len=N, chunk_size=8)
    assert float(near.min()) > 0
    same(attn(q, k, v), scores / scores.sum(-1, keepdim=True) @ v)
    scores = scores.tril()
    total = scores.sum(-1, keepdim=True)
    same(attn(q, k, v, causal=True), torch.where(total > 0, scores / total, 0.0) @ v)


def test_cosformer_refuses_what_is_longer_than_its_cosine() -> None:
    attn = attnbench.get("cosformer", max_len=N)
    q, k, v = inputs(N + 1)
    for call in (attn, attn.definition, attn.prefill):
        with pytest.raises(VariantError, match=f"max_len={N}"):
            call(q, k, v)
    assert "max_len" in attn.reasons_against(Shape(N + 1, N + 1, True))[0]
    assert attn.reasons_against(Shape(N, N, True)) == []
    _, state = attn.prefill(*(x[:, :, :N] for x in (q, k, v)))
    with pytest.raises(VariantError, match=f"max_len={N}"):
        attn.decode(*(x[:, :, N:] for x in (q, k, v)), state)


def test_cosformer_rows_without_a_positive_product_are_zeros_with_finite_gradients() -> None:
    q, k, v = (x.float() for x in inputs())
    q[:, :, 7] = -q[:, :, 7].abs()
    for causal in (True, False):
        out = attnbench.get("cosformer", chunk_size=8)(q, k, v, causal=causal)
        assert not out[:, :, 7].any()
        assert out[:, :, -1].any()
        grads = gradients(functools.partial(attnbench.get("cosformer", chunk_size=8), causal=causal), (q, k, v), {})
        assert all(grad.isfinite().all() for grad in grads.values())


def test_linformer_projection_is_gaussian_and_the_same_in_every_dtype() -> None:
    wide = gaussian(64, 4096, 0, torch.float64, torch.device("cpu"))
    entries = wide.numel()
    assert abs(float(wide.mean())) < 5 * 64**-0.5 / entries**0.5
    assert abs(float(wide.square().mean()) * 64 - 1) < 5 * (2 / entries) ** 0.5
    assert abs(float(wide.pow(4).mean() / wide.square().mean() ** 2) - 3) < 5 * (24 / entries) ** 0.5
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(gaussian(64, 4096, 0, dtype, torch.device("cpu")).double(), wide)
    assert not torch.equal(gaussian(64, 4096, 1, torch.float64, torch.device("cpu")), wide)
    gaussian.cache_clear()


def test_linformer_keeps_dot_products_in_expectation() -> None:
    """The mean over seeds of (E x)·(E y) is x·y, within four of its own standard errors."""
    x, y = draw(Shape(N, N, False, batch=1, heads=1, kv_heads=1))[:2]
    drawn = []
    for seed in range(2000):
        e = gaussian(16, N, seed, torch.float64, torch.device("cpu"))
        drawn.append((e @ x).mT @ (e @ y))
    gaussian.cache_clear()
    found = torch.stack(drawn)
    off = (found.mean(dim=0) - x.mT @ y).abs() / (found.std(dim=0) / 2000**0.5)
    assert float(off.max()) < 4.5


def test_linformer_means_are_of_segments() -> None:
    q, k, v = inputs(48)
    out = attnbench.get("linformer", num_landmarks=12, projection="mean")(q, k, v)
    keys, values = (x.unflatten(2, (12, 4)).mean(dim=3) for x in (k, v))
    same(out, (q @ keys.mT / 8**0.5).softmax(dim=-1) @ values)


def test_linformer_unknown_projection() -> None:
    with pytest.raises(VariantError, match="gaussian, mean"):
        attnbench.get("linformer", projection="learned")
