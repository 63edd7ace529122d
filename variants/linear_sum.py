"""Weights that are products of features, phi(q)·phi(k), over their sum: keys and values are summed once and for all.

A method writes its features and, where there is a cheaper way, its scores inside a chunk. From them come the causal
form (chunks of C: scores inside a chunk, a sum of phi(k) vᵀ for everything before it), the non-causal one, and a state
of fixed size for decoding. Values carry a last 1, so that each sum over [v, 1] brings its normaliser along. The weights
must not be negative: a row whose weights are all 0 gives zeros.

Features and sums are kept in float32 (float64 for float64). Matrices are multiplied in bfloat16 where the inputs are
bfloat16: its products are exact in float32, in which the hardware adds them up. Not so for float16, where features and
sums of large inputs would overflow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .api import CaseLike, State, Variant
from .blocks import blind_rows, prepend_zeros, wide
from .decay import decayed_states


class LinearSum(Variant):
    """Base of normalised linear attention. A subclass has a parameter `chunk_size` and writes `queries` and `keys`."""

    chunk_size: int

    def queries(self, q: Tensor, first: int, scale: float) -> Tensor:
        """Features of queries at positions first, first + 1, …: (…, L, D) -> (…, L, F), as wide or wider."""
        raise TypeError(f"{type(self).__name__} must define `queries`")

    def keys(self, k: Tensor, first: int) -> Tensor:
        """Features of keys at positions first, first + 1, …: (…, L, D) -> (…, L, F)."""
        raise TypeError(f"{type(self).__name__} must define `keys`")

    def width(self, head_dim: int) -> int:
        """F: how many features a vector of D numbers has."""
        return head_dim

    def span(self, head_dim: int) -> int | None:
        """How many tokens' features are held at a time, or None for all of them.

        Where a sequence is longer, its spans are taken in turn, and the backward pass computes their features again.
        """
        return None

    def inner(self, q: Tensor, k: Tensor, fq: Tensor, fk: Tensor, scale: float) -> Tensor:
        """Scores inside a chunk (…, G·C, C), from the vectors (…, ·, D) or from their features (…, ·, F).

        Vectors and features are of `product_dtype`, and so are the scores.
        """
        return fq @ fk.mT

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        if causal:
            return self._causal(q, k, v, scale)[0]
        n_q, n_k = q.shape[2], k.shape[2]
        x = q.unflatten(1, (k.shape[1], -1))  # (B, Hkv, G, Nq, D)
        # positions end together, and none is negative
        known = self._absorb_all(k, v, k.shape[2], max(0, n_q - n_k))
        run, out = self._runner(n_q, q.shape[3]), Rows(n_q)
        for rows in self._spans(n_q, q.shape[3]):
            out.put(rows, run(self._read, x[:, :, :, rows], known, max(0, n_k - n_q) + rows.start, scale))
        return out.joined().flatten(1, 2).to(q.dtype)

    def prefill(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> tuple[Tensor, State]:
        """As `forward`, and the sum of phi(k) [v, 1]ᵀ (B, Hkv, F, Dv + 1): of fixed size."""
        self.check(q, k, v, causal=True, extras={})
        out, known = self._causal(q, k, v, self.default_scale(q, scale))
        return out, State(k.shape[2], {"known": known})

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None
    ) -> tuple[Tensor, State]:
        """One token more is added to the sum, then it is read."""
        self.check(q, k, v, causal=True, extras={})
        known = self._absorb(k, v, state["known"], state.seen)
        out = self._read(q.unflatten(1, (k.shape[1], -1)), known, state.seen, self.default_scale(q, scale))
        return out.flatten(1, 2).to(q.dtype), State(state.seen + 1, {"known": known})

    def flops_needed(self, case: CaseLike) -> int:
        """The recurrence's products: each key adds phi(k) vᵀ to a sum, each query reads the sum and the normaliser."""
        d, features = case.head_dim, self.width(case.head_dim)
        queries, keys = case.batch * case.heads * case.n_q, case.batch * case.kv_heads * case.n_k
        return 2 * features * d * (keys + queries) + 2 * features * queries

    def _causal(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Output (B, H, Nq, Dv) and the sum (B, Hkv, F, Dv + 1) after the last token."""
        blind = blind_rows(q.shape[2], k.shape[2])
        n = q.shape[2] - blind
        early = k.shape[2] - n  # keys before the first query that sees one
        x = q[:, :, blind:].unflatten(1, (k.shape[1], -1))  # (B, Hkv, G, Nq, D)
        known = self._absorb_all(k, v, early, 0)
        y, z = k[:, :, early:], v[:, :, early:]
        run, out = self._runner(n, q.shape[3]), Rows(n)
        for rows in self._spans(n, q.shape[3]):
            span = x[:, :, :, rows], y[:, :, rows], z[:, :, rows]
            part, known = run(self._chunks, *span, known, early + rows.start, scale)
            out.put(rows, part)
        return prepend_zeros(out.joined().flatten(1, 2).to(q.dtype), blind), known

    def _chunks(
        self, q: Tensor, k: Tensor, v: Tensor, known: Tensor, first: int, scale: float
    ) -> tuple[Tensor, Tensor]:
        """q (B, Hkv, G, L, D), k, v (B, Hkv, L, ·) and the sum before -> out (B, Hkv, G, L, Dv), the sum after."""
        g, length = q.shape[2:4]
        c = min(self.chunk_size, length)
        short = -length % c  # features of zero fill the last chunk: they add nothing, and their rows are cut off

        def cut(t: Tensor) -> Tensor:  # (…, L, ·) -> (…, n, C, ·)
            t = F.pad(t, (0, 0, 0, short)) if short else t
            return t.unflatten(-2, (-1, c))  # type: ignore[no-any-return]

        def cut_rows(t: Tensor) -> Tensor:  # (B, Hkv, G, L, ·) -> (B, Hkv, n, G·C, ·)
            return cut(t).transpose(2, 3).flatten(3, 4)

        dtype = product_dtype(q.dtype)
        fq = cut_rows(self.queries(q, first, scale).to(dtype))
        fk, values = cut(self.keys(k, first).to(dtype)), cut(with_ones(v, dtype))
        # Sums before each chunk. Shifted, not "running sum less own": that would let the future in by rounding.
        added = (fk.mT @ values).to(known.dtype)
        sums = decayed_states(added, added.new_ones(()).expand(1, 1, 1, 1, 1), known)  # (B, Hkv, n + 1, F, Dv + 1)
        future = torch.ones(c, c, dtype=torch.bool, device=q.device).triu_(1).repeat(g, 1)
        inner = self.inner(cut_rows(q.to(dtype)), cut(k.to(dtype)), fq, fk, scale)  # (B, Hkv, n, G·C, C)
        found = inner.masked_fill(future, 0.0) @ values + fq @ sums[:, :, :-1].to(dtype)
        out = normalised(found.to(known.dtype)).unflatten(3, (g, c)).transpose(2, 3).flatten(3, 4)[:, :, :, :length]
        # a copy of its own: a view would keep the sums before every chunk alive
        return out, sums[:, :, -1].clone()

    def _absorb(self, k: Tensor, v: Tensor, known: Tensor, first: int) -> Tensor:
        """The sum, and that over more keys at positions first, first + 1, …"""
        dtype = product_dtype(k.dtype)
        return known + self.keys(k, first).to(dtype).mT @ with_ones(v, dtype)

    def _absorb_all(self, k: Tensor, v: Tensor, n: int, first: int) -> Tensor:
        """The sum over the first n keys."""
        shape = (*k.shape[:2], self.width(k.shape[3]), v.shape[3] + 1)
        known = torch.zeros(shape, dtype=wide(k.dtype), device=k.device)
        run = self._runner(n, k.shape[3])
        for cols in self._spans(n, k.shape[3]):
            known = run(self._absorb, k[:, :, cols], v[:, :, cols], known, first + cols.start)
        return known

    def _read(self, q: Tensor, known: Tensor, first: int, scale: float) -> Tensor:
        """What queries (B, Hkv, G, L, D) find in a sum: (B, Hkv, G, L, Dv)."""
        dtype = product_dtype(q.dtype)
        rows = self.queries(q, first, scale).to(dtype).flatten(2, 3)
        out: Tensor = normalised((rows @ known.to(dtype)).to(known.dtype)).unflatten(2, q.shape[2:4])
        return out

    def _spans(self, n: int, head_dim: int) -> Iterator[slice]:
        """Whole chunks, as many as fit into a span."""
        span = self.span(head_dim)
        length = n if span is None else max(1, span // self.chunk_size) * self.chunk_size
        return (slice(start, min(start + length, n)) for start in range(0, n, max(1, length)))

    def _runner(self, n: int, head_dim: int) -> Callable[..., Any]:
        """Calls a part of the forward pass. Where n tokens take many spans, none of their features are kept."""
        span = self.span(head_dim)
        if span is None or n <= span or not torch.is_grad_enabled():
            return lambda part, *args: part(*args)
        return functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


class Rows:
    """Collects an output (B, Hkv, G, N, Dv) span by span: without gradients, in place."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.parts: list[Tensor] = []

    def put(self, rows: slice, part: Tensor) -> None:
        if torch.is_grad_enabled() or part.shape[3] == self.n:
            self.parts.append(part)
            return
        if not self.parts:
            self.parts.append(part.new_empty(*part.shape[:3], self.n, part.shape[4]))
        self.parts[0][:, :, :, rows] = part

    def joined(self) -> Tensor:
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts, dim=3)


def product_dtype(dtype: torch.dtype) -> torch.dtype:
    """What matrices are multiplied in for inputs of a dtype; their sums over many tokens are kept in `wide`."""
    return dtype if dtype == torch.bfloat16 else wide(dtype)


def with_ones(v: Tensor, dtype: torch.dtype) -> Tensor:
    """(…, Dv) -> (…, Dv + 1): a last column of ones, whose weighted sums are the normalisers."""
    return F.pad(v.to(dtype), (0, 1), value=1.0)


def normalised(found: Tensor) -> Tensor:
    """(…, Dv + 1) -> (…, Dv): weighted sums of [v, 1], over those of the ones."""
    return divide(found[..., :-1], found[..., -1:])


def divide(num: Tensor, den: Tensor) -> Tensor:
    """num / den, and 0, with gradients of 0, where den is 0: the normaliser is a sum of non-negative terms."""
    return num / torch.where(den > torch.finfo(den.dtype).tiny, den, torch.inf)
