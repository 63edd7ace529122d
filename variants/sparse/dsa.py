"""DeepSeek Sparse Attention: a small indexer scores every key, and all heads attend to the same k best.

DeepSeek-AI 2025, "DeepSeek-V3.2", arXiv:2512.02556, equations 1 and 2: I_ts = sum over indexer heads h of
w_th · ReLU(q_th · k_s), then softmax attention over the k keys of highest I_ts.

What differs from the model: it has 64 indexer heads of 128 beside 128 heads of attention, where a pair costs the
indexer about a seventeenth of what it costs attention; the defaults here are 4 of 64, for layers of a few heads. It
runs the indexer in 8 bits and attends in a latent space that all heads share (MLA); here the indexer runs as written,
and heads have keys and values of their own. Constant factors of the public code (head_dim^-1/2, heads^-1/2) leave the
choice as it is. It is made in one fixed arithmetic, see `selection`.

The choice is hard, so the output has no gradient in q_idx, k_idx and w_idx: zeros. The paper trains them by a
KL divergence to the attention that the heads pay, which is a loss of its own and no part of this operator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import Budget, CaseLike, Complexity, Extra, Identity, State, Supports, Variant, causal_pairs, register
from ..definitions import masked_softmax, positions
from ..selection import attend_best, best
from .sliding_window import band_pairs

DRAWN_NOISE = 0.25
"""Noise of a drawn indexer's queries, over their own root mean square."""


def _as_is(x: Tensor) -> Tensor:
    return x


def key_axes(k: Tensor, dim: int) -> Tensor:
    """Principal axes of all heads' keys side by side, the first `dim`, zeros beyond Hkv·D: (B, Hkv, D, dim)."""
    x = k.detach().to("cpu", torch.float64).transpose(1, 2).flatten(2)  # (B, Nk, Hkv·D)
    axes = torch.linalg.eigh(x.mT @ x).eigenvectors.flip(-1)[..., :dim]
    padded: Tensor = F.pad(axes, (0, dim - axes.shape[-1]))
    return padded.reshape(k.shape[0], k.shape[1], k.shape[3], dim)


