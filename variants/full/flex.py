"""torch's flex_attention: a fused kernel compiled from a mask that is written in Python.

Dong et al. 2024, "Flex Attention", arXiv:2412.05496. One compilation with symbolic lengths serves all lengths above
128, causal or not; torch compiles apart for sizes of 1, which a single query or a single block of the mask are. On a
CPU the compiled kernel has a forward pass only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import CaseLike, Complexity, Supports, Variant, VariantError, register
from ..blocks import blind_rows, prepend_zeros
from ..compilers import lacks_of_cpu
from ..varlen import Packing, bounds
from .naive import SoftmaxAttention

BLOCK = 128
"""Queries and keys of a block of the block mask: torch's own default."""

SOUND_HEAD_DIM = 24
"""What q and k are filled up to, with zeros, where torch's kernel for CPUs miscomputes head dimensions of 8 and 16."""

COMPILATIONS = 256
"""Most compilations in one process. torch's limit of 8 is met by eight pairs of head dimension and dtype."""


@register(
    "flex",
    family="full",
    kind="exact",
    supports=Supports(decode=True, varlen=True, dtypes=("float32", "bfloat16", "float16")),
    complexity=Complexity(
        time=2, memory=1, text="O(N² d) time, O(N d) memory, and (N / 128)² indices of blocks", state=1
    ),
    paper='Dong et al. 2024, "Flex Attention", arXiv:2412.05496',
    formula="softmax(scale · q kᵀ) v",
    reduces_to="is softmax attention",
    compiles=True,
    counts_flops=False,
    position_free=True,
)
@dataclass(frozen=True)
class Flex(SoftmaxAttention):
    """The compiled kernel over a block mask that is written down directly, never made from an N x N mask."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        blind = blind_rows(q.shape[2], k.shape[2]) if causal else 0
        q = q[:, :, blind:]
        mask = functools.partial(block_mask, q.shape[2], k.shape[2], causal, q.device)
        return prepend_zeros(run(self, q, k, v, mask, scale), blind)

    def forward_varlen(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, *, causal: bool, scale: float
    ) -> Tensor:
        return run_varlen(self, q, k, v, packing, scale, before=None, after=0 if causal else None)

    def refuses(self, case: CaseLike) -> list[str]:
        return lacks(case)


NO_BACKWARD = "torch's flex_attention has no backward pass on a CPU"


def lacks(case: CaseLike) -> list[str]:
    """What the compiled kernel, or its compilation, lacks for a case on this machine."""
    if case.device == "cpu":
        return ([NO_BACKWARD] if case.mode == "train" else []) + list(_lacks_of_cpu())
    return list(_lacks_of_gpu())


def run(
    attn: Variant, q: Tensor, k: Tensor, v: Tensor, mask: Callable[[], Any], scale: float, *, dynamic: bool = True
) -> Tensor:
    """The compiled kernel over the BlockMask that `mask` makes: (B, H, Nq, Dv). Every row must see a key.

    `dynamic`: compiled once for all lengths, else for each. Raises VariantError in the name of `attn` for what the
    kernel cannot do.
    """
    needs_grad = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if needs_grad and q.device.type == "cpu":
        raise VariantError(f"{attn.name}: {NO_BACKWARD}; call it under torch.no_grad()")
    if q.device.type == "cpu":
        # torch refuses tensors that want a gradient, under no_grad too
        q, k, v = q.detach(), k.detach(), v.detach()
    if q.dtype == torch.float64:
        raise VariantError(f"{attn.name}: runs in {', '.join(attn.supports.dtypes)}, not float64")
    if _tail_is_miscomputed(q, k):
        q, k = (F.pad(x, (0, SOUND_HEAD_DIM - x.shape[3])) for x in (q, k))
    with torch._dynamo.config.patch(recompile_limit=COMPILATIONS):
        out: Tensor = compiled(dynamic)(q, k, v, block_mask=mask(), scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return out


def _tail_is_miscomputed(q: Tensor, k: Tensor) -> bool:
    """Whether torch's kernel would write past its scores, over the next row's or its own sums.

    torch 2.13 multiplies q and k in tiles of 16 keys. Compiled for vectors of 8 floats (AVX2), a last tile of 8 keys is
    computed and stored as if it were whole, where the head dimension is 8 or 16: for those it transposes k first
    (torch/_inductor/codegen/cpp_micro_gemm.py, CppMicroGemmFP32Vec: `tail_n` with 24 * BLOCK_M > K).
    """
    if q.device.type != "cpu" or q.shape[3] not in (8, 16) or k.shape[2] % 16 != 8:
        return False
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    return pick_vec_isa().nelements() == 8


def run_varlen(
    attn: Variant,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packing: Packing,
    scale: float,
    *,
    before: int | None,
    after: int | None,
) -> Tensor:
    """The same over packed sequences, (Tq, H, D) -> (Tq, H, Dv): each query sees a range of its own sequence's keys.

    On a CPU each batch's lengths are compiled for: what torch 2.13 makes there of a mask that looks up its bounds, for
    lengths that may vary, is no C++.
    """

    def mask() -> Any:
        first, last = bounds(packing, before=before, after=after, device=q.device)
        return ranges_mask(first, last, k.shape[0], backward=q.device.type != "cpu")

    made = packing.once(("flex", before, after), mask)
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))  # (1, H, T, D)
    dynamic = q.device.type != "cpu"
    return run(attn, q, k, v, lambda: made, scale, dynamic=dynamic).squeeze(0).transpose(0, 1)


@functools.cache
def compiled(dynamic: bool) -> Callable[..., Any]:
    """flex_attention compiled for any length, or for each.

    `fullgraph`: what cannot be compiled raises, and never runs unfused.
    """
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=dynamic, fullgraph=True)


def block_mask(n_q: int, n_k: int, causal: bool, device: torch.device) -> Any:
    """The BlockMask of full attention, or of bottom-right causal attention for Nq <= Nk.

    For each block of queries: blocks of keys that all of them see are `full` and skip the mask; those that some see,
    or that either sequence's end cuts short, follow them; the rest is never touched. Full attention has a mask too:
    without one, the kernel for CPUs takes all keys for one block, and its scratch memory grows as N².
    """
    from torch.nn.attention.flex_attention import BlockMask

    shift = n_k - n_q if causal else n_k  # query i sees the keys up to i + shift
    first = torch.arange(0, n_q, BLOCK, dtype=torch.int32, device=device)
    last = (first + BLOCK - 1).clamp(max=n_q - 1)
    full = (first + shift + 1).clamp(max=n_k) // BLOCK
    full = torch.where(last - first == BLOCK - 1, full, 0)
    some = (last + shift).clamp(max=n_k - 1) // BLOCK + 1 - full
    blocks = torch.arange(-(-n_k // BLOCK), dtype=torch.int32, device=device)
    partly = (blocks + full[:, None]).clamp(max=blocks.shape[0] - 1)
    wholly = blocks.expand(first.shape[0], -1).contiguous()
    return BlockMask.from_kv_blocks(
        some.to(torch.int32)[None, None],
        partly.to(torch.int32)[None, None],
        full.to(torch.int32)[None, None],
        wholly[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=_sees(torch.tensor(shift, device=device)),
        seq_lengths=(n_q, n_k),
        compute_q_blocks=device.type != "cpu",  # the backward pass alone reads them, and a CPU has none
    )


def ranges_mask(first: Tensor, last: Tensor, n_k: int, *, backward: bool) -> Any:
    """The BlockMask of queries that each see the keys `first` … `last`, (Nq,) each, neither of which ever falls.

    A row of 128 queries lists the blocks of keys from the first that its first query sees to the last that its last
    query sees; among them, those that every query sees are `full` and skip the mask. Every query must see a key.
    """
    n_q, device = first.shape[0], first.device
    top = torch.arange(0, n_q, BLOCK, device=device)  # row i of each block of queries
    bottom = (top + BLOCK - 1).clamp(max=n_q - 1)
    begin, end = first[top] // BLOCK, last[bottom] // BLOCK + 1
    full_begin, full_end = -(-first[bottom] // BLOCK), (last[top] + 1) // BLOCK
    # rows past the end of the queries are looked up too, so the bounds go on to the end of their block
    room = (0, -n_q % BLOCK)
    return mask_of_blocks(
        begin,
        end,
        full_begin,
        torch.where(bottom - top == BLOCK - 1, full_end - full_begin, 0),
        (n_q, n_k),
        _sees_range(F.pad(first, room), F.pad(last, room)),
        backward=backward,
    )


def mask_of_blocks(
    begin: Tensor,
    end: Tensor,
    full_begin: Tensor,
    full: Tensor,
    lengths: tuple[int, int],
    mask_mod: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    *,
    backward: bool,
) -> Any:
    """The BlockMask in which each block of queries looks at the blocks of keys begin … end - 1, of which those from
    `full_begin` on, `full` of them, are seen whole. (blocks of queries,) each.

    torch wants a table of all blocks of keys for each block of queries, however few of them count.
    """
    from torch.nn.attention.flex_attention import BlockMask

    columns = -(-lengths[1] // BLOCK)
    full = full.clamp(min=0)
    full_begin = torch.where(full > 0, full_begin, end)
    left = full_begin - begin  # blocks before the full ones; the rest of the partial ones are after them
    place = torch.arange(columns, dtype=torch.int32, device=begin.device)
    partly = begin[:, None] + place + torch.where(place < left[:, None], 0, full[:, None])
    wholly = full_begin[:, None] + place
    some, partly, full, wholly = (
        table.to(torch.int32)[None, None]
        for table in (end - begin - full, partly.clamp(max=columns - 1), full, wholly.clamp(max=columns - 1))
    )
    return BlockMask.from_kv_blocks(
        some,
        partly,
        full,
        wholly,
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod,
        seq_lengths=lengths,
        compute_q_blocks=backward,  # the backward pass alone reads them
    )


def _sees_range(first: Tensor, last: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return (kv_idx >= first[q_idx]) & (kv_idx <= last[q_idx])

    return mask_mod


def _sees(shift: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    # `shift` is a tensor, since a number would be compiled in and each new one would compile again
    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return kv_idx <= q_idx + shift

    return mask_mod


@functools.cache
def _lacks_of_cpu() -> tuple[str, ...]:
    """What compiling for a CPU needs and this machine does not have."""
    from torch._inductor.kernel.flex.flex_cpu import check_cpu_supported

    lacks = [f"needs {what} to compile its kernel: {why}" for what, why in lacks_of_cpu()]
    if not check_cpu_supported():
        lacks.append("torch's flex_attention kernel for CPUs needs AVX2, on Linux or Windows")
    return tuple(lacks)


@functools.cache
def _lacks_of_gpu() -> tuple[str, ...]:
    from torch.utils._triton import has_triton

    return () if has_triton() else ("needs Triton to compile its kernel, and torch finds none that works here",)
