"""Softmax attention with every score in memory: the plainest form, and what "quadratic" means.

Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, equation 1. Grouped queries: Ainslie et al. 2023,
arXiv:2305.13245.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Complexity, Supports, Variant, register, repeat_heads
from ..definitions import masked_softmax, positions


class SoftmaxAttention(Variant):
    """The definition that every exact variant shares: softmax over all keys, or all keys so far."""

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=(j <= i) if causal else None)


@register(
    "naive",
    family="full",
    kind="exact",
    supports=Supports(decode=True),
    complexity=Complexity(time=2, memory=2, text="O(N² d) time, O(N²) memory", state=1),
    paper='Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, eq. 1',
    formula="softmax(scale · q kᵀ) v",
    reduces_to="is softmax attention",
    position_free=True,
)
@dataclass(frozen=True)
class Naive(SoftmaxAttention):
    """Three plain operations: scores, softmax, weighted sum."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        n_q, n_k = q.shape[2], k.shape[2]
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        scores = (q * scale) @ k.mT  # (B, H, Nq, Nk)
        if causal:
            future = torch.ones(n_q, n_k, dtype=torch.bool, device=q.device).triu(n_k - n_q + 1)
            scores.masked_fill_(future, float("-inf"))  # in place: a second copy would be another N²
        weights = scores.softmax(dim=-1)
        if causal and n_q > n_k:
            # the first Nq - Nk queries stand before every key: softmax of nothing is NaN, its meaning is zero
            weights = weights.masked_fill(future.all(dim=-1, keepdim=True), 0.0)
        return weights @ v
