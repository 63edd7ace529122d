"""Multi-query associative recall: pairs of key and value, then every key once more, whose value is due.

Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models", arXiv:2312.04927. Built as in
the authors' code (HazyResearch/zoology, multiquery_ar): keys are different tokens of the lower half of the vocabulary,
values different ones of the upper half; the pairs come first; a query's gap behind them follows a power law, as
repeated bigrams do in language; the value is due at the query itself. The paper's figure 2 has vocabulary 8192,
lengths 64 to 512 with 4 to 64 pairs, and nothing but token 0 between the queries.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from .batch import IGNORE, Batch, Part, distinct
from .task import Task


class Mqar(Task):
    """Layout: key value … key value, then at every second place a query or token 0."""

    name: ClassVar[str] = "mqar"
    about: ClassVar[str] = "multi-query associative recall: the value that came with each of several keys"
    source: ClassVar[str] = "Arora et al. 2023 (Zoology), arXiv:2312.04927"
    defaults: ClassVar[dict[str, Any]] = {"seq_len": 64, "vocab": 64}

    kv_pairs: int = Field(default=8, ge=1)
    power_a: float = Field(default=0.01, gt=0, le=1)
    """The density of a gap g is proportional to g^(a-1): 1 is uniform, 0.01 the paper's."""
    noise: bool = False
    """Random tokens of the whole vocabulary between the queries, keys and values among them, instead of token 0."""

    def problem(self, seq_len: int, vocab: int) -> str | None:
        if seq_len % 2 or seq_len < 4 * self.kv_pairs:
            return (
                f"mqar needs an even seq_len of at least 4 kv_pairs, {4 * self.kv_pairs} for {self.kv_pairs}, "
                f"not {seq_len}"
            )
        if vocab // 2 <= self.kv_pairs:
            return f"mqar needs a vocab above 2 kv_pairs + 1, {2 * self.kv_pairs + 1}, not {vocab}"
        return None

    def chance(self, vocab: int) -> float:
        """Guessing among the values that were shown."""
        return 1 / self.kv_pairs

    def draw(self, rng: np.random.Generator, count: int, seq_len: int, vocab: int, part: Part) -> Batch:
        pairs, context, half = self.kv_pairs, 2 * self.kv_pairs, vocab // 2
        keys = distinct(rng, count, 1, half, pairs)  # (B, P)
        values = distinct(rng, count, half, vocab, pairs)
        space = (seq_len - context) // 2
        weights = np.log(np.arange(1, space + 1)) * (self.power_a - 1)
        # the largest of log weight + Gumbel noise are a sample by weight, without replacement
        gaps = np.argsort(-(weights + rng.gumbel(size=(count, space))), axis=1)[:, :pairs]
        at = context + 2 * gaps  # (B, P): where each key is asked for
        inputs = rng.integers(vocab, size=(count, seq_len)) if self.noise else np.zeros((count, seq_len), np.int64)
        inputs[:, 0:context:2], inputs[:, 1:context:2] = keys, values
        np.put_along_axis(inputs, at, keys, axis=1)
        targets = np.full((count, seq_len), IGNORE, np.int64)
        np.put_along_axis(targets, at, values, axis=1)
        distance = np.zeros((count, seq_len), np.int64)
        np.put_along_axis(distance, at, at - 2 * np.arange(pairs), axis=1)
        return Batch(inputs, targets, distance=distance)
