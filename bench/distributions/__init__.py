"""Distributions of q, k and v whose attention looks like that of real models, and the statistics that say so.

Independent Gaussian input spreads attention evenly and reverses the ranking of mechanisms. Here a sink, near keys,
heavy hitters, topics or a needle are built into q and k themselves, as strong as it takes at each length to reach
target statistics; what was reached is returned with the tensors. This module needs no torch; `draw` imports it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from ...results.distributions import Realised
    from .realise import Drawn
    from .shape import Shape

GAUSSIAN = "gaussian"
"""Independent standard normal numbers; `gaussian:2` multiplies q by 2, so that scores have a deviation of 2."""
FITTED = {
    "structured": "a sink, near keys, 20 heavy hitters, and content: what heads of language models attend to",
    "local": "near keys and content",
    "topics": "segments of 64 tokens, each on one of 8 topics of unequal frequency; a query attends to its topic",
    "needle": "one key for each query, anywhere before it, with half of the mass",
}
"""Distributions whose strengths are fitted to target statistics, in a few words each."""
NAMES = (GAUSSIAN, f"{GAUSSIAN}:2", f"{GAUSSIAN}:3", *FITTED)
"""What can be drawn. Other numbers may stand after `gaussian:`, up to LOUDEST."""
LOUDEST = 100.0
"""Deviation of the scores of Gaussian input at most: beyond, a query sees one key."""
SMALLEST_HEAD_DIM = 8
"""Of fitted distributions: each component of the scores takes dimensions of its own."""


def is_drawn(name: str) -> bool:
    """Whether such a distribution exists."""
    return name in FITTED or sigma_of(name) is not None


def sigma_of(name: str) -> float | None:
    """The deviation of the scores of a Gaussian distribution; None where the name is none of a Gaussian one."""
    if name == GAUSSIAN:
        return 1.0
    found = re.fullmatch(rf"{GAUSSIAN}:(\d+(?:\.\d+)?)", name)
    sigma = float(found[1]) if found else 0.0
    return sigma if 0.0 < sigma <= LOUDEST else None


def reason_against(name: str, head_dim: int) -> str | None:
    """Why a distribution cannot be had at a head dimension, in a sentence; None where it can."""
    if name in FITTED and head_dim < SMALLEST_HEAD_DIM:
        return (
            f"{name} inputs need a head dimension of at least {SMALLEST_HEAD_DIM}, for each part of the scores has "
            f"dimensions of its own, and not {head_dim}; take gaussian inputs or a larger --head-dim"
        )
    return None


def draw(name: str, shape: Shape, known: Realised | None = None) -> Drawn:
    """q, k and v of a distribution, in float32 on the CPU, and what they reached. Raises ConfigError.

    `known`: what the same name and shape reached before, which is then neither fitted nor measured again.
    """
    if not is_drawn(name):
        from ...variants.errors import suggest

        raise ConfigError(f"unknown inputs {name!r}; {suggest(name, NAMES)}")
    if refusal := reason_against(name, shape.head_dim):
        raise ConfigError(refusal)
    from .realise import realise

    return realise(name, shape, known)


__all__ = ["FITTED", "NAMES", "draw", "is_drawn", "reason_against", "sigma_of"]
