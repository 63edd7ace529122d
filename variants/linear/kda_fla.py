"""Kimi Delta Attention by flash-linear-attention's kernel, its authors' own: `kda` (Kimi Team 2025, arXiv:2510.26692).

Checked without a GPU, and untested on one: see `variants/fla.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..api import Supports, register
from ..fla import FlaDeltaRule, Result
from .kda import KDA


@register(
    "kda_fla",
    family="linear",
    kind="own",
    supports=Supports(
        noncausal=False, cross=False, decode=True, dtypes=("float32", "bfloat16", "float16"), devices=("cuda",)
    ),
    complexity=KDA.complexity,
    paper=f"Yang & Zhang 2024, flash-linear-attention; the method: {KDA.paper}",
    formula=KDA.formula,
    reduces_to=KDA.reduces_to,
    extras=KDA.extras,
    counts_flops=False,
)
@dataclass(frozen=True)
class KDAFla(FlaDeltaRule):
    """`chunk_kda`, and `fused_recurrent_kda` for one more token."""

    ops = "fla.ops.kda"

    normalize_queries: bool = True
    """Divides queries by their l2 norms, as the paper does. Keys always are."""

    @property
    def method(self) -> KDA:
        return KDA(normalize_queries=self.normalize_queries)

    def chunk(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, keep: bool, log_decay: Tensor, beta: Tensor
    ) -> Result:
        run = self.kernel("chunk_kda")
        k, both = self.norms(k)
        out, state = run(q, k, v, log_decay, beta, scale=scale, output_final_state=keep, use_qk_l2norm_in_kernel=both)
        return out, state

    def recurrent(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, state: Any, log_decay: Tensor, beta: Tensor
    ) -> Result:
        run = self.kernel("fused_recurrent_kda")
        k, both = self.norms(k)
        out, after = run(
            q,
            k,
            v,
            log_decay,
            beta,
            scale=scale,
            initial_state=state,
            output_final_state=True,
            use_qk_l2norm_in_kernel=both,
        )
        return out, after
