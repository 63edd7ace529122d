"""LongNet: dilated attention. Short segments are seen in full, long ones sparsely, all in one softmax.

Ding et al. 2023, "LongNet: Scaling Transformers to 1,000,000,000 Tokens", arXiv:2307.02486, its "dilated attention" and
"multi-head dilated attention". A level cuts the sequence into segments of w tokens and attends, inside each, among
every r-th of them; head h starts at h mod r. Levels are mixed by the shares of their softmax denominators: that is one
softmax, in which a key counts once for each level that sees it. In a level, a token that is left out neither asks nor
is seen.

The paper's levels are w = 2048, 4096, 8192, 16384, 32768 with r = 1, 2, 4, 6, 12. Its public code (torchscale) gives
blocks of neighbouring heads one start, takes no gradient of the shares, and pads lengths that are no multiple with keys
of zeros, which are seen where attention is not causal. Here the paper is followed, and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..api import Budget, CaseLike, Complexity, Identity, State, Supports, Variant, VariantError, register, repeat_heads
from ..blocks import blind_rows, prepend_zeros, wide
from ..definitions import positions
from ..merged import attend_lse, attend_lse_backward


@register(
    "longnet",
    family="chunked",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(
        time=1,
        memory=1,
        text="O(N d sum(w / r²)) time, O(N d) memory; decoding keeps the largest segment's tokens at most",
        state=0,
    ),
    paper='Ding et al. 2023, "LongNet: Scaling Transformers to 1,000,000,000 Tokens", arXiv:2307.02486',
    formula="softmax over levels (w, r) together: the keys of one's segment of w at h mod r, and every r-th after it",
    reduces_to="softmax attention where one segment holds all and its dilation is 1; block_local with one level of "
    "dilation 1",
    # the levels' shares w / r² come to twice the first one's w, and to half of that if causal
    budget=Budget("keys", lambda n, causal, length: {"segment_size": max(1, n if causal else n // 2)}),
    identities=(
        Identity("longnet(segment_size={N}, dilations='1')", "naive"),
        Identity("longnet(segment_size={N}, dilations='1,1,1')", "naive"),
        Identity("longnet(segment_size=16, dilations='1')", "block_local(chunk_size=16)"),
    ),
)
@dataclass(frozen=True)
class LongNet(Variant):
    """Each level and shift is a strided view; its fused attention is merged with the others by their log-sum-exp."""

    segment_size: int = 2048
    """w of the first level; it doubles from level to level."""
    dilations: str = "1,2,4,6,12"
    """r of each level, and how many there are."""

    def __post_init__(self) -> None:
        self.require(segment_size=1)
        parts = self.dilations.split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise VariantError(
                f"longnet: dilations must be whole numbers from 1 with commas between, not {self.dilations!r}"
            )

    def levels(self) -> list[tuple[int, int]]:
        """(w, r) of each."""
        return [(self.segment_size << i, int(part)) for i, part in enumerate(self.dilations.split(","))]

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        head = torch.arange(q.shape[1], device=q.device)[:, None, None]
        times = torch.zeros(q.shape[1], len(rows), k.shape[2], dtype=q.dtype, device=q.device)
        for w, r in self.levels():
            near = i.div(w, rounding_mode="floor") == j.div(w, rounding_mode="floor")
            near = near & (j <= i) if causal else near
            times += near & (i % w % r == head % r) & (j % w % r == head % r)
        scores = scale * q[:, :, rows] @ k.mT + times.clamp(min=1).log()  # (B, H, R, Nk)
        weights = scores.masked_fill(times == 0, float("-inf")).softmax(dim=-1)
        return weights.masked_fill((times == 0).all(dim=-1, keepdim=True), 0.0)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        blind = blind_rows(q.shape[2], k.shape[2])  # queries before the first key are in no segment of keys
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])  # the heads of a group see different keys
        pieces = tuple(
            piece
            for level in self.levels()
            for piece in cut(*level, q.shape[1], q.shape[2] - blind, k.shape[2], causal)
        )
        out: Tensor = _Mixture.apply(q[:, :, blind:], k, v, pieces, scale)  # type: ignore[no-untyped-call]
        return prepend_zeros(out, blind)

    def keep(self, state: State) -> State:
        """The newest token's segment of the last level so far: every other level's lies inside it."""
        own = (state.seen - 1) % self.levels()[-1][0] + 1
        return State(state.seen, {name: kept[:, :, -own:].clone() for name, kept in state.tensors.items()})

    def flops_needed(self, case: CaseLike) -> int:
        """2 (D + Dv) for each pair that a level sees, in each head."""
        rows, n_k = min(case.n_q, case.n_k), case.n_k
        pairs = 0
        for w, r in self.levels():
            for s in range(min(r, case.heads)):
                heads = -(-(case.heads - s) // r)
                seen = level_pairs(w, r, s, n_k, n_k, case.causal) - level_pairs(w, r, s, n_k - rows, n_k, case.causal)
                pairs += heads * seen
        return 4 * case.head_dim * case.batch * pairs


def level_pairs(w: int, r: int, s: int, p: int, n_k: int, causal: bool) -> int:
    """Pairs that a level sees, with the shift s, of queries at positions 0 … p - 1."""

    def members(length: int) -> int:  # of the first tokens of a segment
        return max(0, -(-(length - s) // r))

    whole, rest = divmod(p, w)
    full, part = members(w), members(rest)
    if causal:
        return whole * (full * (full + 1) // 2) + part * (part + 1) // 2
    return whole * full * full + part * members(min(w, n_k - whole * w))


class Picked(NamedTuple):
    """Every r-th token, from `first`, of n stretches of equal length that fill start … stop - 1."""

    start: int
    stop: int
    n: int
    first: int
    r: int

    def of(self, x: Tensor, heads: slice) -> Tensor:
        """A view (B, Hs, n, T, ·) of x (B, H, N, ·)."""
        stretches: Tensor = x[:, heads, self.start : self.stop].unflatten(2, (self.n, -1))
        return stretches[:, :, :, self.first :: self.r]

    def flat(self, x: Tensor, heads: slice) -> Tensor:
        """The same as (B·Hs, n, T, ·): stretches take the place of heads. A copy where r > 1 and B > 1."""
        x = self.of(x, heads).flatten(0, 1)
        return x if x.stride(-1) == 1 else x.contiguous()

    @property
    def empty(self) -> bool:
        return self.first >= (self.stop - self.start) // self.n


class Piece(NamedTuple):
    """Rows and the keys they see, stretch by stretch: all of them, or, where causal, those up to the row's own."""

    heads: slice
    rows: Picked
    cols: Picked
    causal: bool


