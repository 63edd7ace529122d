"""Log-linear attention: not one state for all the past but log N of them, over spans that double with their distance.

Guo et al. 2025, "Log-Linear Attention", arXiv:2506.04761, section 3, with the scalar decay of its log-linear Mamba-2.
The past of token i falls into the spans of a Fenwick tree: level 0 is the token itself, and level l > 0 the left half
of the aligned block of 2^l tokens in whose right half i stands. So j belongs to level bit_length(i xor j). Each token
weighs the levels by its own lambda (`levels`).

The paper has as many levels as the longest sequence needs. Here `num_levels` is a parameter: what lies further back
than its last span shares the last level, so that any length runs, and decoding keeps num_levels - 1 states at most. Up
to 2^(num_levels - 1) tokens that is the paper's method. As in the other linear methods q is scaled by d^-1/2; the time
step that Mamba-2 multiplies into its writes is left to v.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..api import CaseLike, Complexity, Extra, Identity, State, Supports, Variant, register, repeat_heads
from ..blocks import wide
from ..decay import decay_matrix, decayed_states, level_matrix
from ..definitions import positions
from ..recurrence import fading

LINEAR = {"levels": 1.0, "log_decay": 0.0}


def within_block(q: Tensor, k: Tensor, v: Tensor, *, size: int, causal: bool, scale: float, **extras: Tensor) -> Tensor:
    """Linear attention of each token to the earlier ones of its own aligned block: the other side of an identity."""
    at = torch.arange(q.shape[2], device=q.device) // size
    return (scale * q @ k.mT).tril().masked_fill(at[:, None] != at, 0.0) @ v


@register(
    "log_linear",
    family="linear",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N log N d²) time, O(N d) memory; decoding keeps log N states of d² numbers", state=0
    ),
    paper='Guo et al. 2025, "Log-Linear Attention", arXiv:2506.04761',
    formula="o_i = sum_l lambda_i^(l) sum_{j in span l of i} exp(g_{j+1} + … + g_i) d^-1/2 q_i·k_j v_j",
    reduces_to="linear attention without a feature map where all levels weigh 1 and log_decay = 0, or with one level",
    extras=(
        # around 1: where all levels weigh the same it is linear attention
        Extra(
            "levels", ("B", "H", "N", "num_levels"), "weight of each level", F.softplus, bias=0.54, extremes=(0.0, 9.0)
        ),
        Extra("log_decay", ("B", "H", "N"), "log of what is kept, <= 0", F.logsigmoid, bias=4.0, extremes=(0.0, -50.0)),
    ),
    tuning=("chunk_size",),
    identities=(
        Identity("log_linear", fading, "equal levels without decay are linear attention", extras=LINEAR),
        Identity(
            "log_linear(num_levels=1)",
            fading,
            "one level without decay is linear attention",
            extras=LINEAR,
        ),
        Identity(
            "log_linear",
            functools.partial(fading, gamma=0.5),
            "equal levels under a constant decay are retention",
            extras={"levels": 1.0, "log_decay": lambda x: torch.full_like(x, math.log(0.5))},
        ),
        Identity(
            "log_linear(num_levels=5)",
            functools.partial(within_block, size=8),
            "the first four levels are the aligned block of 8",
            extras={"levels": (1.0, 1.0, 1.0, 1.0, 0.0), "log_decay": 0.0},
        ),
    ),
)
@dataclass(frozen=True)
class LogLinear(Variant):
    """Dense within chunks of C; between them one batch of products a level, in which half of the queries take part."""

    num_levels: int = 16
    """Levels that have a weight of their own; what lies further back shares the last."""
    chunk_size: int = 64
    """C: tokens of a chunk, rounded down to a power of two. Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(num_levels=1, chunk_size=1)

    def weights(
        self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, levels: Tensor, log_decay: Tensor
    ) -> Tensor:
        i, j = positions(q, k, rows)
        level = torch.frexp((i ^ j).double()).exponent.clamp_max(self.num_levels - 1).long()  # (R, Nk): bit lengths
        weight = levels[:, :, rows].gather(-1, level.expand(*q.shape[:2], -1, -1))
        total = log_decay.double().cumsum(dim=-1)
        decay = (total[:, :, rows, None] - total[:, :, None]).masked_fill(j > i, float("-inf")).exp()
        return scale * q[:, :, rows] @ k.mT * weight * decay.to(q.dtype)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, levels: Tensor, log_decay: Tensor
    ) -> Tensor:
        n, h, last = q.shape[2], q.shape[1], self.num_levels - 1
        # Spans lie at absolute positions: chunks are powers of two, and zeros fill the last one's end, not the front.
        c = min(1 << (self.chunk_size.bit_length() - 1), 1 << (n - 1).bit_length())
        x, y, z, lam, g = (
            F.pad(t.to(wide(q.dtype)), (0, 0) * (t.dim() - 3) + (0, -n % c)).unflatten(2, (-1, c))
            for t in (q, repeat_heads(k, h), repeat_heads(v, h), levels, log_decay)
        )
        x = scale * x
        matrix, before, after = decay_matrix(g)  # (B, H, m, C, C), (B, H, m, C) twice
        out = (x @ y.mT * (matrix * level_matrix(lam))) @ z  # (B, H, m, C, Dv)

        # Between chunks: states of blocks of `span` chunks, which are joined in pairs from level to level.
        kept = before[..., -1]  # (B, H, m)
        states, totals = (y * after.exp().unsqueeze(-1)).mT @ z, kept  # (B, H, blocks, D, Dv), (B, H, blocks)
        m, span, level = x.shape[2], 1, c.bit_length()
        while span < m and level < last:
            readers = [_blocks(t, span, 2) for t in (out, x, lam[..., level], before, kept)]
            memories = states[:, :, ::2]
            for (o, *rest), memory in zip(zip(*readers, strict=True), _like(memories, readers[0]), strict=True):
                o += _read(rest, memory)
            first, second = states[:, :, :-1:2], states[:, :, 1::2]
            share = totals[:, :, 1::2]
            states = share.exp()[..., None, None] * first + second
            totals = totals[:, :, :-1:2] + share
            span, level = 2 * span, level + 1
        if span < m:  # all that is further back shares the last level
            readers = [_blocks(t, span, 1) for t in (out, x, lam[..., last], before, kept)]
            memories = decayed_states(states, totals.exp()[..., None, None])[:, :, 1:]
            for (o, *rest), memory in zip(zip(*readers, strict=True), _like(memories, readers[0]), strict=True):
                o += _read(rest, memory)
        whole: Tensor = out.flatten(2, 3)[:, :, :n]
        return whole.to(q.dtype)

    def prefill(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, levels: Tensor, log_decay: Tensor
    ) -> tuple[Tensor, State]:
        """As `forward`, and a state for each level but 0 (B, H, max(1, num_levels - 1), D, Dv), zeros where unused."""
        out = self(q, k, v, causal=True, scale=scale, levels=levels, log_decay=log_decay)
        n, h, slots = q.shape[2], q.shape[1], max(1, self.num_levels - 1)
        x, y, g = (t.to(wide(q.dtype)) for t in (repeat_heads(k, h), repeat_heads(v, h), log_decay))
        later = F.pad(g[:, :, 1:], (0, 1)).flip(2).cumsum(dim=2).flip(2)  # g_{j+1} + … + g_{N-1}
        x = x * later.exp().unsqueeze(-1)
        memory = x.new_zeros(*x.shape[:2], slots, x.shape[3], y.shape[3])
        # the spans of the next token: one for every bit of N that is set, the longest first
        first = 0
        for bit in reversed(range(n.bit_length())):
            if n >> bit & 1:
                span = slice(first, first + (1 << bit))
                memory[:, :, min(bit, slots - 1)] += x[:, :, span].mT @ y[:, :, span]
                first = span.stop
        return out, State(n, {"memory": memory})

    def decode(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: State,
        *,
        scale: float | None = None,
        levels: Tensor,
        log_decay: Tensor,
    ) -> tuple[Tensor, State]:
        """Each level is read with its weight; then the levels that are full are joined, as a binary counter carries."""
        self.check(q, k, v, causal=True, extras={"levels": levels, "log_decay": log_decay})
        h = q.shape[1]
        x, y, z, lam = (t.to(wide(q.dtype)) for t in (q, repeat_heads(k, h), repeat_heads(v, h), levels))
        memory = log_decay.to(x.dtype).exp()[..., None, None] * state["memory"]  # (B, H, slots, D, Dv)
        write = y.mT @ z  # (B, H, D, Dv)
        slots = memory.shape[2]
        weight = lam[:, :, 0, -slots:, None, None]  # with one level, that of the token itself too
        read = (weight * memory).sum(dim=2) + lam[:, :, 0, 0, None, None] * write
        out = self.default_scale(q, scale) * x @ read
        full = min((~state.seen & (state.seen + 1)).bit_length() - 1, slots - 1)  # trailing ones of the count
        joined = memory[:, :, : full + 1].sum(dim=2) + write
        memory = torch.cat(
            [torch.zeros_like(memory[:, :, :full]), joined.unsqueeze(2), memory[:, :, full + 1 :]], dim=2
        )
        return out.to(q.dtype), State(state.seen + 1, {"memory": memory})

    def flops_needed(self, case: CaseLike) -> int:
        """The recurrence's products: each token is written once, and reads itself and the levels that hold any."""
        n, slots = case.n_k, self.num_levels - 1
        if slots < 1:
            reads = n
        else:
            # Level b + 1 holds something for the tokens with bit b set; the last, for all beyond its first span.
            reads = sum(_ones(n, bit) for bit in range(min(slots - 1, n.bit_length()))) + max(0, n - (1 << (slots - 1)))
        return case.batch * case.heads * (2 * case.head_dim**2 * (n + reads) + 4 * case.head_dim * n)


