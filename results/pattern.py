"""What one head attends to: the matrix A of out = A v, and what it was computed from. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9
"""A negative weight smaller than this, over the largest, is taken for a rounding error of a positive one."""


@dataclass(frozen=True)
class Pattern:
    """The weights of one head of one variant on one input."""

    spec: str
    """The variant, with the parameters that differ from their defaults."""
    family: str
    matrix: NDArray[np.float64]
    """(N, N): row i is what query i takes of each value."""
    causal: bool
    inputs: str
    """Where q and k are from, in words."""
    head: int
    heads: int
    words: tuple[str, ...] | None = None
    """The tokens, where the input is text."""
    notes: tuple[str, ...] = ()
    """What a reader should know of this pattern."""

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(N, N): which keys have any weight at all, however small."""
        return np.not_equal(self.matrix, 0.0)

    @property
    def sparse(self) -> bool:
        """Some pair is not seen, though causality would allow it."""
        n = len(self.matrix)
        return int(self.seen.sum()) < (n * (n + 1) // 2 if self.causal else n * n)

    @property
    def signed(self) -> bool:
        """Some weight is negative, by more than rounding."""
        return bool((self.matrix < -ROUNDING * np.abs(self.matrix).max()).any())

    @property
    def shares(self) -> NDArray[np.float64]:
        """(N, N): weights over the largest magnitude of their row; a row without any is zeros."""
        largest = np.abs(self.matrix).max(axis=1, keepdims=True)
        return self.matrix / np.where(largest > 0, largest, 1.0)
