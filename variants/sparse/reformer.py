"""Reformer: a token attends to those that fall into its bucket of a random hash, in several rounds of hashing.

Kitaev, Kaiser & Levskaya 2020, "Reformer: The Efficient Transformer", arXiv:2001.04451, section 2 and appendix A.

One vector a token is both query and key, k_j = q_j / ‖q_j‖. So q alone is hashed and attended with; k is not read, its
gradient is zero, and a layer may leave its projection out. The operator stands in for attention with shared, normalised
keys, not for softmax over the k it is given: hence its kind is `own`, and no fidelity to the latter is reported.

In each round the tokens are sorted by bucket and position and cut into chunks of m; i sees the j of its own bucket in
its own chunk and the one before it (equations 4 and 5). The rounds' sets are united: joined by log-sum-exp weights,
where a pair that N_ij rounds find counts 1 / N_ij in each (equations 11 to 16). A token sees itself only if it sees
nothing else.

Where paper and code differ, or the paper leaves a choice:
- Buckets mask, and pairs are counted once, as in the paper. A widely used torch port does neither by default.
- The first chunk of a round looks back on nothing; the authors' code lets it wrap round to the last.
- Keys have length 1, as in the paper. In the authors' code they have sqrt(d).
- Causal: where chunks are cut over all of the sorted text, a later token that falls into an earlier bucket moves the
  cuts, and so changes what earlier tokens see. Here a causal chunk is m tokens of one bucket, counted from its first.
- The paper takes 2 N / m buckets. Here their number is a parameter of its own: one that followed N would change the
  outputs of a text's beginning with the length of the text, and make hashing quadratic.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..api import CaseLike, Complexity, Identity, State, Supports, Variant, VariantError, register, repeat_heads
from ..blocks import attend, wide

SELF = -5e4
"""Score of a token with itself: below every other, and above minus infinity."""

SHORTEST = 1e-6
"""A vector shorter than this is divided by this instead of by its length."""

FAR = -1e30
"""Added to the score of a key that is not seen."""

LEAST = -80.0
"""Exponents below this count as this much: e^-80 is no part of any sum, and minus infinity is slow to raise e to."""

TILE = {"cpu": 1 << 18, "cuda": 1 << 25}
"""Most scores computed at a time."""


def unit(x: Tensor) -> Tensor:
    """x / ‖x‖ along the last axis; zeros stay zeros."""
    length: Tensor = x.norm(dim=-1, keepdim=True).clamp_min(SHORTEST)
    return x / length


def shared_keys_without_self(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
    """Softmax attention over normalised queries as keys, where a token sees itself only if nothing else."""
    n = q.shape[2]
    scores = scale * q @ unit(q).mT
    scores = scores.masked_fill(torch.eye(n, dtype=torch.bool, device=q.device), SELF)
    if causal:
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1), float("-inf"))
    return scores.softmax(dim=-1) @ repeat_heads(v, q.shape[1])


def one_direction(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries that are positive multiples of one vector: a single bucket in every round."""
    return q[:, :1, :1] * q.norm(dim=-1, keepdim=True), k, v


