"""Nyström attention: softmax attention through m landmarks, the means of m segments of queries and of keys.

Xiong et al. 2021, "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention", arXiv:2102.03902:
softmax(Q K~ᵀ) Z softmax(Q~ Kᵀ) V, where Z is six steps of the iteration of its lemma 1 (Razavi's) towards the
pseudo-inverse of A = softmax(Q~ K~ᵀ). The convolution that its layer adds to the output is no part of attention and is
left out.

The paper pads N to a multiple of m. Here the first N mod m segments are one token longer instead, so that no padding
enters a mean; where N < m there are N landmarks. A mean over a segment mixes the future in: there is no causal form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Budget, CaseLike, Complexity, Identity, Supports, Variant, register, repeat_heads
from ..blocks import attend, segment_means, wide


@register(
    "nystrom",
    family="linear",
    kind="approximate",
    supports=Supports(causal=False, cross=False),
    complexity=Complexity(time=1, memory=1, text="O(N m d + m³) time, O(N d + m²) memory"),
    paper='Xiong et al. 2021, "Nyströmformer", arXiv:2102.03902, lemma 1 and alg. 1',
    formula="softmax(q k~ᵀ) pinv(softmax(q~ k~ᵀ)) softmax(q~ kᵀ) v, ~ the means of m segments",
    reduces_to="softmax attention where num_landmarks >= N, as pinv_steps grows and A is invertible",
    budget=Budget("landmarks", lambda n, causal, length: {"num_landmarks": n}),
    identities=(Identity("nystrom(num_landmarks={N}, pinv_steps=40)", "naive", tolerance=1e-8),),
)
@dataclass(frozen=True)
class Nystrom(Variant):
    """Two fused attentions, m queries over N keys and N queries over m, with Z between them: no N x m matrix."""

    num_landmarks: int = 64
    """m: segments of queries and of keys. 64 are often enough, the paper finds."""
    pinv_steps: int = 6
    """Steps towards the pseudo-inverse. Six are the paper's, and leave it far from converged."""

    def __post_init__(self) -> None:
        self.require(num_landmarks=1, pinv_steps=0)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        q, q_means, k_means = scale * q, scale * self._landmarks(q), self._landmarks(k)
        near = (q[:, :, rows] @ k_means.mT).softmax(dim=-1)  # (B, H, R, m)
        far = (q_means @ k.mT).softmax(dim=-1)  # (B, H, m, Nk)
        return near @ (self._inverse((q_means @ k_means.mT).softmax(dim=-1)) @ far)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        # Z holds large entries of both signs, so everything it meets is kept wide.
        dtype = q.dtype
        q, k, v = q.to(wide(dtype)), k.to(wide(dtype)), v.to(wide(dtype))
        q_means = self._landmarks(q)  # (B, H, m, D)
        k_means = repeat_heads(self._landmarks(k), q.shape[1])
        inverse = self._inverse((scale * q_means @ k_means.mT).softmax(dim=-1))  # (B, H, m, m)
        values = inverse @ attend(q_means, k, v, scale=scale)  # (B, H, m, Dv)
        return attend(q, k_means, values, scale=scale).to(dtype)

    def _landmarks(self, x: Tensor) -> Tensor:
        """(B, H, N, D) -> (B, H, m, D): means of m segments whose lengths differ by one at most."""
        return segment_means(x, self.num_landmarks)

    def _inverse(self, a: Tensor) -> Tensor:
        """Z after `pinv_steps` steps, each (B, H) matrix from a start of its own: Aᵀ / (‖A‖₁ ‖A‖∞)."""
        eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        z = a.mT / (a.sum(dim=-2).amax(dim=-1) * a.sum(dim=-1).amax(dim=-1))[..., None, None]
        for _ in range(self.pinv_steps):
            az = a @ z
            z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
        return z

    def flops_needed(self, case: CaseLike) -> int:
        """The products of the formula, from the right: two of N x m with their values, A, Z, and Z times m rows."""
        d, m = case.head_dim, min(self.num_landmarks, case.n_q)
        outer = 4 * d * m * (case.n_q + case.n_k)
        inner = 2 * d * m * m + self.pinv_steps * 4 * 2 * m**3 + 2 * d * m * m
        return case.batch * case.heads * (outer + inner)
