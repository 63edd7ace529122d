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

from ..api import Budget, CaseLike, Complexity, State, Supports, Variant, VariantError, register
from ..blocks import blind_rows, prepend_zeros, wide
from ..definitions import positions
from ..linear_sum import Rows, divide, normalised, product_dtype, with_ones

WHOLE = 8
"""Chunks taken at a time where there is no causal mask: then no C x C scores stand beside the features."""


class Sums(NamedTuple):
    """What is known of the keys so far."""

    known: Tensor
    """(B, Hkv, m, Dv + 1): sums over j of exp(b_jf - top) v_j, and in the last column of exp(b_jf - top)."""
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
    budget=Budget("features", lambda n, causal, length: {"num_features": n}),
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
        return divide(scores, scores.sum(dim=-1, keepdim=True))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        if causal:
            return self._causal(q, k, v, scale)[0]
        dtype = product_dtype(q.dtype)
        known = self._absorb_all(self._nothing(k, v), k, v, scale).known.to(dtype)
        x, joined, step = q.unflatten(1, (k.shape[1], -1)), Rows(q.shape[2]), WHOLE * self.chunk_size
        for start in range(0, q.shape[2], step):
            rows = slice(start, min(start + step, q.shape[2]))
            found = self._query_features(x[:, :, :, rows].flatten(2, 3), scale, dtype) @ known
            out = normalised(found).to(q.dtype)  # (B, Hkv, G·C, Dv)
            joined.put(rows, out.unflatten(2, (x.shape[2], -1)))
        return joined.joined().flatten(1, 2)

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
        sums = self._absorb(Sums(**state.tensors), self._keys(k, scale), with_ones(v, wide(v.dtype)))
        fq = self._query_features(
            q.unflatten(1, (k.shape[1], -1)).flatten(2, 3), scale, wide(q.dtype)
        )  # (B, Hkv, G, m)
        found = fq @ sums.known
        out = normalised(found).view(*q.shape[:3], v.shape[3])
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
            b = self._keys(k[:, :, cols], scale)  # (B, Hkv, C, m)
            vc = with_ones(v[:, :, cols], wide(v.dtype))
            fq = self._query_features(rows.flatten(2, 3), scale, wide(q.dtype))  # (B, Hkv, G·C, m)

            # Each key's own maximum is its log weight; what a row knows so far sets the row's stabiliser. Every
            # exponential is at most 1, and nothing of a later key enters. All of it cancels, so no gradient is lost.
            own = b.detach().amax(dim=-1, keepdim=True)  # (B, Hkv, C, 1)
            top = torch.maximum(own.cummax(dim=2).values, sums.top)  # (B, Hkv, C, 1), per row
            future = torch.ones(c, c, dtype=torch.bool, device=q.device).triu_(1)
            shrink = (own.mT - top).masked_fill(future, float("-inf")).exp().unsqueeze(2)  # (B, Hkv, 1, C, C)
            inner = (fq @ (b - own).exp().mT).unflatten(2, (-1, c)) * shrink  # (B, Hkv, G, C, C)
            past = (sums.top - top).exp().unsqueeze(2)  # (B, Hkv, 1, C, 1)
            found = past * (fq @ sums.known).unflatten(2, (-1, c)) + inner @ vc.unsqueeze(2)  # (B, Hkv, G, C, Dv + 1)
            parts.append(normalised(found))
            sums = self._absorb(sums, b, vc)
        out = torch.cat(parts, dim=3).flatten(1, 2).to(q.dtype)
        return prepend_zeros(out, blind), sums

    def _nothing(self, k: Tensor, v: Tensor) -> Sums:
        """The sums over no keys."""
        shape, dtype = (*k.shape[:2], self.num_features), wide(k.dtype)
        return Sums(
            torch.zeros(*shape, v.shape[3] + 1, dtype=dtype, device=k.device),
            torch.full((*k.shape[:2], 1, 1), float("-inf"), dtype=dtype, device=k.device),
        )

    def _absorb_all(self, sums: Sums, k: Tensor, v: Tensor, scale: float) -> Sums:
        step = WHOLE * self.chunk_size
        for start in range(0, k.shape[2], step):
            cols = slice(start, start + step)
            values = with_ones(v[:, :, cols], product_dtype(v.dtype))
            sums = self._absorb(sums, self._keys(k[:, :, cols], scale), values)
        return sums

    @staticmethod
    def _absorb(sums: Sums, b: Tensor, v: Tensor) -> Sums:
        """Adds keys, by the exponents of their features b (B, Hkv, C, m), with values and ones v (B, Hkv, C, Dv + 1).

        The two are multiplied in v's dtype. The difference from the stabiliser is rounded to it, not the exponential:
        the same relative error where a feature counts, near a difference of 0, and half the work.
        """
        top = torch.maximum(sums.top, b.detach().amax(dim=(-2, -1), keepdim=True))
        fk, shrink = (b - top).to(v.dtype).exp(), (sums.top - top).exp()
        return Sums(sums.known * shrink + fk.mT @ v, top)

    def _query_features(self, q: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
        """phi(q) over its sum: what a row's features are multiplied by is gone once the row is normalised.

        Multiplied in `dtype`. What bfloat16 rounds off a query's exponents stays in its row; what it would round off
        a key's, every row would find in the sums, so keys are multiplied in the dtype of the sums.
        """
        return (q.to(dtype) @ self._directions(q, scale).to(dtype).mT).softmax(dim=-1)

    def _keys(self, k: Tensor, scale: float) -> Tensor:
        """Exponents of keys' features, (B, Hkv, C, m), in the dtype that sums are kept in."""
        return self._exponents(k.to(wide(k.dtype)), scale)

    def _exponents(self, x: Tensor, scale: float) -> Tensor:
        """w·x - ‖x‖²/2 of x · sqrt(scale), (…, D) -> (…, m)."""
        w = self._directions(x, scale).to(x.dtype)
        return (x @ w.mT).sub_(x.square().sum(dim=-1, keepdim=True) * (scale / 2))

    def _directions(self, x: Tensor, scale: float) -> Tensor:
        """W · sqrt(scale), (m, D), in the dtype that sums are kept in."""
        if scale < 0:
            raise VariantError(f"{self.name}: scale must not be negative, its square root is taken; it is {scale}")
        return projection(self.num_features, x.shape[-1], self.seed, wide(x.dtype), x.device) * math.sqrt(scale)

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