@functools.lru_cache(maxsize=8)
def directions(rounds: int, dim: int, buckets: int, seed: int, device: torch.device) -> Tensor:
    """R of each round, Gaussian (rounds, D, b / 2) in float64, the same for all heads and on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rounds, dim, buckets // 2, generator=generator, dtype=torch.float64, device="cpu").to(device)


@register(
    "reformer",
    family="sparse",
    kind="own",
    supports=Supports(cross=False, decode=True),
    complexity=Complexity(
        time=1, memory=1, state=1, text="O(N r (m + b) d + r N log N) time, O(N (d + r)) memory: r rounds, b buckets"
    ),
    paper='Kitaev et al. 2020, "Reformer: The Efficient Transformer", arXiv:2001.04451, eq. 4 to 6 and 11 to 16',
    formula="softmax of scale · q_i·q_j / ‖q_j‖ over j ≠ i of a bucket argmax [q R; -q R], chunk-near, in any round",
    reduces_to="softmax over normalised queries as keys, without self, where one bucket and one chunk hold all N",
    identities=(
        Identity("reformer(num_buckets=1, chunk_size={N})", shared_keys_without_self),
        Identity("reformer(num_buckets=1, chunk_size={N}, num_rounds=1)", shared_keys_without_self),
        Identity(
            "reformer(chunk_size={N}, num_rounds=3)",
            shared_keys_without_self,
            prepare=one_direction,
            text="vectors of one direction share a bucket in every round, and each pair counts once",
        ),
    ),
)
@dataclass(frozen=True)
class Reformer(Variant):
    """k is not read: q is both. Round by round, chunks gathered, m x 2 m scores (3 m if causal), a running softmax."""

    chunk_size: int = 64
    """m: sorted tokens of a chunk."""
    num_rounds: int = 8
    """Rounds of hashing."""
    num_buckets: int = 64
    """b: buckets of a round, an even number, or 1. The paper's rule is 2 N / m: set it to your length."""
    seed: int = 0
    """Of the directions R that all heads hash with."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1, num_rounds=1, num_buckets=1, seed=0)
        if self.num_buckets > 1 and self.num_buckets % 2:
            raise VariantError(f"{self.name}: num_buckets must be even, or 1, not {self.num_buckets}")

    # -- what it computes -------------------------------------------------------------------------------------------

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        scores = scale * q[:, :, rows] @ unit(q).mT  # (B, H, R, N)
        j = torch.arange(q.shape[2], device=q.device)
        i = rows[:, None]
        seen = torch.zeros_like(scores, dtype=torch.bool)
        for bucket in self.buckets(q).transpose(0, 2).transpose(1, 2).contiguous():  # (B, H, N)
            ordered, order = bucket.sort(dim=-1, stable=True)
            place = order.argsort(dim=-1)
            if causal:  # counted from the bucket's first token
                place = place - torch.searchsorted(ordered, bucket)
            chunk = place // self.chunk_size
            back = chunk[:, :, rows, None] - chunk[:, :, None]  # chunks from the query's to the key's
            seen |= (bucket[:, :, rows, None] == bucket[:, :, None]) & (back >= 0) & (back <= 1)
        if causal:
            seen &= j <= i
        return scores.masked_fill(i == j, SELF).masked_fill(~seen, float("-inf")).softmax(dim=-1)

    def buckets(self, q: Tensor) -> Tensor:
        """h(q) = argmax [q R; -q R] of each round, int32 (B, H, rounds, N).

        Products are summed in float64 and rounded once to float32, whatever the dtype of q: a token between two buckets
        must not fall into one here and into the other there.
        """
        if self.num_buckets == 1:  # one round finds all that others would
            return torch.zeros(*q.shape[:2], 1, q.shape[2], dtype=torch.int32, device=q.device)
        b, h, n, d = q.shape
        found = torch.empty(b, h, self.num_rounds, n, dtype=torch.int32, device=q.device)
        step = max(1, tile_entries(q.device) // (b * h * self.num_buckets))
        for r, matrix in enumerate(directions(self.num_rounds, d, self.num_buckets, self.seed, q.device)):
            for start in range(0, n, step):
                some = slice(start, start + step)
                along = (q.detach()[:, :, some].double() @ matrix).to(torch.float32)  # (B, H, step, b / 2)
                axis = along.abs().argmax(dim=-1, keepdim=True)
                behind = along.gather(-1, axis) < 0
                found[:, :, r, some] = (axis + behind * (self.num_buckets // 2)).squeeze(-1)
        return found

    # -- how it computes it -------------------------------------------------------------------------------------------

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        plan = self._plan(self.buckets(q), causal)
        x = q.to(wide(q.dtype))
        flat = (y.flatten(0, 2) for y in (scale * x, unit(x), repeat_heads(v, q.shape[1]).to(x.dtype)))
        out: Tensor = _Rounds.apply(*flat, plan, causal)  # type: ignore[no-untyped-call]
        return out.view(*q.shape[:3], v.shape[3]).to(q.dtype)

    def _plan(self, buckets: Tensor, causal: bool) -> _Plan:
        """Who meets whom: tokens are numbered over batch and heads, T in all, and number T fills incomplete chunks."""
        b, h, rounds, n = buckets.shape
        m, total = min(self.chunk_size, n), b * h * n
        chunks = -(-n // m)
        back = 2 if causal else 1  # a bucket's chunks straddle those of the sorted text, which lie on its first token
        first = torch.arange(0, total, n, device=buckets.device)[:, None]
        at = torch.arange(n, device=buckets.device).expand(b * h, n)
        orders, codes = [], []
        for r in range(rounds):
            bucket = buckets[:, :, r].flatten(0, 1).long()  # (B·H, N)
            ordered, order = bucket.sort(dim=-1, stable=True)
            place = torch.empty_like(order).scatter_(-1, order, at)
            if causal:
                place -= torch.searchsorted(ordered, bucket)
            # one number for bucket and chunk: it is the same or one less for the keys that a query sees, and no others
            code = bucket * (chunks + 1) + place // m + 1
            codes.append(F.pad(code.flatten().to(torch.int32), (0, 1), value=-2))
            orders.append(F.pad((order + first).to(torch.int32), (back * m, chunks * m - n), value=total))
        return _Plan(torch.stack(orders), torch.stack(codes), m, (back + 1) * m)

    # -- decoding -------------------------------------------------------------------------------------------------

    def prefill(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """Causal attention over a prompt, and the tokens' shared vectors, values and buckets."""
        out = self(q, k, v, causal=True, scale=scale, **extras)
        return out, State(q.shape[2], {"q": q.contiguous(), "v": v, "buckets": self.buckets(q)})

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """One token more: only it is hashed, and compared to the buckets of the others."""
        self.check(q, k, v, causal=True, extras=extras)
        new = self.buckets(q)
        kept = state.append({"q": q, "v": v}).append({"buckets": new}, axis=-1)
        kept = replace(kept, seen=state.seen + 1)
        same = kept["buckets"] == new  # (B, H, rounds, N + 1)
        chunk = (same.cumsum(dim=-1) - 1) // self.chunk_size  # of the tokens in the new one's bucket
        seen = (same & (chunk >= chunk[..., -1:] - 1)).any(dim=2)  # (B, H, N + 1)
        seen[..., -1] = ~seen[..., :-1].any(dim=-1)
        values = repeat_heads(kept["v"], q.shape[1])
        keys = unit(kept["q"].to(wide(q.dtype))).to(q.dtype)
        out = attend(q, keys, values, scale=self.default_scale(q, scale), allowed=seen.unsqueeze(2))
        return out, kept

    def flops_needed(self, case: CaseLike) -> int:
        """Hashing, and attention over two chunks, in every round."""
        rounds = 1 if self.num_buckets == 1 else self.num_rounds
        hashed = case.head_dim * self.num_buckets if self.num_buckets > 1 else 0
        near = min(2 * self.chunk_size, case.n_k)
        return case.batch * case.heads * case.n_q * rounds * (hashed + 4 * case.head_dim * near)


