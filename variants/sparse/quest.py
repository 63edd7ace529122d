"""Quest: each query attends to the pages of keys that could hold its highest scores, by the range of each channel.

Tang et al. 2024, "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference", arXiv:2406.10774, section 3.4
and algorithm 1: of each page are kept the channel-wise minimum m and maximum M of its keys, and a page's score is
sum_d max(q_d m_d, q_d M_d), which no key of the page can exceed. The best pages are attended to exactly.

Quest is a method of decoding: its authors prefill densely. The causal form here gives each token what decoding it would
have given, so that prompt and continuation are one operator. As in the authors' kernels (mit-han-lab/Quest, their
`test_approx_attention.py`), the page that is being filled is always attended to, up to the query, and counts as one of
the budget; only pages that have ended are scored, so no minimum or maximum holds a key of the future. A page that the
query's own token completes is still its own. The authors keep the first two layers of a model dense; a layer is what is
measured here.

Each query head chooses for itself. Scores are compared in one arithmetic for every dtype, see `chosen_blocks`. They
take 2 d multiply-adds for each of N / P pages where attention takes 2 d for each of K P keys: for the query at position
N = K P² the two weigh the same, which is 16,384 tokens at pages of P = 16 and a budget of K = 64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Budget, CaseLike, Complexity, Identity, Supports, register
from ..chosen_blocks import ScoredBlocks, past_blocks, seen_keys
from ..definitions import masked_softmax, positions


@register(
    "quest",
    family="sparse",
    kind="approximate",
    supports=Supports(noncausal=False, decode=True),
    budget=Budget("keys", lambda n, causal, length: {"num_pages": n // 16} if n >= 16 else None),
    complexity=Complexity(
        time=2,
        memory=1,
        state=1,
        text="O(N K P d + N² d / P) time, the scores' second term as large as the first at N = K P²; O(N d) memory "
        "and K pairs a query for training",
    ),
    paper='Tang et al. 2024, "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference", arXiv:2406.10774, '
    "alg. 1",
    formula="softmax over the own page and the K - 1 past pages with the highest sum_d max(q_d min_d, q_d max_d)",
    reduces_to="softmax attention where num_pages · page_size >= N; block_local where num_pages = 1",
    identities=(
        Identity("quest(page_size=4, num_pages={N})", "naive"),
        Identity("quest(page_size={N}, num_pages=1)", "naive"),
        Identity("quest(page_size=4, num_pages=1)", "block_local(chunk_size=4)"),
        Identity(
            "quest(page_size=1, num_pages=8)",
            "topk(top_k=8)",
            text="pages of one key hold the highest scores, where the own key is the highest: "
            "quest(page_size=1, num_pages=8) is topk(top_k=8)",
            prepare=lambda q, k, v: (k.repeat_interleave(q.shape[1] // k.shape[1], dim=1), _unit(k), v),
        ),
    ),
)
@dataclass(frozen=True)
class Quest(ScoredBlocks):
    """Queries gathered page by page: time O(N K P) and N / P scores a query, no score matrix."""

    page_size: int = 16
    """P: keys of a page, counted from the first key."""
    num_pages: int = 64
    """K: pages that a query attends to, its own counted: a budget of K P = 1,024 tokens."""

    def __post_init__(self) -> None:
        self.require(page_size=1, num_pages=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        asking, pages = q.detach()[:, :, rows].double(), k.detach().double().split(self.page_size, dim=2)
        bounds = [
            torch.maximum(asking * page.amin(dim=2, keepdim=True), asking * page.amax(dim=2, keepdim=True)).sum(dim=-1)
            for page in pages
        ]
        seen = seen_keys(torch.stack(bounds, dim=-1), i, j, block_size=self.page_size, count=self.num_pages - 1)
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=seen)

    @property
    def block(self) -> int:
        return self.page_size

    @property
    def count(self) -> int:
        return self.num_pages

    def summary(self, blocks: Tensor) -> Tensor:
        return torch.cat([blocks.amin(dim=3), blocks.amax(dim=3)], dim=-1)

    def score(self, q: Tensor, summaries: Tensor) -> Tensor:
        # max(q m, q M) is q M where q > 0 and q m where q < 0: one product of twice the width
        q = q.double()
        return torch.cat([q.clamp(max=0), q.clamp(min=0)], dim=-1) @ summaries.double().mT

    def flops_needed(self, case: CaseLike) -> int:
        """Attention to the chosen pages, and two products a channel for each page that ended before a query's own."""
        bounds = 4 * case.head_dim * case.batch * case.heads * past_blocks(case.n_q, case.n_k, self.page_size)
        return super().flops_needed(case) + bounds


def _unit(k: Tensor) -> Tensor:
    return k / k.norm(dim=-1, keepdim=True)  # type: ignore[no-any-return]
