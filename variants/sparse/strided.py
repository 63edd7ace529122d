"""Strided attention: each query sees the last l tokens, and of the older ones every l-th, counted back from itself.

Child et al. 2019, "Generating Long Sequences with Sparse Transformers", arXiv:1904.10509, section 4.3: A1 holds the
keys i - l … i, A2 those with (i - j) mod l = 0, l near sqrt(N). One head attends to both sets together here, which the
paper calls a merged head (equation 7); a key in both counts once. The key i - l is in A2 already, so that (i - j) < l
states the rest of A1. The stride of 128 is that of the paper's strided models of ImageNet 64 (section 7.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..api import Budget, Complexity, Identity, Supports, Variant, causal_pairs, register
from ..blocks import attend, blind_rows, prepend_zeros, wide
from ..definitions import masked_softmax, positions
from ..merged import attend_lse, attend_lse_backward
from .sliding_window import band_pairs


def _stride_for(keys: int, length: int) -> dict[str, int] | None:
    """The longest window l of which l + N / 2l keys, a query's mean, are no more than asked for."""
    rest = keys * keys - 2 * length
    return {"stride": int((keys + math.sqrt(rest)) / 2)} if rest >= 0 else None


@register(
    "strided",
    family="sparse",
    kind="approximate",
    supports=Supports(noncausal=False, decode=True),
    budget=Budget("keys", lambda n, causal, length: _stride_for(n, length)),
    complexity=Complexity(
        time=2, memory=1, text="O(N (l + N / l) d) time: N^1.5 where l grows as sqrt(N), O(N d) memory", state=1
    ),
    paper='Child et al. 2019, "Generating Long Sequences with Sparse Transformers", arXiv:1904.10509, sec. 4.3',
    formula="softmax over the keys j <= i with i - j < l or (i - j) mod l = 0",
    reduces_to="causal softmax attention where stride = 1 or stride >= N",
    identities=(
        Identity("strided(stride=1)", "naive"),
        Identity("strided(stride={N})", "naive"),
        Identity("strided(stride=1000000)", "naive"),
    ),
)
@dataclass(frozen=True)
class Strided(Variant):
    """The keys lie in a grid of N / l rows of l: a query's keys are its row so far, the end of the row before, and its
    column. Each is causal attention without a mask, and the three are joined by their log-sum-exps.
    """

    stride: int = 128
    """l: newest tokens that a query sees, its own position counted, and the distance between the older ones."""

    def __post_init__(self) -> None:
        self.require(stride=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        seen = (j <= i) & ((i - j < self.stride) | ((i - j) % self.stride == 0))
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=seen)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        b, h, n_q, d = q.shape
        n_k, width = k.shape[2], v.shape[3]
        l = min(self.stride, n_k)  # noqa: E741 - the paper's name
        if n_q == 1:
            return self._newest(q, k, v, l, scale)
        blind = blind_rows(n_q, n_k)
        q = q[:, :, blind:]
        shift = n_k - q.shape[2]  # position of the first query left
        ahead, behind = shift % l, -n_k % l  # what the grid has before the first query, and after the last
        q = F.pad(q, (0, 0, ahead, behind)) if ahead or behind else q
        if behind:  # keys after every query: no part of the grid lets a real query see them
            k, v = F.pad(k, (0, 0, 0, behind)), F.pad(v, (0, 0, 0, behind))
        grid_q = q.reshape(b * k.shape[1], h // k.shape[1], -1, l, d)  # (B·Hkv, G, rows, l, D)
        grid_k, grid_v = (x.reshape(b * k.shape[1], -1, l, x.shape[3]) for x in (k, v))
        out = _Grid.apply(grid_q, grid_k, grid_v, scale)  # type: ignore[no-untyped-call]
        out = out.reshape(b, h, -1, width)[:, :, ahead : ahead + n_q - blind]
        return prepend_zeros(out, blind)

    def _newest(self, q: Tensor, k: Tensor, v: Tensor, l: int, scale: float) -> Tensor:  # noqa: E741
        """The query at the last key alone: its keys are taken out, in time O(l + N / l)."""
        n = k.shape[2]
        older = (n - 1) % l
        k, v = (torch.cat([x[:, :, older : n - l : l], x[:, :, n - l :]], dim=2) for x in (k, v))
        return attend(q, k, v, scale=scale)

    # keep: as it is. Every token is a multiple of l before some later one, so all of them stay.

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        l = self.stride  # noqa: E741
        if l >= n_k:
            return causal_pairs(n_q, n_k)
        rows = min(n_q, n_k)
        older = self._older_pairs(n_k) - self._older_pairs(n_k - rows)
        return band_pairs(rows, n_k, l - 1, 0) + older

    def _older_pairs(self, n: int) -> int:
        """Pairs with i - j a positive multiple of l, for i < n: the sum of floor(i / l)."""
        whole, rest = divmod(n, self.stride)
        return self.stride * (whole * (whole - 1) // 2) + rest * whole


@dataclass(frozen=True)
class _Part:
    """One of the sets of keys, as views of the grids that line its queries up with its keys."""

    queries: Callable[[Tensor], Tensor]
    """(X, G, rows, l, ·) -> (X, sequences, G, n, ·)"""
    keys: Callable[[Tensor], Tensor]
    """(X, all rows, l, ·) -> (X, sequences, n, ·)"""
    causal: bool = True
    backwards: bool = False
    """A query sees the later keys of its sequence: both are turned round for the kernel, and back."""

    def of_queries(self, x: Tensor) -> Tensor:
        """What the kernel takes: (X, sequences · G, n, ·)."""
        x = self.queries(x).flatten(1, 2)
        return x.flip(2) if self.backwards else x

    def of_keys(self, x: Tensor) -> Tensor:
        x = self.keys(x)
        return x.flip(2) if self.backwards else x

    def back(self, x: Tensor, like: Tensor) -> Tensor:
        """What the kernel gave, in the order and shape of the view `like`."""
        return (x.flip(2) if self.backwards else x).reshape(like.shape)


def _parts(q: Tensor, k: Tensor) -> list[_Part]:
    """For queries (X, G, R, l, D) in the last R of the T rows of a grid of keys (X, T, l, D)."""
    rows, l = q.shape[2:4]  # noqa: E741
    past = k.shape[1] - rows  # rows of keys before the first query's
    after = 1 if past == 0 else 0  # the first row with a row before it
    parts = [_Part(lambda x: x.transpose(1, 2), lambda x: x[:, past:])]
    if l > 1 and rows > after:  # column a of a row sees the columns a + 1 … l - 1 of the row before
        parts.append(
            _Part(
                lambda x: x[:, :, after:, :-1].transpose(1, 2),
                lambda x: x[:, past + after - 1 : -1, 1:],
                backwards=True,
            )
        )
    if rows > 1:  # in its column a query sees strictly older rows: itself it has seen in its own row
        parts.append(_Part(lambda x: x[:, :, 1:].permute(0, 3, 1, 2, 4), lambda x: x[:, past:-1].transpose(1, 2)))
    if past:
        parts.append(_Part(lambda x: x.permute(0, 3, 1, 2, 4), lambda x: x[:, :past].transpose(1, 2), causal=False))
    return parts


class _Grid(torch.autograd.Function):
    """q (X, G, R, l, D), k (X, T, l, D), v (X, T, l, Dv) -> (X, G, R, l, Dv). Keeps its inputs, out and lse: O(N d)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        sums = wide(q.dtype)
        total = torch.full((*q.shape[:4], 1), float("-inf"), dtype=sums, device=q.device)
        found = []
        for part in _parts(q, k):
            out, lse = attend_lse(part.of_queries(q), part.of_keys(k), part.of_keys(v), scale=scale, causal=part.causal)
            seen = part.queries(total)
            lse = part.back(lse.unsqueeze(-1), seen)
            seen.copy_(torch.logaddexp(seen, lse))
            found.append((part, out, lse))
        mixed = torch.zeros(*q.shape[:4], v.shape[-1], dtype=sums, device=q.device)
        for part, out, lse in found:
            into = part.queries(mixed)
            into.addcmul_(part.back(out, into).to(sums), (lse - part.queries(total)).exp_())
        mixed = mixed.to(q.dtype)
        ctx.save_for_backward(q, k, v, mixed, total)
        ctx.scale = scale
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, total = ctx.saved_tensors
        dq, dk, dv = (torch.zeros(x.shape, dtype=wide(x.dtype), device=x.device) for x in (q, k, v))
        for part in _parts(q, k):
            grads = attend_lse_backward(
                part.of_queries(dout),
                part.of_queries(q),
                part.of_keys(k),
                part.of_keys(v),
                part.of_queries(out),
                part.of_queries(total).squeeze(-1),
                scale=ctx.scale,
                causal=part.causal,
            )
            for grad, into in zip(grads, (part.queries(dq), part.keys(dk), part.keys(dv)), strict=True):
                into.add_(part.back(grad, into))
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None
