"""Neighborhood attention in one dimension, by NATTEN: every query sees the same number of keys, its nearest.

Hassani et al. 2022, "Neighborhood Attention Transformer", arXiv:2204.07143; the fused kernels: Hassani et al. 2024,
"Faster Neighborhood Attention", arXiv:2403.04690. Unlike `sliding_window`, whose window is cut off at the
ends of the sequence, the window of w keys moves inwards there: the first query sees keys 0 … w - 1. An even window has
one more key before the query than after it. Causal, it ends at the query, is cut off at the start, and is
`sliding_window`.

Checked without a GPU (`make test-kernels`): layout, window (odd, even, at both ends), scale and grouped heads, by
running this file with NATTEN 0.21.7 on its flex backend, uncompiled, on a CPU. That backend computes all N x N scores
and is never used for a measurement. Not tried on a GPU by this project's tests: NATTEN's CUDA kernels, and the causal
form with a window as long as the sequence, which the flex backend lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..api import Budget, CaseLike, Complexity, Supports, VariantError, register
from ..definitions import masked_softmax, positions
from ..external import External, load
from .sliding_window import band_pairs


@register(
    "na1d",
    family="sparse",
    kind="approximate",
    supports=Supports(cross=False, dtypes=("float32", "bfloat16", "float16"), devices=("cuda",)),
    complexity=Complexity(time=1, memory=1, text="O(N w d) time, O(N d) memory"),
    paper='Hassani et al. 2022, "Neighborhood Attention Transformer", arXiv:2204.07143; kernels: arXiv:2403.04690',
    formula="softmax over the w keys nearest to i; causal: over those with 0 <= i - j < w",
    reduces_to="softmax attention where window_size >= N; sliding_window if causal",
    budget=Budget("keys", lambda n, causal, length: {"window_size": n} if n >= 2 else None),
    counts_flops=False,
)
@dataclass(frozen=True)
class NeighborhoodAttention1D(External):
    """One call of `natten.na1d`, in its own layout; heads in groups are its own."""

    window_size: int = 512
    """w: keys that a query sees, its own position counted, on both sides together if not causal. At least 2."""

    modules = ("natten",)
    install = "pip install natten"

    def __post_init__(self) -> None:
        self.require(window_size=2)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        w = self.window_size
        first = i - w + 1 if causal else (i - w // 2).clamp(max=k.shape[2] - w).clamp(min=0)
        last = i if causal else first + w - 1
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=(first <= j) & (j <= last))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        natten = self.library(q)
        if not natten.HAS_LIBNATTEN:
            raise VariantError(f"{self.name}: {NO_KERNELS}")
        self.check_sizes(q.shape[2], q.shape[3], v.shape[3], scale)
        window = min(self.window_size, q.shape[2])  # NATTEN has no window longer than the sequence: all is seen
        out: Tensor = natten.na1d(
            *(x.transpose(1, 2) for x in (q, k, v)), kernel_size=window, is_causal=causal, scale=scale
        )
        return out.transpose(1, 2)

    def check_sizes(self, n: int, d: int, dv: int, scale: float) -> None:
        for reason in _limits(n, d) + _limits(n, dv):
            raise VariantError(f"{self.name}: {reason}")
        if scale == 0:
            raise VariantError(f"{self.name}: NATTEN takes a scale of 0 for none, and puts D ** -0.5 in its place")

    def limits(self, case: CaseLike) -> list[str]:
        return _limits(case.n_q, case.head_dim)

    def broken(self) -> list[str]:
        natten, problem = load("natten")
        if problem:
            return [problem]
        return [] if natten.HAS_LIBNATTEN else [NO_KERNELS]

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        w = min(self.window_size, n_k)
        return band_pairs(n_q, n_k, w - 1, 0) if causal else n_q * w


# it would then compute all N x N scores
NO_KERNELS = "natten was built without its CUDA kernels (libnatten); build it where torch finds a GPU"


def _limits(n: int, d: int) -> list[str]:
    reasons = [] if n > 1 else ["needs at least 2 tokens"]
    return reasons + ([] if d % 8 == 0 else [f"NATTEN's kernels take head dimensions that are multiples of 8, not {d}"])
