"""segment, longnet and infini: who sees whom, what decoding keeps, and how their parts are mixed."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.battery import Check, battery
from attnbench.bench.contract.shapes import Inputs, Shape, draw, gradients
from attnbench.bench.contract.sizes import shrunk
from attnbench.variants import merged
from attnbench.variants.api import Variant, make_extras
from attnbench.variants.chunked.longnet import level_pairs
from attnbench.variants.errors import VariantError
from attnbench.variants.linear.linear_elu import phi
from attnbench.variants.registry import variant_class

N = 53
LENGTHS = ((1, 1), (5, 5), (16, 16), (32, 32), (53, 53), (7, 53), (53, 7), (1, 40), (40, 1), (33, 50), (90, 100))
both = pytest.mark.parametrize("causal", [True, False], ids=["causal", "noncausal"])


def inputs(n: int = N, heads: int = 4, kv_heads: int = 2) -> Inputs:
    return draw(Shape(n, n, True, heads=heads, kv_heads=kv_heads))


def same(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def other_parameters() -> list:
    """Settings that the defaults do not reach: the delta rule, and levels that leave tokens out."""
    found = []
    for name, changes in (
        ("infini", {"update": "delta"}),
        ("longnet", {"segment_size": 8, "dilations": "1,3"}),
        ("longnet", {"segment_size": 4, "dilations": "2,3,5"}),
    ):
        attn = replace(shrunk(variant_class(name)), **changes)  # type: ignore[type-var]
        found += [pytest.param(check, id=f"{attn.spec}-{check.label}") for check in battery(attn)]
    return found


@pytest.mark.parametrize("check", other_parameters())
def test_keeps_the_contract_with_other_parameters(check: Check) -> None:
    check.run()


@both
def test_segment_counts_of_visible_pairs(causal: bool) -> None:
    attn = attnbench.get("segment", segment_size=16)
    for n_q, n_k in LENGTHS:
        assert attn.visible_pairs(n_q, n_k, causal) == int(seen(attn, n_q, n_k, causal).count_nonzero()), (n_q, n_k)


@both
@pytest.mark.parametrize("segment_size", [(N + 1) // 2, N, 2 * N])
def test_two_segments_of_everything_are_full(segment_size: int, causal: bool) -> None:
    q, k, v = inputs()
    out = attnbench.get("segment", segment_size=segment_size)(q, k, v, causal=causal)
    same(out, attnbench.get("naive").definition(q, k, v, causal=causal))


@both
@pytest.mark.parametrize("spec", ["segment(segment_size=8)", "longnet(segment_size=8, dilations='1,2')"])
def test_late_queries_meet_whole_segments_far_from_the_start(spec: str, causal: bool) -> None:
    attn = attnbench.get(spec)
    for n_q, n_k in ((45, 90), (48, 96), (33, 97)):
        q, k, v = draw(Shape(n_q, n_k, causal, heads=4, kv_heads=2))
        same(attn(q, k, v, causal=causal), attn.definition(q, k, v, causal=causal))


@both
def test_three_segments_are_not_full(causal: bool) -> None:
    """The third is one token long: it does not see the first, nor does the first see it."""
    q, k, v = inputs()
    out = attnbench.get("segment", segment_size=N // 2)(q, k, v, causal=causal)
    changed = (out - attnbench.get("naive").definition(q, k, v, causal=causal)).abs().amax(dim=(0, 1, 3)) > 1e-9
    assert changed.nonzero().flatten().tolist() == [*([] if causal else range(N // 2)), N - 1]


@both
def test_segment_is_attention_over_segments_side_by_side(causal: bool) -> None:
    q, k, v = inputs(60, kv_heads=4)
    out = attnbench.get("segment", segment_size=12)(q, k, v, causal=causal)
    for s in range(5):
        own, reach = slice(12 * s, 12 * s + 12), slice(max(0, 12 * s - 12), 12 * s + (12 if causal else 24))
        keys = k[:, :, reach], v[:, :, reach]
        same(out[:, :, own], attnbench.get("naive").definition(q[:, :, own], *keys, causal=causal))


@pytest.mark.parametrize(
    ("spec", "tokens"),
    [("segment(segment_size=8)", 16), ("longnet(segment_size=4, dilations='1,2')", 8), ("infini(segment_size=8)", 8)],
)
def test_decode_keeps_few_tokens_and_agrees_at_every_split(spec: str, tokens: int) -> None:
    attn = attnbench.get(spec)
    q, k, v = inputs(29)
    extras = make_extras(attn, q, k, v)
    whole = attn(q, k, v, causal=True, **extras)
    for prompt in range(1, 29):
        out, state = attn.prefill(q[:, :, :prompt], k[:, :, :prompt], v[:, :, :prompt], **extras)
        rows = [out]
        for t in range(prompt, 29):
            now = slice(t, t + 1)
            out, state = attn.decode(q[:, :, now], k[:, :, now], v[:, :, now], state, **extras)
            assert state["k"].shape[2] <= tokens
            assert state["k"].untyped_storage().nbytes() == state["k"].nbytes, "holds more memory than it shows"
            rows.append(out)
        same(torch.cat(rows, dim=2), whole)


@both
def test_longnet_counts_of_visible_pairs(causal: bool) -> None:
    for w, r in ((16, 1), (16, 3), (8, 12), (64, 5)):
        for s in range(r):
            for n_q, n_k in LENGTHS:
                rows = min(n_q, n_k)
                counted = level_pairs(w, r, s, n_k, n_k, causal) - level_pairs(w, r, s, n_k - rows, n_k, causal)
                i, j = torch.arange(n_q)[:, None] + n_k - n_q, torch.arange(n_k)
                pairs = (i.div(w, rounding_mode="floor") == j // w) & (i % w % r == s) & (j % w % r == s)
                assert counted == int((pairs & (j <= i) if causal else pairs).sum()), (w, r, s, n_q, n_k)


@both
def test_longnet_mixes_levels_by_their_denominators(causal: bool) -> None:
    """As the paper writes it: each level's softmax apart, then a mean weighted by the denominators."""
    q, k, v = inputs(kv_heads=4)
    total, mixed = torch.zeros(2, 4, N, 1, dtype=q.dtype), torch.zeros_like(v)
    for w, r in ((8, 1), (16, 2), (32, 3)):
        for h in range(4):
            for start in range(0, N, w):
                at = torch.arange(start, min(start + w, N))[h % r :: r]
                exps = (q[:, h, at] @ k[:, h, at].mT / 8**0.5).exp()
                exps = exps.tril() if causal else exps
                share = exps.sum(dim=-1, keepdim=True)
                mixed[:, h, at] += share * (exps / share @ v[:, h, at])
                total[:, h, at] += share
    attn = attnbench.get("longnet", segment_size=8, dilations="1,2,3")
    same(attn(q, k, v, causal=causal), mixed / total)
    same(attn.definition(q, k, v, causal=causal), mixed / total)


