"""q, k and v of a distribution: its parts are drawn, their strengths fitted, and the statistics taken.

A part's strength is shared evenly between q and k, so that neither has larger norms than it needs. Both are rotated at
last, which changes no score: no part stays alone in a channel, where a method that looks at channels one by one would
find it. (Rotating the packaged model's q and k changes the error of Quest by less than a tenth.) Values are standard
normal, but for the sink's, which is nearly 0: a sink takes attention and gives nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ...results.distributions import HITTERS, Realised
from . import parts as make
from . import sigma_of
from .fit import fit, missed
from .parts import Part
from .shape import Shape
from .statistics import Planted, sample_rows, statistics_of

SINK_VALUE = 0.02
"""Deviation of the sink's value, beside 1 of the others."""
OTHER_ROWS = 1
"""Added to the seed for the rows that statistics are taken on, which are not those that strengths were fitted on."""

_strengths: dict[tuple[str, Shape], dict[str, float]] = {}
"""Fitted in this process: the same name and shape, seed included, have the same strengths."""


@dataclass(frozen=True)
class Drawn:
    """q (B, H, Nq, D), k and v (B, Hkv, Nk, D) in float32 on the CPU, and what they reached."""

    q: Tensor
    k: Tensor
    v: Tensor
    realised: Realised
    planted: Planted | None = None


@dataclass(frozen=True)
class Recipe:
    """A distribution before its strengths are known."""

    parts: Mapping[str, Part]
    targets: Mapping[str, float]
    start: Mapping[str, float]
    """First guesses of the strengths, near what they are at 1,024 tokens."""
    planted: Planted | None = None
    sink: bool = False


def realise(name: str, shape: Shape, known: Realised | None = None) -> Drawn:
    """Draws a distribution that exists and fits the head dimension. The same in every process but for rounding.

    `known`: what it reached before: see `draw`.
    """
    generator = torch.Generator().manual_seed(shape.seed)
    with torch.device("cpu"), torch.no_grad():
        sigma = sigma_of(name)
        if sigma is not None:
            return _gaussian(name, sigma, shape, generator, known)
        recipe = RECIPES[name](shape, generator)
        v = torch.randn(shape.batch, shape.kv_heads, shape.n_k, shape.head_dim, generator=generator)
        if recipe.sink:
            v[:, :, 0] *= SINK_VALUE
        if (name, shape) not in _strengths:
            _strengths[name, shape] = (
                dict(known.strengths)
                if known is not None
                else fit(recipe.parts, shape, recipe.targets, recipe.start, recipe.planted)
            )
        strengths = _strengths[name, shape]
        q, k = compose(recipe.parts, strengths, shape)
        q, k = _rotated(q, k, generator)
        return _measured(name, shape, (q, k, v), strengths, recipe.targets, recipe.planted, known)


def compose(parts: Mapping[str, Part], strengths: Mapping[str, float], shape: Shape) -> tuple[Tensor, Tensor]:
    """q and k whose product over sqrt(D) is the sum of the parts' scores times their strengths."""
    q, k = [], []
    for name, part in parts.items():
        factor = math.sqrt(strengths[name] * math.sqrt(shape.head_dim))
        q.append((part.q * factor).expand(shape.batch, shape.heads, -1, -1))
        k.append((part.k * factor).expand(shape.batch, shape.kv_heads, -1, -1))
    return torch.cat(q, dim=-1), torch.cat(k, dim=-1)


