"""Sliding-window attention: each query sees the w nearest keys, itself counted, on the past's side or on both.

Beltagy et al. 2020, "Longformer: The Long-Document Transformer", arXiv:2004.05150, section 3.1: its window alone,
without global tokens or dilation. The paper's w = 512 is both sides together; here w is one side with the
query's own position, so that causal attention sees w keys, not w + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..api import Budget, Complexity, Identity, State, Supports, Variant, register
from ..blocks import banded
from ..definitions import masked_softmax, positions


@register(
    "sliding_window",
    family="sparse",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(time=1, memory=1, text="O(N w d) time, O(N d) memory", state=0),
    paper='Beltagy et al. 2020, "Longformer: The Long-Document Transformer", arXiv:2004.05150, sec. 3.1',
    formula="softmax over the keys with 0 <= i - j < w (causal) or |i - j| < w",
    reduces_to="softmax attention where window_size >= N",
    budget=Budget("keys", lambda n, causal, length: {"window_size": n if causal else (n + 1) // 2}),
    tuning=("block_size",),
    identities=(Identity("sliding_window(window_size={N})", "naive"),),
)
@dataclass(frozen=True)
class SlidingWindow(Variant):
    """Blocks of queries over strided views of their keys: time O(N (w + block_size)), no score matrix."""

    window_size: int = 512
    """w: keys that a query sees on one side, its own position counted: w if causal, 2 w - 1 if not."""
    block_size: int = 128
    """C: queries that share one view of C + w - 1 keys. Changes speed and gradient memory, never the result."""

    def __post_init__(self) -> None:
        self.require(window_size=1, block_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        near = (i - j < self.window_size) & (j - i < (1 if causal else self.window_size))
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=near)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        reach = self.window_size - 1
        return banded(q, k, v, before=reach, after=0 if causal else reach, scale=scale, block_size=self.block_size)

    def keep(self, state: State) -> State:
        """The last w tokens."""
        return State(
            state.seen, {name: kept[:, :, -self.window_size :].clone() for name, kept in state.tensors.items()}
        )

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        w = self.window_size
        return band_pairs(n_q, n_k, w - 1, 0 if causal else w - 1)


def band_pairs(n_q: int, n_k: int, before: int, after: int) -> int:
    """Pairs (i, j) with p - before <= j <= p + after, p = i + Nk - Nq, over the keys that exist."""

    def upto(reach: int) -> int:
        """Pairs with j <= p + reach."""
        low, high = n_k - n_q + reach + 1, n_k + reach  # keys at or before the first and the last query's reach
        return _clipped_sum(high, n_k) - _clipped_sum(low - 1, n_k)

    return upto(after) - upto(-before - 1)


def _clipped_sum(x: int, top: int) -> int:
    """Sum over t = 1 … x of min(t, top); 0 where x < 1."""
    if x < 1:
        return 0
    low = min(x, top)
    return low * (low + 1) // 2 + (x - low) * top
