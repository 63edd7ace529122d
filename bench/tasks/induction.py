"""Induction heads: a special token came once before; what followed it then is due when it comes again.

Olsson et al. 2022, "In-context Learning and Induction Heads", arXiv:2209.11895; in the form of Gu and Dao 2023,
"Mamba", arXiv:2312.00752, section 4.1.2: length 256, the special token once in the sequence and once at its end.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .batch import IGNORE, Batch, Part
from .task import Task

SPECIAL = 0


class Induction(Task):
    """Layout: random tokens, the special one and what follows it somewhere among them, the special one at the end."""

    name: ClassVar[str] = "induction"
    about: ClassVar[str] = "induction heads: what followed the special token the first time"
    source: ClassVar[str] = "Olsson et al. 2022, arXiv:2209.11895; as in Mamba, arXiv:2312.00752"
    defaults: ClassVar[dict[str, Any]] = {"seq_len": 64, "vocab": 16}

    def problem(self, seq_len: int, vocab: int) -> str | None:
        if seq_len < 3:
            return f"induction needs a seq_len of at least 3, not {seq_len}"
        return None if vocab >= 3 else f"induction needs a vocab of at least 3, not {vocab}"

    def chance(self, vocab: int) -> float:
        return 1 / (vocab - 1)

    def draw(self, rng: np.random.Generator, count: int, seq_len: int, vocab: int, part: Part) -> Batch:
        inputs = rng.integers(1, vocab, size=(count, seq_len))
        at, rows, last = rng.integers(seq_len - 2, size=count), np.arange(count), seq_len - 1
        inputs[rows, at] = SPECIAL
        inputs[:, last] = SPECIAL
        targets = np.full((count, seq_len), IGNORE, np.int64)
        targets[:, last] = inputs[rows, at + 1]
        distance = np.zeros((count, seq_len), np.int64)
        distance[:, last] = last - at
        return Batch(inputs, targets, distance=distance)
