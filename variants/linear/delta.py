"""DeltaNet: linear attention whose write first takes out what its key reads, so that a key can be rewritten.

Yang, Wang, Zhang, Shen and Kim 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length",
arXiv:2406.06484, section 3; the rule is that of Schlag, Irie and Schmidhuber 2021, "Linear Transformers Are Secretly
Fast Weight Programmers", arXiv:2102.11174. The paper's layer divides queries and keys by their l2 norms, and so does
this; its SiLU and its short convolutions come before, in the layer. As in the authors' code (flash-linear-attention),
and unlike the paper's formulas, q is scaled by d^-1/2 besides.

With keys of norm 1 and beta in [0, 1] the eigenvalues of I - beta k kᵀ are in [0, 1]. Up to beta = 2, where the one
along the key is negative (Grazzi et al. 2024, arXiv:2411.12537), it still enlarges nothing: that is allowed. Beyond 2
the state grows without bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import Complexity, Identity, Supports, register
from ..recurrence import fading
from ..wy import BETA, DeltaRule, delta_chunks, read, write


def spread_orthogonal(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For identities: D orthogonal keys, spread over the sequence, between keys of zero, which write nothing.

    Their norm is 1e6, beside which the epsilon under the root is nothing.
    """
    n, d = k.shape[2:]
    at = torch.linspace(0, n - 1, min(n, d)).long()
    keys = torch.zeros_like(k)
    keys[:, :, at] = 1e6 * torch.linalg.qr(k[:, :, at].mT).Q.mT
    return q, keys, v


def linear_over_units(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, **extras: Tensor) -> Tensor:
    """For identities: linear attention without feature map or normaliser, over keys of norm 1."""
    return fading(q, F.normalize(k, dim=-1), v, causal=causal, scale=scale)


def newest_value(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, **extras: Tensor) -> Tensor:
    """For identities: the query's product with its own key alone, times the value."""
    return scale * (q * F.normalize(k, dim=-1)).sum(dim=-1, keepdim=True) * v


def one_key(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For identities: every token has the first one's key, of norm 1e6."""
    return q, (1e6 * F.normalize(k[:, :, :1], dim=-1)).expand_as(k).contiguous(), v


def nothing(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, **extras: Tensor) -> Tensor:
    return torch.zeros_like(v)


@register(
    "delta",
    family="linear",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N d²) time, O(N d) memory; decoding keeps d² numbers a head", state=0
    ),
    paper='Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule", arXiv:2406.06484',
    formula="S_t = (I - beta_t k_t k_tᵀ) S_{t-1} + beta_t k_t v_tᵀ, o_t = d^-1/2 S_tᵀ q_t, q and k of norm 1",
    reduces_to="linear attention without a feature map where keys are orthonormal and beta = 1",
    extras=(BETA,),
    tuning=("chunk_size",),
    identities=(
        Identity(
            "delta(normalize_queries=False, chunk_size=8)",
            linear_over_units,
            "orthonormal keys and beta = 1: linear attention",
            extras={"beta": 1.0},
            prepare=spread_orthogonal,
        ),
        Identity(
            "delta(normalize_queries=False, chunk_size=8)",
            newest_value,
            "one key for all and beta = 1: the newest value",
            extras={"beta": 1.0},
            prepare=one_key,
        ),
        Identity("delta(chunk_size=8)", nothing, "beta = 0: nothing is written", extras={"beta": 0.0}),
    ),
)
@dataclass(frozen=True)
class Delta(DeltaRule):
    """Chunks of C by the WY form: one triangular system each, all at once; the state walks from chunk to chunk."""

    chunk_size: int = 64
    """C: tokens of a chunk. Changes speed and memory, never the result."""
    normalize_queries: bool = True
    """Divides queries by their l2 norms, as the paper does. Keys always are."""
    negative_eigenvalues: bool = False
    """Counts beta twice, so that the sigmoid by which a layer learns it reaches from 0 to 2, and the eigenvalue along
    the key down to -1: state tracking, parity above all, needs that (arXiv:2411.12537)."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)

    def step(
        self, state: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor, *, scale: float, beta: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q, k = self.units(q, k, scale)
        memory = write(state["memory"], k, v, self.strength(beta))
        return read(memory, q), {"memory": memory}

    def chunks(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, beta: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q, k = self.units(q, k, scale)
        out, memory = delta_chunks(q, k, v, self.strength(beta), keys=k @ k.mT, queries=(q @ k.mT).tril())
        return out, {"memory": memory}

    def strength(self, beta: Tensor) -> Tensor:
        """beta as the rule takes it."""
        return 2 * beta if self.negative_eigenvalues else beta
