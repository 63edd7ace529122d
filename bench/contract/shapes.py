"""What a check is made on: a shape, its inputs, and how two results are compared."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...variants.api import Variant, make_extras
from .. import error as error_rule

ROUNDING = {torch.float64: error_rule.FLOAT64_FLOOR, torch.float32: 1e-5, torch.bfloat16: 1e-5, torch.float16: 1e-5}
"""Allowed between two results of one implementation, over the largest value or 1 if that is larger."""


class Defect(AssertionError):
    """A variant does not keep the contract: what was measured, and what is allowed."""

    def __init__(self, problem: str, measured: float | None = None) -> None:
        super().__init__(problem)
        self.measured = measured


class Unsupported(Exception):
    """A variant says that it cannot run a check's case here; the reasons are its own."""


@dataclass(frozen=True)
class Shape:
    """One call. Has the fields of a benchmark case that a variant may look at."""

    n_q: int
    n_k: int
    causal: bool
    dtype: str = "float64"
    mode: str = "forward"
    batch: int = 2
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 8
    value_dim: int = 8
    device: str = "cpu"

    def __str__(self) -> str:
        lengths = f"N={self.n_q}" if self.n_q == self.n_k else f"Nq={self.n_q},Nk={self.n_k}"
        return f"{lengths},{'causal' if self.causal else 'noncausal'},{self.dtype}"


Inputs = tuple[Tensor, Tensor, Tensor]

Extras = dict[str, Any]
"""Tensors by name; Any, since they go as keywords beside ones of other types."""


def draw(shape: Shape, seed: int = 0) -> Inputs:
    """Gaussian q, k, v: drawn in float64, rounded to the shape's dtype."""
    generator = torch.Generator(device=shape.device).manual_seed(seed)
    sizes = (
        (shape.batch, shape.heads, shape.n_q, shape.head_dim),
        (shape.batch, shape.kv_heads, shape.n_k, shape.head_dim),
        (shape.batch, shape.kv_heads, shape.n_k, shape.value_dim),
    )
    q, k, v = (torch.randn(s, generator=generator, dtype=torch.float64, device=shape.device) for s in sizes)
    return q.to(_dtype(shape)), k.to(_dtype(shape)), v.to(_dtype(shape))


def _dtype(shape: Shape) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, shape.dtype)
    return dtype


def prepare(attn: Variant, shape: Shape, inputs: Inputs | None = None) -> tuple[Tensor, Tensor, Tensor, Extras]:
    reasons = attn.reasons_against(shape)
    if reasons:
        raise Unsupported("; ".join(reasons))
    q, k, v = inputs or draw(shape)
    return q, k, v, make_extras(attn, q, k, v)


def gradients(call: Callable[..., Tensor], inputs: Inputs, extras: Extras) -> dict[str, Tensor]:
    """Gradients by name of a fixed random mix of the outputs."""
    named = dict(zip("qkv", inputs, strict=True)) | extras
    leaves = {name: x.detach().requires_grad_() for name, x in named.items()}  # a clone would lose the strides
    out = call(*(leaves[name] for name in "qkv"), **{name: leaves[name] for name in extras})
    mix = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mix = mix.to(device=out.device, dtype=out.dtype)
    grads = torch.autograd.grad(out, list(leaves.values()), mix, allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))


def results(attn: Variant, shape: Shape, inputs: Inputs, extras: Extras) -> dict[str, Tensor]:
    """The output as `out`, and the gradients by name where the variant can be trained on this shape."""
    call = functools.partial(attn, causal=shape.causal)
    with torch.no_grad():
        found = {"out": call(*inputs, **extras)}
    if not attn.reasons_against(replace(shape, mode="train")):
        found |= gradients(call, inputs, extras)
    return found


def compare(what: str, got: Tensor, expected: Tensor, plain: Tensor, top: float | None = None) -> float:
    """Error of `got` over the largest value, held by the harness's rule to `plain`, the definition in that dtype."""
    error, allowed = error_rule.compare(got, expected, plain, dtype=got.dtype, largest=top)
    if not error <= allowed:  # NaN too
        raise Defect(f"{what}: error {error:.2e} of the largest value, allowed {allowed:.2e}", error)
    return error


def close(what: str, got: Tensor, expected: Tensor) -> float:
    """Error between two results of the same implementation, which rounding alone may set apart."""
    if got.numel() == 0:
        return 0.0
    error = float((got.double() - expected.double()).abs().max())
    allowed = ROUNDING[got.dtype] * max(1.0, float(expected.abs().max()))
    if not error <= allowed:
        raise Defect(f"{what}: changes by {error:.2e}, allowed {allowed:.2e}", error)
    return error


def rewrite(x: Tensor, where: slice, dim: int = 2) -> Tensor:
    """A copy with one part made loud and turned round."""
    x = x.clone()
    x[(slice(None),) * dim + (where,)] *= -10
    return x


def tokens(attn: Variant, extras: Extras, which: slice) -> Extras:
    """The extras of some tokens."""
    return {e.name: along(extras[e.name], e.length_axis, which) for e in attn.extras}


def along(x: Tensor, axis: int | None, which: slice) -> Tensor:
    """A part of a tensor along one axis, or all of it where it has no such axis."""
    return x if axis is None else x[(slice(None),) * axis + (which,)]


def replaced(attn: Variant, extras: Extras, others: Extras, axis: str, which: slice) -> Extras:
    """The extras with a part along an axis ("N", where any length axis is meant, or another letter) of other ones."""
    mixed: Extras = {}
    for e in attn.extras:
        x = extras[e.name].clone()
        place = e.length_axis if axis == "N" else e.axes.index(axis) if axis in e.axes else None
        if place is not None:
            along(x, place, which)[...] = along(others[e.name], place, which)
        mixed[e.name] = x
    return mixed
