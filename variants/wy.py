"""The delta rule by chunks: what every method that erases before it writes shares.

A token decays the state, takes out what its key reads, and writes: S_t = (I - beta_t k_t k_tᵀ) diag(alpha_t) S_{t-1} +
beta_t k_t v_tᵀ. Within a chunk that begins with the state S_0 this is a sum of outer products of keys with corrected
values u (the WY form of a product of Householder-like matrices: Bischof and Van Loan 1987; for this rule Yang et al.
2024, arXiv:2406.06484, section 3):

    u_t = beta_t (v_t - S_0ᵀ(d_t k_t) - sum_{s<t} A_ts u_s),    A_ts = sum_c k_tc k_sc alpha_{s+1,c} … alpha_{t,c}

where d_t is the decay from the chunk's start through t. So U solves a unit lower triangular system, and its solution is
affine in S_0: U = U_0 - W S_0. All of that is done for all chunks at once; only the state walks from chunk to chunk.
The triangles are inverted, as in the paper's kernel, but from their halves: LAPACK's solver takes one small triangle
after the other, and needs twice the time of the inverse and its product (256 of 64 x 64, 128 right sides, 2 threads).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .api import CaseLike, Extra
from .decay import block
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
        return unit(q, scale) if self.normalize_queries else scale * q, unit(k)


def unit(x: Tensor, length: float = 1.0) -> Tensor:
    """length · x / sqrt(‖x‖² + EPS) along the last axis. Zeros stay zeros, and their gradient is finite."""
    return x * (length * (x.square().sum(dim=-1, keepdim=True) + EPS).rsqrt())


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
    solver = _Inverse.apply(beta.unsqueeze(-1) * keys) * beta.unsqueeze(-2)  # type: ignore[no-untyped-call]
    # U_0 = solver v (B, H, n, C, Dv), W = solver early_k (B, H, n, C, D)
    corrected, states = _Walk.apply(solver @ v, solver @ early_k, late_k, kept.unsqueeze(-1))  # type: ignore[no-untyped-call]
    return early_q @ states[:, :, :-1] + queries @ corrected, states[:, :, -1]


class _Inverse(torch.autograd.Function):
    """`unit_inverse` with its gradient."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor) -> Tensor:
        inverse = unit_inverse(lower)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        d_lower: Tensor = inverse.mT @ grad @ inverse.mT
        return d_lower.tril_(-1).neg_()


def unit_inverse(lower: Tensor) -> Tensor:
    """(I + L)^-1 for the strictly lower triangle L of `lower` (…, C, C): unit lower triangular.

    Blocks of 8 by substitution, a row of all of them at a time; then a block of 2h from its halves, whose corner is
    -T_22 L_21 T_11. No powers of L, which would grow where keys repeat and beta is 2, though the inverse does not.
    """
    c, base = lower.shape[-1], 8
    size = max(base, 1 << (c - 1).bit_length())
    a = F.pad(lower.reshape(-1, c, c), (0, size - c, 0, size - c))
    t = torch.zeros_like(a)
    small = _on_diagonal(a, base).movedim((2, 3), (0, 1)).contiguous()  # (8, 8, X, C / 8): the many blocks stand last
    rows = torch.zeros_like(small)
    for i in range(base):
        rows[i, i] = 1
        rows[i, :i] = (small[i, :i, None] * rows[:i, :i]).sum(dim=0).neg_()
    _on_diagonal(t, base).copy_(rows.movedim((0, 1), (2, 3)))
    h = base
    while h < size:
        whole = _on_diagonal(t, h)
        block(t, h).copy_((whole[:, 1::2] @ (block(a, h) @ whole[:, ::2])).neg_())
        h *= 2
    inverse: Tensor = t[:, :c, :c].reshape(lower.shape)
    return inverse


def _on_diagonal(a: Tensor, h: int) -> Tensor:
    """(X, C, C) -> (X, C / h, h, h): the blocks on the diagonal, a view."""
    blocks: Tensor = a.unflatten(2, (-1, h)).unflatten(1, (-1, h)).diagonal(dim1=1, dim2=3)
    return blocks.movedim(-1, 1)


class _Walk(torch.autograd.Function):
    """From chunk to chunk, S_0 = 0: U_m = values_m - erase_m S_m, and S_{m+1} = kept_m S_m + keys_mᵀ U_m.

    values (B, H, n, C, Dv), erase and keys (B, H, n, C, D), kept of a size that broadcasts to (B, H, n, D, Dv): gives
    all U (B, H, n, C, Dv), and all S (B, H, n + 1, D, Dv).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, erase: Tensor, keys: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        b, h, n = values.shape[:3]
        corrected = torch.empty_like(values, memory_format=torch.contiguous_format)
        states = values.new_empty(b, h, n + 1, keys.shape[-1], values.shape[-1])
        states[:, :, 0] = 0
        share = kept.expand(b, h, n, *kept.shape[3:])
        u, at, v, e, x, w = (t.flatten(0, 1).unbind(1) for t in (corrected, states, values, erase, keys, share))
        for m in range(n):
            torch.baddbmm(v[m], e[m], at[m], alpha=-1, out=u[m])
            torch.mul(at[m], w[m], out=at[m + 1]).baddbmm_(x[m].mT, u[m])
        ctx.save_for_backward(erase, keys, kept, corrected, states)
        return corrected, states

    @staticmethod
    def backward(ctx: Any, d_corrected: Tensor, d_states: Tensor) -> tuple[Tensor, ...]:
        erase, keys, kept, corrected, states = ctx.saved_tensors
        b, h, n = d_corrected.shape[:3]
        later = d_states[:, :, 1:].clone()  # slot m: the gradient of S_{m+1}, once chunk m + 1 is done
        d_values = torch.empty_like(corrected)
        share = kept.expand(b, h, n, *kept.shape[3:])
        du, at, dc, e, x, w = (t.flatten(0, 1).unbind(1) for t in (d_values, later, d_corrected, erase, keys, share))
        for m in reversed(range(n)):
            torch.baddbmm(dc[m], x[m], at[m], out=du[m])
            if m:
                at[m - 1].addcmul_(at[m], w[m]).baddbmm_(e[m].mT, du[m], alpha=-1)
        starts = states[:, :, :-1]
        d_kept = (later * starts).sum_to_size(kept.shape) if ctx.needs_input_grad[3] else None
        return d_values, -d_values @ starts.mT, corrected @ later.mT, d_kept  # type: ignore[return-value]
