"""Pieces that several fast forms share: rows that see nothing, heads in groups, bands of keys without a score matrix.

Attention here is torch's fused `scaled_dot_product_attention` called on views, but where matrix products are faster.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from . import pieces


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are kept in: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def blind_rows(n_q: int, n_k: int) -> int:
    """How many of the first causal queries stand before every key (bottom-right alignment) and so see nothing."""
    return max(0, n_q - n_k)


def prepend_zeros(out: Tensor, rows: int) -> Tensor:
    """(B, H, R, Dv) -> (B, H, rows + R, Dv): the rows that see nothing give zeros."""
    return F.pad(out, (0, 0, rows, 0)) if rows else out


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool = False, allowed: Tensor | None = None
) -> Tensor:
    """Softmax attention of q (B, H, Nq, D) over k, v (B, Hkv, Nk, ·) in the fastest form there is for them.

    Causal aligns bottom-right. `allowed` (Nq, Nk), or of more dimensions, is a boolean mask in place of `causal`. Every
    row must see at least one key: Nq <= Nk if causal.
    """
    if (allowed is None or allowed.dim() == 2) and pieces.pays(q, k, v):
        return pieces.attend_in_pieces(q, k, v, scale=scale, causal=causal, allowed=allowed)
    return fused(q, k, v, scale=scale, causal=causal, allowed=allowed)


def fused(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool = False, allowed: Tensor | None = None
) -> Tensor:
    """The same by torch's fused function."""
    n_q, n_k = q.shape[2], k.shape[2]
    if causal and n_q != n_k:
        # torch's is_causal aligns top-left, so this alignment needs its mask spelt out; one query alone sees every key
        allowed = None if n_q == 1 else torch.ones(n_q, n_k, dtype=torch.bool, device=q.device).tril_(n_k - n_q)
        causal = False
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=allowed, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def split_blocks(q: Tensor, kv_heads: int, block_size: int) -> Tensor:
    """Queries (B, H, n·C, D) -> (B·Hkv, n·G, C, D), where G = H / Hkv: blocks take the place of heads.

    The G query heads that share a key head stand next to each other, as grouped attention wants them. No copy is made
    of a contiguous q with G = 1.
    """
    b, h, n, d = q.shape
    g, blocks = h // kv_heads, n // block_size
    q = q.reshape(b, kv_heads, g, blocks, block_size, d)
    return q.transpose(2, 3).reshape(b * kv_heads, blocks * g, block_size, d)


