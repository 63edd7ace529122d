"""Block-local attention: the sequence is cut into chunks of C, and a query sees its own chunk only.

Liu et al. 2018, "Generating Wikipedia by Summarizing Long Sequences", arXiv:1801.10198: its local attention, without
the memory compression of its other layers. The chunked layers of Llama 4 are the same, with chunks of 8192
(`attention_chunk_size` in the public configuration). Chunks are counted from the first key.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Budget, Complexity, Identity, State, Supports, Variant, register
from ..blocks import attend, blind_rows, join_blocks, prepend_zeros, split_blocks
from ..definitions import masked_softmax, positions


@register(
    "block_local",
    family="chunked",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(time=1, memory=1, text="O(N C d) time, O(N d) memory", state=0),
    paper='Liu et al. 2018, "Generating Wikipedia by Summarizing Long Sequences", arXiv:1801.10198',
    formula="softmax over the keys with floor(j / C) = floor(i / C), and j <= i if causal",
    # a causal query sees half of its chunk on average
    budget=Budget("keys", lambda n, causal, length: {"chunk_size": 2 * n if causal else n}),
    reduces_to="softmax attention where chunk_size >= N",
    identities=(Identity("block_local(chunk_size={N})", "naive"),),
)
@dataclass(frozen=True)
class BlockLocal(Variant):
    """Whole chunks take the place of heads in one fused call; a chunk cut short at either end has a call of its own."""

    chunk_size: int = 512
    """C: tokens of a chunk."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        own = i.div(self.chunk_size, rounding_mode="floor") == j.div(self.chunk_size, rounding_mode="floor")
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=own & (j <= i) if causal else own)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        c, n_k = self.chunk_size, k.shape[2]
        blind = blind_rows(q.shape[2], n_k)  # queries before the first key are in no chunk of keys, causal or not
        q = q[:, :, blind:]
        shift = n_k - q.shape[2]  # position of the first query left
        body = min(n_k, -(-shift // c) * c)  # position where whole chunks begin
        tail = max(body, n_k // c * c)  # and where they end
        parts = []
        for start, end in ((shift, body), (tail, n_k)):
            if start == end:
                continue
            low = start // c * c
            high = end if causal else min(low + c, n_k)
            rows = q[:, :, start - shift : end - shift]
            parts.append(attend(rows, k[:, :, low:high], v[:, :, low:high], scale=scale, causal=causal))
        if tail > body:
            chunks = (tail - body) // c
            rows = split_blocks(q[:, :, body - shift : tail - shift], k.shape[1], c)
            keys = k[:, :, body:tail].reshape(-1, chunks, c, k.shape[3])  # (B·Hkv, n, C, D)
            values = v[:, :, body:tail].reshape(-1, chunks, c, v.shape[3])
            whole = attend(rows, keys, values, scale=scale, causal=causal)
            parts.insert(int(body > shift), join_blocks(whole, q.shape[0], q.shape[1], k.shape[1]))
        return prepend_zeros(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2), blind)

    def keep(self, state: State) -> State:
        """The newest token's chunk so far."""
        own = (state.seen - 1) % self.chunk_size + 1
        return State(state.seen, {name: kept[:, :, -own:].clone() for name, kept in state.tensors.items()})

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        rows = min(n_q, n_k)
        return self._pairs_before(n_k, n_k, causal) - self._pairs_before(n_k - rows, n_k, causal)

    def _pairs_before(self, p: int, n_k: int, causal: bool) -> int:
        """Pairs of the queries at positions 0 … p - 1."""
        c = self.chunk_size
        whole, rest = divmod(p, c)
        if causal:
            return whole * (c * (c + 1) // 2) + rest * (rest + 1) // 2
        return whole * c * c + rest * min(c, n_k - whole * c)
