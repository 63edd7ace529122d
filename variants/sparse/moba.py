"""MoBA, mixture of block attention: a query sees its own block and the past blocks whose mean key suits it best.

Lu et al. 2025, "MoBA: Mixture of Block Attention for Long-Context LLMs", arXiv:2502.13189, section 2.2: equation 5 is
the top-k gate, equation 6 the affinity q · mean(K_b). The current block is always chosen, and a block that has not
ended is never scored. As in the authors' code (MoonshotAI/MoBA, `moba_naive.py`) the own block counts as one of the k.
Their fast code (`moba_efficient.py`) returns full causal attention at k = 1, where it has no block left to choose; here
k = 1 is what the equations say: the own block alone.

Each query head chooses for itself. Scores are compared in one arithmetic for every dtype, see `chosen_blocks`. The gate
takes d multiply-adds for each of N / C blocks where attention takes 2 d for each of k C keys: for the query at position
N = 2 k C² the two weigh the same, which is 1.6 million tokens at the paper's C = 512 and k = 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Budget, CaseLike, Complexity, Identity, Supports, register
from ..chosen_blocks import ScoredBlocks, past_blocks, seen_keys
from ..definitions import masked_softmax, positions


@register(
    "moba",
    family="sparse",
    kind="approximate",
    supports=Supports(noncausal=False, decode=True),
    # four blocks of a quarter each: with fewer, the forced own block would be most of it
    budget=Budget("keys", lambda n, causal, length: {"block_size": n // 4, "num_blocks": 4} if n >= 4 else None),
    complexity=Complexity(
        time=2,
        memory=1,
        state=1,
        text="O(N k C d + N² d / C) time, the gate's second term as large as the first at N = 2 k C²; O(N d) memory",
    ),
    paper='Lu et al. 2025, "MoBA: Mixture of Block Attention for Long-Context LLMs", arXiv:2502.13189, eq. 5 and 6',
    formula="softmax over the own block and the k - 1 past blocks with the highest q · mean(K_b)",
    reduces_to="softmax attention where num_blocks · block_size >= N; block_local where num_blocks = 1",
    identities=(
        Identity("moba(block_size=4, num_blocks={N})", "naive"),
        Identity("moba(block_size={N}, num_blocks=1)", "naive"),
        Identity("moba(block_size=4, num_blocks=1)", "block_local(chunk_size=4)"),
    ),
)
@dataclass(frozen=True)
class Moba(ScoredBlocks):
    """Queries gathered block by block: time O(N k C) and a gate of N / C scores a query, no score matrix."""

    block_size: int = 512
    """C: keys of a block, counted from the first key."""
    num_blocks: int = 3
    """k: blocks that a query attends to, its own counted. Fewer where fewer have begun."""

    def __post_init__(self) -> None:
        self.require(block_size=1, num_blocks=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        means = torch.stack([block.mean(dim=2) for block in k.detach().double().split(self.block_size, dim=2)], dim=2)
        gate = q.detach()[:, :, rows].double() @ means.mT  # (B, H, R, n)
        seen = seen_keys(gate, i, j, block_size=self.block_size, count=self.num_blocks - 1)
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=seen)

    @property
    def block(self) -> int:
        return self.block_size

    @property
    def count(self) -> int:
        return self.num_blocks

    def summary(self, blocks: Tensor) -> Tensor:
        return blocks.sum(dim=3, dtype=torch.float64).div_(self.block_size)

    def score(self, q: Tensor, summaries: Tensor) -> Tensor:
        return q.double() @ summaries.mT

    def flops_needed(self, case: CaseLike) -> int:
        """Attention to the chosen blocks, and one score for each block that ended before a query's own."""
        gate = 2 * case.head_dim * case.batch * case.heads * past_blocks(case.n_q, case.n_k, self.block_size)
        return super().flops_needed(case) + gate
