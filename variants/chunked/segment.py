"""Segment attention: the sequence is cut into segments of C, and a query sees its own and the one before it.

Dai et al. 2019, "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context", arXiv:1901.02860, section
3.2: the reach of its segment-level recurrence with a memory of one segment, without its relative positions. Its memory
holds hidden states of the layer below, of which keys and values are made: within one layer that is attention over both
segments, with gradients cut at the border; here they flow.

The default is the segment of the released enwik8 script, target and memory of 512 tokens. The paper's models are
causal; without a causal mask the reach is the same on both sides: the segment before, one's own, and the next. Segments
are counted from the first key.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..api import Budget, Complexity, Identity, State, Supports, Variant, register
from ..blocks import attend, blind_rows, join_blocks, prepend_zeros, split_blocks, windows
from ..definitions import masked_softmax, positions

HALVED = 512
"""Segments of so many tokens are taken by halves if causal; of smaller ones, a second call costs more than it saves."""


@register(
    "segment",
    family="chunked",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(time=1, memory=1, text="O(N C d) time, O(N d) memory; decoding keeps 2 C tokens", state=0),
    paper='Dai et al. 2019, "Transformer-XL", arXiv:1901.02860, sec. 3.2',
    formula="softmax over the keys with |floor(i / C) - floor(j / C)| <= 1, and j <= i if causal",
    # one and a half segments on average if causal, three if not
    budget=Budget("keys", lambda n, causal, length: {"segment_size": max(1, 2 * n // 3 if causal else n // 3)}),
    reduces_to="softmax attention where two segments hold all",
    identities=(
        Identity("segment(segment_size={N})", "naive"),
        Identity("segment(segment_size=1)", "sliding_window(window_size=2)"),
    ),
)
@dataclass(frozen=True)
class Segment(Variant):
    """Each segment's keys are a strided view of 2C or 3C keys: no copy; a fused call or two for all whole segments."""

    segment_size: int = 512
    """C: tokens of a segment."""

    def __post_init__(self) -> None:
        self.require(segment_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        c = self.segment_size
        near = (i.div(c, rounding_mode="floor") - j.div(c, rounding_mode="floor")).abs() <= 1
        near = near & (i >= 0)  # queries before the first key are in no segment
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=near & (j <= i) if causal else near)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        c, n_k, kv_heads = self.segment_size, k.shape[2], k.shape[1]
        blind = blind_rows(q.shape[2], n_k)
        q = q[:, :, blind:]
        shift = n_k - q.shape[2]  # position of the first query left
        ahead = 0 if causal else 1
        # Whole segments that have all neighbours whole; the others, four at most, have calls of their own.
        body = min(n_k, max(1, -(-shift // c)) * c)
        tail = max(body, (n_k // c - ahead) * c)
        borders = sorted({shift, body, tail, min(tail + c, n_k), n_k})
        parts = []
        for start, end in pairwise(borders):
            rows = q[:, :, start - shift : end - shift]
            if (start, end) == (body, tail):
                # a half of a segment reaches as far as itself if causal: less of the scores is made to be masked
                half = c // 2 if causal and c >= HALVED and c % 2 == 0 else c
                segments = split_blocks(rows, kv_heads, c)
                whole = []
                for last in range(half, c + 1, half):
                    reach = c + last + ahead * c
                    keys, values = (windows(x, body - c, (tail - body) // c, c, reach) for x in (k, v))
                    halves = segments[:, :, last - half : last]
                    whole.append(attend(halves, keys, values, scale=scale, causal=causal))
                both = whole[0] if len(whole) == 1 else torch.cat(whole, dim=2)
                parts.append(join_blocks(both, q.shape[0], q.shape[1], kv_heads))
                continue
            low = max(0, start // c - 1) * c
            high = end if causal else min((start // c + 2) * c, n_k)
            parts.append(attend(rows, k[:, :, low:high], v[:, :, low:high], scale=scale, causal=causal))
        return prepend_zeros(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2), blind)

    def keep(self, state: State) -> State:
        """The segment before the newest token's, and its own so far."""
        kept = (state.seen - 1) % self.segment_size + 1 + self.segment_size
        return State(state.seen, {name: x[:, :, -kept:].clone() for name, x in state.tensors.items()})

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        rows = min(n_q, n_k)
        return self._pairs_before(n_k, n_k, causal) - self._pairs_before(n_k - rows, n_k, causal)

    def _pairs_before(self, p: int, n_k: int, causal: bool) -> int:
        """Pairs of the queries at positions 0 … p - 1."""
        c = self.segment_size
        whole, rest = divmod(p, c)
        before = max(0, whole - 1) * c * c + (rest * c if whole else 0)  # with the segment before their own
        if causal:
            return before + whole * (c * (c + 1) // 2) + rest * (rest + 1) // 2
        # all keys to the end of the next segment, less those before it and the one before
        full = n_k // c  # whole segments of keys
        own = whole * c * c + rest * min(c, n_k - whole * c)
        short = n_k - full * c
        after = c * c * min(whole, max(0, full - 1)) + (c * short if whole >= full > 0 else 0)
        return before + own + after + rest * max(0, min(c, n_k - (whole + 1) * c))
