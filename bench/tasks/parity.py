"""Parity: whether the ones so far are odd in number. The smallest task that needs a state to be tracked.

Recurrences whose state is multiplied by matrices with positive eigenvalues alone cannot do it at every length in finite
precision; with eigenvalues down to -1 they can (Grazzi et al. 2024, "Unlocking State-Tracking in Linear RNNs Through
Negative Eigenvalues", arXiv:2411.12537, who train up to length 40 and test from 40 to 256). Nor can softmax attention
of a fixed depth (Hahn 2020, "Theoretical Limitations of Self-Attention", arXiv:1906.06755).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .batch import Batch, Part
from .task import Task


class Parity(Task):
    """Random bits. The parity so far is due at every place; the last half of the places count, where it is long."""

    name: ClassVar[str] = "parity"
    about: ClassVar[str] = "parity: whether the ones so far are odd in number, at every place"
    source: ClassVar[str] = "Grazzi et al. 2024, arXiv:2411.12537"
    defaults: ClassVar[dict[str, Any]] = {"seq_len": 40, "eval_seq_len": 64, "vocab": 2, "mlp_ratio": 2}

    def chance(self, vocab: int) -> float:
        return 0.5

    def draw(self, rng: np.random.Generator, count: int, seq_len: int, vocab: int, part: Part) -> Batch:
        inputs = rng.integers(2, size=(count, seq_len))
        counted = np.zeros((count, seq_len), np.bool_)
        counted[:, seq_len // 2 :] = True
        return Batch(inputs, inputs.cumsum(axis=1) % 2, counted)
