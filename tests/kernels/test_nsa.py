"""fla's NSA kernel in Triton's interpreter, with plain torch in the place of FlashAttention, against the definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Shape, draw
from attnbench.variants.external import External
from attnbench.variants.sparse.nsa_fla import NsaFla

pytestmark = pytest.mark.usefixtures("interpreter")


@pytest.fixture
def attn(monkeypatch: pytest.MonkeyPatch) -> attnbench.Variant:
    import fla.ops.nsa.parallel as parallel

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, causal: bool, window_size: tuple[int, int]) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        window = attnbench.get("sliding_window", window_size=window_size[0] + 1)
        return window(q, k, v, causal=causal).transpose(1, 2)

    monkeypatch.setattr(parallel, "flash_attn_func", flash_attn_func)
    monkeypatch.setattr(NsaFla, "missing", External.missing)
    monkeypatch.setattr(NsaFla, "check_dtype", lambda self, q: None)  # float32 is what the interpreter is exact in
    return attnbench.get("nsa_fla", block_size=16, num_selected=4, window_size=20)


def inputs(n: int) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Tensor]]:
    q, k, v = draw(Shape(n, n, True, "float32", batch=1, heads=32, kv_heads=2, head_dim=16))
    return (q, k, v), attnbench.make_extras(attnbench.get("nsa"), q, k, v)


@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("n", [1, 17, 130])
def test_three_branches_and_the_choice(attn: attnbench.Variant, n: int, scale: float | None) -> None:
    (q, k, v), extras = inputs(n)
    out = attn(q, k, v, causal=True, scale=scale, **extras)
    due = attn.definition(q, k, v, causal=True, scale=scale, **extras)
    torch.testing.assert_close(out.double(), due, atol=1e-5, rtol=0)


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_gates_open_their_branches(attn: attnbench.Variant, branch: int) -> None:
    (q, k, v), extras = inputs(40)
    gates = torch.zeros_like(extras["gates"])
    gates[..., branch] = 1
    out = attn(q, k, v, causal=True, gates=gates)
    torch.testing.assert_close(out.double(), attn.definition(q, k, v, causal=True, gates=gates), atol=1e-5, rtol=0)


def test_one_more_token(attn: attnbench.Variant) -> None:
    (q, k, v), extras = inputs(66)
    due: Any = attn.definition(q, k, v, causal=True, **extras)
    _, state = attn.prefill(*(x[:, :, :-1] for x in (q, k, v)), gates=extras["gates"][:, :, :-1])
    out, _ = attn.decode(*(x[:, :, -1:] for x in (q, k, v)), state, gates=extras["gates"][:, :, -1:])
    torch.testing.assert_close(out.double(), due[:, :, -1:], atol=1e-5, rtol=0)
