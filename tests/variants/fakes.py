"""Stand-ins for libraries of kernels: plain torch, in each library's own layout and by its own documented rules.

Adapters run them on a CPU, so that what they pass (layout, scale, window, alignment, heads, gates, states) is exercised
without the library. That the real ones follow these rules is what tests/kernels checks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# -- FlashAttention: q (B, Nq, H, D), k and v (B, Nk, Hkv, D) ---------------------------------------------------------


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, left: int, right: int) -> Tensor:
    """Query i sees the keys from i + Nk - Nq - left to i + Nk - Nq + right, both included; -1 is no bound."""
    (b, n_q, h, _), (n_k, kv_heads) = q.shape, k.shape[1:3]
    out = q.new_zeros(b, n_q, h, v.shape[-1])
    for head in range(h):
        kv = head // (h // kv_heads)
        for i in range(n_q):
            at = i + n_k - n_q
            first = max(0, at - left) if left >= 0 else 0
            last = min(n_k - 1, at if causal else at + right if right >= 0 else n_k)
            if first <= last:
                seen = slice(first, last + 1)
                scores = torch.einsum("bd,bjd->bj", q[:, i, head].double(), k[:, seen, kv].double()) * scale
                out[:, i, head] = torch.einsum("bj,bjd->bd", scores.softmax(-1), v[:, seen, kv].double()).to(q.dtype)
    return out


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """Version 2: one head dimension for q, k and v; -1 for no bound."""
    assert q.shape[-1] == k.shape[-1] == v.shape[-1]
    assert dropout_p == 0.0
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    return attention(q, k, v, scale, causal, *window_size)


def flash_attn_func_4(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int | None, int | None] = (None, None),
) -> tuple[Tensor, None]:
    """Version 4: None for no bound; the log-sum-exp beside the output."""
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    left, right = (-1 if bound is None else bound for bound in window_size)
    return attention(q, k, v, scale, causal, left, right), None


# -- NATTEN: (B, N, H, D) ---------------------------------------------------------------------------------------------


def na1d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The `kernel_size` nearest keys, shifted inwards at both ends; causal: those up to the query."""
    n, w = query.shape[1], kernel_size
    assert 2 <= w <= n
    out = []
    for i in range(n):
        first = max(0, i - w + 1) if is_causal else min(max(0, i - w // 2), n - w)
        seen = slice(first, i + 1 if is_causal else first + w)
        near = query[:, i : i + 1], key[:, seen], value[:, seen]
        out.append(attention(*near, scale or query.shape[-1] ** -0.5, False, -1, -1))
    return torch.cat(out, dim=1)


# -- flash-linear-attention: (B, N, H, D), gates as logarithms, states (B, H, D, Dv) in float32 ------------------------


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    scale: float | None,
    state: Tensor | None,
    norms: bool = False,
) -> tuple[Tensor, Tensor]:
    """log_decay (B, N, H, 1) or (B, N, H, D): decay, then erase if there is a beta (B, N, H), then write, then read."""
    assert q.shape == k.shape
    dtype, scale = q.dtype, q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = q.double(), k.double(), v.double()
    if norms:
        q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    memory = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3]) if state is None else state.double()
    out = []
    for t in range(q.shape[1]):
        if log_decay is not None:
            memory = memory * log_decay[:, t].double().exp().unsqueeze(-1)
        new = v[:, t]
        if beta is not None:
            new = (new - torch.einsum("bhd,bhde->bhe", k[:, t], memory)) * beta[:, t].double().unsqueeze(-1)
        memory = memory + torch.einsum("bhd,bhe->bhde", k[:, t], new)
        out.append(scale * torch.einsum("bhd,bhde->bhe", q[:, t], memory))
    return torch.stack(out, dim=1).to(dtype), memory.float()


def _result(pair: tuple[Tensor, Any], keep: bool) -> tuple[Tensor, Any]:
    return pair[0], pair[1] if keep else None


def chunk_gla(
    q: Any, k: Any, v: Any, g: Any, scale: Any = None, initial_state: Any = None, output_final_state: bool = False
) -> Any:
    return _result(recurrence(q, k, v, log_decay=g, scale=scale, state=initial_state), output_final_state)


def fused_recurrent_gla(
    q: Any,
    k: Any,
    v: Any,
    gk: Any = None,
    scale: Any = None,
    initial_state: Any = None,
    output_final_state: bool = False,
) -> Any:
    return chunk_gla(q, k, v, gk, scale, initial_state, output_final_state)


def delta_rule(
    q: Any,
    k: Any,
    v: Any,
    beta: Any,
    scale: Any = None,
    initial_state: Any = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
) -> Any:
    pair = recurrence(q, k, v, beta=beta, scale=scale, state=initial_state, norms=use_qk_l2norm_in_kernel)
    return _result(pair, output_final_state)


def gated_delta_rule(
    q: Any,
    k: Any,
    v: Any,
    g: Any = None,
    beta: Any = None,
    scale: Any = None,
    initial_state: Any = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
) -> Any:
    """g (B, N, H), or (B, N, H, D) for KDA."""
    g = g if g.dim() == 4 else g.unsqueeze(-1)
    pair = recurrence(q, k, v, log_decay=g, beta=beta, scale=scale, state=initial_state, norms=use_qk_l2norm_in_kernel)
    return _result(pair, output_final_state)


