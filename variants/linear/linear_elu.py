"""Linear attention: phi(q)·phi(k) in place of exp(q·k), so that keys and values are summed once and for all.

Katharopoulos et al. 2020, "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
arXiv:2006.16236, equations 4 to 7 and 18 to 20, phi(x) = elu(x) + 1. The paper has no scale: one applied to phi(q)
would cancel in the normaliser, so `scale` changes nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import CaseLike, Complexity, State, Supports, Variant, register
from ..blocks import blind_rows, prepend_zeros, wide
from ..definitions import positions


@register(
    "linear_elu",
    family="linear",
    kind="own",
    supports=Supports(decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N d²) time, O(N d) memory; decoding keeps d² numbers a head", state=0
    ),
    paper='Katharopoulos et al. 2020, "Transformers are RNNs", arXiv:2006.16236',
    formula="phi(q) sum(phi(k) vᵀ) / phi(q) sum(phi(k)), phi(x) = elu(x) + 1",
    tuning=("chunk_size",),
    position_free=True,
)
@dataclass(frozen=True)
class LinearElu(Variant):
    """Chunks of C: scores inside a chunk, the sum of phi(k) vᵀ for everything before it."""

    chunk_size: int = 64
    """C: tokens of a chunk (causal form). Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        scores = phi(q[:, :, rows]) @ phi(k).mT  # (B, H, R, Nk)
        if causal:
            i, j = positions(q, k, rows)
            scores = scores.masked_fill(j > i, 0.0)
        return divide(scores, scores.sum(dim=-1, keepdim=True))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        if causal:
            return self._causal(q, k, v)[0]
        group = (k.shape[1], q.shape[1] // k.shape[1])
        fq = phi(q.to(wide(q.dtype)).unflatten(1, group)).flatten(2, 3)  # (B, Hkv, G·Nq, D)
        fk = phi(k.to(fq.dtype))
        out = divide(fq @ (fk.mT @ v.to(fq.dtype)), fq @ fk.sum(dim=2).unsqueeze(-1))
        return out.view(*q.shape[:3], v.shape[3]).to(q.dtype)

    def prefill(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> tuple[Tensor, State]:
        """As `forward`, and the sums of phi(k) vᵀ (B, Hkv, D, Dv) and of phi(k) (B, Hkv, D): of fixed size."""
        self.check(q, k, v, causal=True, extras={})
        return self._causal(q, k, v)

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None
    ) -> tuple[Tensor, State]:
        """Equations 18 to 20: one token more is added to the sums, then read."""
        self.check(q, k, v, causal=True, extras={})
        fq = phi(q.to(wide(q.dtype)).unflatten(1, (k.shape[1], -1)).squeeze(3))  # (B, Hkv, G, D)
        fk = phi(k.to(fq.dtype))  # (B, Hkv, 1, D)
        mixed = state["mixed"] + fk.mT @ v.to(fq.dtype)
        total = state["total"] + fk.squeeze(2)
        out = divide(fq @ mixed, fq @ total.unsqueeze(-1))
        out = out.view(*q.shape[:3], v.shape[3]).to(q.dtype)
        return out, State(state.seen + 1, {"mixed": mixed, "total": total})

    def _causal(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, State]:
        """Output (B, H, Nq, Dv) and the sums after the last token."""
        b, h, n_q, _ = q.shape
        kv_heads, n_k = k.shape[1:3]
        blind = blind_rows(n_q, n_k)
        rows, early = n_q - blind, n_k - (n_q - blind)  # keys before the first query that sees one
        c = min(self.chunk_size, rows)
        n = -(-rows // c)
        short = n * c - rows  # features of zero fill the last chunk: they add nothing, and their rows are cut off
        fq = phi(q[:, :, blind:].to(wide(q.dtype)))
        fk, v = phi(k.to(fq.dtype)), v.to(fq.dtype)
        mixed = fk[:, :, :early].mT @ v[:, :, :early]  # (B, Hkv, D, Dv); zeros where early = 0
        total = fk[:, :, :early].sum(dim=2)  # (B, Hkv, D)
        fq = F.pad(fq, (0, 0, 0, short)).view(b, kv_heads, h // kv_heads, n, c, -1)
        fq = fq.transpose(2, 3).reshape(b, kv_heads, n, -1, fq.shape[-1])  # (B, Hkv, n, G·C, D)
        fk = F.pad(fk[:, :, early:], (0, 0, 0, short)).view(b, kv_heads, n, c, -1)
        v = F.pad(v[:, :, early:], (0, 0, 0, short)).view(b, kv_heads, n, c, -1)

        # Sums before each chunk. Shifted, not "running sum less own": that would let the future in by rounding.
        mixed = torch.cat([mixed.unsqueeze(2), fk.mT @ v], dim=2).cumsum(dim=2)  # (B, Hkv, n + 1, D, Dv)
        total = torch.cat([total.unsqueeze(2), fk.sum(dim=3)], dim=2).cumsum(dim=2)  # (B, Hkv, n + 1, D)
        future = torch.ones(c, c, dtype=torch.bool, device=q.device).triu_(1).repeat(h // kv_heads, 1)
        inner = (fq @ fk.mT).masked_fill_(future, 0.0)  # (B, Hkv, n, G·C, C)
        out = divide(
            torch.matmul(inner, v) + fq @ mixed[:, :, :-1],
            inner.sum(dim=-1, keepdim=True) + fq @ total[:, :, :-1].unsqueeze(-1),
        )
        out = out.view(b, kv_heads, n, h // kv_heads, c, -1).transpose(2, 3).reshape(b, h, n * c, -1)[:, :, :rows]
        state = State(n_k, {"mixed": mixed[:, :, -1].clone(), "total": total[:, :, -1].clone()})
        return prepend_zeros(out.to(q.dtype), blind), state

    def flops_needed(self, case: CaseLike) -> int:
        """The recurrence's products: each key adds phi(k) vᵀ to a sum, each query reads the sum and the normaliser."""
        d = case.head_dim
        return 2 * d * d * case.batch * (case.kv_heads * case.n_k + case.heads * case.n_q) + (
            2 * d * case.batch * case.heads * case.n_q
        )


def phi(x: Tensor) -> Tensor:
    """elu(x) + 1, as e^min(x,0) + max(x,0): adding 1 to elu would round away all that is small."""
    return x.clamp(max=0).exp() + x.relu()


def divide(num: Tensor, den: Tensor) -> Tensor:
    """num / den, and 0 where den is 0: the normaliser is a sum of non-negative terms."""
    return num / den.clamp_min(torch.finfo(den.dtype).tiny)