def _ones(n: int, bit: int) -> int:
    """How many of 0 … n - 1 have this bit set."""
    return (n >> (bit + 1) << bit) + max(0, n % (2 << bit) - (1 << bit))


def _blocks(x: Tensor, span: int, step: int) -> list[Tensor]:
    """(B, H, m, …) -> views (B, H, blocks, span, …) of every step-th block of `span` chunks but the first.

    The last block, where m cuts it short, is a view of its own.
    """
    whole = x.shape[2] // (step * span) * step * span
    views = [x[:, :, :whole].unflatten(2, (-1, step, span))[:, :, :, -1]] if whole else []
    if step == 1:
        views = [views[0][:, :, 1:]] if whole > span else []
    short = x[:, :, None, whole + (step - 1) * span :]
    return [*views, short] if short.shape[3] else views


def _like(states: Tensor, blocks: list[Tensor]) -> tuple[Tensor, ...]:
    """The states that go with the views of `_blocks`, in their order."""
    sizes = [view.shape[2] for view in blocks]
    parts: tuple[Tensor, ...] = states[:, :, : sum(sizes)].split(sizes, dim=2)
    return parts


def _read(tokens: Sequence[Tensor], states: Tensor) -> Tensor:
    """What the tokens of p blocks of s chunks read from the state (B, H, p, D, Dv) at their block's start.

    tokens: q (B, H, p, s, C, D), their weights and log decays since the chunk's start (B, H, p, s, C), and those of
    whole chunks (B, H, p, s). Gives (B, H, p, s, C, Dv). Computed again for the backward pass, which else would keep a
    copy of q for every level.
    """
    args = (*tokens, states)
    if torch.is_grad_enabled():
        out: Tensor = checkpoint(_read_now, *args, use_reentrant=False, preserve_rng_state=False)
        return out
    return _read_now(*args)


def _read_now(q: Tensor, weight: Tensor, before: Tensor, kept: Tensor, states: Tensor) -> Tensor:
    since = before + F.pad(kept[..., :-1], (1, 0)).cumsum(dim=-1).unsqueeze(-1)
    asked = q * (weight * since.exp()).unsqueeze(-1)
    out: Tensor = (asked.flatten(3, 4) @ states).unflatten(3, q.shape[3:5])
    return out
