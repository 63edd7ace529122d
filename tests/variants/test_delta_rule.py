"""The delta rule and its gated forms, where the battery does not reach: long hostile input, recall, other libraries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Shape, draw, gradients
from attnbench.bench.error import check
from attnbench.variants.recurrence import fading
from attnbench.variants.wy import unit

NAMES = ("delta", "gated_delta", "kda")
LONG = 4096


def gates(name: str, n: int, pattern: str, beta: float | Tensor, dtype: torch.dtype, d: int = 8) -> dict[str, Tensor]:
    """beta and, where the method has it, log_decay, for one head: "0", "-50", "0, -50 in turn", "small beside -50"."""
    extras = {"beta": torch.as_tensor(beta, dtype=dtype).expand(1, 1, n).contiguous()}
    if name != "delta":
        kinds = {"0": [0.0], "-50": [-50.0], "0, -50 in turn": [0.0, -50.0], "small beside -50": [-0.01, -0.3, -50.0]}
        steps = torch.tensor(kinds[pattern], dtype=dtype)[torch.arange(n) % len(kinds[pattern])].view(1, 1, n)
        # channels take turns too, so that kda meets both gates in one token
        channels = torch.stack([steps.roll(c, dims=2) for c in range(d)], dim=-1)
        extras["log_decay"] = channels if name == "kda" else steps
    return extras


CASES = [
    pytest.param(name, pattern, beta, id=f"{name}-{pattern}-beta={beta:g}")
    for name in NAMES
    for pattern in (("0",) if name == "delta" else ("0", "-50", "0, -50 in turn", "small beside -50"))
    for beta in (0.0, 1.0)
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "pattern", "beta"), CASES)
def test_long_hostile_input_is_finite(name: str, pattern: str, beta: float, dtype: torch.dtype) -> None:
    """At N = 4096, forward and every gradient: loud keys, one key for all, and zeros."""
    q, k, v = (x.to(dtype) for x in draw(Shape(LONG, LONG, True, batch=1, heads=1, kv_heads=1)))
    extras = gates(name, LONG, pattern, beta, dtype)
    attn = attnbench.get(name)
    for keys in (30 * k, k[:, :, :1].expand_as(k).contiguous(), torch.zeros_like(k)):
        grads = gradients(lambda *x, **e: attn(*x, causal=True, **e), (30 * q, keys, v), extras)
        assert attn(30 * q, keys, v, causal=True, **extras).isfinite().all()
        assert all(grad.isfinite().all() for grad in grads.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("keys", ["drawn", "one for all"])
@pytest.mark.parametrize(
    ("name", "pattern"),
    [("delta", "0"), *((name, p) for name in NAMES[1:] for p in ("0", "0, -50 in turn", "small beside -50"))],
)
def test_hostile_gates_do_not_cost_accuracy(name: str, pattern: str, keys: str, dtype: torch.dtype) -> None:
    """The harness's own rule over several chunks, output and gradients: small gates beside -50 are not rounded away."""
    n = 200
    q, k, v = (x.to(dtype) for x in draw(Shape(n, n, True, batch=1, heads=1, kv_heads=1)))
    if keys == "one for all":
        k = k[:, :, :1].expand_as(k).contiguous()
    extras = gates(name, n, pattern, torch.arange(n) % 2, dtype)
    rows = torch.arange(n)
    verdict, _ = check(attnbench.get(name), q, k, v, causal=True, train=True, rows=rows, seed=0, extras=extras)
    assert verdict.correct, verdict


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_zero_keys_write_nothing_and_have_gradients(name: str, dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in draw(Shape(70, 70, True, batch=1, heads=1, kv_heads=1)))
    attn, extras = attnbench.get(name), gates(name, 70, "0", 0.5, dtype)
    assert not attn(q, torch.zeros_like(k), v, causal=True, **extras).count_nonzero()
    for x in (torch.zeros_like(k), k):
        grads = gradients(lambda *x, **e: attn(*x, causal=True, **e), (torch.zeros_like(q), x, v), extras)
        assert all(grad.isfinite().all() for grad in grads.values())


