"""Sequences of unlike lengths, packed one after another into one tensor without padding.

The layout is that of FlashAttention's `flash_attn_varlen_func`, which torch, xformers and serving engines share:
q (Tq, H, D), k and v (Tk, Hkv, ·), where Tq and Tk are the lengths of all sequences together, and `cu_seqlens`, their
running sums from 0: sequence i has the rows cu_seqlens[i] to cu_seqlens[i + 1].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where each of S sequences lies, and what libraries make of that: as in an engine, once for a batch, not once for
    each of its layers."""

    q_lens: tuple[int, ...]
    k_lens: tuple[int, ...]
    cu_seqlens_q: Tensor
    """(S + 1,) int32, on the device of q."""
    cu_seqlens_k: Tensor
    made: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, q_lens: Sequence[int], k_lens: Sequence[int], device: torch.device) -> Packing:
        return cls(tuple(q_lens), tuple(k_lens), _sums(q_lens, device), _sums(k_lens, device))

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, such as a library's mask of these sequences: made at the first call with this key."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    @property
    def max_seqlen_q(self) -> int:
        return max(self.q_lens)

    @property
    def max_seqlen_k(self) -> int:
        return max(self.k_lens)


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Batches (B, H, N, D) of unlike B and N -> (T, H, D), one sequence after another."""
    return torch.cat([x.transpose(1, 2).flatten(0, 1) for x in tensors])


def unpack(packed: Tensor, batches: Sequence[int], lengths: Sequence[int]) -> list[Tensor]:
    """The way back: (T, H, D) -> one (B, H, N, D) for each number of sequences B and length N."""
    parts = packed.split([b * n for b, n in zip(batches, lengths, strict=True)])
    return [x.unflatten(0, (b, -1)).transpose(1, 2) for b, x in zip(batches, parts, strict=True)]


def bounds(packing: Packing, *, before: int | None, after: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each packed query, the first and the last packed key that it sees: (Tq,) each, and neither ever falls.

    A query at position p = i + Nk - Nq of its sequence sees the keys p - before … p + after of the same sequence;
    None is no bound. Causal is `after=0`.
    """
    first, last, start = [], [], 0
    for n_q, n_k in zip(packing.q_lens, packing.k_lens, strict=True):
        p = torch.arange(n_k - n_q, n_k, dtype=torch.int32, device=device)
        first.append(start + (torch.zeros_like(p) if before is None else (p - before).clamp(min=0)))
        last.append(start + (torch.full_like(p, n_k - 1) if after is None else (p + after).clamp(max=n_k - 1)))
        start += n_k
    return torch.cat(first), torch.cat(last)


def problems(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, *, causal: bool
) -> Iterator[str]:
    """What is wrong with a call on packed sequences, in words, the first first."""
    for label, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 3:
            yield f"packed {label} must be (tokens, heads, head_dim), not {tuple(x.shape)}"
    if not q.dtype == k.dtype == v.dtype or not q.dtype.is_floating_point:
        yield f"q, k and v must share one floating-point dtype, not {q.dtype}, {k.dtype} and {v.dtype}"
    if not q.device == k.device == v.device:
        yield f"q, k and v must be on one device, not {q.device}, {k.device} and {v.device}"
    if k.shape[:2] != v.shape[:2]:
        yield f"k and v must have the same tokens and heads, not {tuple(k.shape[:2])} and {tuple(v.shape[:2])}"
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        yield f"the key heads must divide the query heads, but {k.shape[1]} does not divide {q.shape[1]}"
    if q.shape[2] != k.shape[2]:
        yield f"q and k must have the same head dimension, not {q.shape[2]} and {k.shape[2]}"
    for label, sums, x in (("cu_seqlens_q", cu_seqlens_q, q), ("cu_seqlens_k", cu_seqlens_k, k)):
        values = sums.tolist() if sums.dim() == 1 and not sums.is_floating_point() else []
        rises = all(a < b for a, b in itertools.pairwise(values))
        if len(values) < 2 or values[0] != 0 or values[-1] != x.shape[0] or not rises:
            yield f"{label} must rise from 0 to the {x.shape[0]} tokens, by at least one for each sequence"
    if len(cu_seqlens_q) != len(cu_seqlens_k):
        yield f"cu_seqlens_q and cu_seqlens_k are of {len(cu_seqlens_q) - 1} and {len(cu_seqlens_k) - 1} sequences"
    if causal and bool((cu_seqlens_q.diff() > cu_seqlens_k.to(cu_seqlens_q.device).diff()).any()):
        yield "a sequence has more queries than keys, so that its first ones see nothing; leave them out"


def _sums(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)
