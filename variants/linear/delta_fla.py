"""DeltaNet by flash-linear-attention's kernel, its authors' own: `delta` (Yang et al. 2024, arXiv:2406.06484).

The kernel for whole sequences refuses float32.

Checked without a GPU, and untested on one: see `variants/fla.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..api import Supports, register
from ..fla import FlaDeltaRule, Result
from .delta import Delta


@register(
    "delta_fla",
    family="linear",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True, dtypes=("bfloat16", "float16"), devices=("cuda",)),
    complexity=Delta.complexity,
    paper=f"Yang & Zhang 2024, flash-linear-attention; the method: {Delta.paper}",
    formula=Delta.formula,
    reduces_to=Delta.reduces_to,
    extras=Delta.extras,
    counts_flops=False,
)
@dataclass(frozen=True)
class DeltaFla(FlaDeltaRule):
    """`chunk_delta_rule`, and `fused_recurrent_delta_rule` for one more token."""

    ops = "fla.ops.delta_rule"

    normalize_queries: bool = True
    """Divides queries by their l2 norms, as the paper does. Keys always are."""

    @property
    def method(self) -> Delta:
        return Delta(normalize_queries=self.normalize_queries)

    def chunk(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, keep: bool, beta: Tensor) -> Result:
        run = self.kernel("chunk_delta_rule")
        k, both = self.norms(k)
        out, state = run(q, k, v, beta, scale=scale, output_final_state=keep, use_qk_l2norm_in_kernel=both)
        return out, state

    def recurrent(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, state: Any, beta: Tensor) -> Result:
        run = self.kernel("fused_recurrent_delta_rule")
        k, both = self.norms(k)
        out, after = run(
            q,
            k,
            v,
            beta,
            scale=scale,
            initial_state=state,
            output_final_state=True,
            use_qk_l2norm_in_kernel=both,
        )
        return out, after
