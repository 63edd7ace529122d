"""Dilated sliding window: each query sees w keys that stand r apart, itself counted, on the past's side or on both.

Beltagy et al. 2020, "Longformer: The Long-Document Transformer", arXiv:2004.05150, section 3.1 and figure 2c: gaps of
size d between the keys of a window. The window is counted as in `sliding_window`: w keys on one side with the query's
own position, so that they reach over (w - 1) r + 1 positions. The paper dilates two heads of its upper layers and no
others; here all heads of a call share one dilation.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import Budget, Complexity, Identity, State, Supports, Variant, register
from ..blocks import banded
from ..definitions import masked_softmax, positions
from .sliding_window import band_pairs


@register(
    "dilated_window",
    family="sparse",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(time=1, memory=1, text="O(N w d) time, O(N d) memory", state=0),
    paper='Beltagy et al. 2020, "Longformer: The Long-Document Transformer", arXiv:2004.05150, sec. 3.1',
    formula="softmax over the keys with (i - j) mod r = 0 and 0 <= i - j < w r (causal) or |i - j| < w r",
    reduces_to="sliding_window where dilation = 1",
    budget=Budget("keys", lambda n, causal, length: {"window_size": n if causal else (n + 1) // 2}),
    tuning=("block_size",),
    identities=(
        Identity("dilated_window(dilation=1, window_size=9)", "sliding_window(window_size=9)"),
        Identity("dilated_window(dilation=1, window_size={N})", "naive"),
        Identity("dilated_window(dilation={N}, window_size=7)", "sliding_window(window_size=1)"),
    ),
)
@dataclass(frozen=True)
class DilatedWindow(Variant):
    """Positions of one residue modulo r see only each other: r sliding windows over N / r tokens, as a batch."""

    window_size: int = 512
    """w: keys that a query sees on one side, its own position counted: w if causal, 2 w - 1 if not."""
    dilation: int = 2
    """r: positions from one key of a window to the next."""
    block_size: int = 128
    """C: queries of one residue that share one view of keys. Changes speed and gradient memory, never the result."""

    def __post_init__(self) -> None:
        self.require(window_size=1, dilation=1, block_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        reach = self.window_size * self.dilation
        near = (i - j < reach) & (j - i < (1 if causal else reach))
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=near & ((i - j) % self.dilation == 0))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        reach = self.window_size - 1
        band = functools.partial(
            banded, before=reach, after=0 if causal else reach, scale=scale, block_size=self.block_size
        )
        if self.dilation == 1:
            return band(q, k, v)
        b, h, n_q, _ = q.shape
        r = self._distinct(n_q, k.shape[2])
        groups = self._groups(n_q, k.shape[2])
        height = max(rows for _, _, rows, _ in groups)
        parts = []
        for first, end, rows, keys in groups:
            if rows == 0 or keys == 0:
                parts.append(q.new_zeros(b, h, height, end - first, v.shape[3]))
                continue
            qs = _residues(q, r, first, end, rows)
            ks, vs = _residues(k, r, first, end, keys), _residues(v, r, first, end, keys)
            out = band(qs, ks, vs)  # (B·(end - first), H, rows, Dv)
            out = out.unflatten(0, (b, end - first)).permute(0, 2, 3, 1, 4)
            parts.append(F.pad(out, (0, 0, 0, 0, height - rows, 0)) if rows < height else out)
        return torch.cat(parts, dim=3).flatten(2, 3)[:, :, -n_q:]

    def _groups(self, n_q: int, n_k: int) -> list[tuple[int, int, int, int]]:
        """The residues 0 … r - 1 of the distance to the end, in runs that hold equally many queries and keys.

        Each is (first, end, queries, keys), from the largest residue to the smallest: in order of position. At most
        three, as a count changes once, at N mod r. Counting from the end keeps q and k aligned bottom-right.
        """
        r = self._distinct(n_q, n_k)
        bounds = sorted({0, n_q % r, n_k % r, r}, reverse=True)
        return [(a, e, (n_q - a + r - 1) // r, (n_k - a + r - 1) // r) for e, a in itertools.pairwise(bounds)]

    def _distinct(self, n_q: int, n_k: int) -> int:
        """The dilation, cut to the lengths: where it is longer, each query sees one key at most, as with this one."""
        return min(self.dilation, max(n_q, n_k))

    def keep(self, state: State) -> State:
        """The last (w - 1) r + 1 tokens: those between the seen ones wait for their turn."""
        last = (self.window_size - 1) * self.dilation + 1
        return State(state.seen, {name: kept[:, :, -last:].clone() for name, kept in state.tensors.items()})

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        reach = self.window_size - 1
        return sum(
            (end - first) * band_pairs(rows, keys, reach, 0 if causal else reach)
            for first, end, rows, keys in self._groups(n_q, n_k)
            if rows and keys
        )


def _residues(x: Tensor, r: int, first: int, end: int, count: int) -> Tensor:
    """The last `count` rows of each residue first … end - 1 modulo r of the distance to the end, as a batch.

    (B, H, N, D) -> (B·(end - first), H, count, D), everything in order of position.
    """
    n, width = x.shape[2], end - first
    start = n - end - (count - 1) * r
    columns = x[:, :, start : n - first].unfold(2, width, r)  # (B, H, count, D, width): a view, nothing twice
    return columns.permute(0, 4, 1, 2, 3).flatten(0, 1)