def simple_gla(
    q: Any,
    k: Any,
    v: Any,
    g_gamma: Any = None,
    scale: Any = None,
    initial_state: Any = None,
    output_final_state: bool = False,
) -> Any:
    """g_gamma (H,): the logarithm of each head's decay."""
    assert g_gamma.dtype == torch.float32
    g = g_gamma[None, None, :, None].expand(*q.shape[:3], 1)
    return _result(recurrence(q, k, v, log_decay=g, scale=scale, state=initial_state), output_final_state)


def linear_attn(
    q: Any,
    k: Any,
    v: Any,
    scale: Any = None,
    initial_state: Any = None,
    output_final_state: bool = False,
    normalize: bool = False,
) -> Any:
    """With `normalize`, the state is a pair; the second is the sum of the keys, (B, 1, H, D)."""
    assert normalize
    memory, total = (None, 0.0) if initial_state is None else initial_state
    out, memory = recurrence(q, k, v, scale=scale, state=memory)
    totals = k.double().cumsum(1) + total
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = out.double() / ((scale * q.double() * totals).sum(-1, keepdim=True) + 1e-10)
    return _result((out.to(q.dtype), (memory, totals[:, -1:].to(k.dtype))), output_final_state)


def parallel_nsa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g_cmp: Tensor,
    g_slc: Tensor,
    g_swa: Tensor,
    block_counts: int,
    block_size: int,
    window_size: int,
    scale: float,
) -> Tensor:
    """One query after the other; the window at FlashAttention's default scale, as in version 0.6.0."""
    (b, n_q, h, d), (n_k, kv_heads) = q.shape, k.shape[1:3]
    group, c = h // kv_heads, block_size
    assert group >= 16
    assert math.isclose(scale, d**-0.5), "version 0.6.0 does not pass any other scale on to the window"
    q, k, v = q.double(), k.double(), v.double()
    out = q.new_zeros(b, n_q, h, v.shape[-1])
    for batch in range(b):
        for i in range(n_q):
            at = i + n_k - n_q
            for kv in range(kv_heads):
                heads = slice(kv * group, (kv + 1) * group)
                keys, values, x = k[batch, :, kv], v[batch, :, kv], q[batch, i, heads] * scale
                ended, own = (at + 1) // c, at // c
                scores = torch.zeros(own + 1, dtype=torch.float64)
                compressed = x.new_zeros(group, v.shape[-1])
                if ended:
                    means = keys[: ended * c].view(ended, c, -1).mean(1), values[: ended * c].view(ended, c, -1).mean(1)
                    weights = (x @ means[0].T).softmax(-1)
                    compressed, scores[:ended] = weights @ means[1], weights.sum(0)
                scores[[0, max(0, own - 1), own]] = math.inf
                chosen = scores.topk(min(block_counts, own + 1)).indices
                seen = [j for j in range(at + 1) if j // c in chosen]
                near = slice(max(0, at - window_size + 1), at + 1)
                parts = (
                    (g_cmp, compressed),
                    (g_slc, (x @ keys[seen].T).softmax(-1) @ values[seen]),
                    (g_swa, (x @ keys[near].T).softmax(-1) @ values[near]),
                )
                out[batch, i, heads] = sum(g[batch, i, heads, None].double() * part for g, part in parts)
    return out.to(g_cmp.dtype)


FLA = {
    "fla.ops.gla": {"chunk_gla": chunk_gla, "fused_recurrent_gla": fused_recurrent_gla},
    "fla.ops.delta_rule": {"chunk_delta_rule": delta_rule, "fused_recurrent_delta_rule": delta_rule},
    "fla.ops.gated_delta_rule": {
        "chunk_gated_delta_rule": gated_delta_rule,
        "fused_recurrent_gated_delta_rule": gated_delta_rule,
    },
    "fla.ops.kda": {"chunk_kda": gated_delta_rule, "fused_recurrent_kda": gated_delta_rule},
    "fla.ops.simple_gla": {"chunk_simple_gla": simple_gla, "fused_recurrent_simple_gla": simple_gla},
    "fla.ops.linear_attn": {"chunk_linear_attn": linear_attn, "fused_recurrent_linear_attn": linear_attn},
    "fla.ops.nsa": {"parallel_nsa": parallel_nsa},
}


# -- packed sequences: q (Tq, H, D), k and v (Tk, Hkv, D), running sums of the lengths ---------------------------------


def one_by_one(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, *window: Any) -> Tensor:
    """`attention` of each sequence with itself; `window` is scale, causal, left and right."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert len(cu_q) == len(cu_k)
    out = []
    for i in range(len(cu_q) - 1):
        rows, keys = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
        out.append(attention(q[None, rows], k[None, keys], v[None, keys], *window)[0])
    return torch.cat(out)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """Versions 2 and 3."""
    assert (max_seqlen_q, max_seqlen_k) == (int(cu_seqlens_q.diff().max()), int(cu_seqlens_k.diff().max()))
    assert q.shape[-1] == k.shape[-1] == v.shape[-1]
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    return one_by_one(q, k, v, cu_seqlens_q, cu_seqlens_k, scale, causal, *window_size)


def flash_attn_varlen_func_4(
    q: Tensor, k: Tensor, v: Tensor, *, window_size: tuple[int | None, int | None] = (None, None), **rest: Any
) -> tuple[Tensor, None]:
    """Version 4: None for no bound; the log-sum-exp beside the output."""
    left, right = (-1 if bound is None else bound for bound in window_size)
    return flash_attn_varlen_func(q, k, v, window_size=(left, right), **rest), None


def varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """torch's: (-1, 0) is causal, aligned bottom-right as in the kernel behind it; groups of heads are asked for."""
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return flash_attn_varlen_func(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size == (-1, 0), window_size
    )
