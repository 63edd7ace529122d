"""Top-k attention: softmax over the k keys of highest score, an oracle for every method that selects keys.

Gupta et al. 2021, "Memory-efficient Transformers via Top-k Attention", arXiv:2106.06899: the queries are taken
block by block, and of each block's scores the k highest of each row are kept. It looks at every score to find them, so
it is no faster than softmax attention: it shows how much a budget of k keys can hold at best.

The choice is made by scores that are summed in float64 and rounded to float32, the earlier key first among equals, in
the definition and in the fast form alike (see `selection`): otherwise two keys that almost tie could be chosen
differently in two dtypes, and the outputs would differ by far more than rounding. Gradients flow through the chosen
keys' softmax only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Budget, CaseLike, Complexity, Identity, Supports, Variant, causal_pairs, register
from ..definitions import masked_softmax, positions
from ..selection import attend_best, best
from .sliding_window import band_pairs


@register(
    "topk",
    family="sparse",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(
        time=2, memory=1, state=1, text="O(N² d) time, O(N (C + k)) memory, where C queries are ranked at a time"
    ),
    paper='Gupta et al. 2021, "Memory-efficient Transformers via Top-k Attention", arXiv:2106.06899',
    formula="softmax over the k keys with the highest scale · q·k",
    reduces_to="softmax attention where top_k >= N",
    budget=Budget("keys", lambda n, causal, length: {"top_k": n}),
    tuning=("block_size",),
    position_free=True,
    identities=(
        Identity("topk(top_k={N})", "naive"),
        Identity("topk(top_k={N}, block_size=3)", "naive"),
    ),
)
@dataclass(frozen=True)
class TopK(Variant):
    """Blocks of queries: all scores of a block, its k best keys, fused attention over those."""

    top_k: int = 64
    """k: keys that a query keeps; the authors' code takes 64 for self-attention. Fewer where it sees fewer."""
    block_size: int = 64
    """C: queries ranked at a time. Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(top_k=1, block_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        scores = scale * q.detach()[:, :, rows].double() @ k.detach().double().mT  # (B, H, R, Nk)
        kept = best(scores.to(torch.float32), j <= i if causal else None, self.top_k)
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=kept)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        def rank(tensors: tuple[Tensor, ...], rows: slice, out: Tensor, spare: Tensor) -> None:
            q64, k64 = tensors
            b, kv_heads, _, d = k64.shape
            grouped = q64[:, :, rows].reshape(b * kv_heads, -1, d)  # the heads that share keys, under each other
            keys = k64[:, :, : out.shape[-1]].flatten(0, 1).mT
            torch.bmm(grouped, keys, out=out.view(b * kv_heads, -1, out.shape[-1]))

        return attend_best(
            q,
            k,
            v,
            rank,
            (scale * q.detach().double(), k.detach().double()),
            choices=q.shape[1],
            top_k=self.top_k,
            causal=causal,
            scale=scale,
            block_size=self.block_size,
        )

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        # a causal row has as many keys as in a window of k: the smaller of k and what it sees
        return band_pairs(n_q, n_k, self.top_k - 1, 0) if causal else n_q * min(self.top_k, n_k)

    def flops_needed(self, case: CaseLike) -> int:
        """Every score once, and the chosen keys' values."""
        scored = causal_pairs(case.n_q, case.n_k) if case.causal else case.n_q * case.n_k
        kept = self.visible_pairs(case.n_q, case.n_k, case.causal)
        return 2 * case.head_dim * case.batch * case.heads * (scored + kept)
