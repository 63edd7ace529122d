"""Sliding-window attention by FlashAttention's own window: tiles outside the band are never loaded.

The method is `sliding_window` (Beltagy et al. 2020, arXiv:2004.05150, section 3.1); the kernel is FlashAttention's (Dao
2023, arXiv:2307.08691), whose window (w - 1, 0) sees w keys, the query's own position counted.

Checked without a GPU (`make test-kernels`): window, alignment and layout against `attention_ref`, the reference in
plain torch that flash-attn-4 4.0.0b36 is tested with. Not tried on a GPU by this project's tests: the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..api import Complexity, Supports, register
from ..flash import FlashAttention
from ..varlen import Packing
from .sliding_window import SlidingWindow


@register(
    "sliding_window_flash_attn",
    family="sparse",
    kind="approximate",
    supports=Supports(decode=True, varlen=True, dtypes=("bfloat16", "float16"), devices=("cuda",)),
    complexity=Complexity(time=1, memory=1, text="O(N w d) time, O(N d) memory", state=0),
    paper="Dao 2023, arXiv:2307.08691; the method: Beltagy et al. 2020, arXiv:2004.05150, sec. 3.1",
    formula=SlidingWindow.formula,
    reduces_to=SlidingWindow.reduces_to,
    tuning=("version",),
    budget=SlidingWindow.budget,
    counts_flops=False,
)
@dataclass(frozen=True)
class SlidingWindowFlashAttn(FlashAttention):
    """One call of the library, in its own layout; heads in groups are its own."""

    window_size: int = 512
    """w: keys that a query sees on one side, its own position counted: w if causal, 2 w - 1 if not."""
    version: str = "auto"
    """"2", "3" or "4"; "auto" takes, of those installed, the one that was written for the GPU at hand."""

    def __post_init__(self) -> None:
        self.require(window_size=1)
        self.check_version()

    @property
    def method(self) -> SlidingWindow:
        return SlidingWindow(window_size=self.window_size)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        before = self.window_size - 1
        after = 0 if causal else before
        # rows that stand before every key by more than the window reaches: the library is not asked about them
        blind = min(q.shape[2], max(0, q.shape[2] - k.shape[2] - after))
        if blind == q.shape[2]:
            return q.new_zeros(*q.shape[:3], v.shape[3])
        return self.call(q, k, v, scale=scale, causal=causal, window=(before, after), blind=blind)

    def forward_varlen(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, *, causal: bool, scale: float
    ) -> Tensor:
        before = self.window_size - 1
        window = before, 0 if causal else before
        return self.call_varlen(q, k, v, packing, scale=scale, causal=causal, window=window)
