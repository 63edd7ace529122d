"""The gated delta rule by flash-linear-attention's kernel: `gated_delta` (Yang et al. 2024, arXiv:2412.06464).

Checked without a GPU, and untested on one: see `variants/fla.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..api import Supports, register
from ..fla import FlaDeltaRule, Result
from .gated_delta import GatedDelta


@register(
    "gated_delta_fla",
    family="linear",
    kind="own",
    supports=Supports(
        noncausal=False, cross=False, decode=True, dtypes=("float32", "bfloat16", "float16"), devices=("cuda",)
    ),
    complexity=GatedDelta.complexity,
    paper=f"Yang & Zhang 2024, flash-linear-attention; the method: {GatedDelta.paper}",
    formula=GatedDelta.formula,
    reduces_to=GatedDelta.reduces_to,
    extras=GatedDelta.extras,
    counts_flops=False,
)
@dataclass(frozen=True)
class GatedDeltaFla(FlaDeltaRule):
    """`chunk_gated_delta_rule`, and `fused_recurrent_gated_delta_rule` for one more token."""

    ops = "fla.ops.gated_delta_rule"

    normalize_queries: bool = True
    """Divides queries by their l2 norms, as the paper does. Keys always are."""

    @property
    def method(self) -> GatedDelta:
        return GatedDelta(normalize_queries=self.normalize_queries)

    def chunk(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, keep: bool, log_decay: Tensor, beta: Tensor
    ) -> Result:
        run = self.kernel("chunk_gated_delta_rule")
        k, both = self.norms(k)
        out, state = run(
            q, k, v, g=log_decay, beta=beta, scale=scale, output_final_state=keep, use_qk_l2norm_in_kernel=both
        )
        return out, state

    def recurrent(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, state: Any, log_decay: Tensor, beta: Tensor
    ) -> Result:
        run = self.kernel("fused_recurrent_gated_delta_rule")
        k, both = self.norms(k)
        out, after = run(
            q,
            k,
            v,
            g=log_decay,
            beta=beta,
            scale=scale,
            initial_state=state,
            output_final_state=True,
            use_qk_l2norm_in_kernel=both,
        )
        return out, after