def test_longnet_tokens_that_every_level_leaves_out_give_zeros() -> None:
    q, k, v = inputs()
    out = attnbench.get("longnet", segment_size=16, dilations="4")(q, k, v, causal=True)
    for h in range(4):
        rows = out[:, h].abs().amax(dim=(0, 2)) > 0
        assert rows.nonzero().flatten().tolist() == [t for t in range(N) if t % 16 % 4 == h]


@pytest.mark.parametrize("dilations", ["", "1,", "1,0", "a", "1.5", "-1"])
def test_longnet_dilations_that_are_none(dilations: str) -> None:
    with pytest.raises(VariantError, match="dilations"):
        attnbench.get("longnet", dilations=dilations)


@both
def test_longnet_without_a_fused_kernel(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form for other devices: matrix products, here in tiles of a few scores."""
    attn = attnbench.get("longnet", segment_size=8, dilations="1,2,3")
    for n_q, n_k in ((N, N), (30, N), (1, N)):
        q, k, v = draw(Shape(n_q, n_k, causal, heads=4, kv_heads=2, value_dim=5))
        fused = gradients(functools.partial(attn, causal=causal), (q, k, v), {})
        fused["out"] = attn(q, k, v, causal=causal)
        with monkeypatch.context() as patched:
            patched.setattr(merged, "FUSED", ())
            patched.setattr(merged, "TILE", 50)
            plain = gradients(functools.partial(attn, causal=causal), (q, k, v), {})
            plain["out"] = attn(q, k, v, causal=causal)
        for name in fused:
            same(plain[name], fused[name])


@pytest.mark.parametrize("update", ["linear", "delta"])
def test_infini_is_its_papers_recurrence_over_segments(update: str) -> None:
    q, k, v = inputs(kv_heads=4)
    gates = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=q.dtype)
    memory, z, rows = torch.zeros(2, 4, 8, 8, dtype=q.dtype), torch.zeros(2, 4, 8, 1, dtype=q.dtype), []
    for start in range(0, N, 8):
        own = slice(start, start + 8)
        fq, fk, values = phi(q[:, :, own]), phi(k[:, :, own]), v[:, :, own]
        local = attnbench.get("naive").definition(q[:, :, own], k[:, :, own], values, causal=True)
        read = fq @ memory / (fq @ z) if start else torch.zeros_like(local)
        rows.append(gates.view(-1, 1, 1) * read + (1 - gates.view(-1, 1, 1)) * local)
        known = fk @ memory / (fk @ z) if start and update == "delta" else 0.0
        memory = memory + fk.mT @ (values - known)
        z = z + fk.sum(dim=2).unsqueeze(-1)
    attn = attnbench.get("infini", segment_size=8, update=update)
    same(attn(q, k, v, causal=True, gates=gates), torch.cat(rows, dim=2))
    same(attn.definition(q, k, v, causal=True, gates=gates), torch.cat(rows, dim=2))


def test_infini_with_open_gates_gives_zeros_until_something_is_written() -> None:
    q, k, v = inputs()
    out = attnbench.get("infini", segment_size=16)(q, k, v, causal=True, gates=torch.ones(4, dtype=q.dtype))
    assert not out[:, :, :16].any()
    assert out[:, :, 16:].all()


def test_infini_counts_its_work() -> None:
    attn = attnbench.get("infini", segment_size=16)
    case = Shape(N, N, True, batch=1, heads=3, kv_heads=1, head_dim=8)
    local = 3 * 16 * 17 // 2 + 5 * 6 // 2
    assert attn.flops_needed(case) == 4 * 8 * 3 * local + 2 * 8 * 8 * 48 + 2 * 8 * 9 * 3 * (N - 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("update", ["linear", "delta"])
def test_infini_stays_finite_over_many_segments_of_loud_keys(update: str, dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in draw(Shape(4096, 4096, True, batch=1, heads=1, kv_heads=1, head_dim=16)))
    q, k = (x * (30 / x.norm(dim=-1, keepdim=True)) for x in (q, k))
    attn = attnbench.get("infini", segment_size=64, update=update)
    gates = torch.ones(1, dtype=dtype)
    out = attn(q, k, v, causal=True, gates=gates)
    grads = gradients(functools.partial(attn, causal=True), (q, k, v), {"gates": gates})
    assert out.isfinite().all()
    assert all(grad.isfinite().all() for grad in grads.values())


def test_infini_unknown_update() -> None:
    with pytest.raises(VariantError, match="linear, delta"):
        attnbench.get("infini", update="oja")


def seen(attn: Variant, n_q: int, n_k: int, causal: bool) -> Tensor:
    ones = torch.ones(1, 1, n_q, 4), torch.ones(1, 1, n_k, 4)
    return attn.weights(*ones, causal=causal, scale=1.0, rows=torch.arange(n_q))
