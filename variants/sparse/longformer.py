"""Longformer: a sliding window on both sides, and a few global tokens that see all and are seen by all.

Beltagy et al. 2020, "Longformer: The Long-Document Transformer", arXiv:2004.05150, section 3.1. The paper's w = 512 is
both sides together, 256 each, and the query's own position comes on top; here window_size counts one side with that
position, so 257 is the paper's 512. Which tokens are global depends on the task (the [CLS] token, or a question); here
they are the first g of the text. The paper projects q, k and v of global tokens with matrices of their own: that is
before this operator, which takes q, k and v as they come.

The paper's language models have a window only. What is called causal here is the same set of keys without the future
ones: then a global token sees what all tokens at its place see, and what is left of it is being seen, as in
`sink_window`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Budget, Complexity, Identity, State, Supports, Variant, causal_pairs, register
from ..blocks import attend, banded
from ..definitions import masked_softmax, positions
from .sliding_window import band_pairs


@register(
    "longformer",
    family="sparse",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(time=1, memory=1, text="O(N (w + g) d) time, O(N d) memory", state=0),
    paper='Beltagy et al. 2020, "Longformer: The Long-Document Transformer", arXiv:2004.05150, sec. 3.1',
    formula="softmax over the keys with |i - j| < w or j < g, and over all keys where i < g; j <= i if causal",
    reduces_to="softmax attention where num_globals >= N or window_size >= N; sliding_window where num_globals = 0",
    budget=Budget("keys", lambda n, causal, length: {"window_size": n - 1 if causal else n // 2} if n > 1 else None),
    tuning=("block_size",),
    identities=(
        Identity("longformer(num_globals={N}, window_size=3)", "naive"),
        Identity("longformer(num_globals=2, window_size={N})", "naive"),
        Identity("longformer(num_globals=0, window_size=9)", "sliding_window(window_size=9)"),
        Identity("longformer(num_globals=5, window_size=9)", "sink_window(num_sinks=5, window_size=9)", causal=True),
    ),
)
@dataclass(frozen=True)
class Longformer(Variant):
    """The window as in `sliding_window`, the global keys copied before each block's keys, the global rows dense."""

    window_size: int = 257
    """w: keys that a query sees on one side, its own position counted: half of the paper's 512, and 1."""
    num_globals: int = 1
    """g: first tokens of the text that see all and are seen by all."""
    block_size: int = 128
    """C: queries that share one gathered run of keys. Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(window_size=1, num_globals=0, block_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        g = self.num_globals
        seen = ((i - j).abs() < self.window_size) | (j < g) | ((i >= 0) & (i < g))
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=seen & (j <= i) if causal else seen)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        reach, g = self.window_size - 1, self.num_globals
        c = self.block_size
        if causal:
            return banded(q, k, v, before=reach, after=0, sinks=g, scale=scale, block_size=c)
        band = functools.partial(
            banded, k=k, v=v, before=reach, after=reach, sinks=g, all_sinks=True, scale=scale, block_size=c
        )
        start, end = self._global_rows(q.shape[2], k.shape[2])
        if start == end:
            return band(q)
        parts = [attend(q[:, :, start:end], k, v, scale=scale)]
        if (
            start
        ):  # queries before the text: the band needs all rows up to its end, so that they stand where they should
            local = band(q)
            parts = [local[:, :, :start], *parts, local[:, :, end:]]
        elif end < q.shape[2]:
            parts.append(band(q[:, :, end:]))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _global_rows(self, n_q: int, n_k: int) -> tuple[int, int]:
        """First and end of the queries that stand at the positions 0 … g - 1; the last query is at the last key."""
        start = max(0, n_q - n_k)
        return start, max(start, min(n_q, self.num_globals + n_q - n_k))

    def keep(self, state: State) -> State:
        """The first g tokens and the last w."""
        if state["k"].shape[2] <= self.num_globals + self.window_size:
            return state
        return State(state.seen, {name: self._trim(kept) for name, kept in state.tensors.items()})

    def _trim(self, kept: Tensor) -> Tensor:
        return torch.cat([kept[:, :, : self.num_globals], kept[:, :, kept.shape[2] - self.window_size :]], dim=2)

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        w, g = self.window_size, min(self.num_globals, n_k)
        if causal:  # all, less those of the keys between the global ones and the window
            return causal_pairs(n_q, n_k) - causal_pairs(n_q, max(0, n_k - g - w))
        start, end = self._global_rows(n_q, n_k)

        def window(rows: int) -> int:
            """Pairs of the last `rows` queries with the keys that are not global."""
            return band_pairs(rows, n_k - g, w - 1, w - 1) if rows else 0

        local_rows = n_q - (end - start)
        local = window(n_q) - window(n_q - start) + window(n_q - end)
        return (end - start) * n_k + local_rows * g + local
