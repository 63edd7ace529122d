"""Linformer: keys and values are projected from N rows to k, and every query attends to those.

Wang et al. 2020, "Linformer: Self-Attention with Linear Complexity", arXiv:2006.04768, equation 7:
softmax(scale · q (E k)ᵀ) F v. E and F are parameters of the paper's layer, k x N, trained for one length N. Here they
are fixed and equal (its "key-value sharing"), shared by all heads, and exist for any N:

- `gaussian`: independent entries N(0, 1/k) from a seed, the matrix of the paper's proofs. It shows what the method
  costs, and what it does before training, which is a poor likeness of softmax attention.
- `mean`: means of k segments, one of the "general projections" that the paper names. Where N is no multiple
  of k, the first segments are one token longer.

A projected row mixes the future in: there is no causal form.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Budget, CaseLike, Complexity, Identity, Supports, Variant, VariantError, register
from ..blocks import attend, segment_means, wide

PROJECTIONS = ("gaussian", "mean")


@register(
    "linformer",
    family="linear",
    kind="approximate",
    supports=Supports(causal=False),
    complexity=Complexity(time=1, memory=1, text="O(N k d) time, O(N d) memory and the k x N projection"),
    paper='Wang et al. 2020, "Linformer: Self-Attention with Linear Complexity", arXiv:2006.04768, eq. 7',
    formula="softmax(scale · q (E k)ᵀ) F v, with E, F of k rows",
    reduces_to="softmax attention where E = F = I: projection='mean' with num_landmarks >= N",
    budget=Budget("landmarks", lambda n, causal, length: {"num_landmarks": n}),
    identities=(
        Identity("linformer(num_landmarks={N}, projection='mean')", "naive"),
        Identity("linformer(num_landmarks=100000, projection='mean')", "naive"),
    ),
)
@dataclass(frozen=True)
class Linformer(Variant):
    """One product that projects keys and values, and fused attention over k rows: no N x k scores."""

    num_landmarks: int = 256
    """k: rows that keys and values are projected to."""
    projection: str = "gaussian"
    """E and F: gaussian (fixed by the seed) or mean (of segments)."""
    seed: int = 0
    """Of the gaussian projection."""

    def __post_init__(self) -> None:
        self.require(num_landmarks=1, seed=0)
        if self.projection not in PROJECTIONS:
            raise VariantError(
                f"linformer: projection must be one of {', '.join(PROJECTIONS)}, not {self.projection!r}"
            )

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        n = k.shape[2]
        if self.projection == "mean":
            e = segment_means(torch.eye(n, dtype=q.dtype, device=q.device)[None, None], self.num_landmarks)[0, 0]
        else:
            e = gaussian(self.num_landmarks, n, self.seed, q.dtype, q.device)
        return (scale * q[:, :, rows] @ (e @ k).mT).softmax(dim=-1) @ e  # (B, H, R, k) @ (k, Nk)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return attend(q, self._projected(k), self._projected(v), scale=scale)

    def _projected(self, x: Tensor) -> Tensor:
        """(B, Hkv, Nk, D) -> (B, Hkv, k, D)."""
        if self.projection == "mean":
            return segment_means(x.to(wide(x.dtype)), self.num_landmarks).to(x.dtype)
        return gaussian(self.num_landmarks, x.shape[2], self.seed, x.dtype, x.device) @ x

    def flops_needed(self, case: CaseLike) -> int:
        """Attention over k rows, and the products that make them, which means do not need."""
        m, d = self.num_landmarks, case.head_dim
        if self.projection == "mean":
            return 4 * d * case.batch * case.heads * case.n_q * min(m, case.n_k)
        return 4 * d * m * case.batch * (case.heads * case.n_q + case.kv_heads * case.n_k)


@functools.lru_cache(maxsize=4)
def gaussian(k: int, n: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """E (k, n): independent entries N(0, 1/k), made once as a layer's parameter would be.

    Rounded to bfloat16 first, so that every dtype works with the very same matrix.
    """
    with torch.inference_mode(False), torch.no_grad():
        e = torch.randn(k, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu")
        return e.mul_(k**-0.5).bfloat16().to(device=device, dtype=dtype)
