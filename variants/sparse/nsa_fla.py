"""NSA by flash-linear-attention's kernel: `nsa` (Yuan et al. 2025, arXiv:2502.11089), with compressed blocks = blocks.

The kernel compresses by means, as `nsa` does, but over the blocks that are chosen from: l = d = l' in the paper's
letters, where the paper has l = 32, d = 16, l' = 64. It wants 16, 32, … query heads for each key head; n a power of two
and at most l' / 2; and FlashAttention 2 for the window. Layout (B, N, H, D), gates (B, N, H).

It chooses blocks by scores in the precision of q, the definition by scores in float64: where two blocks almost tie they
may choose differently, and a whole row of the output differs. The error rule then calls the case incorrect.

Checked without a GPU (`make test-kernels`): the three branches, the choice and one more token, in Triton's interpreter
on a CPU, in float32, with plain torch in place of FlashAttention. Not tried on a GPU by this project's tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..api import CaseLike, State, Supports, VariantError, register
from ..external import Adapter, installed
from ..flash import VERSIONS
from .nsa import Nsa


@register(
    "nsa_fla",
    family="sparse",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True, dtypes=("bfloat16", "float16"), devices=("cuda",)),
    complexity=Nsa.complexity,
    paper=f"Yang & Zhang 2024, flash-linear-attention; the method: {Nsa.paper}",
    formula=Nsa.formula,
    reduces_to=Nsa.reduces_to,
    extras=Nsa.extras,
    counts_flops=False,
)
@dataclass(frozen=True)
class NsaFla(Adapter):
    """One call of `parallel_nsa`, in its own layout; heads in groups are its own."""

    block_size: int = 64
    """l': keys of a block, compressed or chosen. A power of two, at least 16."""
    num_selected: int = 16
    """n: blocks chosen, of which the first and the two last always are. A power of two, at most block_size / 2."""
    window_size: int = 512
    """w: keys of the window, the query's own position counted."""

    choice_of_group: ClassVar[bool] = True
    modules = ("fla",)
    install = "pip install flash-linear-attention"

    def __post_init__(self) -> None:
        self.require(block_size=16, num_selected=3, window_size=1)
        for field in ("block_size", "num_selected"):
            if getattr(self, field) & (getattr(self, field) - 1):
                raise VariantError(f"{self.name}: {field} must be a power of two, not {getattr(self, field)}")
        if 2 * self.num_selected > self.block_size:
            raise VariantError(
                f"{self.name}: num_selected must be at most block_size / 2, and {self.num_selected} is more than half "
                f"of {self.block_size}"
            )

    @property
    def method(self) -> Nsa:
        b = self.block_size
        return Nsa(
            compress_size=b,
            compress_stride=b,
            block_size=b,
            num_selected=self.num_selected,
            window_size=self.window_size,
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, gates: Tensor) -> Tensor:
        nsa = self.library(q)
        if problem := bad_group(q.shape[1], k.shape[1]):
            raise VariantError(f"{self.name}: {problem}")
        default = q.shape[3] ** -0.5
        if scale != default:
            # version 0.6.0 gives the two other branches the scale, and lets FlashAttention take its default
            q = q * (scale / default)
        compressed, chosen, window = (gate.transpose(1, 2) for gate in gates.unbind(-1))  # (B, Nq, H)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, N, H, D)
        out: Tensor = nsa.parallel_nsa(
            q,
            k,
            v,
            g_cmp=compressed,
            g_slc=chosen,
            g_swa=window,
            block_counts=self.num_selected,
            block_size=self.block_size,
            window_size=self.window_size,
            scale=default,
        )
        return out.transpose(1, 2).to(q.dtype)

    def attend_state(self, q: Tensor, state: State, *, scale: float | None = None, **extras: Tensor) -> Tensor:
        """The kernel takes q as the last queries of the sequence; it means the whole cache again for each token."""
        return self.forward(
            q, state["k"], state["v"], causal=True, scale=self.default_scale(q, scale), gates=extras["gates"]
        )

    def home(self) -> str:
        return "fla.ops.nsa"

    def missing(self) -> list[str]:
        flash = VERSIONS["2"]
        return super().missing() + (
            []
            if installed(flash.module)
            else [f"FlashAttention 2, which fla calls for the window, is not installed: {flash.install}"]
        )

    def limits(self, case: CaseLike) -> list[str]:
        problem = bad_group(case.heads, case.kv_heads)
        return [problem] if problem else []


def bad_group(heads: int, kv_heads: int) -> str:
    """Why the query heads of a key head are too few, or "" where they are not."""
    group = heads // kv_heads
    if group >= 16 and not group & (group - 1):
        return ""
    return f"fla's kernel wants a power of two, at least 16, of query heads for each key head, not {group}"
