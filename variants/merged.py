"""Softmax attention in parts: one query's keys lie in several arrangements, joined by the parts' log-sum-exps.

Out of each part come its own softmax average o_p and the log-sum-exp L_p of its scores; the whole has
L = log sum_p exp L_p and o = sum_p exp(L_p - L) o_p. The gradient of a part is that of attention with the whole's o
and L in place of its own, so nothing but q, k, v, o and L has to be kept. `attend_lse` and its backward hold no scores
beyond a tile: they are torch's fused kernel on a CPU, and matrix products tile by tile elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import wide

FUSED = ("cpu",)
"""Devices whose fused kernel is called for its log-sum-exp."""

TILE = 1 << 25
"""Most scores that are held at a time where no fused kernel gives its log-sum-exp: 128 MiB in float32."""


def attend_lse(q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """Attention of q (B, H, Nq, D) over k, v (B, Hkv, Nk, ·), without autograd: out (B, H, Nq, Dv), lse (B, H, Nq).

    The log-sum-exp is natural and in `wide`. Causal is for Nq = Nk.
    """
    if q.device.type in FUSED:
        (q, k, v), width = _same_width(q, k, v), v.shape[3]
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
        return out[..., :width], lse
    out = q.new_empty(*q.shape[:3], v.shape[3])
    lse = q.new_empty(q.shape[:3], dtype=wide(q.dtype))
    for tile in _tiles(q, k, causal):
        scores = tile.scores(q, k, scale)
        part = scores.logsumexp(dim=-1)
        tile.of_rows(out).copy_(scores.sub_(part.unsqueeze(-1)).exp_() @ tile.of_keys(v).to(scores.dtype))
        tile.of_rows(lse.unsqueeze(-1)).copy_(part.unsqueeze(-1))
    return out, lse


def attend_lse_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *, scale: float, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v through one part, from the whole's out and lse, of the same shapes as the part's."""
    if q.device.type in FUSED:
        d, dv = q.shape[3], v.shape[3]
        dout, q, k, v, out = _same_width(dout, q, k, v, out)
        lse = lse.transpose(1, 2).contiguous().transpose(1, 2)  # the kernel takes the heads of a row to be neighbours
        dq, dk, dvalue = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            dout, q, k, v, out, lse, 0.0, causal, scale=scale
        )
        return dq[..., :d], dk[..., :d], dvalue[..., :dv]
    dq = torch.empty_like(q)
    dk, dvalue = (torch.zeros(x.shape, dtype=wide(x.dtype), device=x.device) for x in (k, v))
    shared = (dout.to(lse.dtype) * out).sum(dim=-1, keepdim=True)  # what softmax takes off every score's gradient
    for tile in _tiles(q, k, causal):
        weights = tile.scores(q, k, scale).sub_(tile.of_rows(lse.unsqueeze(-1))).exp_()  # (B, Hkv, G, R, n)
        upstream = tile.of_rows(dout).to(weights.dtype)
        tile.of_keys(dvalue).add_((weights.mT @ upstream).sum(dim=2, keepdim=True))
        dscores = upstream @ tile.of_keys(v).to(weights.dtype).mT
        dscores.sub_(tile.of_rows(shared)).mul_(weights).mul_(scale)
        tile.of_rows(dq).copy_(dscores @ tile.of_keys(k).to(weights.dtype))
        tile.of_keys(dk).add_((dscores.mT @ tile.of_rows(q).to(weights.dtype)).sum(dim=2, keepdim=True))
    return dq, dk.to(k.dtype), dvalue.to(v.dtype)


def _same_width(*tensors: Tensor) -> list[Tensor]:
    """Fills the last dimension with zeros up to the largest: the kernel wants D = Dv, and zeros change nothing."""
    width = max(x.shape[-1] for x in tensors)
    return [x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1])) for x in tensors]


@dataclass(frozen=True)
class _Tile:
    """Some key heads, some rows of their queries, and the keys that these rows see."""

    kv_heads: slice
    rows: slice
    keys: slice
    groups: int
    causal: bool

    def of_rows(self, x: Tensor) -> Tensor:
        """(B, H, Nq, ·) -> (B, heads, G, R, ·), a view."""
        grouped: Tensor = x.unflatten(1, (-1, self.groups))
        return grouped[:, self.kv_heads, :, self.rows]

    def of_keys(self, x: Tensor) -> Tensor:
        """(B, Hkv, Nk, ·) -> (B, heads, 1, n, ·), a view."""
        return x[:, self.kv_heads, None, self.keys]

    def scores(self, q: Tensor, k: Tensor, scale: float) -> Tensor:
        """(B, heads, G, R, n)"""
        sums = wide(q.dtype)
        scores = (self.of_rows(q).to(sums) * scale) @ self.of_keys(k).to(sums).mT
        if self.causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu_(self.rows.start + 1)
            scores.masked_fill_(future, float("-inf"))
        return scores


def _tiles(q: Tensor, k: Tensor, causal: bool) -> Iterator[_Tile]:
    b, h, n_q, _ = q.shape
    kv_heads, n_k = k.shape[1:3]
    g = h // kv_heads
    rows = max(1, min(n_q, TILE // (b * g * n_k)))
    heads = max(1, TILE // (b * g * rows * n_k))
    for head in range(0, kv_heads, heads):
        for row in range(0, n_q, rows):
            end = min(row + rows, n_q)
            yield _Tile(slice(head, head + heads), slice(row, end), slice(0, end if causal else n_k), g, causal)