def join_blocks(out: Tensor, batch: int, heads: int, kv_heads: int) -> Tensor:
    """The way back: (B·Hkv, n·G, C, Dv) -> (B, H, n·C, Dv)."""
    g = heads // kv_heads
    out = out.reshape(batch, kv_heads, out.shape[1] // g, g, out.shape[2], out.shape[3])
    return out.transpose(2, 3).reshape(batch, heads, -1, out.shape[-1])


def banded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    before: int,
    after: int,
    sinks: int = 0,
    all_sinks: bool = False,
    scale: float,
    block_size: int,
) -> Tensor:
    """Softmax attention of the query at position p over the keys p - before … p + after and the first `sinks` keys.

    Positions align bottom-right. Of the sinks a row sees those up to p + after, or all of them if `all_sinks`. A row
    that may see no key gives zeros. Time O(Nq (before + after + block_size)); k and v are copied for sinks alone.

    The rows fall in four parts, so that nothing is ever padded: rows that see nothing; a head whose band begins at key
    0; a body of whole blocks of C queries, whose keys are one strided view of C + before + after keys each, all under
    one shared (C, C + before + after) mask; and a tail.
    """
    b, h, n_q, _ = q.shape
    kv_heads, n_k = k.shape[1], k.shape[2]
    shift = n_k - n_q  # position of query 0
    blind = 0 if sinks and all_sinks else min(n_q, max(0, -shift - after))
    head_end = min(n_q, max(blind, before + sinks + 1 - shift))  # row whose band no longer touches the sinks
    blocks = max(0, n_q - after - head_end) // block_size
    body_end = head_end + blocks * block_size
    band = functools.partial(_band, before=before, after=after, device=q.device)
    parts = []

    if head_end > blind:
        seen = min(n_k, head_end + shift + after)
        rows = q[:, :, blind:head_end]
        if after == 0 and not all_sinks:
            parts.append(attend(rows, k[:, :, :seen], v[:, :, :seen], scale=scale, causal=True))
        else:
            if all_sinks:
                seen = max(seen, min(n_k, sinks))
            allowed = band(blind + shift, rows.shape[2], 0, seen, sinks=sinks, all_sinks=all_sinks)
            parts.append(attend(rows, k[:, :, :seen], v[:, :, :seen], scale=scale, allowed=allowed))

    if blocks:
        first = head_end + shift - before
        length = block_size + before + after
        keys = windows(k, first, blocks, block_size, length)
        values = windows(v, first, blocks, block_size, length)
        allowed = band(before, block_size, 0, length)
        if sinks:
            keys, values = _with_sinks(k, keys, sinks), _with_sinks(v, values, sinks)
            allowed = None if allowed is None else F.pad(allowed, (sinks, 0), value=True)
        rows = split_blocks(q[:, :, head_end:body_end], kv_heads, block_size)
        parts.append(join_blocks(attend(rows, keys, values, scale=scale, allowed=allowed), b, h, kv_heads))

    if body_end < n_q:
        first = body_end + shift - before
        allowed = band(body_end + shift, n_q - body_end, first, n_k)
        keys, values = k[:, :, first:], v[:, :, first:]
        if sinks:
            keys, values = torch.cat([k[:, :, :sinks], keys], dim=2), torch.cat([v[:, :, :sinks], values], dim=2)
            allowed = None if allowed is None else F.pad(allowed, (sinks, 0), value=True)
        parts.append(attend(q[:, :, body_end:], keys, values, scale=scale, allowed=allowed))

    if not parts:
        return q.new_zeros(b, h, n_q, v.shape[3])
    out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return prepend_zeros(out, blind)


def _band(
    p: int,
    rows: int,
    first: int,
    end: int,
    *,
    before: int,
    after: int,
    sinks: int = 0,
    all_sinks: bool = False,
    device: torch.device,
) -> Tensor | None:
    """Mask of the rows at positions p … p + rows - 1 over the keys first … end - 1, or None where all are seen."""
    if first >= p + rows - 1 - before and end - 1 <= p + after:
        return None
    i = torch.arange(p, p + rows, device=device)[:, None]
    j = torch.arange(first, end, device=device)[None, :]
    allowed = (j >= i - before) & (j <= i + after)
    if sinks:
        allowed |= (j < sinks) if all_sinks else (j < sinks) & (j <= i + after)
    return allowed


def windows(x: Tensor, first: int, blocks: int, step: int, length: int) -> Tensor:
    """(B, Hkv, N, D) -> (B·Hkv, blocks, length, D): overlapping windows that start `step` apart, as a view."""
    rows = x.flatten(0, 1)[:, first : first + (blocks - 1) * step + length]
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    return rows.unfold(1, length, step).transpose(-1, -2)


def _with_sinks(x: Tensor, windows: Tensor, sinks: int) -> Tensor:
    """Puts the first `sinks` keys before every window: (B·Hkv, blocks, sinks + length, D), a copy."""
    head = x.flatten(0, 1)[:, None, :sinks].expand(-1, windows.shape[1], -1, -1)
    return torch.cat([head, windows], dim=2)


def segment_means(x: Tensor, segments: int) -> Tensor:
    """(B, H, N, D) -> (B, H, min(segments, N), D): means of segments whose lengths differ by one at most."""
    n = x.shape[2]
    m = min(segments, n)
    length, longer = divmod(n, m)
    split = longer * (length + 1)
    long = x[:, :, :split].unflatten(2, (longer, length + 1)).mean(dim=3)
    short = x[:, :, split:].unflatten(2, (m - longer, length)).mean(dim=3)
    return torch.cat([long, short], dim=2)
