"""Which whole blocks of keys each query chooses: shared by `quest`, `moba` and `nsa`.

A query attends to its own block up to itself, and to some of the blocks that ended before it. Which ones is a hard
choice: two blocks that almost tie are either in or out, and the output jumps between them. So the choice is made in one
fixed arithmetic, whatever the dtype of the inputs and however the work is cut up: scores are computed in float64 from
the inputs as given, rounded once to float32, and equal ones go to the earlier block (as in `selection`). The definition
and the fast form so choose alike.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from .api import State, Variant, causal_pairs
from .block_tiles import attend_chosen
from .blocks import blind_rows, prepend_zeros
from .selection import best

# -- choosing -----------------------------------------------------------------------------------------------------


def own_block(n_q: int, n_k: int, rows: slice, block_size: int, device: torch.device) -> Tensor:
    """Number of the block that each query stands in, (R,): positions align bottom-right."""
    return (torch.arange(rows.start, rows.stop, device=device) + (n_k - n_q)).div(block_size, rounding_mode="floor")


def choose_past(scores: Tensor, own: Tensor, count: int) -> Tensor:
    """Mask (…, R, n) of the `count` blocks of highest score (…, R, n) among those before each row's own, (R,).

    The fast form's: a partial sort. A row that has fewer blocks before it gets all of them.
    """
    past = torch.arange(scores.shape[-1], device=scores.device) < own[:, None]  # (R, n)
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if count >= scores.shape[-1]:
        return past.expand_as(scores)
    scores = scores.to(torch.float32).masked_fill_(~past, -math.inf)
    least = scores.topk(count, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    mask = (scores >= least) & past
    tied = mask.sum(dim=-1) > count  # rows whose least chosen score is also that of others: the earlier ones get in
    if tied.any():
        rows, limit = scores[tied], least[tied]
        above, equal = rows > limit, (rows == limit) & mask[tied]
        mask[tied] = above | (equal & (equal.cumsum(dim=-1) <= count - above.sum(dim=-1, keepdim=True)))
    return mask


def seen_keys(scores: Tensor, i: Tensor, j: Tensor, *, block_size: int, count: int) -> Tensor:
    """Mask (…, R, Nk) of the keys that a definition's queries see: the `count` best past blocks, the own up to itself.

    `scores` (…, R, n) is of the blocks 0 … n - 1, of which the last may be cut short; i (R, 1) and j (1, Nk) are
    positions.
    """
    block = torch.arange(scores.shape[-1], device=scores.device)[None, :]
    own = i.div(block_size, rounding_mode="floor")
    chosen = best(scores.to(torch.float32), block < own, count) | (block == own)
    return chosen.repeat_interleave(block_size, dim=-1)[..., : j.shape[-1]] & (j <= i)


# -- a variant that scores blocks by a summary of their keys --------------------------------------------------------


class ScoredBlocks(Variant):
    """Base of methods in which each query head chooses past blocks by a score of the query and a summary of each block.

    A subclass writes `definition` or `weights` in its own words, `block` and `count`, and the two steps `summary` and
    `score` of the fast form. Causal only; the state of decoding is the cache and the summaries.
    """

    @property
    def block(self) -> int:
        """C: keys of a block."""
        raise TypeError(f"{type(self).__name__} must define `block`")

    @property
    def count(self) -> int:
        """K: blocks that a query attends to, its own counted."""
        raise TypeError(f"{type(self).__name__} must define `count`")

    def summary(self, blocks: Tensor) -> Tensor:
        """The keys of whole blocks (B, Hkv, n, C, D) -> what scores need of them, (B, Hkv, n, E)."""
        raise TypeError(f"{type(self).__name__} must define `summary`")

    def score(self, q: Tensor, summaries: Tensor) -> Tensor:
        """Queries (…, R, D) and summaries (…, n, E) -> scores (…, R, n) in float64."""
        raise TypeError(f"{type(self).__name__} must define `score`")

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return self._attend(q, k, v, self._summaries(k), scale)

    def prefill(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> tuple[Tensor, State]:
        """As `forward`, and the cache: k, v, and the summaries (B, Hkv, N // C, E) of the blocks that have ended."""
        self.check(q, k, v, causal=True, extras={})
        summaries = self._summaries(k)
        out = self._attend(q, k, v, summaries, self.default_scale(q, scale))
        return out, State(k.shape[2], {"k": k, "v": v, "summaries": summaries})

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None
    ) -> tuple[Tensor, State]:
        self.check(q, k, v, causal=True, extras={})
        state = state.append({"k": k, "v": v})
        keys, values, summaries = state["k"], state["v"], state["summaries"]
        if keys.shape[2] % self.block == 0:
            summaries = torch.cat([summaries, self._summaries(keys[:, :, -self.block :])], dim=2)
        out = self._attend(q, keys, values, summaries, self.default_scale(q, scale))
        return out, replace(state, tensors={**state.tensors, "summaries": summaries})

    def _summaries(self, k: Tensor) -> Tensor:
        n = k.shape[2] // self.block
        return self.summary(k.detach()[:, :, : n * self.block].unflatten(2, (n, self.block)))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, summaries: Tensor, scale: float) -> Tensor:
        blind = blind_rows(q.shape[2], k.shape[2])
        q = q[:, :, blind:]
        (b, h, n_q, d), (kv_heads, n_k) = q.shape, k.shape[1:3]
        group = h // kv_heads
        asking = q.detach().reshape(b * kv_heads, group, n_q, d)
        summaries = summaries.flatten(0, 1).unsqueeze(1)  # (X, 1, n, E)

        def choose(streams: slice, rows: slice, n: int) -> Tensor:
            scores = self.score(asking[streams, :, rows], summaries[streams, :, :n])
            return choose_past(scores, own_block(n_q, n_k, rows, self.block, q.device), self.count - 1)

        scored = group * (6 * summaries.shape[2] + 8 * d)  # of a row: scores in two dtypes and masks; q in float64
        sizes = {"choosers": group, "block_size": self.block, "count": self.count, "scored": scored}
        return prepend_zeros(attend_chosen(q, k, v, choose, scale=scale, **sizes), blind)

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        return own_pairs(n_q, n_k, self.block) + past_blocks(n_q, n_k, self.block, self.count - 1) * self.block


# -- counting -----------------------------------------------------------------------------------------------------


def past_blocks(n_q: int, n_k: int, block_size: int, cap: int | None = None) -> int:
    """Sum over the causal queries of the blocks that ended before their own, at most `cap` for each."""
    return _before(n_k, block_size, cap) - _before(max(0, n_k - n_q), block_size, cap)


def _before(p: int, c: int, cap: int | None) -> int:
    """The same, of the positions 0 … p - 1."""
    whole, rest = divmod(p, c)
    cap = whole if cap is None else min(cap, whole)
    below = cap * (cap - 1) // 2 + (whole - cap) * cap  # sum of min(b, cap) over the whole blocks b
    return below * c + rest * cap


def own_pairs(n_q: int, n_k: int, block_size: int) -> int:
    """(query, key) pairs with both in one block and the key not later."""

    def upto(p: int) -> int:
        whole, rest = divmod(p, block_size)
        return whole * causal_pairs(block_size, block_size) + rest * (rest + 1) // 2

    return upto(n_k) - upto(max(0, n_k - n_q))
