"""Selective copying: data tokens lie scattered among noise; at the end they are due in their order.

Gu and Dao 2023, "Mamba", arXiv:2312.00752, section 4.1.1 and appendix E.1: length 4096, 16 data tokens, vocabulary 16
with the noise token in it. Here one token more marks the places where an answer is due.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from .batch import IGNORE, Batch, Part, distinct
from .task import Task

NOISE = 0


class SelectiveCopy(Task):
    """Layout: seq_len - copies tokens of noise and data, then as many markers as there were data tokens."""

    name: ClassVar[str] = "selective_copy"
    about: ClassVar[str] = "selective copying: the data tokens among noise, in their order"
    source: ClassVar[str] = "Gu and Dao 2023 (Mamba), arXiv:2312.00752"
    # the place of an answer is all that says which token is due: every variant is told places
    defaults: ClassVar[dict[str, Any]] = {"seq_len": 64, "vocab": 16, "positions": "learned"}

    copies: int = Field(default=8, ge=1)
    """Data tokens of a sequence."""

    def problem(self, seq_len: int, vocab: int) -> str | None:
        if seq_len < 2 * self.copies:
            return f"selective_copy needs a seq_len of at least 2 copies, {2 * self.copies}, not {seq_len}"
        return None if vocab >= 4 else f"selective_copy needs a vocab of at least 4, not {vocab}"

    def chance(self, vocab: int) -> float:
        return 1 / (vocab - 2)

    def draw(self, rng: np.random.Generator, count: int, seq_len: int, vocab: int, part: Part) -> Batch:
        body, marker = seq_len - self.copies, vocab - 1
        places = np.sort(distinct(rng, count, 0, body, self.copies), axis=1)  # (B, copies)
        data = rng.integers(1, marker, size=(count, self.copies))
        inputs = np.full((count, seq_len), NOISE, np.int64)
        np.put_along_axis(inputs, places, data, axis=1)
        inputs[:, body:] = marker
        targets = np.full((count, seq_len), IGNORE, np.int64)
        targets[:, body:] = data
        distance = np.zeros((count, seq_len), np.int64)
        distance[:, body:] = np.arange(body, seq_len) - places
        return Batch(inputs, targets, distance=distance)
