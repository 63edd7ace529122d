"""Attention over the k best keys of each query, where best is a score of any kind: shared by `topk` and `dsa`.

A hard choice has no rounding error: of two keys that almost tie one is in and one is out, and the output jumps between
them. So the choice is made in one fixed arithmetic, whatever the dtype of the inputs and however the work is cut up:
scores are summed in float64 and then rounded once, to float32, and equal ones go to the earlier key. The two sides of a
comparison (fast form and definition, one block size and another) round sums that differ in their sixteenth digit to
the same number, so they choose alike, exact ties included.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .blocks import attend, blind_rows, prepend_zeros, wide

Rank = Callable[[tuple[Tensor, ...], slice, Tensor, Tensor], None]
"""(tensors, query rows, out, spare): writes the scores of these rows over the first n keys into `out`, float64
(B, S, R, n), where S is H if each head makes a choice of its own, and 1 if all share one. `spare` is a second such
tensor to work in."""

GATHER_FROM = 12
"""A block's chosen rows of k and v are copied out where it sees at least this many times k keys; where it sees fewer, a
fused kernel goes over all of them under a mask. On one CPU, 4 heads of 64 and N = 4096, copying took three quarters of
the mask's time at 16 times k, and 27 times as long at 2; the crossing in between, and a GPU's, were not measured."""

GATHERED = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Most numbers copied out of k and v at a time."""


def best(scores: Tensor, visible: Tensor | None, top_k: int) -> Tensor:
    """Mask of the `top_k` highest visible scores of each row, the earlier key first among equals: as `scores`.

    For definitions: a stable sort. A row that sees fewer keys has all of them.
    """
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    order = scores.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order[..., :top_k], True)
    return mask if visible is None else mask & visible


def attend_best(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rank: Rank,
    ranked: tuple[Tensor, ...],
    *,
    choices: int,
    top_k: int,
    causal: bool,
    scale: float,
    block_size: int,
) -> Tensor:
    """Softmax attention of q (B, H, Nq, D) over the `top_k` best keys of each query: (B, H, Nq, Dv).

    `rank` scores the keys, from the tensors `ranked`, for `block_size` queries at a time, as S = `choices` says; no
    gradient goes through the choice. Memory O(N (block_size + top_k)), in training too, for which each block's choice
    is kept and nothing else.
    """
    n_q, n_k = q.shape[2], k.shape[2]
    if not causal and top_k >= n_k:
        return attend(q, k, v, scale=scale)
    blind = blind_rows(n_q, n_k) if causal else 0
    whole = min(n_q, max(blind, top_k + n_q - n_k)) if causal else 0  # before this row, top_k keys are all that it sees
    parts = []
    if whole > blind:
        seen = whole + n_k - n_q
        parts.append(attend(q[:, :, blind:whole], k[:, :, :seen], v[:, :, :seen], scale=scale, causal=True))
    if whole < n_q:
        options = (functools.partial(_order, rank, choices, causal), choices, top_k, causal, scale, block_size, whole)
        parts.append(_Selected.apply(q, k, v, options, *(x.detach() for x in ranked)))  # type: ignore[no-untyped-call]
    return prepend_zeros(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2), blind)


