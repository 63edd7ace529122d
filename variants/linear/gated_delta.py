"""Gated DeltaNet: the delta rule on a state that forgets at a rate set by each token: decay, then erase, then write.

Yang, Kautz and Hatamizadeh 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule", arXiv:2412.06464, section 3
(the recurrence, and its chunks by the extended WY form). The key reads what the decay has left. Queries and keys are
divided by their l2 norms, as in the paper's layer; the gate comes as its logarithm; convolutions, output norm and
output gate stand outside. As in the authors' code, and unlike the paper's formulas, q is scaled by d^-1/2 besides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import Complexity, Identity, Supports, register
from ..decay import decay_matrix
from ..recurrence import fading
from ..wy import BETA, DeltaRule, decay_gate, delta_chunks, read, write
from .delta import newest_value, spread_orthogonal


@register(
    "gated_delta",
    family="linear",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N d²) time, O(N d) memory; decoding keeps d² numbers a head", state=0
    ),
    paper='Yang et al. 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule", arXiv:2412.06464',
    formula="S_t = alpha_t (I - beta_t k_t k_tᵀ) S_{t-1} + beta_t k_t v_tᵀ, o_t = d^-1/2 S_tᵀ q_t, "
    "log alpha = log_decay, q and k of norm 1",
    reduces_to="delta where log_decay = 0",
    extras=(decay_gate("B", "H", "N"), BETA),
    tuning=("chunk_size",),
    identities=(
        Identity("gated_delta(chunk_size=8)", "delta", "log_decay = 0 is delta", extras={"log_decay": 0.0}),
        Identity(
            "gated_delta(normalize_queries=False, chunk_size=8)",
            lambda q, k, v, **rest: fading(q, F.normalize(k, dim=-1), v, **rest, gamma=0.5),
            "orthonormal keys, beta = 1 and a constant gate: retention",
            extras={"log_decay": lambda x: torch.full_like(x, math.log(0.5)), "beta": 1.0},
            prepare=spread_orthogonal,
        ),
        Identity(
            "gated_delta(normalize_queries=False, chunk_size=8)",
            newest_value,
            "a shut gate and beta = 1: each token sees itself alone",
            extras={"log_decay": -1e4, "beta": 1.0},
            prepare=lambda q, k, v: (q, 1e6 * k, v),
        ),
    ),
)
@dataclass(frozen=True)
class GatedDelta(DeltaRule):
    """As `delta`; scores within a chunk are multiplied by a matrix of decays, each at most 1."""

    chunk_size: int = 64
    """C: tokens of a chunk, best a power of two. Changes speed and memory, never the result."""
    normalize_queries: bool = True
    """Divides queries by their l2 norms, as the paper does. Keys always are."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)

    def step(
        self,
        state: Mapping[str, Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        log_decay: Tensor,
        beta: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q, k = self.units(q, k, scale)
        memory = write(log_decay.exp()[..., None, None] * state["memory"], k, v, beta)
        return read(memory, q), {"memory": memory}

    def chunks(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, log_decay: Tensor, beta: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q, k = self.units(q, k, scale)
        matrix, before, after = decay_matrix(log_decay)  # (B, H, n, C, C), zeros above the diagonal; (B, H, n, C) twice
        out, memory = delta_chunks(
            q,
            k,
            v,
            beta,
            keys=k @ k.mT * matrix,
            queries=q @ k.mT * matrix,
            before=before.unsqueeze(-1),
            after=after.unsqueeze(-1),
        )
        return out, {"memory": memory}
