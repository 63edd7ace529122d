"""Statistics of softmax attention on any q and k, drawn or captured, from a sample of rows, without an N × N matrix."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...results.distributions import HITTERS, LOCAL, TOP, Statistics

ROWS = 256
"""Queries of a head that are looked at, at most."""
ENTRIES, FEWEST = 1 << 23, 256
"""Scores that are looked at, about, and the fewest rows: over all heads."""
HELD = 1 << 22
"""Scores held at a time: 16 MiB in float32."""
ENERGY = 0.9
"""The share of the keys' variance that `key_rank` directions hold."""


class Planted(NamedTuple):
    """Which keys are planted for which queries: those with the same label."""

    queries: Tensor
    """(B, H, Nq), whole numbers."""
    keys: Tensor
    """(B, Hkv, Nk), whole numbers; -1 is planted for none."""


def sample_rows(
    n_q: int, n_k: int, causal: bool, heads: int, *, seed: int = 0, entries: int = ENTRIES, fewest: int = FEWEST
) -> Tensor:
    """Query positions (R,), in order, to measure statistics on.

    With a causal mask they are drawn from the queries that see at least half of the keys: the first ones have nothing
    to spread their attention over, and near keys, the sink and all others are the same to them. `heads` counts those of
    all batch entries.
    """
    first = max(0, math.ceil(n_k / 2) - 1 - (n_k - n_q)) if causal else 0
    count = min(n_q - first, ROWS, max(math.ceil(fewest / heads), entries // (heads * n_k)))
    generator = torch.Generator().manual_seed(seed)
    return first + torch.randperm(n_q - first, generator=generator)[:count].sort().values


def statistics_of(
    q: Tensor, k: Tensor, *, causal: bool, rows: Tensor | None = None, planted: Planted | None = None
) -> Statistics:
    """The statistics of softmax attention of q (B, H, Nq, D) over k (B, Hkv, Nk, D), at D ** -0.5.

    `rows` are query positions (R,), by default those of `sample_rows`. Computed in float32, or float64 where q is;
    memory is O(R · Nk), for at most some millions of scores. Queries stand at the end of the keys' axis, and those that
    see nothing are left out.

    Raises ValueError where no row is left.
    """
    n_q, n_k = q.shape[2], k.shape[2]
    if rows is None:
        rows = sample_rows(n_q, n_k, causal, q.shape[0] * q.shape[1])
    rows = rows.to(q.device)
    rows = rows[rows + (n_k - n_q) >= 0] if causal else rows
    if not len(rows):
        raise ValueError("statistics need a query that sees a key; name other rows")
    dtype = q.dtype if q.dtype == torch.float64 else torch.float32
    group = q.shape[1] // k.shape[1]
    total = torch.zeros(6, dtype=torch.float64)  # entropy, first, local, hitters, top, planted
    step = max(1, HELD // n_k)
    for batch in range(q.shape[0]):
        for head in range(q.shape[1]):
            keys = k[batch, head // group].to(dtype)
            if planted:
                asked, there = (
                    planted.queries[batch, head].to(q.device),
                    planted.keys[batch, head // group].to(q.device),
                )
            columns = torch.zeros(n_k, dtype=dtype, device=q.device)
            for block in rows.split(step):
                scores = (q[batch, head, block].to(dtype) * q.shape[3] ** -0.5) @ keys.mT  # (R, Nk)
                p = attention(scores, block + (n_k - n_q), causal)
                columns += p.sum(dim=0)
                sums = [
                    entropy(p).sum(),
                    p[:, 0].sum(),
                    local_mass(p, block + (n_k - n_q)).sum(),
                    p.new_zeros(()),  # hitters are known when all rows are
                    p.topk(min(TOP, n_k), dim=-1).values.sum(),
                    (p * (asked[block, None] == there)).sum() if planted else p.new_zeros(()),
                ]
                total += torch.stack(sums).double().cpu()
            total[3] += float(columns[1:].topk(min(HITTERS, n_k - 1)).values.sum())
    looked_at = len(rows) * q.shape[0] * q.shape[1]
    nats = float(total[0]) / looked_at
    first, local, hitters, top, mass = (total[1:] / looked_at).clamp(max=1.0).tolist()  # but for rounding they are
    return Statistics(
        effective_keys=math.exp(nats),
        mass_first=first,
        mass_local=local,
        mass_hitters=hitters,
        mass_top=top,
        key_rank=key_rank(k),
        mass_planted=mass if planted else None,
        rows=looked_at,
    )


def attention(scores: Tensor, positions: Tensor, causal: bool) -> Tensor:
    """softmax of scores (…, R, Nk) whose queries stand at `positions` (R,) on the keys' axis."""
    if causal:
        scores = scores.masked_fill(
            torch.arange(scores.shape[-1], device=scores.device) > positions[:, None], -math.inf
        )
    return scores.softmax(dim=-1)


def entropy(p: Tensor) -> Tensor:
    """Of each row, in nats."""
    surprise: Tensor = torch.special.entr(p)
    return surprise.sum(dim=-1)


def near(positions: Tensor, n_k: int) -> tuple[Tensor, Tensor]:
    """The keys nearer than LOCAL to each position (R,), and which of them there are: (R, 2 · LOCAL - 1) each.

    Past either end, the last key stands for those that there are not.
    """
    keys = positions[:, None] + torch.arange(1 - LOCAL, LOCAL, device=positions.device)
    return keys.clamp(0, n_k - 1), (keys >= 0) & (keys < n_k)


def local_mass(p: Tensor, positions: Tensor) -> Tensor:
    """Mass of p (…, R, Nk) on keys nearer than LOCAL: (…, R). A causal mask has taken the later ones out of p."""
    keys, real = near(positions, p.shape[-1])
    close: Tensor = p.gather(-1, keys.expand(*p.shape[:-1], -1)) * real
    return close.sum(dim=-1)


def key_rank(k: Tensor) -> float:
    """How many directions hold 90 % of the variance of k (B, Hkv, Nk, D), on average over its heads.

    Around their mean: what all keys share adds the same to all scores of a query, and softmax does not see it.
    """
    keys = k.to(torch.float64 if k.dtype == torch.float64 else torch.float32)
    keys = keys - keys.mean(dim=2, keepdim=True)
    variances = torch.linalg.eigvalsh(keys.mT @ keys).clamp(min=0).flip(-1)  # (B, Hkv, D), the largest first
    held = variances.cumsum(dim=-1)
    short = held < ENERGY * held[..., -1:]
    return float((short.sum(dim=-1) + 1).double().mean())