class _Selected(torch.autograd.Function):
    """The rows from `start` on, each of which sees at least `top_k` keys: (B, H, Nq - start, Dv)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, options: tuple[Any, ...], *ranked: Tensor) -> Tensor:
        order, choices, top_k, causal, scale, block_size, start = options
        n_q, n_k = q.shape[2], k.shape[2]
        out = q.new_empty(*q.shape[:2], n_q - start, v.shape[3])
        kept = []
        room = _Room(q.shape[0] * choices * min(block_size, n_q - start) * n_k, q.device)
        for rows in _blocks(start, n_q, block_size):
            seen = rows.stop + n_k - n_q if causal else n_k
            keys = order(room, ranked, rows, seen)
            if _gathers(top_k, seen):
                choice = keys.topk(top_k, dim=-1, sorted=False).indices
                for sub, index in _gathered(choice, rows, q, k, v):
                    out[:, :, sub.start - start : sub.stop - start] = _attend_gathered(q, k, v, sub, index, scale)
                choice = choice.to(torch.int32)
            else:
                choice = threshold(keys, top_k)
                allowed = keys >= choice
                out[:, :, rows.start - start : rows.stop - start] = attend(
                    q[:, :, rows], k[:, :, :seen], v[:, :, :seen], scale=scale, allowed=allowed
                )
            if any(ctx.needs_input_grad[:3]):
                kept.append(choice)
        ctx.save_for_backward(q, k, v, *ranked, *kept)
        ctx.options = (*options, len(ranked))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        order, choices, top_k, causal, scale, block_size, start, count = ctx.options
        q, k, v, *rest = ctx.saved_tensors
        ranked, kept = tuple(rest[:count]), rest[count:]
        n_q, n_k = q.shape[2], k.shape[2]
        room = _Room(q.shape[0] * choices * min(block_size, n_q - start) * n_k, q.device)
        dq = torch.zeros_like(q)
        # sums over many blocks: in a narrow dtype they would lose what the definition's one product keeps
        dk = torch.zeros(k.shape, dtype=wide(k.dtype), device=k.device)
        dv = torch.zeros(v.shape, dtype=wide(v.dtype), device=v.device)
        for rows, choice in zip(_blocks(start, n_q, block_size), kept, strict=True):
            seen = rows.stop + n_k - n_q if causal else n_k
            if _gathers(top_k, seen):
                for sub, index in _gathered(choice.long(), rows, q, k, v):
                    upstream = dout[:, :, sub.start - start : sub.stop - start]
                    dq[:, :, sub] = _add_gathered(dk, dv, upstream, q, k, v, sub, index, scale)
                continue
            allowed = order(room, ranked, rows, seen) >= choice
            leaves = [x.detach().requires_grad_() for x in (q[:, :, rows], k[:, :, :seen], v[:, :, :seen])]
            with torch.enable_grad():
                out = attend(*leaves, scale=scale, allowed=allowed)
            upstream = dout[:, :, rows.start - start : rows.stop - start]
            dq[:, :, rows], more_k, more_v = torch.autograd.grad(out, leaves, upstream)
            dk[:, :, :seen] += more_k
            dv[:, :, :seen] += more_v
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, *[None] * count


# -- the order of keys as whole numbers ---------------------------------------------------------------------------


class _Room:
    """Memory for one block's scores, taken once and used by every block: fresh pages would cost as much as the work."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.scores, self.spare = (torch.empty(size, dtype=torch.float64, device=device) for _ in range(2))

    def take(self, *shape: int) -> tuple[Tensor, Tensor]:
        """Two tensors of a shape, with whatever stood there before."""
        size = math.prod(shape)
        return self.scores[:size].view(shape), self.spare[:size].view(shape)


def _order(
    rank: Rank,
    choices: int,
    causal: bool,
    room: _Room,
    ranked: tuple[Tensor, ...],
    rows: slice,
    seen: int,
) -> Tensor:
    """int64 (B, S, R, seen) in the order of the scores, the future below all others; the next block's overwrite it."""
    shape = ranked[0].shape[0], choices, rows.stop - rows.start, seen
    scores, spare = room.take(*shape)
    rank(ranked, rows, scores, spare)
    narrow = spare.view(torch.float32).flatten()[: scores.numel()].view(shape)
    keys = sortable(narrow.copy_(scores), out=scores.view(torch.int64))
    if causal:
        hide_future(keys, seen - shape[2])
    return keys


def sortable(scores: Tensor, out: Tensor) -> Tensor:
    """float32 scores (…, n) -> int64 of the same order, no two alike in a row: of equal scores the earlier is larger.

    Writes over `scores`.
    """
    bits = scores.add_(0.0).view(torch.int32)  # -0.0 and 0.0 are equal scores
    n = scores.shape[-1]
    flips = torch.bitwise_right_shift(bits, 31, out=out.view(torch.int32)[..., :n])  # all ones below zero
    bits ^= flips.bitwise_and_(0x7FFFFFFF)  # the bits of negative floats fall as the floats rise
    return out.copy_(bits).bitwise_left_shift_(32).add_(torch.arange(n - 1, -1, -1, device=scores.device))


