"""Efficient attention: keys summarise the values once, queries read the summary.

Shen, Zhang, Zhao, Yi & Li 2018, "Efficient Attention: Attention with Linear Complexities", arXiv:1812.01243, sec. 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from attnbench.variants.api import CaseLike, Complexity, Supports, Variant, register, repeat_heads


@register(
    "efficient",
    family="linear",
    kind="own",
    supports=Supports(causal=False),
    complexity=Complexity(time=1, memory=1, text="O(N d²) time, O(N d) memory"),
    paper='Shen et al. 2018, "Efficient Attention: Attention with Linear Complexities", arXiv:1812.01243, sec. 3.2',
    formula="softmax_d(scale · q) softmax_n(k)ᵀ v",
    position_free=True,
)
@dataclass(frozen=True)
class Efficient(Variant):
    """Normalises queries over their features and keys over their positions. The paper's own scale is 1."""

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        return (scale * q[:, :, rows]).softmax(dim=-1) @ k.softmax(dim=2).mT  # (B, H, R, Nk)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        summary = k.softmax(dim=2).mT @ v  # (B, Hkv, D, Dv)
        return (scale * q).softmax(dim=-1) @ repeat_heads(summary, q.shape[1])  # (B, H, Nq, Dv)

    def flops_needed(self, case: CaseLike) -> int:
        return 2 * case.batch * case.head_dim**2 * (case.kv_heads * case.n_k + case.heads * case.n_q)
