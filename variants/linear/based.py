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
"""Most features of a head that are held at a time, where one chunk has no more: 1 MiB in float32, as caches hold."""


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
    """Of the d² products x_a x_b those on and above the diagonal, by tiles, for a span of tokens at a time."""

    chunk_size: int = 256
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
        """[1, x, x_a x_b by tiles]: a product beside the diagonal stands for both of its places, one on it for half."""
        return features(scale * q, 0.5)

    def keys(self, k: Tensor, first: int) -> Tensor:
        return features(k, 1.0)

    def width(self, head_dim: int) -> int:
        return max(int(place.stop) for _, place in _tiles(head_dim))

    def span(self, head_dim: int) -> int:
        return max(1, SPAN // self.width(head_dim))

    def inner(self, q: Tensor, k: Tensor, fq: Tensor, fk: Tensor, scale: float) -> Tensor:
        return taylor(scale * q @ k.mT)


TILE = 8
"""Products come by tiles of 8 x 8 that touch or pass the diagonal: few operations, and 11 % more products at d = 64."""


def _tiles(d: int) -> Iterator[tuple[slice, slice]]:
    """For rows a … a + 7 of the products x_a x_b: those rows, and where their products with b = a … d - 1 stand."""
    end = 1 + d
    for a in range(0, d, TILE):
        rows = slice(a, min(a + TILE, d))
        start, end = end, end + (rows.stop - a) * (d - a)
        yield rows, slice(start, end)


class _Features(torch.autograd.Function):
    """x (…, L, D) -> [1, x, products] (…, L, F), those within the tiles on the diagonal times a factor.

    Tokens stand side by side in memory, features one after the other: each product is one run over tokens.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, diagonal: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.diagonal = diagonal
        y, d = x.mT.contiguous(), x.shape[-1]
        tiles = list(_tiles(d))
        out = x.new_empty(*x.shape[:-2], tiles[-1][1].stop, x.shape[-2])
        out[..., 0, :] = 1
        out[..., 1 : 1 + d, :] = y
        for rows, place in tiles:
            tile = out[..., place, :].unflatten(-2, (-1, d - rows.start))
            torch.mul(y[..., rows, None, :], y[..., None, rows.start :, :], out=tile)
            if diagonal != 1.0:
                tile[..., : rows.stop - rows.start, :].mul_(diagonal)
        return out.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        d = x.shape[-1]
        y = x.mT.to(wide(x.dtype))  # every component's gradient is a sum over all others
        dy = grad.mT[..., 1 : 1 + d, :].to(y.dtype, copy=True)
        for rows, place in _tiles(d):
            g = grad.mT[..., place, :].unflatten(-2, (-1, d - rows.start)).to(y.dtype, copy=True)
            g[..., : rows.stop - rows.start, :] *= ctx.diagonal
            dy[..., rows, :] += (g * y[..., None, rows.start :, :]).sum(dim=-2)
            dy[..., rows.start :, :] += (g * y[..., rows, None, :]).sum(dim=-3)
        return dy.mT.to(x.dtype), None


def features(x: Tensor, diagonal: float) -> Tensor:
    out: Tensor = _Features.apply(x, diagonal)  # type: ignore[no-untyped-call]
    return out


def taylor(s: Tensor) -> Tensor:
    """1 + s + s²/2."""
    return 1 + s + s * s / 2
