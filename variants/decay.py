"""Decays inside chunks, without overflow and without differences of large sums.

A decay from token j to token i is exp(g_{j+1} + … + g_i), g <= 0. Taken apart as exp(c_i) · exp(-c_j), with c the
running sum of g, it makes matrix products possible, and overflows (gates of -50 reach exp(88) in two tokens); taken as
exp(c_i - c_j) it loses the small sums beside the large. So every sum here runs from the pair's own middle: a chunk is
halved, and halved again, and where a pair (i, j) is parted at the boundary m, its decay is exp(g_m + … + g_i) times
exp(g_{j+1} + … + g_{m-1}). Both exponents are sums of their own terms and at most 0. It takes the secondary chunks of
gated linear attention (2312.06635, section 4.3) to their end: each level is one batch of matrix products, no pair of
tokens needs a product of its own, and each token takes part in one exponential a level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SLICE = 1 << 20
"""Most numbers of k that are worked on at a time: what `decayed_scores` holds beyond its results is then bounded."""


def decayed_scores(
    queries: tuple[Tensor, ...], k: Tensor, log_decay: Tensor
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Scores within chunks under a decay for each channel: A_ij = sum_d q_id k_jd exp(g_{j+1,d} + … + g_{i,d}), j <= i.

    For each of the queries (…, C, D), with k and log_decay (…, C, D), <= 0: A (…, C, C), zeros above the diagonal. And
    the sums that decays across chunks need, (…, C, D) each: g_0 + … + g_i (`before`: from the chunk's start through i)
    and g_{i+1} + … + g_{C-1} (`after`: what is to come after i). Any C, best a power of two. Differentiable in all
    inputs; the backward pass computes the exponentials again, slice by slice.
    """
    shape, (c, d) = k.shape, k.shape[-2:]
    size = 1 << (c - 1).bit_length()
    flat = [F.pad(x.reshape(-1, c, d), (0, 0, 0, size - c)) for x in (k, log_decay, *queries)]  # zeros fill the end
    before, after, *scores = _DecayedScores.apply(*flat)  # type: ignore[no-untyped-call]
    sums = (x[:, :c].reshape(shape) for x in (before, after))
    return tuple(a[:, :c, :c].reshape(*shape[:-1], c) for a in scores), *sums


