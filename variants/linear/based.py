"""Based's linear attention: the second-order Taylor polynomial of exp, 1 + s + s²/2, in place of exp(s).

Arora et al. 2024, "Simple linear attention language models balance the recall-throughput tradeoff", arXiv:2402.18668:
s = q·k / sqrt(d'), features [1, x, x ⊗ x / sqrt(2)]. The polynomial is 1/2 at least, so the normaliser
needs no epsilon; the public code adds one. A very negative score weighs as much as a large one: where scores are large,
this is no stand-in for softmax.

The paper's layer projects q and k to d' = 16 dimensions and keeps values wide. Projections are no part of an operator,
so q and k are taken as given: their head dimension D is d', and time and state grow as D² Dv. A head dimension of 16
is the paper's setting. The sliding-window layers that the paper sets between these are not included: `sliding_window`
is that operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..api import Complexity, Identity, Supports, register
from ..blocks import wide
from ..definitions import positions
from ..linear_sum import LinearSum, divide

SPAN = 1 << 18
"""Most features of a head that are held at a time: 1 MiB in float32, which a core's cache holds."""


@register(
    "based",
    family="linear",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(
        time=1,
        memory=1,
        text="O(N d³) time, O(N d + d³) memory, training O(N d³ / 256) more; decoding keeps d³ / 2 numbers a head",
        state=0,
    ),
    paper='Arora et al. 2024, "Simple linear attention language models balance the recall-throughput tradeoff", '
    "arXiv:2402.18668",
    formula="(1 + s + s²/2) v, normalised by rows, s = scale · q kᵀ",
    reduces_to="softmax attention as scores go to 0",
    tuning=("chunk_size",),
    position_free=True,
    identities=(
        Identity(
            "based",
            "naive",
            text="with queries of 1e-4 of their size, based is softmax attention to second order",
            prepare=lambda q, k, v: (1e-4 * q, k, v),
        ),
    ),
)
@dataclass(frozen=True)
class Based(LinearSum):
    """Each product x_a x_b is stored once, d (d + 1) / 2 of d²; the features of a span of tokens at a time."""

    chunk_size: int = 128
    """C: tokens of a chunk (causal form), whose scores among themselves are the polynomial of q·k, without features."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        scores = taylor(scale * q[:, :, rows] @ k.mT)  # (B, H, R, Nk)
        if causal:
            i, j = positions(q, k, rows)
            scores = scores.masked_fill(j > i, 0.0)
        return divide(scores, scores.sum(dim=-1, keepdim=True))

    def queries(self, q: Tensor, first: int, scale: float) -> Tensor:
        """[1, x, x_a x_b for a <= b]: a product of two numbers stands for both of its places, a square for one."""
        x = scale * q.to(wide(q.dtype))
        return torch.cat([torch.ones_like(x[..., :1]), x, _products(x, 0.5)], dim=-1)

    def keys(self, k: Tensor, first: int) -> Tensor:
        x = k.to(wide(k.dtype))
        return torch.cat([torch.ones_like(x[..., :1]), x, _products(x, 1.0)], dim=-1)

    def width(self, head_dim: int) -> int:
        return 1 + head_dim + head_dim * (head_dim + 1) // 2

    def span(self, head_dim: int) -> int:
        return max(1, SPAN // self.width(head_dim))

    def inner(self, q: Tensor, k: Tensor, fq: Tensor, fk: Tensor, scale: float) -> Tensor:
        return taylor(scale * q @ k.mT)


class _Products(torch.autograd.Function):
    """x (…, D) -> x_a x_b for a <= b (…, D (D + 1) / 2), squares times a factor. Row by row: no gather."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, square: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.square = square
        d = x.shape[-1]
        out = x.new_empty(*x.shape[:-1], d * (d + 1) // 2)
        for a, row in enumerate(_rows(d)):
            torch.mul(x[..., a : a + 1], x[..., a:], out=out[..., row])
            if square != 1.0:
                out[..., row.start].mul_(square)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        dx = torch.zeros_like(x)
        for a, row in enumerate(_rows(x.shape[-1])):
            g, own = grad[..., row], x[..., a]
            dx[..., a] += ctx.square * g[..., 0] * own
            if a + 1 < x.shape[-1]:
                dx[..., a] += (g[..., 1:] * x[..., a + 1 :]).sum(dim=-1)
            dx[..., a:].addcmul_(g, own.unsqueeze(-1))
            if ctx.square != 1.0:
                dx[..., a].addcmul_(g[..., 0], own, value=ctx.square - 1.0)
        return dx, None


def _rows(d: int) -> Iterator[slice]:
    """Where the products x_a x_b, b = a … d - 1, stand, for each a."""
    start = 0
    for a in range(d):
        yield slice(start, start + d - a)
        start += d - a


def _products(x: Tensor, square: float) -> Tensor:
    out: Tensor = _Products.apply(x, square)  # type: ignore[no-untyped-call]
    return out


def taylor(s: Tensor) -> Tensor:
    """1 + s + s²/2."""
    return 1 + s + s * s / 2
