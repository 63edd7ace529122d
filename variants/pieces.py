"""Softmax attention in bfloat16 on a CPU that multiplies it: by matrix products, of a piece of the scores at a time.

torch's fused CPU kernel computes bfloat16 at the speed of float32. Where the processor has instructions for bfloat16,
matrix products of it are several times as fast, and this form takes half of the fused one's time; its scores are
rounded to bfloat16, as those of the plain formula are. No more scores exist at once than stay in a core's cache.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

PIECE = 1 << 20
"""Scores of a piece: 2 MiB of them, and as much of weights. The time is the same for half or four times as many."""
FEWEST_ROWS = 16
"""Of a product; with fewer, there is too little to multiply for its start to be worth it."""


def pays(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether this form is the faster one: nothing is differentiated, and the processor multiplies bfloat16."""
    return (
        q.device.type == "cpu"
        and q.dtype == k.dtype == v.dtype == torch.bfloat16
        and q.shape[2] >= FEWEST_ROWS
        and not torch.compiler.is_compiling()
        and not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad))
        and multiplies_bfloat16()
    )


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def attend_in_pieces(q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool, allowed: Tensor | None) -> Tensor:
    """Softmax attention of q (B, H, Nq, D) over k (B, Hkv, Nk, D) and v (B, Hkv, Nk, Dv); returns (B, H, Nq, Dv).

    `causal` aligns bottom-right; `allowed` (Nq, Nk) is a boolean mask in its place. Every row must see a key.
    """
    batch, heads, n_q, _ = q.shape
    n_k, group = k.shape[2], heads // k.shape[1]
    out = q.new_empty(batch, heads, n_q, v.shape[3])
    rows = min(n_q, max(1, PIECE // n_k))
    for start in range(0, n_q, rows):
        end = min(start + rows, n_q)
        seen = n_k - n_q + end if causal else n_k
        mask = _mask(q, start, end, seen, n_k - n_q, causal, allowed)
        side = max(1, PIECE // ((end - start) * seen))  # heads of a piece
        for entry in range(batch):
            if group == 1:
                spans = [(slice(h, h + side), slice(h, h + side)) for h in range(0, heads, side)]
            else:  # the query heads of one key head at a time
                spans = [(slice(h, h + group), slice(h // group, h // group + 1)) for h in range(0, heads, group)]
            for ours, theirs in spans:
                piece = q[entry, ours, start:end]
                keys = k[entry, theirs, :seen].expand(piece.shape[0], -1, -1)
                values = v[entry, theirs, :seen].expand(piece.shape[0], -1, -1)
                if mask is None:
                    scores = torch.bmm(piece * scale, keys.transpose(1, 2))
                else:
                    scores = torch.baddbmm(mask, piece, keys.transpose(1, 2), alpha=scale)
                torch.bmm(torch.softmax(scores, -1), values, out=out[entry, ours, start:end])
    return out


def _mask(
    q: Tensor, start: int, end: int, seen: int, shift: int, causal: bool, allowed: Tensor | None
) -> Tensor | None:
    """What is added to the scores of some rows: 0 where a key may be seen, -inf elsewhere; None where all may."""
    if allowed is not None:
        visible = allowed[start:end, :seen]
    elif causal and end - start > 1:
        visible = torch.ones(end - start, seen, dtype=torch.bool, device=q.device).tril_(shift + start)
    else:
        return None
    return q.new_zeros(visible.shape).masked_fill_(~visible, -torch.inf)
