"""Needle: a few digits behind a marker, anywhere in a haystack; at the end the marker comes again, and they are due.

As passkey retrieval: Mohtashami and Jaggi 2023, "Landmark Attention", arXiv:2305.16300, where a key of five digits lies
in a text of a few sentences over and over. The haystack here is one random phrase over and over.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from .batch import IGNORE, Batch, Part, distinct
from .task import Task

DIGITS = 10
MARKER = 10
"""The token that stands before the digits; those of the haystack follow it in the vocabulary."""


class Needle(Task):
    """Layout: haystack, with marker and digits somewhere in it; then marker and all digits but the last."""

    name: ClassVar[str] = "needle"
    about: ClassVar[str] = "needle: the digits that stood behind the marker, anywhere in a haystack"
    source: ClassVar[str] = "passkey retrieval, Mohtashami and Jaggi 2023, arXiv:2305.16300"
    defaults: ClassVar[dict[str, Any]] = {"seq_len": 64, "vocab": 32}

    digits: int = Field(default=5, ge=1, le=DIGITS)
    """Different digits of a key."""
    phrase: int = Field(default=8, ge=1)
    """Tokens of the phrase that the haystack repeats."""

    def problem(self, seq_len: int, vocab: int) -> str | None:
        if seq_len < 2 * self.digits + 1:
            return f"needle needs a seq_len of at least 2 digits + 1, {2 * self.digits + 1}, not {seq_len}"
        return None if vocab > MARKER + 1 else f"needle needs a vocab above {MARKER + 1}, not {vocab}"

    def chance(self, vocab: int) -> float:
        """Guessing among the digits that have not been asked for yet."""
        return float(np.mean([1 / (DIGITS - i) for i in range(self.digits)]))

    def draw(self, rng: np.random.Generator, count: int, seq_len: int, vocab: int, part: Part) -> Batch:
        body = seq_len - self.digits
        phrases = rng.integers(MARKER + 1, vocab, size=(count, self.phrase))
        inputs = np.tile(phrases, (1, -(-seq_len // self.phrase)))[:, :seq_len]
        digits = distinct(rng, count, 0, DIGITS, self.digits)  # (B, digits)
        at = rng.integers(body - self.digits, size=count)[:, None]  # (B, 1): the marker
        np.put_along_axis(inputs, at, MARKER, axis=1)
        np.put_along_axis(inputs, at + 1 + np.arange(self.digits), digits, axis=1)
        inputs[:, body] = MARKER
        inputs[:, body + 1 :] = digits[:, :-1]
        targets = np.full((count, seq_len), IGNORE, np.int64)
        targets[:, body:] = digits
        distance = np.zeros((count, seq_len), np.int64)
        distance[:, body:] = body - 1 - at
        return Batch(inputs, targets, distance=distance)