def test_orthonormal_keys_and_full_write_strength_are_linear_attention() -> None:
    """A basis of D keys for N = D tokens, in one chunk and in several."""
    n = 64
    q, k, v = draw(Shape(n, n, True, batch=1, heads=2, head_dim=n))
    k = 1e6 * torch.linalg.qr(k).Q  # the epsilon of the norm is nothing beside it
    expected = fading(q, k / 1e6, v, causal=True, scale=n**-0.5)
    for chunk_size in (7, 16, 64):
        attn = attnbench.get("delta", chunk_size=chunk_size, normalize_queries=False)
        out = attn(q, k, v, causal=True, beta=torch.ones(1, 2, n, dtype=q.dtype))
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_norms_of_keys_and_queries_play_no_part(name: str) -> None:
    """They are divided out; those of queries can be left in."""
    q, k, v = draw(Shape(40, 40, True, batch=1, heads=1, kv_heads=1))
    q, k = 1e4 * q, 1e4 * k  # far from the epsilon
    extras = gates(name, 40, "small beside -50", 0.5, q.dtype)
    attn, raw = attnbench.get(name), attnbench.get(name, normalize_queries=False)
    out = attn(q, k, v, causal=True, **extras)
    torch.testing.assert_close(attn(3 * q, 5 * k, v, causal=True, **extras), out, rtol=0, atol=1e-9)
    torch.testing.assert_close(raw(F.normalize(q, dim=-1), 5 * k, v, causal=True, **extras), out, rtol=0, atol=1e-9)
    assert float((raw(3 * q, k, v, causal=True, **extras) - out).abs().max()) > 1


def test_decay_comes_before_the_erasing_read() -> None:
    """Two tokens with one key, beta = 1/2: 1/4 of the first value is left where the decay is 1/2, and half the second.

    Were the key to read before the decay, 0 of the first would be: 1/2 · 1/2 - 1/2 · 1/2.
    """
    key = F.normalize(torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=0)
    k = 1e6 * key.expand(1, 1, 2, 8).contiguous()
    v = torch.eye(2, dtype=torch.float64)[None, None]
    half = torch.full((1, 1, 2), 0.5, dtype=torch.float64)
    for name, decay in (("gated_delta", half.log()), ("kda", half.log()[..., None].expand(1, 1, 2, 8).contiguous())):
        attn = attnbench.get(name)
        for out in (attn(k, k, v, causal=True, scale=1.0, log_decay=decay, beta=half),
                    attn.definition(k, k, v, causal=True, scale=1.0, log_decay=decay, beta=half)):  # fmt: skip
            torch.testing.assert_close(out[0, 0, 1], torch.tensor([0.125, 0.5], dtype=torch.float64))


def test_write_strength_of_two_reflects() -> None:
    """beta = 2 turns what the key reads round: the eigenvalue along the key is -1."""
    k = 1e6 * F.normalize(torch.ones(1, 1, 2, 8, dtype=torch.float64), dim=-1)
    v = torch.tensor([[[[1.0]], [[0.0]]]], dtype=torch.float64).view(1, 1, 2, 1)
    beta = torch.tensor([1.0, 2.0], dtype=torch.float64).view(1, 1, 2)
    out = attnbench.get("delta")(k, k, v, causal=True, scale=1.0, beta=beta)
    torch.testing.assert_close(out.flatten(), torch.tensor([1.0, -1.0], dtype=torch.float64))


def recalled(attend: Any, pairs: int, rewritten: int, trials: int = 8, d: int = 64) -> float:
    """Share of keys read back right: random unit keys and values, the first `rewritten` written again with new values.

    A reading counts for the nearest of all values, 1024 others among them. Reads come after all writes, and write
    nothing: their keys and values are zeros.
    """
    g = torch.Generator().manual_seed(0)
    keys, old, new = (unit(torch.randn(trials, pairs, d, generator=g)) for _ in range(3))
    others = unit(torch.randn(trials, 1024, d, generator=g))
    last = torch.cat([new[:, :rewritten], old[:, rewritten:]], dim=1)
    k = torch.cat([keys, keys[:, :rewritten], torch.zeros_like(keys)], dim=1)
    v = torch.cat([old, new[:, :rewritten], torch.zeros_like(old)], dim=1)
    q = torch.cat([torch.zeros(trials, pairs + rewritten, d), keys], dim=1)
    found = attend(q[:, None], k[:, None], v[:, None])[:, 0, -pairs:]
    nearest = (found @ torch.cat([last, old, others], dim=1).mT).argmax(dim=-1)
    return float((nearest == torch.arange(pairs)).float().mean())


