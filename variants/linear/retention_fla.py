"""Retention by flash-linear-attention's kernel: `retention` (Sun et al. 2023, arXiv:2307.08621).

The library's `chunk_retention` is a call of its `chunk_simple_gla` with RetNet's rates; that is called here, so that
other rates can be had too.

Checked without a GPU, and untested on one: see `variants/fla.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..api import Supports, register
from ..fla import Fla, Result
from .retention import Retention


@register(
    "retention_fla",
    family="linear",
    kind="own",
    supports=Supports(
        noncausal=False, cross=False, decode=True, dtypes=("float32", "bfloat16", "float16"), devices=("cuda",)
    ),
    complexity=Retention.complexity,
    paper=f"Yang & Zhang 2024, flash-linear-attention; the method: {Retention.paper}",
    formula=Retention.formula,
    reduces_to=Retention.reduces_to,
    extras=Retention.extras,
    counts_flops=False,
)
@dataclass(frozen=True)
class RetentionFla(Fla):
    """`chunk_simple_gla` with a rate for each head, and `fused_recurrent_simple_gla` for one more token."""

    ops = "fla.ops.simple_gla"

    decay: str = Retention.decay
    """How heads fade: "retnet", gamma = 1 - 2^(-5-h) for head h = 0, 1, …; or "lightning", exp(-2^(-8(h+1)/H))."""
    gamma: float | None = None
    """One gamma for all heads instead, above 0 and at most 1."""

    def __post_init__(self) -> None:
        self.method  # noqa: B018 - it checks the parameters

    @property
    def method(self) -> Retention:
        return Retention(decay=self.decay, gamma=self.gamma)

    def chunk(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, keep: bool) -> Result:
        run = self.kernel("chunk_simple_gla")
        out, state = run(q, k, v, g_gamma=self.rates(q), scale=scale, output_final_state=keep)
        return out, state

    def recurrent(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, state: Any) -> Result:
        run = self.kernel("fused_recurrent_simple_gla")
        rates = self.rates(q)
        out, after = run(q, k, v, g_gamma=rates, scale=scale, initial_state=state, output_final_state=True)
        return out, after

    def rates(self, q: Tensor) -> Tensor:
        """log gamma of each head, (H,), for q (B, N, H, D)."""
        return self.method.log_gamma(q.new_empty(1, q.shape[2], dtype=torch.float32))
