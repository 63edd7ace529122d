"""FlashAttention itself, version 2, 3 or 4, whichever is installed: exact attention in tiles that never leave the chip.

Dao et al. 2022, "FlashAttention", arXiv:2205.14135; Dao 2023, "FlashAttention-2", arXiv:2307.08691; Shah et al. 2024,
"FlashAttention-3", arXiv:2407.08608. Version 4 is the authors' package flash-attn-4 (flash_attn.cute).

Checked without a GPU (`make test-kernels`): layout, alignment, grouped heads and scale against `attention_ref`, the
reference in plain torch that flash-attn-4 4.0.0b36 is tested with. Not tried on a GPU by this project's tests: the
kernels themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..api import Complexity, Supports, register
from ..blocks import blind_rows
from ..flash import FlashAttention
from ..varlen import Packing
from .naive import Naive


@register(
    "flash_attn",
    family="full",
    kind="exact",
    supports=Supports(decode=True, varlen=True, dtypes=("bfloat16", "float16"), devices=("cuda",)),
    complexity=Complexity(time=2, memory=1, text="O(N² d) time, O(N d) memory", state=1),
    paper='Dao 2023, "FlashAttention-2", arXiv:2307.08691; Shah et al. 2024, "FlashAttention-3", arXiv:2407.08608',
    formula="softmax(scale · q kᵀ) v",
    reduces_to="is softmax attention",
    tuning=("version",),
    position_free=True,
    counts_flops=False,
)
@dataclass(frozen=True)
class FlashAttn(FlashAttention):
    """One call of the library, in its own layout; heads in groups are its own."""

    version: str = "auto"
    """"2", "3" or "4"; "auto" takes, of those installed, the one that was written for the GPU at hand."""

    def __post_init__(self) -> None:
        self.check_version()

    @property
    def method(self) -> Naive:
        return Naive()

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        blind = blind_rows(q.shape[2], k.shape[2]) if causal else 0
        return self.call(q, k, v, scale=scale, causal=causal, window=None, blind=blind)

    def forward_varlen(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, *, causal: bool, scale: float
    ) -> Tensor:
        return self.call_varlen(q, k, v, packing, scale=scale, causal=causal, window=None)
