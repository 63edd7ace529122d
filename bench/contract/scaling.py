"""How counted operations and allocated bytes grow with length, beside what a variant declares."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from ...variants.api import Variant
from ..flops import count
from .growth import allocated, once
from .shapes import Shape, prepare
from .sizes import sized

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True)
class Scaling:
    """What one variant does at `LENGTHS`, forward, one head: None where it cannot be counted."""

    variant: str
    causal: bool
    flops: tuple[int, ...] | None
    flops_needed: tuple[int, ...]
    peak_bytes: tuple[int, ...]
    declared_time: float
    declared_memory: float

    @property
    def time_exponent(self) -> float | None:
        return exponent_beside_a_constant(self.flops) if self.flops else None

    @property
    def needed_exponent(self) -> float:
        """Of `flops_needed` at the same lengths: where a method mixes powers of N, what is due there."""
        return exponent_beside_a_constant(self.flops_needed)

    @property
    def memory_exponent(self) -> float:
        return exponent_beside_a_constant(self.peak_bytes)


def scaling(attn: Variant, lengths: Sequence[int] = LENGTHS) -> Scaling | list[str]:
    """Measures one variant with its sizes at 128, causal where it has that form; or the reasons why it cannot run."""
    attn = sized(attn)
    causal = attn.supports.causal
    flops, needed, peaks = [], [], []
    for n in lengths:
        shape = Shape(n, n, causal, "float32", batch=1, heads=1, kv_heads=1, head_dim=64, value_dim=64)
        reasons = attn.reasons_against(shape)
        if reasons:
            return reasons
        q, k, v, extras = prepare(attn, shape)
        call = functools.partial(once, attn, shape, (q, k, v), extras)
        flops.append(count(call) if attn.counts_flops else 0)
        needed.append(attn.flops_needed(shape))
        peaks.append(allocated(call).peak)
    return Scaling(
        attn.name, causal, tuple(flops) if all(flops) else None, tuple(needed), tuple(peaks),
        attn.complexity.time, attn.complexity.memory,
    )  # fmt: skip


def exponent_beside_a_constant(figures: Sequence[int]) -> float:
    """The p of a + b N^p, a and b not negative, through all figures, relative errors weighed alike.

    Peak memory holds tiles of a fixed size, and work the rows before a sparse form pays, which are as many at any
    length: both would hide how the rest grows.
    """
    x, y = 2.0 ** np.arange(len(figures)), np.asarray(figures, dtype=float)

    def misfit(p: float) -> float:
        terms = np.stack([np.ones_like(x), x**p], axis=1) / y[:, None]
        return float(nnls(terms, np.ones_like(y))[1])

    return float(min(np.arange(0.0, 3.005, 0.01), key=misfit))