def delta_rule(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attnbench.get("delta")(q, k, v, causal=True, beta=torch.ones(k.shape[:3]))


def linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return fading(q, unit(k), v, causal=True, scale=1.0)


def test_delta_recalls_what_was_rewritten_where_linear_attention_mixes_old_and_new() -> None:
    assert recalled(delta_rule, pairs=32, rewritten=16) > 0.98
    assert recalled(linear, pairs=32, rewritten=16) < 0.85


def test_linear_attention_recalls_more_where_far_too_many_keys_are_written_once() -> None:
    assert recalled(linear, pairs=128, rewritten=0) > recalled(delta_rule, pairs=128, rewritten=0) + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gated_delta", "kda"])
def test_agrees_with_the_plain_forms_of_transformers(name: str) -> None:
    """Their recurrent and chunked forms, float32 inside, with q and k normalised by them: output and last state."""
    path = {"gated_delta": "qwen3_next.modeling_qwen3_next", "kda": "kimi_linear.modeling_kimi_linear"}[name]
    theirs = pytest.importorskip(f"transformers.models.{path}")
    forms = {
        "gated_delta": ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"),
        "kda": ("chunk_kimi_delta_attention", "recurrent_kimi_delta_attention"),
    }[name]
    attn = attnbench.get(name)
    q, k, v = draw(Shape(150, 150, True, heads=3, kv_heads=3, head_dim=16, value_dim=16))
    extras = attnbench.make_extras(attn, q, k, v)
    out, state = attn.prefill(q, k, v, **extras)
    turned = [x.transpose(1, 2) for x in (q, k, v, extras["log_decay"], extras["beta"])]
    for form in forms:
        plain = getattr(theirs, form)
        got, last = plain(*turned, initial_state=None, output_final_state=True, use_qk_l2norm_in_kernel=True)
        torch.testing.assert_close(got.transpose(1, 2).double(), out, rtol=0, atol=2e-6)
        torch.testing.assert_close(last.double(), state["memory"], rtol=0, atol=2e-5)


def test_negative_eigenvalues_count_beta_twice() -> None:
    """Forward, definition and decoding; and with beta = 1 it is the reflection that parity needs: twice is nothing."""
    q, k, v = draw(Shape(70, 70, True, batch=1, heads=2, kv_heads=2))
    beta = torch.rand(1, 2, 70, dtype=q.dtype)
    plain, wide = attnbench.get("delta"), attnbench.get("delta", negative_eigenvalues=True)
    expected = plain(q, k, v, causal=True, beta=2 * beta)
    torch.testing.assert_close(wide(q, k, v, causal=True, beta=beta), expected)
    torch.testing.assert_close(wide.definition(q, k, v, causal=True, beta=beta).to(q.dtype), expected)
    _, state = wide.prefill(q[:, :, :-1], k[:, :, :-1], v[:, :, :-1], beta=beta[:, :, :-1])
    out, _ = wide.decode(q[:, :, -1:], k[:, :, -1:], v[:, :, -1:], state, beta=beta[:, :, -1:])
    torch.testing.assert_close(out, expected[:, :, -1:])
    key, one = F.normalize(k[:, :, :1], dim=-1), torch.ones(1, 2, 1, dtype=q.dtype)
    start = {"memory": torch.randn(1, 2, q.shape[-1], v.shape[-1], dtype=q.dtype)}
    token = {"q": q[:, :, 0], "k": 1e6 * key[:, :, 0], "v": 0 * v[:, :, 0], "scale": 1.0, "beta": one[..., 0]}
    _, once = wide.step(start, **token)
    _, twice = wide.step(once, **token)
    assert not torch.allclose(once["memory"], start["memory"])
    torch.testing.assert_close(twice["memory"], start["memory"])
