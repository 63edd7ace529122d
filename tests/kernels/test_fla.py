"""fla's recurrences in Triton's interpreter, against the definitions: layout, scale, gates, norms, states."""

from __future__ import annotations

import pytest
import torch

import attnbench
from attnbench.bench.contract.checks import check_extremes, check_forward, check_gradients
from attnbench.bench.contract.shapes import Shape, draw

SPECS = (
    "gla_fla",
    "delta_fla",
    "delta_fla(normalize_queries=False)",
    "gated_delta_fla",
    "gated_delta_fla(normalize_queries=False)",
    "kda_fla",
    "kda_fla(normalize_queries=False)",
    "retention_fla",
    "retention_fla(decay='lightning')",
    "retention_fla(gamma=0.9)",
    "linear_elu_fla",
)
N = 70
"""One whole chunk of 64 tokens, and a part of one."""

pytestmark = pytest.mark.usefixtures("interpreter")


def best(attn: attnbench.Variant) -> str:
    return "float32" if "float32" in attn.supports.dtypes else "float16"


@pytest.mark.parametrize("n", [1, N])
@pytest.mark.parametrize("spec", SPECS)
def test_whole_sequences(spec: str, n: int) -> None:
    attn = attnbench.get(spec)
    check_forward(attn, Shape(n, n, True, best(attn), batch=1))


@pytest.mark.parametrize("spec", SPECS)
def test_grouped_heads_and_odd_sizes(spec: str) -> None:
    attn = attnbench.get(spec)
    shape = Shape(N, N, True, best(attn), batch=2, heads=4, kv_heads=2, head_dim=7, value_dim=5)
    check_forward(attn, shape)


@pytest.mark.parametrize("spec", SPECS)
def test_gradients(spec: str) -> None:
    attn = attnbench.get(spec)
    check_gradients(attn, Shape(N, N, True, best(attn), batch=1))


@pytest.mark.parametrize("spec", ["gla_fla", "delta_fla", "gated_delta_fla", "kda_fla"])
def test_gates_at_their_extremes(spec: str) -> None:
    attn = attnbench.get(spec)
    check_extremes(attn, Shape(N, N, True, best(attn), batch=1))


@pytest.mark.parametrize("spec", SPECS)
def test_a_state_and_one_more_token(spec: str) -> None:
    scale = 0.3  # not the default of the kernels
    attn = attnbench.get(spec)
    q, k, v = draw(Shape(N + 2, N + 2, True, best(attn), batch=1, kv_heads=1))
    extras = attnbench.make_extras(attn, q, k, v)
    due = attn.definition(q, k, v, causal=True, scale=scale, **extras)

    def part(tokens: slice) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        return [x[:, :, tokens] for x in (q, k, v)], {name: x[:, :, tokens] for name, x in extras.items()}

    tensors, more = part(slice(N))
    out, state = attn.prefill(*tensors, scale=scale, **more)
    parts, kept = [out], {name: x.clone() for name, x in state.tensors.items()}
    first = state
    for t in (N, N + 1):
        tensors, more = part(slice(t, t + 1))
        out, state = attn.decode(*tensors, state, scale=scale, **more)
        parts.append(out)
    assert all(torch.equal(first[name], x) for name, x in kept.items()), "decode wrote into the state it was given"
    assert state.seen == N + 2
    allowed = 1e-5 if q.dtype == torch.float32 else 4e-3
    error = (torch.cat(parts, dim=2) - due).abs().max() / due.abs().max()
    assert error < allowed
