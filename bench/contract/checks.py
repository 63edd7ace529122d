"""Checks of a variant against its own definition, and of how it treats its inputs.

A check measures one figure, and raises `Defect` where it is too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...variants.api import Extra, Variant
from .shapes import Defect, Extras, Inputs, Shape, close, compare, gradients, prepare, results

# -- the implementation against its own definition ---------------------------------------------------------------


def check_forward(attn: Variant, shape: Shape, inputs: Inputs | None = None, extras: Extras | None = None) -> float:
    """Largest error of the output. Allowed: twice that of the definition in the same dtype, and four roundings."""
    q, k, v, drawn = prepare(attn, shape, inputs)
    extras = drawn if extras is None else extras
    with torch.no_grad():
        out = attn(q, k, v, causal=shape.causal, **extras)
        expected = attn.definition(q, k, v, causal=shape.causal, **extras)
        plain = attn.definition(q, k, v, causal=shape.causal, dtype=q.dtype, **extras)
    if out.shape != expected.shape or out.dtype != q.dtype:
        raise Defect(f"gives {tuple(out.shape)} of {out.dtype}, not {tuple(expected.shape)} of {q.dtype}")
    return compare("out", out, expected, plain)


def check_gradients(attn: Variant, shape: Shape, inputs: Inputs | None = None, extras: Extras | None = None) -> float:
    """Largest error of the gradients of q, k, v and the extras, by the same rule."""
    q, k, v, drawn = prepare(attn, replace(shape, mode="train"), inputs)
    extras = drawn if extras is None else extras
    fast = gradients(lambda *x, **e: attn(*x, causal=shape.causal, **e), (q, k, v), extras)
    wide = q.double(), k.double(), v.double()
    wide_extras = {name: x.double() for name, x in extras.items()}
    expected = gradients(lambda *x, **e: attn.definition(*x, causal=shape.causal, **e), wide, wide_extras)
    plain = gradients(lambda *x, **e: attn.definition(*x, causal=shape.causal, dtype=q.dtype, **e), (q, k, v), extras)
    # dq is zero where there is one key: rounding is judged by the size of all gradients together
    top = max(float(x.abs().max()) for x in expected.values())
    return max(compare(f"d{name}", fast[name], expected[name], plain[name], top) for name in expected)


# -- how inputs are treated ---------------------------------------------------------------------------------------


def check_untouched(attn: Variant, shape: Shape) -> float:
    """Inputs are as they were after a call, and after a backward pass where there is one."""
    q, k, v, extras = prepare(attn, shape)
    named = {"q": q, "k": k, "v": v, **extras}
    before = {name: x.clone() for name, x in named.items()}
    results(attn, shape, (q, k, v), extras)
    for name, x in named.items():
        if not torch.equal(x, before[name]):
            raise Defect(f"writes into its input {name}")
    return 0.0


def check_strided(attn: Variant, shape: Shape) -> float:
    """Inputs laid out as (B, N, H, D), as (B, H, D, N), or as every second row, give what contiguous ones give."""
    q, k, v, extras = prepare(attn, shape)
    layouts: dict[str, Callable[[Tensor], Tensor]] = {
        "(B, N, H, D) in memory": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        "(B, H, D, N) in memory": lambda x: x.mT.contiguous().mT,
        "every second row of a larger tensor": lambda x: x.repeat_interleave(2, dim=2)[:, :, ::2],
    }
    worst, plain = 0.0, results(attn, shape, (q, k, v), extras)
    for name, layout in layouts.items():
        for what, got in results(attn, shape, (layout(q), layout(k), layout(v)), extras).items():
            worst = max(worst, close(f"{what} of inputs that are {name}", got, plain[what]))
    return worst


def check_hostile(attn: Variant, shape: Shape) -> float:
    """Rows of norm 30, equal rows, zeros and extras at the edges of their range give finite outputs and gradients."""
    q, k, v, extras = prepare(attn, shape)
    loud: Inputs = (q * (30 / q.norm(dim=-1, keepdim=True)), k * (30 / k.norm(dim=-1, keepdim=True)), v)
    hostile: dict[str, tuple[Inputs, Extras]] = {
        "rows of norm 30": (loud, extras),
        "equal rows": (tuple(x[:, :, :1].expand_as(x).contiguous() for x in (q, k, v)), extras),  # type: ignore[dict-item]
        "zeros": (tuple(torch.zeros_like(x) for x in (q, k, v)), extras),  # type: ignore[dict-item]
    }
    for e in attn.extras:
        x = extras[e.name]
        for value in e.extremes:
            hostile[f"{e.name} = {value:g}"] = loud, {**extras, e.name: torch.full_like(x, value)}
        if e.extremes:
            hostile[f"{e.name} of {e.extremes} at random"] = loud, {**extras, e.name: _at_edges(e, x, seed=3)}
    for name, (inputs, more) in hostile.items():
        bad = [what for what, x in results(attn, shape, inputs, more).items() if not x.isfinite().all()]
        if "out" in bad:
            raise Defect(f"gives NaN or infinity for {name}")
        if bad:
            raise Defect(f"gives NaN or infinity in the gradients of {', '.join(bad)} for {name}")
    return 0.0


def _at_edges(extra: Extra, x: Tensor, seed: int) -> Tensor:
    """An extra of x's shape, each entry one of the edges of its range."""
    edges = torch.tensor(extra.extremes).to(x)
    return edges[torch.randint(len(edges), x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)]


def check_extremes(attn: Variant, shape: Shape) -> float:
    """With extras at random among the edges of their range, outputs and gradients still are the definition's."""
    q, k, v, extras = prepare(attn, shape)
    extras |= {e.name: _at_edges(e, extras[e.name], seed=4) for e in attn.extras if e.extremes}
    worst = check_forward(attn, shape, (q, k, v), extras)
    if attn.supports.backward:
        worst = max(worst, check_gradients(attn, shape, (q, k, v), extras))
    return worst


def check_blind_rows(attn: Variant, shape: Shape) -> float:
    """Causal with more queries than keys: the first Nq - Nk queries see nothing and give zeros."""
    shape = replace(shape, causal=True)
    q, k, v, extras = prepare(attn, shape)
    blind = shape.n_q - shape.n_k
    with torch.no_grad():
        out = attn(q, k, v, causal=True, **extras)
    if blind <= 0 or out[:, :, :blind].count_nonzero() or not out.isfinite().all():
        raise Defect(f"the first {blind} queries see nothing, but do not give zeros")
    return check_forward(attn, shape, (q, k, v))
