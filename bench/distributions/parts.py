"""The parts that scores are the sum of: each a pair of q and k in dimensions of its own, at strength 1.

The score of a query and a key is the sum over parts of strength · (part.q · part.k). All are drawn on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .shape import Shape
from .statistics import Planted

FASTEST = 0.25
"""Radians a token of the fastest rotation: its cosine is 1 at a distance of 0 and below 0 from 7 tokens on."""
MOST_PAIRS = 16
"""Rotated pairs of dimensions; fewer where the head dimension is small."""
SPECTRUM = -0.5
"""Power of i by which the variance of the i-th content dimension falls."""
SEGMENT, TOPICS = 64, 8
"""Tokens that stay on one topic, and how many topics there are; topic i is as frequent as 1/i (Zipf)."""


@dataclass(frozen=True)
class Part:
    """One part of the scores."""

    q: Tensor
    """(B or 1, H or 1, Nq, d)"""
    k: Tensor
    """(B or 1, Hkv or 1, Nk, d)"""

    def scores(self, shape: Shape, batch: int, head: int, rows: Tensor) -> Tensor:
        """(R, Nk) of one head, at strength 1."""
        group = shape.heads // shape.kv_heads
        q = self.q[batch % self.q.shape[0], head % self.q.shape[1], rows]
        return q @ self.k[batch % self.k.shape[0], (head // group) % self.k.shape[1]].mT


def flagged(shape: Shape, keys: Tensor) -> Part:
    """Keys that every query scores by 1 and all others by 0: `keys` (B, Hkv, Nk) is 1 at these. One dimension."""
    return Part(torch.ones(1, 1, shape.n_q, 1), keys.float().unsqueeze(-1))


def positions(shape: Shape, pairs: int, generator: Generator) -> Part:
    """Distance: the mean over `pairs` of cos(w (i - j)), 1 for a query's own key and less the farther one is.

    Queries and keys are rotated as in RoPE (Su et al. 2021, arXiv:2104.09864); the rotations are spaced geometrically
    from about a quarter radian a token to about half a turn over the whole length, so that the mean falls with
    log |i - j|. Each key head has rates of its own, up to half a step faster or slower, lest all be in phase at the
    same far keys.
    """
    slowest = math.pi / max(shape.n_k, 2)
    steps = torch.linspace(math.log(max(FASTEST, slowest)), math.log(slowest), pairs, dtype=torch.float64)
    shift = torch.rand(shape.batch, shape.kv_heads, 1, generator=generator, dtype=torch.float64) - 0.5
    rates = (steps + shift * (steps[0] - steps[1])).exp()  # (B, Hkv, pairs)

    def rotated(at: Tensor, rates: Tensor) -> Tensor:
        angles = at.double()[:, None] * rates.unsqueeze(-2)
        return (torch.cat([angles.cos(), angles.sin()], dim=-1) / math.sqrt(pairs)).float()

    group = shape.heads // shape.kv_heads
    return Part(
        rotated(shape.query_positions, rates.repeat_interleave(group, dim=1)),
        rotated(torch.arange(shape.n_k), rates),
    )


def pairs_for(head_dim: int) -> int:
    """How many rotated pairs a head has: two thirds of its dimensions are theirs, up to 32."""
    return max(2, min(MOST_PAIRS, (head_dim - 2) // 3))


def without(part: Part, keys: Tensor) -> Part:
    """The part with scores of 0 for some keys, booleans (B or 1, Hkv or 1, Nk)."""
    return Part(part.q, part.k * ~keys.unsqueeze(-1))


def content(shape: Shape, dims: int, generator: Generator) -> Part:
    """Independent normal q and k whose i-th dimension has a variance of i^-1/2: scores have a deviation of 1."""
    variances = torch.arange(1, dims + 1, dtype=torch.float64) ** SPECTRUM
    variances = variances / variances.norm()  # the variance of a score is the sum of its dimensions' squared ones
    deviations = variances.sqrt().float()
    return Part(
        torch.randn(shape.batch, shape.heads, shape.n_q, dims, generator=generator) * deviations,
        torch.randn(shape.batch, shape.kv_heads, shape.n_k, dims, generator=generator) * deviations,
    )


def topics(shape: Shape, dims: int, generator: Generator) -> tuple[Part, Planted]:
    """Each segment of 64 tokens is on one topic, and so are its queries: 1 for a key of the same topic.

    With fewer than 8 dimensions topics overlap, and some scores between them are not 0.
    """
    zipf = 1 / torch.arange(1, TOPICS + 1, dtype=torch.float64)
    segments = -(-shape.n_k // SEGMENT)
    drawn = torch.multinomial(
        zipf.expand(shape.batch * shape.kv_heads, -1), segments, replacement=True, generator=generator
    )
    labels = drawn.view(shape.batch, shape.kv_heads, segments).repeat_interleave(SEGMENT, dim=-1)[..., : shape.n_k]
    if dims >= TOPICS:
        vectors = torch.eye(TOPICS, dims)
    else:
        vectors = torch.nn.functional.normalize(torch.randn(TOPICS, dims, generator=generator), dim=-1)
    asked = labels.repeat_interleave(shape.heads // shape.kv_heads, dim=1)[:, :, shape.query_positions.clamp(min=0)]
    return Part(vectors[asked], vectors[labels]), Planted(asked, labels)


def needles(shape: Shape, dims: int, generator: Generator) -> tuple[Part, Planted]:
    """Keys are random unit vectors, and each query is that of one key, anywhere among those that it sees."""
    keys = torch.randn(shape.batch, shape.kv_heads, shape.n_k, dims, generator=generator)
    keys = torch.nn.functional.normalize(keys, dim=-1)
    # a causal query asks for a key before its own, where there is one
    choices = shape.query_positions.clamp(min=1) if shape.causal else torch.full((shape.n_q,), shape.n_k)
    uniform = torch.rand(shape.batch, shape.heads, shape.n_q, generator=generator, dtype=torch.float64)
    asked = (uniform * choices).long()
    group = shape.heads // shape.kv_heads
    found = keys.repeat_interleave(group, dim=1).gather(2, asked.unsqueeze(-1).expand(-1, -1, -1, dims))
    labels = torch.arange(shape.n_k).expand(shape.batch, shape.kv_heads, -1)
    return Part(found, keys), Planted(asked, labels)