def draw_keys(generator: torch.Generator, shape: tuple[int, ...], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The keys of all heads in their principal axes."""
    return torch.einsum("bhnd,bhdi->bni", k.detach().to("cpu", torch.float64), key_axes(k, shape[-1]))


def draw_queries(generator: torch.Generator, shape: tuple[int, ...], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each indexer head speaks for a run of heads: their queries in the keys' axes, summed, and noise.

    With as many axes as Hkv·D, q_idx·k_idx is the sum of those heads' q·k, but for the noise. Fewer lose some of it:
    with the defaults, 4 heads of 64 and N = 1024, the scores correlate at .52 with the logarithm of the heads' mean
    attention where q and k are Gaussian, and the 128 best keys hold .27 of it (random ones .17, the true best .36); at
    .67 and .64 (.17, .72) where the heads' k are projections of one vector of 64 a token, as a layer's are of its x.
    """
    indexers, dim = shape[1], shape[3]
    heads = q.shape[1]
    axes = key_axes(k, dim).repeat_interleave(heads // k.shape[1], dim=1)  # (B, H, D, dim)
    seen = q.detach().to("cpu", torch.float64) @ axes  # (B, H, Nq, dim)
    if indexers > heads:
        drawn = seen[:, torch.arange(indexers) % heads]
    else:
        drawn = seen.new_zeros(shape).index_add_(1, torch.arange(heads) * indexers // heads, seen)
    size = drawn.square().mean(dim=-1, keepdim=True).sqrt()
    return drawn + DRAWN_NOISE * size * torch.randn(shape, generator=generator, dtype=torch.float64)


def draw_strengths(generator: torch.Generator, shape: tuple[int, ...], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """About equal: the indexer heads speak for as many heads each."""
    return 1 + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)


@register(
    "dsa",
    family="sparse",
    kind="approximate",
    supports=Supports(decode=True),
    complexity=Complexity(
        time=2,
        memory=1,
        state=1,
        text="O(N² h d_I + N k d) time (h indexer heads of d_I), O(N (C + k)) memory, C queries ranked at a time",
    ),
    paper='DeepSeek-AI 2025, "DeepSeek-V3.2", arXiv:2512.02556, eq. 1 and 2',
    formula="softmax over the k keys with the highest sum_h w_th ReLU(q_idx_th · k_idx_s), the same for all heads",
    budget=Budget("keys", lambda n, causal, length: {"top_k": n}),
    reduces_to="softmax attention where top_k >= N",
    extras=(
        Extra(
            "q_idx",
            ("B", "num_indexers", "Nq", "index_dim"),
            "the indexer's queries. Drawn: the heads' own q in the principal axes of their keys, and noise",
            activate=_as_is,
            draw=draw_queries,
        ),
        Extra(
            "k_idx",
            ("B", "Nk", "index_dim"),
            "the indexer's keys, one for all of its heads. Drawn: all heads' k in their principal axes",
            activate=_as_is,
            draw=draw_keys,
        ),
        Extra(
            "w_idx",
            ("B", "num_indexers", "Nq"),
            "how much each indexer head counts, of either sign. Drawn: about 1",
            activate=_as_is,
            bias=1.0,
            draw=draw_strengths,
        ),
    ),
    tuning=("block_size",),
    position_free=True,
    identities=(
        Identity("dsa(top_k={N})", "naive"),
        Identity("dsa(top_k={N}, num_indexers=1, index_dim=2)", "naive"),
    ),
)
@dataclass(frozen=True)
class Dsa(Variant):
    """Blocks of queries: their index scores, the k best keys, and only those keys' rows of k and v attended."""

    top_k: int = 2048
    """k: keys that a query keeps, the same for all heads. Fewer where it sees fewer."""
    num_indexers: int = 4
    """Heads of the indexer. 64 in the released model, which has 128 attention heads."""
    index_dim: int = 64
    """Size of the indexer's vectors. 128 in the released model."""
    block_size: int = 64
    """C: queries ranked at a time. Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(top_k=1, num_indexers=1, index_dim=1, block_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, **extras: Tensor) -> Tensor:
        q_idx, k_idx, w_idx = (extras[name].detach().double() for name in ("q_idx", "k_idx", "w_idx"))
        dots = q_idx[:, :, rows] @ k_idx[:, None].mT  # (B, h, R, Nk)
        scores = (w_idx[:, :, rows, None] * dots.relu()).sum(dim=1, keepdim=True)  # (B, 1, R, Nk)
        i, j = positions(q, k, rows)
        kept = best(scores.to(torch.float32), j <= i if causal else None, self.top_k)
        return masked_softmax(q, k, scale=scale, rows=rows, allowed=kept)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, **extras: Tensor) -> Tensor:
        return attend_best(
            q,
            k,
            v,
            _rank,
            tuple(extras[name].detach().double() for name in ("q_idx", "k_idx", "w_idx")),
            choices=1,
            top_k=self.top_k,
            causal=causal,
            scale=scale,
            block_size=self.block_size,
        )

    def prefill(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """As the base's, with the indexer's keys beside k and v in the state."""
        out, state = super().prefill(q, k, v, scale=scale, **extras)
        return out, State(state.seen, {**state.tensors, "k_idx": extras["k_idx"]})

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """One token more, with its own q_idx (B, h, 1, ·), k_idx (B, 1, ·) and w_idx (B, h, 1)."""
        state = state.append({"k": k, "v": v, "k_idx": extras["k_idx"]})
        out = self(q, state["k"], state["v"], causal=True, scale=scale, **{**extras, "k_idx": state["k_idx"]})
        return out, state

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        # a causal row has as many keys as in a window of k: the smaller of k and what it sees
        return band_pairs(n_q, n_k, self.top_k - 1, 0) if causal else n_q * min(self.top_k, n_k)

    def flops_needed(self, case: CaseLike) -> int:
        """The index score of every pair, where a choice is to be made, and attention over the chosen ones."""
        attended = 4 * case.head_dim * case.heads * self.visible_pairs(case.n_q, case.n_k, case.causal)
        scored = causal_pairs(case.n_q, case.n_k) if case.causal else case.n_q * case.n_k
        if self.top_k >= case.n_k:
            scored = 0
        return case.batch * (attended + 2 * self.num_indexers * (self.index_dim + 1) * scored)


def _rank(tensors: tuple[Tensor, ...], rows: slice, out: Tensor, spare: Tensor) -> None:
    """Index scores of some rows over the first n keys into `out`, (B, 1, R, n): one indexer head at a time."""
    q_idx, k_idx, w_idx = tensors
    keys = k_idx[:, : out.shape[-1]].mT
    total, dots = out.squeeze(1).zero_(), spare.squeeze(1)
    for head in range(q_idx.shape[1]):
        torch.bmm(q_idx[:, head, rows], keys, out=dots)
        total += dots.relu_().mul_(w_idx[:, head, rows, None])