def _rotated(q: Tensor, k: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """q and k turned alike, each key head in a way of its own."""
    size = (*k.shape[:2], k.shape[3], k.shape[3])
    turns, triangle = torch.linalg.qr(torch.randn(size, generator=generator, dtype=torch.float64))
    # with a positive diagonal of the triangle the factors are unique, whichever library finds them
    turns = (turns * triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).float()
    return q @ turns.repeat_interleave(q.shape[1] // k.shape[1], dim=1), k @ turns


def _gaussian(name: str, sigma: float, shape: Shape, generator: Generator, known: Realised | None) -> Drawn:
    def normal(heads: int, length: int) -> Tensor:
        return torch.randn(shape.batch, heads, length, shape.head_dim, generator=generator)

    q, k, v = normal(shape.heads, shape.n_q), normal(shape.kv_heads, shape.n_k), normal(shape.kv_heads, shape.n_k)
    return _measured(name, shape, (q * sigma, k, v), {}, {}, None, known)


def _measured(
    name: str,
    shape: Shape,
    tensors: tuple[Tensor, Tensor, Tensor],
    strengths: Mapping[str, float],
    targets: Mapping[str, float],
    planted: Planted | None,
    known: Realised | None,
) -> Drawn:
    q, k, v = tensors
    if known is not None:
        return Drawn(q, k, v, known, planted)
    rows = sample_rows(shape.n_q, shape.n_k, shape.causal, shape.batch * shape.heads, seed=shape.seed + OTHER_ROWS)
    reached = statistics_of(q, k, causal=shape.causal, rows=rows, planted=planted)
    realised = Realised(name, dict(strengths), dict(targets), reached, missed(reached, targets, shape))
    return Drawn(q, k, v, realised, planted)


# -- the distributions ------------------------------------------------------------------------------------------


def _spread(effective_keys: float, shape: Shape) -> float:
    """The target at a length: a quarter of all keys where that is less, since short rows cannot spread so far."""
    return max(1.0, min(effective_keys, shape.n_k / 4))


def _structured(shape: Shape, generator: Generator) -> Recipe:
    pairs = make.pairs_for(shape.head_dim)
    sink = torch.zeros(1, 1, shape.n_k, dtype=torch.bool)
    sink[..., 0] = True
    # loud keys, the same for all queries of a head: anywhere but at the sink
    places = torch.rand(shape.batch, shape.kv_heads, shape.n_k - 1, generator=generator).argsort(dim=-1)
    loud = torch.zeros(shape.batch, shape.kv_heads, shape.n_k, dtype=torch.bool)
    loud.scatter_(-1, 1 + places[..., : max(1, min(HITTERS, shape.n_k // 8))], True)
    rotated = make.positions(shape, pairs, generator)
    spoken = make.content(shape, shape.head_dim - 2 - 2 * pairs, generator)
    return Recipe(
        # what is far and what it says is nothing to a sink, and how far it is, nothing to a heavy hitter
        parts={
            "sink": make.flagged(shape, sink),
            "hitters": make.flagged(shape, loud),
            "positions": make.without(rotated, sink | loud),
            "content": make.without(spoken, sink),
        },
        targets={"mass_first": 0.3, "mass_local": 0.2, "mass_planted": 0.3, "effective_keys": _spread(25.0, shape)},
        start={"sink": 9.0, "hitters": 4.0, "positions": 5.0, "content": 2.0},
        planted=Planted(torch.ones(shape.batch, shape.heads, shape.n_q, dtype=torch.long), loud.long() * 2 - 1),
        sink=True,
    )


def _local(shape: Shape, generator: Generator) -> Recipe:
    pairs = make.pairs_for(shape.head_dim)
    return Recipe(
        parts={
            "positions": make.positions(shape, pairs, generator),
            "content": make.content(shape, shape.head_dim - 2 * pairs, generator),
        },
        targets={"mass_local": 0.8, "effective_keys": _spread(25.0, shape)},
        start={"positions": 9.0, "content": 1.0},
    )


def _topics(shape: Shape, generator: Generator) -> Recipe:
    dims = min(make.TOPICS, shape.head_dim // 2)
    part, planted = make.topics(shape, dims, generator)
    return Recipe(
        parts={"topics": part, "content": make.content(shape, shape.head_dim - dims, generator)},
        targets={"mass_planted": 0.9, "effective_keys": _spread(60.0, shape)},
        start={"topics": 5.0, "content": 2.0},
        planted=planted,
    )


def _needle(shape: Shape, generator: Generator) -> Recipe:
    part, planted = make.needles(shape, shape.head_dim, generator)
    return Recipe(parts={"needle": part}, targets={"mass_planted": 0.5}, start={"needle": 9.0}, planted=planted)


RECIPES: dict[str, Callable[[Shape, Generator], Recipe]] = {
    "structured": _structured,
    "local": _local,
    "topics": _topics,
    "needle": _needle,
}
