"""Linear attention by flash-linear-attention's kernel: `linear_elu` (Katharopoulos et al. 2020, arXiv:2006.16236).

The caller applies phi; the kernel sums phi(k) vᵀ, and with `normalize` divides by phi(q)·sum(phi(k)), to which it adds
1e-10. `normalize` is on by default for whole sequences and off for the recurrent kernel; here it is always asked for.
The running sum of phi(k) is kept in the dtype of k, (B, N, H, D): in float16 it would overflow, so that is refused.
Causal only, unlike the method.

Checked without a GPU, and untested on one: see `variants/fla.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..api import State, Supports, register
from ..blocks import wide
from ..fla import Fla, Result
from .linear_elu import LinearElu, phi


@register(
    "linear_elu_fla",
    family="linear",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True, dtypes=("float32", "bfloat16"), devices=("cuda",)),
    complexity=LinearElu.complexity,
    paper=f"Yang & Zhang 2024, flash-linear-attention; the method: {LinearElu.paper}",
    formula=LinearElu.formula,
    counts_flops=False,
)
@dataclass(frozen=True)
class LinearEluFla(Fla):
    """`chunk_linear_attn`, and `fused_recurrent_linear_attn` for one more token."""

    ops = "fla.ops.linear_attn"

    @property
    def method(self) -> LinearElu:
        return LinearElu()

    def chunk(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, keep: bool) -> Result:
        run = self.kernel("chunk_linear_attn")
        # a scale cancels in the normaliser, but for what is added to that
        out, state = run(_features(q), _features(k), v, scale=1.0, normalize=True, output_final_state=keep)
        return out, state

    def recurrent(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, state: Any) -> Result:
        run = self.kernel("fused_recurrent_linear_attn")
        out, after = run(
            _features(q), _features(k), v, scale=1.0, normalize=True, initial_state=state, output_final_state=True
        )
        return out, after

    def pack(self, state: Any) -> dict[str, Tensor]:
        """Sums of phi(k) vᵀ (B, H, D, Dv), and of phi(k) (B, 1, H, D)."""
        return {"mixed": state[0], "total": state[1]}

    def unpack(self, state: State) -> Any:
        return state["mixed"], state["total"]


def _features(x: Tensor) -> Tensor:
    return phi(x.to(wide(x.dtype))).to(x.dtype)
