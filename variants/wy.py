"""The delta rule by chunks: what every method that erases before it writes shares.

A token decays the state, takes out what its key reads, and writes: S_t = (I - beta_t k_t k_tᵀ) diag(alpha_t) S_{t-1} +
beta_t k_t v_tᵀ. Within a chunk that begins with the state S_0 this is a sum of outer products of keys with corrected
values u (the WY form of a product of Householder-like matrices: Bischof and Van Loan 1987; for this rule Yang et al.
2024, arXiv:2406.06484, section 3):

    u_t = beta_t (v_t - S_0ᵀ(d_t k_t) - sum_{s<t} A_ts u_s),    A_ts = sum_c k_tc k_sc alpha_{s+1,c} … alpha_{t,c}

where d_t is the decay from the chunk's start through t. So U solves a unit lower triangular system, and its solution is
affine in S_0: U = U_0 - W S_0. All of that is done for all chunks at once; only the state walks from chunk to chunk.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .api import CaseLike, Extra
from .recurrence import Recurrent

EPS = 1e-6
"""Added to the squared norm of a key or query, as in flash-linear-attention and in transformers' Qwen3-Next."""

BETA = Extra(
    "beta",
    axes=("B", "H", "N"),
    about="write strength: 0 leaves the state, 1 replaces what the key reads; up to 2 is allowed",
    activate=torch.sigmoid,
    extremes=(0.0, 1.0, 2.0),
)


def minus_softplus(x: Tensor) -> Tensor:
    return -F.softplus(x)


def decay_gate(*axes: str) -> Extra:
    """The logarithm of what a token leaves of the state: -softplus, which starts at about -0.05, -0.01 to -0.3 a token.

    The published layers give each head a rate of its own, -A softplus(x + b), A of up to 16 and softplus(b) of 0.001 to
    0.1 at the start: from -0.001 to -1.6.
    """
    return Extra(
        "log_decay",
        axes=axes,
        about="logarithm of what the token leaves of the state, <= 0",
        activate=minus_softplus,
        bias=-3.0,
        extremes=(0.0, -50.0),
    )


class DeltaRule(Recurrent):
    """Base of the variants that erase before they write."""

    normalize_queries: bool

    def flops_needed(self, case: CaseLike) -> int:
        """The recurrence's products: each token reads by its key, writes, and reads by its query."""
        return 6 * case.head_dim**2 * case.batch * case.heads * case.n_k

    def units(self, q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Queries and keys as the rule takes them: of norm 1, the query scaled."""
        return scale * (unit(q) if self.normalize_queries else q), unit(k)


def unit(x: Tensor) -> Tensor:
    """x / sqrt(‖x‖² + EPS) along the last axis. Zeros stay zeros, and their gradient is finite."""
    return x * (x.square().sum(dim=-1, keepdim=True) + EPS).rsqrt()


def write(memory: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """(I - beta k kᵀ) S + beta k vᵀ for S (B, H, D, Dv), k (B, H, D), v (B, H, Dv), beta (B, H).

    Written as S + beta k (v - Sᵀk)ᵀ: what the key reads moves towards v by the share beta.
    """
    change = beta.unsqueeze(-1) * (v - read(memory, k))
    return memory + k.unsqueeze(-1) * change.unsqueeze(-2)


def read(memory: Tensor, q: Tensor) -> Tensor:
    """Sᵀq for S (B, H, D, Dv), q (B, H, D): (B, H, Dv)."""
    return (q.unsqueeze(-2) @ memory).squeeze(-2)


def delta_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    keys: Tensor,
    queries: Tensor,
    before: Tensor | None = None,
    after: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, H, n, C, Dv) of n chunks of C tokens from a state of zeros, and the state (B, H, D, Dv) at the end.

    q (scaled) and k are (B, H, n, C, D), v (B, H, n, C, Dv), beta (B, H, n, C). `keys` (B, H, n, C, C) holds the
    decayed products A_ts of keys with keys, whose diagonal and what is above it are never looked at; `queries` those of
    queries with keys, zeros above the diagonal. `before` and `after`, (B, H, n, C, D) or (B, H, n, C, 1), are the
    logarithms of the decays from the chunk's start through t, and from after t to the chunk's end; None: no decay.
    """
    early_q, early_k, late_k, kept = q, k, k, k.new_ones((1, 1, 1, 1))
    if before is not None and after is not None:
        decay = before.exp()
        early_q, early_k, late_k, kept = q * decay, k * decay, k * after.exp(), decay[..., -1, :]
    beta = beta.unsqueeze(-1)
    known = beta * torch.cat([v, early_k], dim=-1)
    # X = A^-1 known, solved as Xᵀ Aᵀ = knownᵀ: the transposes are what LAPACK's column order takes without a copy
    solved = torch.linalg.solve_triangular((beta * keys).mT, known.mT, upper=True, left=False, unitriangular=True).mT
    values, erase = solved.split([v.shape[-1], k.shape[-1]], dim=-1)  # U_0 (B, H, n, C, Dv), W (B, H, n, C, D)
    corrected, states = _Walk.apply(values, erase, late_k, kept.unsqueeze(-1))  # type: ignore[no-untyped-call]
    return early_q @ states[:, :, :-1] + queries @ corrected, states[:, :, -1]


class _Walk(torch.autograd.Function):
    """From chunk to chunk, S_0 = 0: U_m = values_m - erase_m S_m, and S_{m+1} = kept_m S_m + keys_mᵀ U_m.

    values (B, H, n, C, Dv), erase and keys (B, H, n, C, D), kept of a size that broadcasts to (B, H, n, D, Dv): gives
    all U (B, H, n, C, Dv), and all S (B, H, n + 1, D, Dv).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, erase: Tensor, keys: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        b, h, n = values.shape[:3]
        share = kept.expand(b, h, n, *kept.shape[3:])
        corrected = torch.empty_like(values, memory_format=torch.contiguous_format)
        states = values.new_empty(b, h, n + 1, keys.shape[-1], values.shape[-1])
        states[:, :, 0] = 0
        for m in range(n):
            u = torch.sub(values[:, :, m], erase[:, :, m] @ states[:, :, m], out=corrected[:, :, m])
            torch.addcmul(keys[:, :, m].mT @ u, states[:, :, m], share[:, :, m], out=states[:, :, m + 1])
        ctx.save_for_backward(erase, keys, kept, corrected, states)
        return corrected, states

    @staticmethod
    def backward(ctx: Any, d_corrected: Tensor, d_states: Tensor) -> tuple[Tensor, ...]:
        erase, keys, kept, corrected, states = ctx.saved_tensors
        b, h, n = d_corrected.shape[:3]
        share = kept.expand(b, h, n, *kept.shape[3:])
        later = d_states[:, :, 1:].clone()  # slot m: the gradient of S_{m+1}, once chunk m + 1 is done
        d_values = torch.empty_like(corrected)
        for m in reversed(range(n)):
            du = torch.add(d_corrected[:, :, m], keys[:, :, m] @ later[:, :, m], out=d_values[:, :, m])
            if m:
                later[:, :, m - 1].addcmul_(later[:, :, m], share[:, :, m]).sub_(erase[:, :, m].mT @ du)
        starts = states[:, :, :-1]
        d_kept = (later * starts).sum_to_size(kept.shape) if ctx.needs_input_grad[3] else None
        return d_values, -d_values @ starts.mT, corrected @ later.mT, d_kept  # type: ignore[return-value]
