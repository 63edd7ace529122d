"""Window plus attention sinks: each query sees the first s tokens of the text and the last w.

Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks" (StreamingLLM), arXiv:2309.17453, s = 4.
The paper re-numbers positions inside its cache; positions are no part of this operator. The method is one for
generation, so there is a causal form only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Budget, Complexity, Identity, State, Supports, Variant, causal_pairs, register
from ..blocks import banded
from ..definitions import masked_softmax, positions


@register(
    "sink_window",
    family="sparse",
    kind="approximate",
    supports=Supports(noncausal=False, decode=True),
    complexity=Complexity(time=1, memory=1, text="O(N (s + w) d) time, O(N d) memory", state=0),
    paper='Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453',
    formula="softmax over the keys j <= i with j < s or i - j < w",
    reduces_to="causal softmax attention where num_sinks + window_size >= N",
    budget=Budget("keys", lambda n, causal, length: {"window_size": n - 4} if n > 4 else None),
    tuning=("block_size",),
    identities=(
        Identity("sink_window(num_sinks=4, window_size={N})", "naive"),
        Identity("sink_window(num_sinks={N}, window_size=1)", "naive"),
        Identity("sink_window(num_sinks=0, window_size=9)", "sliding_window(window_size=9)"),
    ),
)
@dataclass(frozen=True)
class SinkWindow(Variant):
    """As `sliding_window`, with the sinks copied before each block's keys: (C + w - 1 + s) / C copies of k and v."""

    num_sinks: int = 4
    """s: first tokens of the text that every later token sees."""
    window_size: int = 512
    """w: newest tokens that a query sees, its own position counted."""
    block_size: int = 128
    """C: queries that share one gathered run of keys. Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(num_sinks=0, window_size=1, block_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        seen = (j <= i) & ((j < self.num_sinks) | (i - j < self.window_size))
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=seen)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return banded(
            q,
            k,
            v,
            before=self.window_size - 1,
            after=0,
            sinks=self.num_sinks,
            scale=scale,
            block_size=self.block_size,
        )

    def keep(self, state: State) -> State:
        """The first s tokens and the last w."""
        held = state["k"].shape[2]
        if held <= self.num_sinks + self.window_size:
            return state
        return State(state.seen, {name: self._trim(kept) for name, kept in state.tensors.items()})

    def _trim(self, kept: Tensor) -> Tensor:
        return torch.cat([kept[:, :, : self.num_sinks], kept[:, :, kept.shape[2] - self.window_size :]], dim=2)

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        # all causal pairs, less those of the keys between the sinks and the window: p - j >= w and j >= s
        hidden_keys = max(0, n_k - self.num_sinks - self.window_size)
        return causal_pairs(n_q, n_k) - causal_pairs(n_q, hidden_keys)
