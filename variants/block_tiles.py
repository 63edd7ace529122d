"""Attention over blocks of keys that each query chose, without work for pairs that nobody chose.

A query attends to its own block of keys up to itself, and to some of the blocks that ended before it: `chosen_blocks`
says which. Own blocks are one call of fused causal attention. For the others the question is turned round: not which
blocks a query wants, but which queries want a block. The (block, query) pairs are sorted by block and cut into tiles of
queries that share one block of keys, and all work is batched products of tiles. A query's parts are joined by their
log-sum-exp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .blocks import attend, wide
from .merged import attend_lse, attend_lse_backward

Choose = Callable[[slice, slice, int], Tensor]
"""(streams, query rows, n) -> mask (S, W, R, n) of the first n blocks, all of them before the last row's own.

A stream is a key head of one batch entry, B·Hkv of them. W is the number of choices made for a stream and a position:
G = H / Hkv where each query head chooses for itself, 1 where the group shares one choice."""

TILE = 128
"""Most queries of a tile. There are fewer where a block has few queries, as in decoding, where it has one."""

TILES_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Most numbers that tiles hold at a time, of each kind: on a CPU what stays in its cache."""

SCORES_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Most numbers that choosing holds at a time, a query's scores of blocks among them."""

ROWS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Most numbers of partial outputs that are held at a time. More rows fill tiles better."""


def attend_chosen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    choose: Choose,
    *,
    choosers: int,
    block_size: int,
    count: int,
    scored: int,
    scale: float,
) -> Tensor:
    """Causal softmax attention of q (B, H, Nq, D) over each query's own block and those it chooses: (B, H, Nq, Dv).

    Every row must see a key: Nq <= Nk. `choosers` is W, the choices a stream makes at a position; `count` is K, the
    blocks of a choice, the own counted, fewer only where fewer have begun; `scored` is how many numbers a choice holds
    for a row of a stream. Time O(Nq K C d) and what choosing takes; memory O(N d) and, for training, the pairs of query
    and block. No gradient goes through the choice.
    """
    (b, h, n_q, d), (kv_heads, n_k) = q.shape, k.shape[1:3]
    early = min(n_q, max(0, count * block_size - (n_k - n_q)))  # rows with nothing to choose: they see all before them
    parts = []
    if early:
        seen = early + n_k - n_q
        parts.append(attend(q[:, :, :early], k[:, :, :seen], v[:, :, :seen], scale=scale, causal=True))
    if early < n_q:

        def choose_later(streams: slice, rows: slice, n: int) -> Tensor:
            return choose(streams, slice(rows.start + early, rows.stop + early), n)

        members = h // kv_heads // choosers
        units = q[:, :, early:].reshape(b * kv_heads, choosers, members, n_q - early, d).transpose(2, 3)
        options = block_size, scale, choosers * count * members * (v.shape[3] + 4), scored
        streams = k.flatten(0, 1), v.flatten(0, 1)
        out = _ChosenBlocks.apply(units, *streams, choose_later, options)  # type: ignore[no-untyped-call]
        parts.append(out.transpose(2, 3).reshape(b, h, n_q - early, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


class _ChosenBlocks(torch.autograd.Function):
    """q (X, W, Nq, M, D), k (X, Nk, D), v (X, Nk, Dv) -> (X, W, Nq, M, Dv): M query vectors share a choice.

    A unit is such a group of M vectors. Own blocks come first, chosen ones are joined to them pass by pass.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, choose: Choose, options: tuple[Any, ...]) -> Tensor:
        c, scale, per_row, scored = options
        out, lse = _attend_own(q, k, v, c, scale)
        keys, values = _whole_blocks(k, c), _whole_blocks(v, c)
        scratch, pairs = lse.new_empty(0), []
        for streams, rows in _passes(q, per_row):
            block, unit = _choose_pairs(q, k, streams, rows, choose, c, scored)
            if len(block):
                work = _Pass(q, streams, rows, keys.shape[1], block, unit)
                _join(work, q, keys, values, scale, out, lse, scratch := work.enough(scratch, q.shape[3] * v.shape[2]))
            if any(ctx.needs_input_grad[:3]):
                pairs += [block.to(torch.int32), unit.to(torch.int32)]
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse, *pairs)
        ctx.options = options
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, *pairs = ctx.saved_tensors
        c, scale, per_row, _ = ctx.options
        dq, dk, dv = _own_gradients(q, k, v, out, lse, dout, c, scale)
        all_keys, all_values = _whole_blocks(k, c), _whole_blocks(v, c)
        into_k, into_v = (lse.new_zeros(x.shape).flatten(0, 1) for x in (all_keys, all_values))
        # what softmax takes off every score's gradient
        shared = (dout.to(lse.dtype) * out.to(lse.dtype)).sum(dim=-1, keepdim=True)  # (X, W, Nq, M, 1)
        for (streams, rows), block, unit in zip(_passes(q, per_row), pairs[::2], pairs[1::2], strict=True):
            if not len(block):
                continue
            work = _Pass(q, streams, rows, all_keys.shape[1], block.long(), unit.long())
            # for the unit that fills tiles up everything is 0, and so is what it adds
            queries, upstream, norm, less = (work.units(x) for x in (q, dout, lse.unsqueeze(-1), shared))
            queries *= scale
            dqueries = torch.zeros_like(queries)
            for slab in work.slabs(all_keys, all_values, q.shape[3]):
                units, blocks = work.slots[slab], work.tile_block[slab]
                asked, came = _gather(queries, units), _gather(upstream, units)  # (S, T·M, D), (S, T·M, Dv)
                keys, values = _take(all_keys, blocks), _take(all_values, blocks)  # (S, C, D), (S, C, Dv)
                weights = (keys @ asked.mT).sub_(_gather(norm, units).mT).exp_()  # (S, C, T·M)
                into_v.index_add_(0, blocks, weights @ came)
                dscores = (values @ came.mT).sub_(_gather(less, units).mT).mul_(weights)
                into_k.index_add_(0, blocks, dscores @ asked)
                dqueries.index_add_(0, units.flatten(), (dscores.mT @ keys).view(-1, *dqueries.shape[1:]))
            dq[streams, :, rows] += work.unfold(dqueries.mul_(scale))
        for total, more in ((dk, into_k), (dv, into_v)):
            more = more.view(len(total), -1, total.shape[-1])  # (X, n·C, D)
            total[:, : more.shape[1]] += more
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None