def decay_matrix(log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One decay for all channels: g (…, C) to exp(g_{j+1} + … + g_i) for j <= i, (…, C, C), zeros above the diagonal.

    And the sums `before` and `after` of `decayed_scores`, (…, C) each.
    """
    one = torch.ones_like(log_decay).unsqueeze(-1)
    (matrix,), before, after = decayed_scores((one,), one, log_decay.unsqueeze(-1))
    return matrix, before.squeeze(-1), after.squeeze(-1)


def level_matrix(levels: Tensor) -> Tensor:
    """Weights of halves of halves: levels (…, C, L) to (…, C, C), at j <= i levels[i, l] with l = bit_length(i xor j).

    Level 0 is the diagonal, level l the pairs that stand in one block of 2^l tokens and in different halves of it;
    those from the last level on share it. Zeros above the diagonal. C is a power of two.
    """
    c, last = levels.shape[-2:]
    matrix: Tensor = _LevelMatrix.apply(levels.reshape(-1, c, last))  # type: ignore[no-untyped-call]
    return matrix.view(*levels.shape[:-1], c)


class _LevelMatrix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, levels: Tensor) -> Tensor:
        x, c, ctx.count = levels.shape
        matrix = levels.new_zeros(x, c, c)
        matrix.diagonal(dim1=1, dim2=2).copy_(levels[..., 0])
        for level, h in enumerate(_doubling(c), start=1):
            block(matrix, h).copy_(right(levels[..., min(level, ctx.count - 1), None], h).expand(-1, -1, -1, h))
        return matrix

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        d_levels = grad.new_zeros(*grad.shape[:2], ctx.count)
        d_levels[..., 0] = grad.diagonal(dim1=1, dim2=2)
        for level, h in enumerate(_doubling(grad.shape[1]), start=1):
            right(d_levels[..., min(level, ctx.count - 1)], h).add_(block(grad, h).sum(dim=-1))
        return d_levels


def decayed_states(writes: Tensor, decay: Tensor, start: Tensor | None = None) -> Tensor:
    """States at the borders of chunks, S_0 = start or 0 and S_{m+1} = decay_m S_m + writes_m: (B, H, n + 1, D, Dv).

    writes (B, H, n, D, Dv), start (B, H, D, Dv); decay, of the size that broadcasts to writes, is the share in [0, 1]
    that a chunk leaves of the state before it. One pass over the chunks, and one back.
    """
    states: Tensor = _DecayedStates.apply(writes, decay, start)  # type: ignore[no-untyped-call]
    return states


class _DecayedStates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, writes: Tensor, decay: Tensor, start: Tensor | None) -> Tensor:
        b, h, n = writes.shape[:3]
        states = writes.new_empty(b, h, n + 1, *writes.shape[3:])
        states[:, :, 0] = 0 if start is None else start
        share = decay.expand(b, h, n, *decay.shape[3:]).unbind(2)
        at = states.unbind(2)
        for m, write in enumerate(writes.unbind(2)):
            torch.addcmul(write, at[m], share[m], out=at[m + 1])
        ctx.save_for_backward(states if ctx.needs_input_grad[1] else None, decay)
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, decay = ctx.saved_tensors
        b, h, n = grad.shape[0], grad.shape[1], grad.shape[2] - 1
        d_states = grad.clone()  # slot m: the gradient of state m, of which every later state is made
        share = decay.expand(b, h, n, *decay.shape[3:]).unbind(2)
        at = d_states.unbind(2)
        for m in range(n - 1, -1, -1):
            at[m].addcmul_(at[m + 1], share[m])
        d_writes = d_states[:, :, 1:]
        d_decay = (d_writes * states[:, :, :-1]).sum_to_size(decay.shape) if ctx.needs_input_grad[1] else None
        return d_writes, d_decay, at[0] if ctx.needs_input_grad[2] else None


class _DecayedScores(torch.autograd.Function):
    """On k, g and queries (X, C, D), X chunks, C a power of two: (before, after, scores …)."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, g: Tensor, *queries: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(k, g, *queries)
        before, after = g.clone(), torch.zeros_like(g)
        scores = [q.new_zeros(*q.shape[:2], q.shape[1]) for q in queries]
        for part in _slices(k):
            for h, decay_q, decay_k in _levels(before[part], after[part]):
                keys = left(k[part], h) * decay_k
                for q, a in zip(queries, scores, strict=True):
                    block(a[part], h).copy_((right(q[part], h) * decay_q) @ keys.mT)
        for q, a in zip(queries, scores, strict=True):
            a.diagonal(dim1=-2, dim2=-1).copy_((q * k).sum(dim=-1))
        return before, after, *scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        k, g, *queries = ctx.saved_tensors
        d_before, d_after, *d_scores = grads
        dk, dg, d_later = torch.zeros_like(k), d_before.clone(), d_after.clone()
        d_queries = []
        for q, da in zip(queries, d_scores, strict=True):
            d_own = da.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
            d_queries.append(d_own * k)
            dk.addcmul_(d_own, q)
        for part in _slices(k):
            # From the whole chunk down to pairs: dg and d_later are the gradients of the two sums of that level.
            for h, decay_q, decay_k in reversed(list(_levels(g[part].clone(), torch.zeros_like(g[part])))):
                first, second = left(dg[part], h), right(dg[part], h)
                first[..., -1, :] += second.sum(dim=-2)
                second[..., -1, :] += left(d_later[part], h).sum(dim=-2)
                keys = left(k[part], h) * decay_k
                d_keys = torch.zeros_like(keys)
                for q, dq, da in zip(queries, d_queries, d_scores, strict=True):
                    asked = right(q[part], h) * decay_q
                    d_block = block(da[part], h)
                    d_asked = d_block @ keys
                    d_keys += d_block.mT @ asked
                    right(dq[part], h).addcmul_(d_asked, decay_q)
                    second.addcmul_(d_asked, asked)
                left(dk[part], h).addcmul_(d_keys, decay_k)
                left(d_later[part], h).addcmul_(d_keys, keys)
        return dk, dg, *d_queries


def _slices(k: Tensor) -> Iterator[slice]:
    step = max(1, SLICE // (k.shape[1] * k.shape[2]))
    return (slice(first, first + step) for first in range(0, k.shape[0], step))


def _levels(before: Tensor, after: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For halves of h = 1, 2, 4 … tokens: h, the decays of the right halves' queries and of the left halves' keys.

    Both (X, C / 2h, h, D). Starts from before = g and after = 0, sums over blocks of one token, and turns them in place
    into the sums over blocks of 2, 4, …, C tokens.
    """
    for h in _doubling(before.shape[1]):
        first, second, rest = left(before, h), right(before, h), left(after, h)
        yield h, second.exp(), rest.exp()
        rest += second[..., -1:, :]
        second += first[..., -1:, :]


def _doubling(c: int) -> Iterator[int]:
    """1, 2, 4, …, C / 2."""
    return (1 << bit for bit in range(c.bit_length() - 1))


def left(x: Tensor, h: int) -> Tensor:
    """(X, C, …) -> (X, C / 2h, h, …): the first half of every block of 2h tokens, a view."""
    half: Tensor = x.unflatten(1, (-1, 2, h))[:, :, 0]
    return half


def right(x: Tensor, h: int) -> Tensor:
    half: Tensor = x.unflatten(1, (-1, 2, h))[:, :, 1]
    return half


def block(a: Tensor, h: int) -> Tensor:
    """(X, C, C) -> (X, C / 2h, h, h): of each 2h tokens, the right half's rows and the left's columns, a view."""
    split = a.unflatten(2, (-1, 2, h)).unflatten(1, (-1, 2, h))  # (X, C/2h, 2, h, C/2h, 2, h)
    corner: Tensor = split[:, :, 1, :, :, 0].diagonal(dim1=1, dim2=3)
    return corner.movedim(-1, 1)
