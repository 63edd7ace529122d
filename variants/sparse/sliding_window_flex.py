"""Sliding-window attention by torch's flex_attention: the window is a mask in Python, compiled into a fused kernel.

The method is `sliding_window` (Beltagy et al. 2020, arXiv:2004.05150, section 3.1); the kernel is that of `flex` (Dong
et al. 2024, "Flex Attention", arXiv:2412.05496), here over the blocks of 128 x 128 that the band touches and no others.
On a CPU it has a forward pass only. Not tried on a GPU by this project's tests.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..api import CaseLike, Complexity, State, Supports, Variant, register
from ..blocks import prepend_zeros
from ..full import flex
from ..varlen import Packing
from .sliding_window import SlidingWindow

BLOCK = flex.BLOCK


@register(
    "sliding_window_flex",
    family="sparse",
    kind="approximate",
    supports=Supports(decode=True, varlen=True, dtypes=("float32", "bfloat16", "float16")),
    complexity=Complexity(
        time=1, memory=1, text="O(N w d) time, O(N d) memory, and (N / 128)² indices of blocks", state=0
    ),
    paper="Dong et al. 2024, arXiv:2412.05496; the method: Beltagy et al. 2020, arXiv:2004.05150, sec. 3.1",
    formula=SlidingWindow.formula,
    reduces_to=SlidingWindow.reduces_to,
    compiles=True,
    budget=SlidingWindow.budget,
    counts_flops=False,
)
@dataclass(frozen=True)
class SlidingWindowFlex(Variant):
    """The compiled kernel over a block mask that is written down directly, never made from an N x N mask."""

    window_size: int = 512
    """w: keys that a query sees on one side, its own position counted: w if causal, 2 w - 1 if not."""

    def __post_init__(self) -> None:
        self.require(window_size=1)

    @property
    def method(self) -> SlidingWindow:
        return SlidingWindow(window_size=self.window_size)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        return self.method.weights(q, k, causal=causal, scale=scale, rows=rows)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        n_q, n_k = q.shape[2], k.shape[2]
        before = self.window_size - 1
        after = 0 if causal else before
        blind = min(n_q, max(0, n_q - n_k - after))  # rows whose window ends before the first key
        if blind == n_q:
            return q.new_zeros(*q.shape[:3], v.shape[3])
        mask = functools.partial(band_mask, n_q - blind, n_k, before, after, q.device, backward=q.device.type != "cpu")
        return prepend_zeros(flex.run(self, q[:, :, blind:], k, v, mask, scale), blind)

    def forward_varlen(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, *, causal: bool, scale: float
    ) -> Tensor:
        before = self.window_size - 1
        return flex.run_varlen(self, q, k, v, packing, scale, before=before, after=0 if causal else before)

    def keep(self, state: State) -> State:
        return self.method.keep(state)

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        return self.method.visible_pairs(n_q, n_k, causal)

    def refuses(self, case: CaseLike) -> list[str]:
        return flex.lacks(case)


def band_mask(n_q: int, n_k: int, before: int, after: int, device: torch.device, *, backward: bool) -> Any:
    """The BlockMask of a band: the query at position p = i + Nk - Nq sees the keys p - before … p + after.

    A row of 128 queries lists the blocks of keys from the first that its first query sees to the last that its last
    query sees; among them, those that every query sees are `full` and skip the mask. Every query must see a key.
    """
    shift = n_k - n_q
    first = torch.arange(0, n_q, BLOCK, dtype=torch.int32, device=device)  # row i of each block of queries
    last = (first + BLOCK - 1).clamp(max=n_q - 1)
    begin = (first + shift - before).clamp(min=0) // BLOCK
    end = (last + shift + after).clamp(max=n_k - 1) // BLOCK + 1
    # keys that all queries of a block see, in whole blocks of them; a block of queries that is cut short has none
    full_begin = -(-(last + shift - before).clamp(min=0) // BLOCK)
    full_end = (first + shift + after + 1).clamp(min=0, max=n_k) // BLOCK
    return flex.mask_of_blocks(
        begin,
        end,
        full_begin,
        torch.where(last - first == BLOCK - 1, full_end - full_begin, 0),
        (n_q, n_k),
        _sees(torch.tensor(shift - before, device=device), torch.tensor(shift + after, device=device)),
        backward=backward,
    )


def _sees(low: Tensor, high: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    # the bounds are tensors, since numbers would be compiled in and each new window or length would compile again
    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        return (kv_idx >= q_idx + low) & (kv_idx <= q_idx + high)

    return mask_mod
