"""Performer: softmax attention estimated without bias by positive orthogonal random features (FAVOR+).

Choromanski et al. 2020, "Rethinking Attention with Performers", arXiv:2009.14794: features exp(w·x - ‖x‖²/2) / sqrt(m)
of x = q · sqrt(scale) (lemma 1), w drawn in orthogonal blocks with the norms of independent Gaussians (section 2.4).

Two traps of public code are avoided. A stabiliser taken as the maximum over all keys lets the future change the past:
here it is a running maximum, kept beside the sums, and it cancels exactly. And no epsilon is added to the features:
one would drown inputs of large norm in a uniform average, and hide how poor the estimate is there.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..api import CaseLike, Complexity, State, Supports, Variant, VariantError, register
from ..blocks import blind_rows, prepend_zeros, wide
from ..definitions import positions


class Sums(NamedTuple):
    """What is known of the keys so far: sums over j of exp(b_jf - top) v_j and of exp(b_jf - top)."""

    mixed: Tensor
    """(B, Hkv, m, Dv)"""
    total: Tensor
    """(B, Hkv, m, 1)"""
    top: Tensor
    """(B, Hkv, 1, 1): largest b so far, so that no exponential overflows."""


@register(
    "performer",
    family="linear",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N m d) time, O(N d) memory forward, O(N (m + C)) when training", state=0
    ),
    paper='Choromanski et al. 2020, "Rethinking Attention with Performers", arXiv:2009.14794',
    formula="phi(q) phi(k)ᵀ v, normalised by rows; phi(x) = exp(W x - ‖x‖²/2) / sqrt(m)",
    reduces_to="softmax attention in expectation of its numerator and denominator, as num_features grows",
    tuning=("chunk_size",),
    position_free=True,
)
@dataclass(frozen=True)
class Performer(Variant):
    """Chunks of C in turn, with sums of fixed size between them: never N x m numbers at a time, going forward."""

    num_features: int = 256
    """m: random features."""
    chunk_size: int = 128
    """C: tokens of a chunk. Changes speed and memory, never the result."""
    seed: int = 0
    """Of the projection W, which all heads share."""

    def __post_init__(self) -> None:
        self.require(num_features=1, chunk_size=1, seed=0)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        a, b = self._exponents(q[:, :, rows], scale), self._exponents(k, scale)  # (B, H, R, m), (B, H, Nk, m)
        # constants per query and per head cancel in the normaliser; without them large norms would overflow
        fq, fk = (a - a.amax(dim=-1, keepdim=True)).exp(), (b - b.amax(dim=(-2, -1), keepdim=True)).exp()
        scores = fq @ fk.mT  # (B, H, R, Nk)
        if causal:
            i, j = positions(q, k, rows)
            scores = scores.masked_fill(j > i, 0.0)
        return _divide(scores, scores.sum(dim=-1, keepdim=True))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        if causal:
            return self._causal(q, k, v, scale)[0]
        sums = self._absorb_all(self._nothing(k, v), k, v, scale)
        parts = []
        for rows in q.unflatten(1, (k.shape[1], -1)).split(self.chunk_size, dim=3):
            fq = self._query_features(rows.flatten(2, 3), scale)
            out = _divide(fq @ sums.mixed, fq @ sums.total)  # (B, Hkv, G·C, Dv)
            parts.append(out.unflatten(2, rows.shape[2:4]))
        return torch.cat(parts, dim=3).flatten(1, 2).to(q.dtype)

    def prefill(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> tuple[Tensor, State]:
        """As `forward`, and the sums: m (Dv + 1) numbers a head, and one."""
        self.check(q, k, v, causal=True, extras={})
        out, sums = self._causal(q, k, v, self.default_scale(q, scale))
        return out, State(k.shape[2], sums._asdict())

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None
    ) -> tuple[Tensor, State]:
        """One token more is added to the sums, then they are read."""
        self.check(q, k, v, causal=True, extras={})
        scale = self.default_scale(q, scale)
        sums = self._absorb(Sums(**state.tensors), self._key_exponents(k, scale), v)
        fq = self._query_features(q.unflatten(1, (k.shape[1], -1)).flatten(2, 3), scale)  # (B, Hkv, G, m)
        out = _divide(fq @ sums.mixed, fq @ sums.total).view(*q.shape[:3], v.shape[3])
        return out.to(q.dtype), State(state.seen + 1, sums._asdict())

    def _causal(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Sums]:
        blind = blind_rows(q.shape[2], k.shape[2])
        q = q[:, :, blind:]
        early = k.shape[2] - q.shape[2]  # keys before the first query
        sums = self._absorb_all(self._nothing(k, v), k[:, :, :early], v[:, :, :early], scale)
        parts = []
        for start in range(0, q.shape[2], self.chunk_size):
            rows = q[:, :, start : start + self.chunk_size].unflatten(1, (k.shape[1], -1))  # (B, Hkv, G, C, D)
            c = rows.shape[3]
            cols = slice(early + start, early + start + c)
            b, vc = self._key_exponents(k[:, :, cols], scale), v[:, :, cols].to(wide(v.dtype))
            fq = self._query_features(rows.flatten(2, 3), scale)  # (B, Hkv, G·C, m)

            # Each key's own maximum is its log weight; what a row knows so far sets the row's stabiliser. Every
            # exponential is at most 1, and nothing of a later key enters. All of it cancels, so no gradient is lost.
            own = b.detach().amax(dim=-1, keepdim=True)  # (B, Hkv, C, 1)
            top = torch.maximum(own.cummax(dim=2).values, sums.top)  # (B, Hkv, C, 1), per row
            future = torch.ones(c, c, dtype=torch.bool, device=q.device).triu_(1)
            shrink = (own.mT - top).masked_fill(future, float("-inf")).exp().unsqueeze(2)  # (B, Hkv, 1, C, C)
            inner = (fq @ (b - own).exp().mT).unflatten(2, (-1, c)) * shrink  # (B, Hkv, G, C, C)
            past = (sums.top - top).exp().unsqueeze(2)  # (B, Hkv, 1, C, 1)
            mixed = inner @ vc.unsqueeze(2) + past * (fq @ sums.mixed).unflatten(2, (-1, c))
            total = inner.sum(dim=-1, keepdim=True) + past * (fq @ sums.total).unflatten(2, (-1, c))
            parts.append(_divide(mixed, total))
            sums = self._absorb(sums, b, vc)
        out = torch.cat(parts, dim=3).flatten(1, 2).to(q.dtype)
        return prepend_zeros(out, blind), sums

    def _nothing(self, k: Tensor, v: Tensor) -> Sums:
        """The sums over no keys."""
        shape, dtype = (*k.shape[:2], self.num_features), wide(k.dtype)
        return Sums(
            torch.zeros(*shape, v.shape[3], dtype=dtype, device=k.device),
            torch.zeros(*shape, 1, dtype=dtype, device=k.device),
            torch.full((*k.shape[:2], 1, 1), float("-inf"), dtype=dtype, device=k.device),
        )

    def _absorb_all(self, sums: Sums, k: Tensor, v: Tensor, scale: float) -> Sums:
        for start in range(0, k.shape[2], self.chunk_size):
            cols = slice(start, start + self.chunk_size)
            sums = self._absorb(sums, self._key_exponents(k[:, :, cols], scale), v[:, :, cols])
        return sums

    @staticmethod
    def _absorb(sums: Sums, b: Tensor, v: Tensor) -> Sums:
        """Adds keys with exponents b (B, Hkv, C, m) and values v (B, Hkv, C, Dv)."""
        top = torch.maximum(sums.top, b.detach().amax(dim=(-2, -1), keepdim=True))
        fk, shrink = (b - top).exp(), (sums.top - top).exp()
        return Sums(
            sums.mixed * shrink + fk.mT @ v.to(fk.dtype),
            sums.total * shrink + fk.sum(dim=2).unsqueeze(-1),
            top,
        )

    def _query_features(self, q: Tensor, scale: float) -> Tensor:
        """exp(a - max over the features of a), which is all that remains of phi(q) once rows are normalised."""
        a = self._exponents(q.to(wide(q.dtype)), scale)
        return (a - a.detach().amax(dim=-1, keepdim=True)).exp()

    def _key_exponents(self, k: Tensor, scale: float) -> Tensor:
        return self._exponents(k.to(wide(k.dtype)), scale)

    def _exponents(self, x: Tensor, scale: float) -> Tensor:
        """w·x - ‖x‖²/2 of x · sqrt(scale), (…, D) -> (…, m)."""
        if scale < 0:
            raise VariantError(f"{self.name}: scale must not be negative, its square root is taken; it is {scale}")
        x = x * math.sqrt(scale)
        w = projection(self.num_features, x.shape[-1], self.seed, x.dtype, x.device)
        return x @ w.mT - x.square().sum(dim=-1, keepdim=True) / 2

    def flops_needed(self, case: CaseLike) -> int:
        """Features of every query and key, each key added to the sums, each query reading them and the normaliser."""
        d, m = case.head_dim, self.num_features
        queries, keys = case.batch * case.heads * case.n_q, case.batch * case.kv_heads * case.n_k
        return 2 * m * (d + d) * (queries + keys) + 2 * m * queries


@functools.lru_cache(maxsize=16)
def projection(m: int, d: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """W (m, d): rows distributed as N(0, I), orthogonal to each other within each block of d rows."""
    with torch.inference_mode(False), torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        blocks = []
        for _ in range(-(-m // d)):
            basis, r = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64, device="cpu"))
            blocks.append(basis.mT * r.diagonal().sign()[:, None])  # the signs make it uniform over rotations
        norms = torch.randn(m, d, generator=generator, dtype=torch.float64, device="cpu").norm(dim=-1, keepdim=True)
        w: Tensor = torch.cat(blocks)[:m] * norms
        return w.to(device=device, dtype=dtype)


def _divide(num: Tensor, den: Tensor) -> Tensor:
    """num / den; the floor, far below any epsilon, only keeps a row whose features all underflowed at 0, not NaN."""
    return num / den.clamp_min(torch.finfo(den.dtype).tiny)
