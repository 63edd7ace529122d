"""torch's scaled_dot_product_attention: the fused kernels that everyone runs, one backend at a time or torch's choice.

Its `is_causal` aligns top-left. Here causal aligns bottom-right, so unequal lengths pass a mask of Nq x Nk booleans,
and queries that stand before every key are left out and give zeros.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..api import CaseLike, Complexity, Identity, Supports, VariantError, register
from ..blocks import blind_rows, fused, prepend_zeros
from ..errors import suggest
from ..varlen import Packing
from .naive import SoftmaxAttention

BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "mem_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


@register(
    "sdpa",
    family="full",
    kind="exact",
    supports=Supports(decode=True, varlen=True),
    complexity=Complexity(
        time=2, memory=1, text="O(N² d) time, O(N d) memory; O(N²) memory with backend='math'", state=1
    ),
    paper='Dao 2023, "FlashAttention-2", arXiv:2307.08691, and the other kernels behind torch\'s function',
    formula="softmax(scale · q kᵀ) v",
    reduces_to="is softmax attention",
    position_free=True,
    identities=(Identity("sdpa", "naive"), Identity("sdpa(backend='math')", "naive")),
)
@dataclass(frozen=True)
class Sdpa(SoftmaxAttention):
    """One call of torch, with the alignment of causality put right."""

    backend: str = "auto"
    """auto (torch chooses; math, with its N² memory, where Dv != D on a CPU), math, flash, mem_efficient or cudnn."""

    def __post_init__(self) -> None:
        if self.backend not in ("auto", *BACKENDS):
            raise VariantError(
                f"{self.name}: no backend {self.backend!r}; {suggest(self.backend, ['auto', *BACKENDS])}"
            )

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        blind = blind_rows(q.shape[2], k.shape[2]) if causal else 0
        if self.backend == "flash" and q.device.type == "cpu" and q.shape[3] != v.shape[3]:
            raise VariantError(
                f"{self.name}: the flash kernel on a CPU needs Dv = D, not {v.shape[3]} and {q.shape[3]}"
            )
        with self._only_backend():
            return prepend_zeros(fused(q[:, :, blind:], k, v, scale=scale, causal=causal), blind)

    def _only_backend(self) -> AbstractContextManager[None]:
        return nullcontext() if self.backend == "auto" else sdpa_kernel(BACKENDS[self.backend])

    def forward_varlen(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, *, causal: bool, scale: float
    ) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        out = varlen_attn(
            q,
            k,
            v,
            packing.cu_seqlens_q,
            packing.cu_seqlens_k,
            packing.max_seqlen_q,
            packing.max_seqlen_k,
            scale=scale,
            window_size=(-1, 0) if causal else (-1, -1),
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out[0] if isinstance(out, tuple) else out  # a pair where the log-sum-exp was asked for

    def refuses_varlen(self, case: CaseLike) -> list[str]:
        reasons = []
        if not case.device.startswith("cuda"):
            reasons.append("torch's varlen_attn runs on CUDA only")
        if case.dtype not in ("bfloat16", "float16"):
            reasons.append(f"torch's varlen_attn runs in bfloat16, float16, not {case.dtype}")
        if self.backend not in ("auto", "flash"):
            reasons.append(f"torch's varlen_attn is its flash kernel, not {self.backend}")
        if lacks := _varlen_lacks():
            reasons.append(lacks)
        return reasons

    def refuses(self, case: CaseLike) -> list[str]:
        if self.backend in ("auto", "math"):
            return []
        if case.device == "cpu":
            return [] if self.backend == "flash" else [f"torch's {self.backend} kernel runs on CUDA only"]
        return _refusals_of_cuda(self.backend, case)


@functools.cache
def _varlen_lacks() -> str:
    """What this torch's varlen_attn has not: older ones have none, or one without grouped heads."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return "torch has no varlen_attn: it needs a newer one"
    known = inspect.signature(varlen_attn).parameters
    missing = [name for name in ("scale", "window_size", "enable_gqa") if name not in known]
    return f"torch's varlen_attn has no {', '.join(missing)}: it needs a newer one" if missing else ""


def _refusals_of_cuda(backend: str, case: CaseLike) -> list[str]:
    """Why a CUDA kernel of torch's will not take a case, in torch's own words."""
    dtype = getattr(torch, case.dtype)
    grad = case.mode == "train"

    def like(heads: int, n: int) -> Tensor:
        # no memory: the kernels' checks look at sizes and dtypes, and at strides of the last dimensions
        row = torch.empty(1, 1, 1, case.head_dim, dtype=dtype, device=case.device, requires_grad=grad)
        return row.expand(case.batch, heads, n, case.head_dim)

    n_q = 1 if case.mode == "decode" else case.n_q
    q, k = like(case.heads, n_q), like(case.kv_heads, case.n_k)
    square = n_q == case.n_k
    mask = None
    if case.causal and not square and n_q > 1:
        mask = torch.empty(1, 1, dtype=torch.bool, device=case.device).expand(n_q, case.n_k)
    params = torch.backends.cuda.SDPAParams(q, k, k, mask, 0.0, case.causal and square, case.heads != case.kv_heads)
    usable = {
        "flash": torch.backends.cuda.can_use_flash_attention,
        "mem_efficient": torch.backends.cuda.can_use_efficient_attention,
        "cudnn": torch.backends.cuda.can_use_cudnn_attention,
    }[backend]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if usable(params, debug=True):
            return []
    words = [str(w.message).split(" (Triggered internally")[0] for w in caught]
    return words or [f"torch's {backend} kernel does not take these inputs on {case.device}, and does not say why"]