def hide_future(keys: Tensor, first: int) -> None:
    """Puts every key after a row's own position, `first` for row 0, below all others, in place."""
    r, n = keys.shape[-2:]
    later = torch.ones(r, n - first - 1, dtype=torch.bool, device=keys.device).triu_()  # keys first + 1 … n - 1
    keys[..., first + 1 :].masked_fill_(later, torch.iinfo(torch.int64).min)


def threshold(keys: Tensor, top_k: int) -> Tensor:
    """The `top_k`-th largest of each row, (…, 1)."""
    return keys.topk(top_k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)


# -- chosen rows, copied out --------------------------------------------------------------------------------------


def _blocks(start: int, end: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, end)) for begin in range(start, end, size))


def _gathers(top_k: int, seen: int) -> bool:
    return GATHER_FROM * top_k <= seen


def _gathered(choice: Tensor, rows: slice, q: Tensor, k: Tensor, v: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Cuts a choice (B, H or 1, R, K) into runs of rows whose copies stay small.

    Yields the rows, and for them the index (B, S, r, K) into k (B·Hkv·Nk, D) with heads and batch folded: S = H where
    heads choose for themselves, and Hkv where they share one choice.
    """
    b, kv_heads, n_k, _ = k.shape
    owners = choice.shape[1] if choice.shape[1] > 1 else kv_heads
    heads = torch.arange(owners, device=k.device) * kv_heads // owners
    first = (torch.arange(b, device=k.device)[:, None] * kv_heads + heads) * n_k  # (B, S)
    entries = b * owners * choice.shape[-1] * (k.shape[3] + v.shape[3])
    step = max(1, GATHERED.get(k.device.type, GATHERED["cpu"]) // entries)
    for sub in _blocks(rows.start, rows.stop, step):
        yield sub, choice[:, :, sub.start - rows.start : sub.stop - rows.start] + first[:, :, None, None]


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x (B, Hkv, Nk, D) at an index (B, S, r, K) into its folded rows: (B·S, r, K, D)."""
    taken = x.reshape(-1, x.shape[-1]).index_select(0, index.flatten())
    return taken.view(-1, *index.shape[2:], x.shape[-1])


def _queries(q: Tensor, sub: slice, owners: int) -> Tensor:
    """(B, H, Nq, D) -> (B·S, r, G, D): the G queries at one position that share a choice and a key head."""
    b, h, _, d = q.shape
    return q[:, :, sub].reshape(b * owners, h // owners, -1, d).transpose(1, 2)


def _attend_gathered(q: Tensor, k: Tensor, v: Tensor, sub: slice, index: Tensor, scale: float) -> Tensor:
    """(B, H, r, Dv)"""
    out = attend(_queries(q, sub, index.shape[1]), _take(k, index), _take(v, index), scale=scale)  # (B·S, r, G, Dv)
    return out.transpose(1, 2).reshape(q.shape[0], q.shape[1], -1, v.shape[3])


def _add_gathered(
    dk: Tensor, dv: Tensor, dout: Tensor, q: Tensor, k: Tensor, v: Tensor, sub: slice, index: Tensor, scale: float
) -> Tensor:
    """Adds these rows' gradients of k and v to dk and dv; returns that of q, (B, H, r, D)."""
    owners = index.shape[1]
    leaves = [x.detach().requires_grad_() for x in (_queries(q, sub, owners), _take(k, index), _take(v, index))]
    with torch.enable_grad():
        out = attend(*leaves, scale=scale)
    upstream = _queries(dout, slice(None), owners)
    dq, more_k, more_v = torch.autograd.grad(out, leaves, upstream)
    for total, more in ((dk, more_k), (dv, more_v)):
        total.view(-1, total.shape[-1]).index_add_(0, index.flatten(), more.flatten(0, 2).to(total.dtype))
    return dq.transpose(1, 2).reshape(q.shape[0], q.shape[1], -1, q.shape[3])
