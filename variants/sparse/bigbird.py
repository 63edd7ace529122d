"""BigBird: blocks of tokens that see their neighbours, a few random blocks, and a few that see and are seen by all.

Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", arXiv:2007.14062, section 2 and appendix D, in its
internal construction (ITC), where the global blocks are part of the text. Blocks of 64 tokens: 3 of window, 3 random,
2 global. As in the authors' code those two are the first and the last; in general half of the global blocks stand at
either end, and the odd one in front.

Random blocks are drawn for each block and head, without repetition, from those that are neither in the window nor
global, by `seed`. A text that has fewer than r such blocks left shows all of them, so that a short text is dense
because the method says so; there is no other path for it. A last block that is cut short is never drawn.

The definition follows the paper, where any block may be drawn, and a key counts once. The authors' code draws from the
first 1024 tokens, or at lengths other than 1024, 3072 and 4096 mostly from the first 2 r + 5 blocks. Its port in
`transformers` draws in training only: in evaluation its random blocks all are block 0, which then counts r + 1 times.

The paper's model is an encoder, and its last global block is the future of all others: there is no causal form.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import Budget, Complexity, Identity, Supports, Variant, VariantError, register
from ..blocks import attend
from ..definitions import masked_softmax


@register(
    "bigbird",
    family="sparse",
    kind="approximate",
    supports=Supports(causal=False, cross=False),
    budget=Budget("keys", lambda n, causal, length: {"block_size": n // 8} if n >= 8 else None),
    complexity=Complexity(time=1, memory=1, text="O(N (w + r + g) C d) time, O(N (w + r + g) d) memory"),
    paper='Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", arXiv:2007.14062, sec. 2, app. D',
    formula="softmax over the keys of blocks in the window, drawn, or global; over all keys in global rows",
    reduces_to="softmax attention where the window, the global blocks or the random ones take in all blocks",
    identities=(
        Identity("bigbird(num_window_blocks=1001, block_size=8)", "naive"),
        Identity("bigbird(num_global_blocks=1000, block_size=8)", "naive"),
        Identity("bigbird(num_random_blocks=1000, block_size=8)", "naive"),
        Identity("bigbird(block_size={N})", "naive"),
    ),
)
@dataclass(frozen=True)
class BigBird(Variant):
    """Each block's keys are copied together, (w + r + g) C of them, and all blocks attend in one fused call."""

    block_size: int = 64
    """C: tokens of a block."""
    num_window_blocks: int = 3
    """w: neighbouring blocks that a block sees, its own counted; odd, half of the others on either side."""
    num_random_blocks: int = 3
    """r: blocks drawn for each block and head beyond those."""
    num_global_blocks: int = 2
    """g: blocks that see all and are seen by all: the first and the last ones of the text in turn."""
    seed: int = 0
    """Of the random blocks."""

    def __post_init__(self) -> None:
        self.require(block_size=1, num_window_blocks=1, num_random_blocks=0, num_global_blocks=0, seed=0)
        if self.num_window_blocks % 2 == 0:
            raise VariantError(
                f"{self.name}: num_window_blocks must be odd (a block and as many on either side), "
                f"not {self.num_window_blocks}"
            )

    # -- which blocks see which ---------------------------------------------------------------------------------

    def global_blocks(self, blocks: int) -> tuple[int, int]:
        """How many blocks at the front and at the end of `blocks` are global."""
        front = min(blocks, (self.num_global_blocks + 1) // 2)
        return front, min(blocks - front, self.num_global_blocks // 2)

    def random_blocks(self, n: int, heads: int) -> Tensor:
        """The plan for a text of n tokens: block numbers (heads, blocks, R), -1 where no more are left to draw.

        R is r, or fewer where the text has fewer blocks. The rows of global blocks, which see all, are -1. Drawn on the
        CPU: the same on every machine.
        """
        blocks = -(-n // self.block_size)
        front, back = self.global_blocks(blocks)
        row = torch.arange(blocks)
        low, high = self._window(row, blocks)
        end = min(blocks - back, n // self.block_size)  # a last block that is cut short is not drawn
        left = end - front - (high.clamp(max=end) - low.clamp(max=end))
        most = min(self.num_random_blocks, max(0, end - front))
        wanted = left.clamp(max=most)
        uniform = torch.rand(
            heads, blocks, most, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64
        )
        chosen = torch.full((heads, blocks, most), -1)  # first as ranks among the blocks left
        for i in range(most):  # Floyd's sampling: a uniform subset in as many steps as it has members
            top = left - wanted + i
            rank = (uniform[..., i] * (top + 1)).long()
            rank = torch.where((chosen[..., :i] == rank[..., None]).any(dim=-1), top, rank)
            chosen[..., i] = torch.where(i < wanted, rank, -1)
        is_global = (row < front) | (row >= blocks - back)
        none = (chosen < 0) | is_global[:, None]
        chosen += front
        chosen += torch.where(chosen >= low[:, None], (high - low)[:, None], 0)  # the ranks skip the window
        return chosen.masked_fill_(none, -1)

    def _window(self, row: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
        """First and end of the window of each block, less what is global."""
        front, back = self.global_blocks(blocks)
        half = self.num_window_blocks // 2
        return (row - half).clamp(front, blocks - back), (row + half + 1).clamp(front, blocks - back)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        heads, n, c = q.shape[1], q.shape[2], self.block_size
        blocks = -(-n // c)
        front, back = self.global_blocks(blocks)
        i, j = (rows // c)[:, None], torch.arange(blocks, device=q.device)
        window = (i - j).abs() <= self.num_window_blocks // 2
        key_is_global, row_is_global = ((x < front) | (x >= blocks - back) for x in (j, i))
        plan = self.random_blocks(n, heads).to(q.device)[:, rows // c]  # (H, R, r)
        drawn = (plan[..., None] == j).any(dim=2)
        seen = window | key_is_global | row_is_global | drawn  # (H, R, blocks)
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=seen.repeat_interleave(c, dim=2)[..., :n])

    # -- the fast form ------------------------------------------------------------------------------------------

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        h, n, c = q.shape[1], q.shape[2], self.block_size
        blocks = -(-n // c)
        front, back = self.global_blocks(blocks)
        if front + back == blocks:  # every block is global
            return attend(q, k, v, scale=scale)
        missing = blocks * c - n
        q, keys, values = (F.pad(x, (0, 0, 0, missing)) if missing else x for x in (q, k, v))
        q = q.unflatten(2, (blocks, c))
        parts = []
        layout = _layout(self, n, h, q.device)
        if front + back:
            rows = torch.cat([q[:, :, :front], q[:, :, blocks - back :]], dim=2).flatten(2, 3)
            parts.append(attend(rows, k, v, scale=scale).unflatten(2, (-1, c)))
        for group in layout.groups:
            rows = q.index_select(2, group.rows).flatten(1, 2)  # (B, H·R, C, D)
            gathered_k, gathered_v = (
                _gather(x, group.blocks, c)[:, :, : group.length] for x in (keys, values)
            )  # (B, H·R, keys, ·)
            out = attend(rows, gathered_k, gathered_v, scale=scale, allowed=group.allowed)
            parts.append(out.unflatten(1, (h, -1)))
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2).index_select(2, layout.order)
        return out.flatten(2, 3)[:, :, :n]

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        n, c = n_k, self.block_size
        blocks = -(-n // c)
        front, back = self.global_blocks(blocks)
        half = self.num_window_blocks // 2
        missing = blocks * c - n
        end = min(blocks - back, n // c)

        def of_block(i: int) -> int:
            low, high = max(front, i - half), min(blocks - back, i + half + 1)
            left = end - front - (min(high, end) - min(low, end))
            seen = front + back + high - low + min(self.num_random_blocks, left)
            sees_last = back > 0 or high == blocks
            rows = c - missing if i == blocks - 1 else c
            return rows * (seen * c - (missing if sees_last else 0))

        first, last = front, blocks - back  # the blocks that are not global; those far from either end are alike
        head = range(first, min(last, first + half + 1))
        tail = range(max(head.stop, last - half - 1), last)
        local = sum(map(of_block, head)) + sum(map(of_block, tail))
        if tail.start > head.stop:
            local += (tail.start - head.stop) * of_block(head.stop)
        global_rows = n if first >= last else front * c + (back * c - missing if back else 0)
        return global_rows * n + local


@dataclass(frozen=True)
class _Group:
    """Blocks of queries that attend in one call."""

    rows: Tensor
    """Their numbers, (R,)."""
    blocks: Tensor
    """The blocks that they see, (H, R, K)."""
    length: int
    """Of the K · C keys, how many there are: fewer where the last block is cut short, which then stands last."""
    allowed: Tensor | None
    """(1, H·R, 1, K · C), where some rows have fewer blocks than others."""


@dataclass(frozen=True)
class _Layout:
    groups: tuple[_Group, ...]
    order: Tensor
    """Where each block of the text stands in: global blocks, then those of the groups."""


@functools.lru_cache(maxsize=16)
def _layout(attn: BigBird, n: int, heads: int, device: torch.device) -> _Layout:
    # kept for calls that train too, on the device of the inputs whatever the default device is
    with torch.inference_mode(False), torch.device("cpu"):
        return _make_layout(attn, n, heads, device)


def _make_layout(attn: BigBird, n: int, heads: int, device: torch.device) -> _Layout:
    """The blocks that are not global, in two groups: those that see w + r + g whole blocks need no mask."""
    c = attn.block_size
    blocks = -(-n // c)
    front, back = attn.global_blocks(blocks)
    row = torch.arange(front, blocks - back)
    low, high = attn._window(row, blocks)
    half = attn.num_window_blocks // 2
    window = row[:, None] + torch.arange(-min(half, blocks), min(half, blocks) + 1)
    window = window.masked_fill((window < low[:, None]) | (window >= high[:, None]), -1)
    every = row[:, None]
    lists = (
        torch.arange(front).expand(len(row), -1).expand(heads, -1, -1),
        window.expand(heads, -1, -1),
        attn.random_blocks(n, heads)[:, front : blocks - back],
        (torch.arange(blocks - back, blocks) + 0 * every).expand(heads, -1, -1),
    )
    seen = torch.cat(lists, dim=2)  # (H, rows, K)
    cut = blocks - 1 if n % c and not back else blocks  # the first block that is not whole and not last in its list
    whole = ((seen >= 0) & (seen < cut)).all(dim=2).all(dim=0)
    groups = []
    if whole.any():
        length = seen.shape[2] * c - (-n % c if back else 0)
        groups.append(_Group(row[whole], seen[:, whole], length, None))
    if not whole.all():
        rest = seen[:, ~whole]
        rest = rest.gather(2, (rest < 0).to(torch.uint8).argsort(dim=2, stable=True))
        rest = rest[..., : int((rest >= 0).sum(dim=2).max())]
        position = rest[..., None] * c + torch.arange(c)
        allowed = ((rest[..., None] >= 0) & (position < n)).flatten(2)  # (H, R, K · C)
        allowed = allowed.flatten(0, 1)[None, :, None]
        groups.append(_Group(row[~whole], rest.clamp(min=0), rest.shape[2] * c, allowed))
    order = torch.cat([torch.arange(front), torch.arange(blocks - back, blocks), *(g.rows for g in groups)]).argsort()
    return _Layout(
        tuple(
            _Group(
                g.rows.to(device),
                g.blocks.to(device),
                g.length,
                None if g.allowed is None else g.allowed.to(device),
            )
            for g in groups
        ),
        order.to(device),
    )


def _gather(x: Tensor, blocks: Tensor, c: int) -> Tensor:
    """Copies blocks (H, R, K) of x (B, Hkv, n·C, D) together: (B, H·R, K·C, D)."""
    b, kv_heads, n, d = x.shape
    heads, rows, _ = blocks.shape
    first = torch.arange(b * kv_heads, device=x.device).view(b, kv_heads, 1, 1, 1) * (n // c)
    index = first + blocks.unflatten(0, (kv_heads, -1))  # (B, Hkv, G, R, K)
    taken = x.reshape(b * kv_heads * (n // c), c * d).index_select(0, index.flatten())
    return taken.view(b, heads * rows, -1, d)
