"""Kimi Delta Attention: the gated delta rule with a rate of forgetting for each channel of the key.

Kimi Team 2025, "Kimi Linear: An Expressive, Efficient Attention Architecture", arXiv:2510.26692, section 3: decay, then
erase, then write. Queries and keys are divided by their l2 norms, as in the paper's layer; the gate comes as its
logarithm; convolutions, output norm and output gate stand outside. As in the authors' code (flash-linear-attention),
and unlike the paper's formulas, q is scaled by d^-1/2 besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import Complexity, Identity, Supports, get, register
from ..decay import decayed_scores
from ..wy import BETA, DeltaRule, decay_gate, delta_chunks, read, write
from .delta import newest_value


def gated_delta_of_one_rate(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, log_decay: Tensor, beta: Tensor
) -> Tensor:
    """For identities: `gated_delta` with the first channel's gate."""
    return get("gated_delta").definition(q, k, v, causal=causal, scale=scale, log_decay=log_decay[..., 0], beta=beta)


def gla_over_units(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, log_decay: Tensor, beta: Tensor
) -> Tensor:
    """For identities: `gla` over keys of norm 1."""
    return get("gla").definition(q, F.normalize(k, dim=-1), v, causal=causal, scale=scale, log_decay=log_decay)


def spread_axes(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For identities: the D axes as keys, spread over the sequence between keys of zero. Their norm is 1e6."""
    n, d = k.shape[2:]
    at = torch.linspace(0, n - 1, min(n, d)).long()
    keys = torch.zeros_like(k)
    keys[:, :, at, torch.arange(len(at))] = 1e6
    return q, keys, v


@register(
    "kda",
    family="linear",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N d²) time, O(N d) memory; decoding keeps d² numbers a head", state=0
    ),
    paper='Kimi Team 2025, "Kimi Linear: An Expressive, Efficient Attention Architecture", arXiv:2510.26692',
    formula="S_t = (I - beta_t k_t k_tᵀ) diag(alpha_t) S_{t-1} + beta_t k_t v_tᵀ, o_t = d^-1/2 S_tᵀ q_t, "
    "log alpha = log_decay, q and k of norm 1",
    reduces_to="gated_delta where all channels decay alike",
    extras=(decay_gate("B", "H", "N", "D"), BETA),
    tuning=("chunk_size",),
    identities=(
        Identity(
            "kda(chunk_size=8)",
            gated_delta_of_one_rate,
            "equal channels: gated_delta",
            extras={"log_decay": lambda x: x[..., :1].expand_as(x).contiguous()},
        ),
        Identity("kda(chunk_size=8)", "delta", "log_decay = 0 is delta", extras={"log_decay": 0.0}),
        Identity(
            "kda(normalize_queries=False, chunk_size=8)",
            gla_over_units,
            "keys along the axes, each once, and beta = 1: gla",
            extras={"beta": 1.0},
            prepare=spread_axes,
        ),
        Identity(
            "kda(normalize_queries=False, chunk_size=8)",
            newest_value,
            "shut gates and beta = 1: each token sees itself alone",
            extras={"log_decay": -1e4, "beta": 1.0},
            prepare=lambda q, k, v: (q, 1e6 * k, v),
        ),
    ),
)
@dataclass(frozen=True)
class KDA(DeltaRule):
    """As `gated_delta`; scores within a chunk come by halves, whose decays cannot overflow."""

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
        memory = write(log_decay.exp().unsqueeze(-1) * state["memory"], k, v, beta)
        return read(memory, q), {"memory": memory}

    def chunks(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, log_decay: Tensor, beta: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q, k = self.units(q, k, scale)
        (queries, keys), before, after = decayed_scores((q, k), k, log_decay)  # (B, H, n, C, C), (B, H, n, C, D)
        out, memory = delta_chunks(q, k, v, beta, keys=keys, queries=queries, before=before, after=after)
        return out, {"memory": memory}
