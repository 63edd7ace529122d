"""Exact softmax attention, block of queries by block of keys, that never holds more than C x C scores a head.

Rabe & Staats 2021, "Self-attention Does Not Need O(n²) Memory", arXiv:2112.05682; the running maximum and sum
are Milakov & Gimelshein's online softmax, arXiv:1805.02867. The backward pass recomputes the scores from each row's
log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..api import Complexity, Identity, Supports, register
from ..blocks import blind_rows, prepend_zeros, wide
from ..full.naive import SoftmaxAttention


@register(
    "chunked_exact",
    family="chunked",
    kind="exact",
    supports=Supports(decode=True),
    complexity=Complexity(time=2, memory=1, text="O(N² d) time, O(N d + C²) memory", state=1),
    paper='Rabe & Staats 2021, "Self-attention Does Not Need O(n²) Memory", arXiv:2112.05682',
    formula="softmax(scale · q kᵀ) v",
    reduces_to="is softmax attention, for every chunk_size",
    tuning=("chunk_size",),
    position_free=True,
    identities=(Identity("chunked_exact(chunk_size=7)", "naive"), Identity("chunked_exact(chunk_size={N})", "naive")),
)
@dataclass(frozen=True)
class ChunkedExact(SoftmaxAttention):
    """Plain matrix products on blocks: what a fused kernel does, written where it can be read."""

    chunk_size: int = 128
    """C: queries and keys of a block."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return self.with_lse(q, k, v, causal=causal, scale=scale)[0]

    def with_lse(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
        """The output (B, H, Nq, Dv) and each row's log-sum-exp of scores (B, H, Nq), -inf where it sees nothing.

        Gradients flow through the output alone.
        """
        b, h, n_q, _ = q.shape
        kv_heads = k.shape[1]
        blind = blind_rows(n_q, k.shape[2]) if causal else 0
        grouped = q[:, :, blind:].reshape(b, kv_heads, h // kv_heads, n_q - blind, -1)  # (B, Hkv, G, Nq, D)
        out, lse = _ExactAttention.apply(grouped, k, v, causal, scale, self.chunk_size)  # type: ignore[no-untyped-call]
        lse = torch.nn.functional.pad(lse.flatten(1, 2), (blind, 0), value=float("-inf"))
        return prepend_zeros(out.flatten(1, 2), blind), lse


class _ExactAttention(torch.autograd.Function):
    """q (B, Hkv, G, Nq, D), k (B, Hkv, Nk, D), v (B, Hkv, Nk, Dv) -> out (B, Hkv, G, Nq, Dv), lse (B, Hkv, G, Nq).

    Every row sees at least key 0, so its running maximum is finite after the first block of keys.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, c: int) -> tuple[Tensor, Tensor]:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        lse = q.new_empty(q.shape[:-1], dtype=wide(q.dtype))
        for rows in _chunks(q.shape[3], c):
            qi = _fold(q, rows) * scale
            peak = qi.new_full((*qi.shape[:3], 1), float("-inf"))
            total = torch.zeros_like(peak)
            mixed = qi.new_zeros(*qi.shape[:3], v.shape[-1])
            for cols in _seen_chunks(rows, q.shape[3], k.shape[2], c, causal):
                scores = _scores(qi, k, rows, cols, q.shape[3], causal)
                new_peak = torch.maximum(peak, scores.amax(dim=-1, keepdim=True))
                weights = scores.sub_(new_peak).exp_()
                shrink = (peak - new_peak).exp_()  # 0 at first, where the peak is -inf
                total.mul_(shrink).add_(weights.sum(dim=-1, keepdim=True))
                _add_product(mixed.mul_(shrink), weights, v[:, :, cols])
                peak = new_peak
                del scores, weights  # before the next block's are made
            out[:, :, :, rows] = _unfold(mixed.div_(total), q)
            lse[:, :, :, rows] = _unfold(peak + total.log(), q)[..., 0]
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.options = causal, scale, c
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        causal, scale, c = ctx.options
        dq = torch.empty_like(q)
        dk = torch.zeros(k.shape, dtype=lse.dtype, device=k.device)
        dv = torch.zeros(v.shape, dtype=lse.dtype, device=v.device)
        for rows in _chunks(q.shape[3], c):
            qi, doi = _fold(q, rows) * scale, _fold(dout, rows)
            row_lse = _fold(lse.unsqueeze(-1), rows)
            shared = (doi * _fold(out, rows)).sum(dim=-1, keepdim=True)  # what softmax takes off every score's gradient
            dqi = torch.zeros(qi.shape, dtype=qi.dtype, device=qi.device)  # `zeros_like` would take over q's strides
            for cols in _seen_chunks(rows, q.shape[3], k.shape[2], c, causal):
                weights = _scores(qi, k, rows, cols, q.shape[3], causal).sub_(row_lse).exp_()
                _add_product(dv[:, :, cols], weights.mT, doi)
                dscores = (doi @ v[:, :, cols].to(doi.dtype).mT).sub_(shared).mul_(weights)
                _add_product(dqi, dscores, k[:, :, cols])
                _add_product(dk[:, :, cols], dscores.mT, qi)
                del weights, dscores
            dq[:, :, :, rows] = _unfold(dqi.mul_(scale), q)
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, all (B, Hkv, ·, ·), with no tensor for the product. `out=`: torch counts its operations."""
    into = total.view(-1, *total.shape[2:])
    torch.baddbmm(into, a.flatten(0, 1), b.to(total.dtype).flatten(0, 1), out=into)


def _chunks(n: int, c: int) -> Iterator[slice]:
    return (slice(start, min(start + c, n)) for start in range(0, n, c))


def _seen_chunks(rows: slice, n_q: int, n_k: int, c: int, causal: bool) -> Iterator[slice]:
    """The blocks of keys that some of these rows see: those wholly in the future are never touched."""
    return _chunks(rows.stop + n_k - n_q if causal else n_k, c)


def _fold(x: Tensor, rows: slice) -> Tensor:
    """(B, Hkv, G, N, D) -> (B, Hkv, G·R, D), wide: the group's queries stand under each other, so k needs no copies."""
    return x[:, :, :, rows].to(wide(x.dtype)).flatten(2, 3)


def _unfold(x: Tensor, like: Tensor) -> Tensor:
    """(B, Hkv, G·R, D) -> (B, Hkv, G, R, D)."""
    return x.reshape(*x.shape[:2], like.shape[2], -1, x.shape[-1])


def _scores(qi: Tensor, k: Tensor, rows: slice, cols: slice, n_q: int, causal: bool) -> Tensor:
    """Scores of one block (B, Hkv, G·R, C), -inf where the key is in the query's future."""
    scores = qi @ k[:, :, cols].to(qi.dtype).mT
    first = rows.start + k.shape[2] - n_q - cols.start  # where query `rows.start` stands among these keys
    width = cols.stop - cols.start
    if causal and width - 1 > first:
        r = rows.stop - rows.start
        future = torch.ones(r, width, dtype=torch.bool, device=k.device).triu_(first + 1)
        scores.unflatten(2, (-1, r)).masked_fill_(future, float("-inf"))
    return scores