@dataclass(frozen=True)
class _Plan:
    """Which tokens meet in which chunk."""

    order: Tensor
    """int32 (rounds, B·H, back · m + chunks · m): sorted tokens, token T before the first and after the last."""
    codes: Tensor
    """int32 (rounds, T + 1): bucket and chunk of each token as one number."""
    m: int
    window: int
    """Keys of a chunk: its own and those it looks back on."""

    def tiles(self, entries: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(round, queries (c, m), keys (c, window)): c chunks of one round at a time, at most `entries` pairs of them.

        A token is a query once a round.
        """
        step = max(1, entries // (self.m * self.window))
        for r, order in enumerate(self.order):
            keys = order.unfold(-1, self.window, self.m).flatten(0, 1)  # (B·H·chunks, window)
            for part in keys.split(step):
                yield r, part[:, -self.m :].contiguous(), part

    def pairs(self, r: int, i: Tensor, j: Tensor, causal: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What to add to a tile's scores in round r, 0 or FAR, and to multiply their exponentials with, 1 / N_ij or 0.

        In whole numbers throughout: masks of booleans take several times as long.
        """
        ci = self.codes.index_select(1, i.flatten()).view(-1, *i.shape, 1)
        cj = self.codes.index_select(1, j.flatten()).view(-1, len(j), 1, self.window)
        found, seen, near = (i.new_empty(*i.shape, self.window) for _ in range(3))
        found.zero_()
        for other in range(len(ci)):
            torch.sub(ci[other], cj[other], out=near)
            found += near.bitwise_right_shift_(1).eq_(0)  # 1 where the codes differ by 0 or 1
            if other == r:
                seen.copy_(near)
        apart = torch.sub(j[:, None, :], i[:, :, None], out=near)
        seen &= apart.bitwise_right_shift_(31) if causal else apart.ne_(0)  # all bits where j < i
        share = seen.to(dtype)
        return (1 - share).mul_(FAR), share.div_(found.clamp_(min=1))


class _Rounds(torch.autograd.Function):
    """q (scaled), keys (T, D), v (T, Dv) -> (T, Dv). The backward pass computes the scores again, tile by tile."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, keys: Tensor, v: Tensor, plan: _Plan, causal: bool) -> Tensor:
        own = v
        q, keys, v = (F.pad(x, (0, 0, 0, 1)) for x in (q, keys, v))  # token T
        peak = q.new_full((len(q), 1), FAR)
        total, mixed = torch.zeros_like(peak), torch.zeros_like(v)
        for r, i, j in plan.tiles(tile_entries(q.device)):
            far, share = plan.pairs(r, i, j, causal, q.dtype)
            scores = torch.baddbmm(far, _take(q, i), _take(keys, j).mT)  # (c, m, window)
            before = _take(peak, i)
            now = torch.maximum(before, scores.amax(dim=-1, keepdim=True))
            weights = scores.sub_(now).clamp_(min=LEAST).exp_().mul_(share)
            shrink = (before - now).exp_()
            _put(peak, i, now)
            _put(total, i, _take(total, i).mul_(shrink).add_(weights.sum(dim=-1, keepdim=True)))
            _put(mixed, i, _take(mixed, i).mul_(shrink).baddbmm_(weights, _take(v, j)))
        alone = total[:-1] == 0
        out = mixed[:-1].div_(total[:-1])
        torch.where(alone, own, out, out=out)
        lse = peak + total.masked_fill_(total == 0, 1.0).log()
        ctx.save_for_backward(q, keys, v, out, lse, alone, plan.order, plan.codes)
        ctx.options = plan.m, plan.window, causal
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, keys, v, out, lse, alone, order, codes = ctx.saved_tensors
        m, window, causal = ctx.options
        plan = _Plan(order, codes, m, window)
        shared = F.pad((dout * out).sum(dim=-1, keepdim=True), (0, 0, 0, 1))  # what softmax takes off each gradient
        dout = F.pad(dout, (0, 0, 0, 1))
        dq, dkeys, dv = (torch.zeros_like(x) for x in (q, keys, v))
        for r, i, j in plan.tiles(tile_entries(q.device)):
            far, share = plan.pairs(r, i, j, causal, q.dtype)
            queries, near, upstream = _take(q, i), _take(keys, j), _take(dout, i)
            weights = torch.baddbmm(far, queries, near.mT).sub_(_take(lse, i)).clamp_(min=LEAST).exp_().mul_(share)
            _add(dv, j, weights.mT @ upstream)
            dscores = (upstream @ _take(v, j).mT).sub_(_take(shared, i)).mul_(weights)
            _add(dq, i, dscores @ near)
            _add(dkeys, j, dscores.mT @ queries)
        dv[:-1] += dout[:-1].mul_(alone)
        return dq[:-1], dkeys[:-1], dv[:-1], None, None


def tile_entries(device: torch.device) -> int:
    return TILE.get(device.type, TILE["cpu"])


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x (T + 1, D) at an index (c, n): (c, n, D)."""
    return x.index_select(0, index.flatten()).view(*index.shape, -1)


def _put(x: Tensor, index: Tensor, rows: Tensor) -> None:
    x.index_copy_(0, index.flatten().long(), rows.flatten(0, 1))


def _add(x: Tensor, index: Tensor, rows: Tensor) -> None:
    x.index_add_(0, index.flatten(), rows.flatten(0, 1))
