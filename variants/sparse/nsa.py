"""NSA, native sparse attention: a gated sum of compressed blocks, of chosen blocks, and of a window.

Yuan et al. 2025, "Native Sparse Attention: Hardware-Aligned and Natively Trainable Sparse Attention", arXiv:2502.11089,
section 3: equation 5 is the gated sum, 7 the compression of blocks of l keys that start d apart, 8 and 9 the importance
of a block from the probabilities of the compressed keys that overlap it, 10 its sum over the query heads that share a
key head, 11 and 12 the choice. Equation 9, whose indices count from one, adds for each block up each stride of d keys
that it shares with a compressed one; so it is written here. The first block and the two last ones are always chosen
and count among the n, as in the paper's experiments (section 4.1).

Where this differs from the paper: the mean of a block stands for its learned compression, without which the operator
would need weights of its own; and the three branches share one k and v, where the paper projects them three times.
A compressed block is seen once all its l keys are in the past: before, that branch gives zeros. The choice belongs to
the group of query heads that share a key head, so key heads that are repeated are another operator.

Probabilities that choose are computed in one arithmetic for every dtype, see `chosen_blocks`. The compressed keys
make it quadratic: the query at position N has N / d of them, as many as the n l' + w keys of the two other branches at
N = 24,576 with the paper's sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import (
    DEFINITION_BLOCK,
    Complexity,
    Extra,
    Identity,
    State,
    Supports,
    Variant,
    VariantError,
    register,
    repeat_heads,
)
from ..block_tiles import attend_chosen
from ..blocks import attend, banded, prepend_zeros, wide
from ..chosen_blocks import choose_past, own_block, own_pairs, past_blocks, seen_keys
from ..definitions import masked_softmax, positions
from .sliding_window import band_pairs

TINY = "compress_size=4, compress_stride=2, block_size=4"


@register(
    "nsa",
    family="sparse",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True),
    complexity=Complexity(
        time=2,
        memory=1,
        state=1,
        text="O(N (n l' + w) d + N² d / stride) time, the second term as large as the first at N = stride (n l' + w); "
        "O(N d) memory and n pairs a query for training",
    ),
    paper='Yuan et al. 2025, "Native Sparse Attention: Hardware-Aligned and Natively Trainable Sparse Attention", '
    "arXiv:2502.11089, eq. 5 to 12",
    formula="g1 · attention to block means + g2 · attention to the n best blocks + g3 · attention to the last w keys",
    reduces_to="softmax attention where gates = (0, 1, 0) and num_selected · block_size >= N; "
    "sliding_window where gates = (0, 0, 1)",
    extras=(
        Extra(
            "gates",
            ("B", "H", "N", "3"),
            "how much of the compressed, the chosen and the window branch is added",
            activate=torch.sigmoid,
            extremes=(0.0, 1.0),
        ),
    ),
    identities=(
        Identity(f"nsa({TINY}, num_selected={{N}})", "naive", extras={"gates": (0.0, 1.0, 0.0)}),
        Identity(f"nsa({TINY}, window_size=5)", "sliding_window(window_size=5)", extras={"gates": (0.0, 0.0, 1.0)}),
        Identity("nsa(compress_size=1, compress_stride=1, block_size=4)", "naive", extras={"gates": (1.0, 0.0, 0.0)}),
    ),
)
@dataclass(frozen=True)
class Nsa(Variant):
    """Compressed keys in one fused causal call, chosen blocks gathered block by block, the window in bands."""

    compress_size: int = 32
    """l: keys of a compressed block."""
    compress_stride: int = 16
    """d: keys from the start of one compressed block to that of the next. Divides l and block_size."""
    block_size: int = 64
    """l': keys of a block that is chosen or not, counted from the first key."""
    num_selected: int = 16
    """n: blocks chosen, of which the first and the two last always are. Fewer where fewer have begun."""
    window_size: int = 512
    """w: keys of the window, the query's own position counted."""

    choice_of_group: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.require(compress_size=1, compress_stride=1, block_size=1, num_selected=3, window_size=1)
        for name in ("compress_size", "block_size"):
            if getattr(self, name) % self.compress_stride:
                raise VariantError(
                    f"{self.name}: compress_stride must divide {name}, and {self.compress_stride} does not divide "
                    f"{getattr(self, name)}"
                )

    # -- what -----------------------------------------------------------------------------------------------------

    def definition(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = False,
        scale: float | None = None,
        rows: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        **extras: Tensor,
    ) -> Tensor:
        self.check(q, k, v, causal=causal, extras=extras)
        rows = torch.arange(q.shape[2], device=q.device) if rows is None else rows
        scale, gates = self.default_scale(q, scale), extras["gates"].to(dtype)
        q, k, v = q.to(dtype), k.to(dtype), repeat_heads(v.to(dtype), q.shape[1])
        step = max(1, DEFINITION_BLOCK // (4 * q.shape[0] * q.shape[1] * k.shape[2]))
        blocks = [
            self.weights(q, k, causal=causal, scale=scale, rows=some, gates=gates) @ v for some in rows.split(step)
        ]
        return torch.cat(blocks, dim=2)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, gates: Tensor) -> Tensor:
        """k may have Hkv heads: the H / Hkv query heads of each then choose together."""
        heads = q.shape[1]
        i, j = positions(q, k, rows)
        starts = torch.arange(0, max(0, k.shape[2] - self.compress_size + 1), self.compress_stride, device=q.device)
        inside = (j >= starts[:, None]) & (j < starts[:, None] + self.compress_size)  # (n', Nk)
        ended = starts + self.compress_size - 1 <= i  # (R, n')

        means = inside.to(k.dtype) / self.compress_size
        compressed = self._compressed(q, means @ k, ended, scale, rows) @ means

        exact = self._compressed(q.detach().double(), means.double() @ k.detach().double(), ended, scale, rows)
        chosen = self._chosen(exact.unflatten(1, (k.shape[1], -1)).sum(dim=2), starts, i, j)
        chosen = chosen.repeat_interleave(heads // k.shape[1], dim=1)

        k = repeat_heads(k, heads)
        branches = (
            compressed,
            masked_softmax(q, k, scale=scale, rows=rows, allowed=chosen),
            masked_softmax(q, k, scale=scale, rows=rows, allowed=(j <= i) & (i - j < self.window_size)),
        )
        return sum(gates[:, :, rows, n, None] * branch for n, branch in enumerate(branches))  # type: ignore[return-value]

    def _compressed(self, q: Tensor, keys: Tensor, ended: Tensor, scale: float, rows: Tensor) -> Tensor:
        """Equation 8: the probabilities (B, H, R, n') of the compressed keys (B, Hkv, n', D)."""
        return masked_softmax(q, repeat_heads(keys, q.shape[1]), scale=scale, rows=rows, allowed=ended)

    def _chosen(self, probabilities: Tensor, starts: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Equations 9 to 12: which keys the n best blocks hold, from probabilities (B, Hkv, R, n') of a group."""
        c = self.block_size
        first = torch.arange(0, j.shape[1], c, device=j.device)  # of each block
        shared = torch.minimum(starts[:, None] + self.compress_size, first + c) - torch.maximum(starts[:, None], first)
        strides = shared.clamp(min=0) // self.compress_stride  # (n', n)
        importance = probabilities @ strides.double()  # (B, Hkv, R, n)
        block, own = first // c, i.div(c, rounding_mode="floor")
        importance = importance.masked_fill((block == 0) | (block == own - 1), float("inf"))
        return seen_keys(importance, i, j, block_size=c, count=self.num_selected - 1)

    # -- how ------------------------------------------------------------------------------------------------------

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, gates: Tensor) -> Tensor:
        return self._attend(q, k, v, self._pool(k.detach(), torch.float64), self._pools(k, v), scale, gates)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, exact: Tensor, pooled: tuple[Tensor, Tensor], scale: float, gates: Tensor
    ) -> Tensor:
        """q are the last queries; `exact` are the compressed keys in float64, `pooled` those and the values in q's."""
        compressed = self._staircase(q, *pooled, n_k=k.shape[2], scale=scale)
        chosen = self._attend_chosen(q, k, v, exact, scale)
        reach = self.window_size - 1
        window = banded(q, k, v, before=reach, after=0, scale=scale, block_size=128)
        g = gates.to(wide(q.dtype)).unsqueeze(-1)
        return (g[:, :, :, 0] * compressed + g[:, :, :, 1] * chosen + g[:, :, :, 2] * window).to(q.dtype)

    def _pool(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, Hkv, N, D) -> (B, Hkv, n', D): the means of the compressed blocks that have ended, sums in `dtype`."""
        d, pieces = self.compress_stride, self.compress_size // self.compress_stride
        n = self._ended(x.shape[2])
        if not n:
            return x.new_zeros(*x.shape[:2], 0, x.shape[3], dtype=dtype)
        strides = x[:, :, : (n - 1 + pieces) * d].unflatten(2, (-1, d)).sum(dim=3, dtype=dtype)
        total = strides[:, :, :n]
        for shift in range(1, pieces):
            total = total + strides[:, :, shift : shift + n]
        return total / self.compress_size  # type: ignore[no-any-return]

    def _pools(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._pool(k, wide(k.dtype)).to(k.dtype), self._pool(v, wide(v.dtype)).to(v.dtype)

    def _ended(self, n: int) -> int:
        """How many compressed blocks have ended after n keys."""
        return max(0, (n - self.compress_size) // self.compress_stride + 1)

    def _staircase(self, q: Tensor, k: Tensor, v: Tensor, *, n_k: int, scale: float) -> Tensor:
        """Attention to the compressed keys (B, Hkv, n', D) that have ended: (B, H, Nq, Dv).

        The d queries from the end of one compressed block to that of the next see the same ones. They stand beside
        each other as heads, and what is left is plain causal attention of every d-th query: no mask, one fused call.
        """
        b, h, n_q, dim = q.shape
        d, first = self.compress_stride, n_k - n_q - (self.compress_size - 1)  # of query 0, from the first end on
        blind = min(n_q, max(0, -first))
        if blind == n_q:
            return q.new_zeros(b, h, n_q, v.shape[3])
        q, first = q[:, :, blind:], first + blind
        if first // d == (first + q.shape[2] - 1) // d:  # one step of the stairs, as in decoding
            return prepend_zeros(attend(q, k, v, scale=scale), blind)
        lead = first % d
        q = F.pad(q, (0, 0, lead, -(lead + q.shape[2]) % d))
        steps = q.view(b, h, -1, d, dim).transpose(2, 3).reshape(b, h * d, -1, dim)
        out = attend(steps, k, v, scale=scale, causal=True).unflatten(1, (h, d)).transpose(2, 3).flatten(2, 3)
        return prepend_zeros(out[:, :, lead : lead + n_q - blind], blind)

    def _attend_chosen(self, q: Tensor, k: Tensor, v: Tensor, exact: Tensor, scale: float) -> Tensor:
        (b, h, n_q, d), (kv_heads, n_k) = q.shape, k.shape[1:3]
        group, c = h // kv_heads, self.block_size
        asking, exact = q.detach().reshape(b * kv_heads, group, n_q, d), exact.flatten(0, 1).unsqueeze(1)

        def choose(streams: slice, rows: slice, n: int) -> Tensor:
            first = rows.start + n_k - n_q
            seen = self._ended(first + rows.stop - rows.start)
            scores = (scale * asking[streams, :, rows].double()) @ exact[streams, :, :seen].mT  # (S, G, R, n')
            ends = torch.arange(seen, device=q.device) * self.compress_stride + self.compress_size - 1
            hidden = ends > torch.arange(first, first + scores.shape[2], device=q.device)[:, None]  # (R, n')
            scores = scores.masked_fill_(hidden, float("-inf")).softmax(dim=-1).masked_fill_(hidden, 0.0)
            own = own_block(n_q, n_k, rows, c, q.device)
            importance = self._importance(scores.sum(dim=1, keepdim=True), n)
            block = torch.arange(n, device=q.device)
            importance.masked_fill_((block == 0) | (block == own[:, None] - 1), float("inf"))
            return choose_past(importance, own, self.num_selected - 1)

        scored = 6 * (group + 1) * exact.shape[2] + 8 * group * d  # of a row: probabilities, their sums; q in float64
        sizes = {"choosers": 1, "block_size": c, "count": self.num_selected, "scored": scored}
        return attend_chosen(q, k, v, choose, scale=scale, **sizes)

    def _importance(self, probabilities: Tensor, n: int) -> Tensor:
        """Equation 9 for blocks 0 … n - 1: probabilities (…, n') of compressed blocks -> (…, n)."""
        pieces, strides = self.compress_size // self.compress_stride, self.block_size // self.compress_stride
        width = n * strides
        # a compressed block gives its probability to each stride that it covers, and a block sums up its strides
        padded = F.pad(probabilities, (pieces - 1, max(0, width - probabilities.shape[-1])))
        covered = padded[..., :width].clone()
        for shift in range(1, pieces):
            covered += padded[..., shift : shift + width]
        return covered.unflatten(-1, (n, strides)).sum(dim=-1)  # type: ignore[no-any-return]

    # -- decoding -------------------------------------------------------------------------------------------------

    def prefill(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """As `forward`, and the cache: k, v, and the compressed keys (in float64) and values (B, Hkv, n', ·)."""
        self.check(q, k, v, causal=True, extras=extras)
        exact, pooled = self._pool(k.detach(), torch.float64), self._pools(k, v)
        out = self._attend(q, k, v, exact, pooled, self.default_scale(q, scale), extras["gates"])
        return out, State(k.shape[2], {"k": k, "v": v, "pooled_k": exact, "pooled_v": pooled[1]})

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        self.check(q, k, v, causal=True, extras=extras)
        state = state.append({"k": k, "v": v})
        keys, values, exact, pooled_v = (state[name] for name in ("k", "v", "pooled_k", "pooled_v"))
        if self._ended(keys.shape[2]) > exact.shape[2]:
            last = slice(-self.compress_size, None)
            exact = torch.cat([exact, self._pool(keys[:, :, last].detach(), torch.float64)], dim=2)
            newest = self._pool(values[:, :, last], wide(v.dtype)).to(v.dtype)
            pooled_v = torch.cat([pooled_v, newest], dim=2)
        pooled = exact.to(k.dtype), pooled_v
        out = self._attend(q, keys, values, exact, pooled, self.default_scale(q, scale), extras["gates"])
        return out, replace(state, tensors={**state.tensors, "pooled_k": exact, "pooled_v": pooled_v})

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        """Of all three branches: compressed keys, keys of chosen blocks, keys of the window."""
        ends = max(0, n_k - self.compress_size + 1)  # queries at or after the first end of a compressed block
        compressed = past_blocks(ends, ends, self.compress_stride) + ends
        chosen = own_pairs(n_q, n_k, self.block_size)
        chosen += past_blocks(n_q, n_k, self.block_size, self.num_selected - 1) * self.block_size
        return compressed + chosen + band_pairs(n_q, n_k, self.window_size - 1, 0)
