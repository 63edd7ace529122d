"""Gated linear attention by flash-linear-attention's kernel: `gla` (Yang et al. 2023, arXiv:2312.06635).

Checked without a GPU, and untested on one: see `variants/fla.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..api import Supports, register
from ..fla import Fla, Result
from .gla import GLA


@register(
    "gla_fla",
    family="linear",
    kind="own",
    supports=Supports(
        noncausal=False, cross=False, decode=True, dtypes=("float32", "bfloat16", "float16"), devices=("cuda",)
    ),
    complexity=GLA.complexity,
    paper=f"Yang & Zhang 2024, flash-linear-attention; the method: {GLA.paper}",
    formula=GLA.formula,
    reduces_to=GLA.reduces_to,
    extras=GLA.extras,
    counts_flops=False,
)
@dataclass(frozen=True)
class GLAFla(Fla):
    """`chunk_gla`, and `fused_recurrent_gla` for one more token."""

    ops = "fla.ops.gla"

    @property
    def method(self) -> GLA:
        return GLA()

    def chunk(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, keep: bool, log_decay: Tensor) -> Result:
        run = self.kernel("chunk_gla")
        out, state = run(q, k, v, log_decay, scale=scale, output_final_state=keep)
        return out, state

    def recurrent(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, state: Any, log_decay: Tensor) -> Result:
        run = self.kernel("fused_recurrent_gla")
        out, after = run(q, k, v, gk=log_decay, scale=scale, initial_state=state, output_final_state=True)
        return out, after