def cut(w: int, r: int, heads: int, n_q: int, n_k: int, causal: bool) -> Iterator[Piece]:
    """The pieces of a level: for each shift, whole segments, and those that either end of the queries cuts short."""
    shift = n_k - n_q  # position of the first query, not negative
    body = min(n_k, -(-shift // w) * w)  # where whole segments begin
    tail = max(body, n_k // w * w)  # and where they end
    for s in range(min(r, heads)):
        which = slice(s, None, r)
        for start, end in ((shift, body), (body, tail), (tail, n_k)):
            if start == end:
                continue
            if (start, end) == (body, tail):
                n, first, low, high = (tail - body) // w, s, body, tail
            else:
                low = start // w * w
                n, first, high = 1, (s - start + low) % r, end if causal else min(low + w, n_k)
            rows = Picked(start - shift, end - shift, n, first, r)
            if rows.empty:
                continue
            if not causal:
                yield Piece(which, rows, Picked(low, high, n, s, r), False)
                continue
            yield Piece(which, rows, Picked(start, end, n, first, r), True)
            earlier = Picked(low, start, 1, s, r)
            if start > low and not earlier.empty:
                yield Piece(which, rows, earlier, False)


class _Mixture(torch.autograd.Function):
    """q (B, H, Nq, D), k, v (B, H, Nk, ·) -> (B, H, Nq, Dv): one softmax over what all pieces see.

    Nothing is kept of a piece. With the output and the log-sum-exp of the whole mixture, a piece's part of the
    gradients is that of plain attention: the shares of the pieces need no gradient of their own.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, pieces: tuple[Piece, ...], scale: float) -> Tensor:
        mixed = torch.zeros(*q.shape[:3], v.shape[3], dtype=wide(q.dtype), device=q.device)
        lse = mixed.new_full((*q.shape[:3], 1), float("-inf"))
        for heads, rows, cols, causal in pieces:
            seen = rows.flat(q, heads), cols.flat(k, heads), cols.flat(v, heads)
            part, part_lse = attend_lse(*seen, scale=scale, causal=causal)
            into, old = rows.of(mixed, heads), rows.of(lse, heads)
            part_lse = part_lse.to(lse.dtype).unsqueeze(-1).reshape(old.shape)
            new = torch.logaddexp(old, part_lse)
            into.mul_((old - new).exp_()).add_(part.to(mixed.dtype).reshape(into.shape).mul_((part_lse - new).exp_()))
            old.copy_(new)
        out = mixed.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.options = pieces, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        pieces, scale = ctx.options
        sums = [torch.zeros(x.shape, dtype=lse.dtype, device=x.device) for x in (q, k, v)]
        for heads, rows, cols, causal in pieces:
            seen = rows.flat(q, heads), cols.flat(k, heads), cols.flat(v, heads)
            whole = rows.flat(out, heads), rows.flat(lse, heads).squeeze(-1)
            parts = attend_lse_backward(rows.flat(grad, heads), *seen, *whole, scale=scale, causal=causal)
            for total, which, part in zip(sums, (rows, cols, cols), parts, strict=True):
                into = which.of(total, heads)
                into.add_(part.reshape(into.shape))
        return *(total.to(x.dtype) for total, x in zip(sums, (q, k, v), strict=True)), None, None
