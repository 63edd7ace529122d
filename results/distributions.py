"""What attention on some input looks like, in numbers, and what a distribution of inputs reached. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOCAL = 64
"""Keys |i - j| < 64 are near a query: the last 64 with a causal mask, its own counted, and up to 127 without one."""
HITTERS = 20
"""How many keys of a head count as heavy hitters."""
TOP = 64
"""How many of a query's keys count as its top."""


@dataclass(frozen=True)
class Statistics:
    """Softmax attention on some q and k: means over heads and over the queries looked at. Masses are shares of 1."""

    effective_keys: float
    """exp of the mean entropy of a row, in nats: over how many keys attention is spread."""
    mass_first: float
    """Mass on the first key, where models have their sink."""
    mass_local: float
    """Mass on the keys with |i - j| < 64."""
    mass_hitters: float
    """Mass on the 20 keys of a head that get the most from all its queries, the first key left out."""
    mass_top: float
    """Mass on the 64 keys with the highest scores of each query: what keeping 64 keys can recall at best."""
    key_rank: float
    """Directions that hold 90 % of the variance of a head's keys around their mean."""
    mass_planted: float | None = None
    """Mass on the keys that a distribution has planted for each query; None where nothing is planted."""
    rows: int = 0
    """Queries looked at, over all heads and batch entries."""


@dataclass(frozen=True)
class Realised:
    """What a distribution reached at one shape: to be stored beside what was measured on it."""

    name: str
    strengths: Mapping[str, float]
    """By which factor each component of the scores counts; {} where nothing is fitted."""
    targets: Mapping[str, float]
    """Statistics that the strengths were fitted to."""
    reached: Statistics
    """On queries other than those that the strengths were fitted on."""
    missed: tuple[str, ...] = field(default=())
    """A sentence for each target that could not be reached at this length or head dimension."""

    def as_fields(self) -> dict[str, Any]:
        """The record's fields: `inputs_` before each statistic, and what the strengths and the misses were."""
        reached = {f"inputs_{name}": value for name, value in asdict(self.reached).items() if name != "rows"}
        return {**reached, "inputs_strengths": dict(self.strengths), "inputs_missed": list(self.missed)}


@dataclass(frozen=True)
class Look:
    """One input for a figure: a head's attention, and the statistics of all its heads."""

    name: str
    matrix: NDArray[np.float64]
    """(N, N), softmax attention of one head."""
    statistics: Statistics
    """Means over all heads."""
    captured: bool = False
    targets: Mapping[str, float] = field(default_factory=dict)
    """Statistics that a drawn input was fitted to."""
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """Drawn inputs beside captured ones of the same length, head dimension and mask."""

    looks: tuple[Look, ...]
    captured_heads: tuple[Statistics, ...]
    """Of each head of each captured layer."""
    about: str
    """The model and its text, in words."""
    causal: bool
    head: int
    head_dim: int
    seed: int

    @property
    def seq_len(self) -> int:
        return len(self.looks[0].matrix)