def _join(
    work: _Pass, q: Tensor, keys: Tensor, values: Tensor, scale: float, out: Tensor, lse: Tensor, scratch: Tensor
) -> None:
    """Joins a pass's tiles to outputs (X, W, Nq, M, Dv) and log-sum-exps (X, W, Nq, M), in place."""
    members, dv = q.shape[3], values.shape[3]
    tiles, size = work.slots.shape
    queries = work.units(q).mul_(scale)
    mixed = scratch[: tiles * size * members * dv].view(tiles, size * members, dv)
    peak = mixed.new_empty(tiles, 1, size * members)
    total = torch.empty_like(peak)
    for slab in work.slabs(keys, values, members):
        block = work.tile_block[slab]
        # keys come first, so that a sum over few keys still runs along many queries
        scores = _take(keys, block) @ _gather(queries, work.slots[slab]).mT  # (S, C, T·M)
        torch.amax(scores, dim=1, keepdim=True, out=peak[slab])
        weights = scores.sub_(peak[slab]).exp_()
        torch.sum(weights, dim=1, keepdim=True, out=total[slab])
        torch.bmm(weights.mT, _take(values, block), out=mixed[slab])

    unit = work.slots.flatten()
    peak, total, mixed = peak.view(-1, members), total.view(-1, members), mixed.view(-1, members, dv)
    own = work.units(lse)
    top = own.scatter_reduce(0, unit[:, None].expand(-1, members), peak, "amax")
    norm = own.sub_(top).exp_()
    joined = work.units(out).mul_(norm[..., None])
    share = peak.sub_(top.index_select(0, unit)).exp_()
    norm.index_add_(0, unit, total.mul_(share))
    for part in _cut(0, len(unit), max(1, _limit(TILES_AT_ONCE, q) // (members * dv))):
        joined.index_add_(0, unit[part], mixed[part].mul_(share[part, :, None]))
    out[work.streams, :, work.rows] = work.unfold(joined.div_(norm[..., None]))
    lse[work.streams, :, work.rows] = work.unfold(top.add_(norm.log_()))


# -- own blocks ---------------------------------------------------------------------------------------------------


class _Own:
    """n blocks of equal length in which queries stand: whole ones, or one that is cut short."""

    def __init__(self, q: Tensor, rows: slice, keys: slice, n: int) -> None:
        self.rows, self.keys, self.n, self.heads = rows, keys, n, (q.shape[1], q.shape[3])
        self.lead = (keys.stop - keys.start) - (rows.stop - rows.start)  # positions that have no query

    def queries(self, x: Tensor) -> Tensor:
        """(X, W, Nq, M, D) -> (X, G·n, C, D), wide; zeros where there is no query, which add nothing to gradients."""
        mine = x[:, :, self.rows].transpose(2, 3).flatten(1, 2).to(wide(x.dtype))  # (X, G, R, D)
        if self.lead:
            mine = F.pad(mine, (0, 0, self.lead, 0))
        return mine.unflatten(2, (self.n, -1)).flatten(1, 2).contiguous()  # type: ignore[no-any-return]

    def shared(self, x: Tensor) -> Tensor:
        """Keys or values (X, Nk, D) -> (X, G·n, C, D), wide, the same for each head of a group."""
        blocks = x[:, None, self.keys].to(wide(x.dtype)).unflatten(2, (self.n, -1))
        return blocks.expand(-1, math.prod(self.heads), -1, -1, -1).flatten(1, 2).contiguous()  # type: ignore[no-any-return]

    def put(self, into: Tensor, x: Tensor) -> None:
        """The way back of `queries`."""
        rows = x.unflatten(1, (*self.heads, self.n)).flatten(3, 4)[:, :, :, self.lead :]  # (X, W, M, R, D)
        into[:, :, self.rows] = rows.transpose(2, 3)

    def add(self, into: Tensor, x: Tensor) -> None:
        """The way back of `shared`: the sum over a group."""
        into[:, self.keys] += x.unflatten(1, (-1, self.n)).sum(dim=1).flatten(1, 2)


def _own_spans(q: Tensor, k: Tensor, c: int) -> Iterator[_Own]:
    n_q, n_k = q.shape[2], k.shape[1]
    shift = n_k - n_q
    body = min(n_k, -(-shift // c) * c)  # position where whole blocks begin
    tail = max(body, n_k // c * c)  # and where they end
    for low, start, end, n in (
        (shift // c * c, shift, body, 1),
        (body, body, tail, (tail - body) // c),
        (tail, tail, n_k, 1),
    ):
        if start < end:
            yield _Own(q, slice(start - shift, end - shift), slice(low, end), n)


def _attend_own(q: Tensor, k: Tensor, v: Tensor, c: int, scale: float) -> tuple[Tensor, Tensor]:
    """Outputs (X, W, Nq, M, Dv), wide, and log-sum-exps (X, W, Nq, M) of the own blocks, each up to the query."""
    out = q.new_empty(*q.shape[:-1], v.shape[-1], dtype=wide(q.dtype))
    lse = out.new_empty(q.shape[:-1])
    for own in _own_spans(q, k, c):
        part, norm = attend_lse(own.queries(q), own.shared(k), own.shared(v), scale=scale, causal=True)
        own.put(out, part)
        own.put(lse.unsqueeze(-1), norm.unsqueeze(-1))
    return out, lse


def _own_gradients(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, dout: Tensor, c: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The own blocks' part of the gradients of q, k and v, wide."""
    dq, dk, dv = (torch.zeros(x.shape, dtype=lse.dtype, device=x.device) for x in (q, k, v))
    for own in _own_spans(q, k, c):
        norm = own.queries(lse.unsqueeze(-1)).squeeze(-1)
        whole = own.queries(q), own.shared(k), own.shared(v), own.queries(out)
        parts = attend_lse_backward(own.queries(dout), *whole, norm, scale=scale, causal=True)
        own.put(dq, parts[0])
        own.add(dk, parts[1])
        own.add(dv, parts[2])
    return dq, dk, dv


# -- chosen blocks: pairs, passes and tiles -----------------------------------------------------------------------


def _choose_pairs(
    q: Tensor, k: Tensor, streams: slice, rows: slice, choose: Choose, c: int, scored: int
) -> tuple[Tensor, Tensor]:
    """The (block, unit) pairs of a pass, sorted by block. Blocks are counted through all streams, units through its."""
    n = (rows.stop - 1 + k.shape[1] - q.shape[2]) // c
    step = max(1, _limit(SCORES_AT_ONCE, q) // (scored * (streams.stop - streams.start)))
    mask = torch.cat([choose(streams, some, n) for some in _cut(rows.start, rows.stop, step)], dim=2)  # (S, W, R, n)
    stream, block, unit = mask.flatten(1, 2).mT.nonzero().unbind(dim=1)
    return (stream + streams.start) * (k.shape[1] // c) + block, stream * (mask.shape[1] * mask.shape[2]) + unit


class _Pass:
    """Some streams and rows whose choices are worked on together: their (block, unit) pairs, cut into tiles.

    `slots` (tiles, T) are the units of each tile, all of which chose the block `tile_block` (tiles,). Units are
    counted through the streams, choosers and rows of the pass. One more unit fills tiles up; what comes out for it is
    thrown away.
    """

    def __init__(self, q: Tensor, streams: slice, rows: slice, n: int, block: Tensor, unit: Tensor) -> None:
        self.streams, self.rows = streams, rows
        self.shape = streams.stop - streams.start, q.shape[1], rows.stop - rows.start
        self.slots, self.tile_block = _tiles(block, unit, streams.stop * n, math.prod(self.shape))

    def enough(self, scratch: Tensor, per_slot: int) -> Tensor:
        """Memory for every slot: what there is, where that is enough. Fresh memory is slow to touch."""
        need = self.slots.numel() * per_slot
        return scratch if scratch.numel() >= need else scratch.new_empty(need)

    def units(self, x: Tensor) -> Tensor:
        """(X, W, Nq, M, …) -> (U + 1, M, …), a wide copy: this pass's units, and zeros for the one that fills up."""
        mine = x[self.streams, :, self.rows].flatten(0, 2)
        out = mine.new_empty(len(mine) + 1, *mine.shape[1:], dtype=wide(x.dtype))
        out[:-1], out[-1] = mine, 0.0
        return out

    def unfold(self, x: Tensor) -> Tensor:
        """The way back: (U + 1, M, …) -> (S, W, R, M, …)."""
        return x[:-1].view(*self.shape, *x.shape[1:])

    def slabs(self, keys: Tensor, values: Tensor, members: int) -> Iterator[slice]:
        """Runs of tiles that are worked on at a time."""
        (c, d), dv = keys.shape[2:], values.shape[3]
        entries = self.slots.shape[1] * members * (c + d + dv) + c * (d + dv)  # of one tile
        return _cut(0, len(self.slots), max(1, _limit(TILES_AT_ONCE, keys) // entries))


def _whole_blocks(x: Tensor, c: int) -> Tensor:
    """Keys or values (X, Nk, D) -> (X, n, C, D), a view: the blocks that have ended."""
    n = x.shape[1] // c
    return x[:, : n * c].unflatten(1, (n, c))  # type: ignore[no-any-return]


def _take(x: Tensor, block: Tensor) -> Tensor:
    """x (X, n, C, D) at blocks that are counted through streams, (S,): (S, C, D), wide."""
    return x[block // x.shape[1], block % x.shape[1]].to(wide(x.dtype))


def _tiles(block: Tensor, unit: Tensor, blocks: int, filler: int) -> tuple[Tensor, Tensor]:
    """Pairs sorted by block -> the units of each tile (tiles, T), filled up, and the tile's block (tiles,)."""
    counts = block.bincount(minlength=blocks)
    mean = len(block) // int(counts.count_nonzero())
    size = min(TILE, 1 << (mean.bit_length() - 1))  # at most the mean: filling up less than doubles the work
    tiles = -(-counts // size)
    shift = (tiles.cumsum(0) - tiles) * size - (counts.cumsum(0) - counts)
    tile_block = torch.arange(blocks, device=block.device).repeat_interleave(tiles)
    slots = unit.new_full((len(tile_block) * size,), filler)
    slots[torch.arange(len(block), device=block.device) + shift[block]] = unit
    return slots.view(-1, size), tile_block


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """x (U + 1, M, D) at an index (S, T) -> (S, T·M, D)."""
    return x.index_select(0, index.flatten()).view(len(index), -1, x.shape[-1])


def _passes(q: Tensor, per_row: int) -> Iterator[tuple[slice, slice]]:
    """Streams and rows that hold at most ROWS_AT_ONCE numbers together, `per_row` each."""
    budget = _limit(ROWS_AT_ONCE, q)
    rows = max(1, min(q.shape[2], budget // per_row))
    for streams in _cut(0, q.shape[0], max(1, budget // (rows * per_row))):
        for some in _cut(0, q.shape[2], rows):
            yield streams, some


def _cut(start: int, end: int, step: int) -> Iterator[slice]:
    return (slice(first, min(first + step, end)) for first in range(start, end, step))


def _limit(limits: dict[str, int], x: Tensor) -> int:
    return limits.get(x.device.type, limits["cpu"])
