"""cosFormer: relu(q)·relu(k) in place of exp(q·k), weighted by the cosine of the distance, cos(pi (i - j) / 2M).

Qin et al. 2022, "cosFormer: Rethinking Softmax in Attention", arXiv:2202.08791. The weight, its "cos-based
re-weighting", comes apart into cosines and sines of the positions. Normalised by rows, as linear attention is; a row
whose products are all 0 gives zeros. The public code raises a normaliser below 1e-6 to 1e-6; here
nothing is raised. The paper has no scale: one applied to relu(q) would cancel, so `scale` changes nothing here.

The public code sets M to the length at hand. That changes the past whenever the sequence grows by a token, so that
decoding never gives what the whole sequence gives; here M is fixed, and a longer sequence is refused, since beyond M
the cosine is negative. For what that code computes, set max_len to the length in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import CaseLike, Complexity, Identity, State, Supports, VariantError, register
from ..blocks import wide
from ..definitions import positions
from ..linear_sum import LinearSum, divide


def relu_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
    """cosFormer without its cosine."""
    scores = q.relu() @ k.relu().mT
    scores = scores.tril() if causal else scores
    return divide(scores, scores.sum(dim=-1, keepdim=True)) @ v


@register(
    "cosformer",
    family="linear",
    kind="own",
    supports=Supports(decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N d²) time, O(N d) memory; decoding keeps 2 d² numbers a head", state=0
    ),
    paper='Qin et al. 2022, "cosFormer: Rethinking Softmax in Attention", arXiv:2202.08791',
    formula="relu(q)·relu(k) cos(pi (i - j) / 2M) v, normalised by rows",
    reduces_to="linear attention with phi = relu, as max_len grows",
    tuning=("chunk_size",),
    identities=(
        Identity("cosformer(max_len=1000000000)", relu_attention, text="M far beyond N: linear attention of relu"),
    ),
)
@dataclass(frozen=True)
class Cosformer(LinearSum):
    """Linear attention of features [relu(x) cos, relu(x) sin] of an angle that runs with the position."""

    max_len: int = 32768
    """M: the distance at which the weight falls to 0, and the longest sequence. The public code takes the length."""
    chunk_size: int = 64
    """C: tokens of a chunk (causal form). Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(max_len=1, chunk_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        nearness = (math.pi / 2 / self.max_len * (i - j).double()).cos().to(q.dtype)  # (R, Nk)
        scores = (q[:, :, rows].relu() @ k.relu().mT) * nearness
        if causal:
            scores = scores.masked_fill(j > i, 0.0)
        return divide(scores, scores.sum(dim=-1, keepdim=True))

    def queries(self, q: Tensor, first: int, scale: float) -> Tensor:
        return self._turned(q, first)

    def keys(self, k: Tensor, first: int) -> Tensor:
        return self._turned(k, first)

    def width(self, head_dim: int) -> int:
        return 2 * head_dim

    def _turned(self, x: Tensor, first: int) -> Tensor:
        """Positions run from 0 to M - 1, angles over the first quarter: no feature is negative, no sum cancels."""
        at = torch.arange(first, first + x.shape[-2], dtype=torch.float64, device=x.device)
        angle = (math.pi / 2 / self.max_len * at).unsqueeze(-1)  # (L, 1)
        x = x.to(wide(x.dtype))
        return torch.cat([x.relu() * angle.cos().to(x.dtype), x.relu() * angle.sin().to(x.dtype)], dim=-1)

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None
    ) -> tuple[Tensor, State]:
        if reason := self._too_long(state.seen + 1):
            raise VariantError(f"{self.name}: {reason}")
        return super().decode(q, k, v, state, scale=scale)

    def refuses(self, case: CaseLike) -> list[str]:
        reason = self._too_long(max(case.n_q, case.n_k))
        return [reason] if reason else []

    def _problems(self, q: Tensor, k: Tensor, v: Tensor, causal: bool, extras: Mapping[str, Tensor]) -> Iterator[str]:
        yield from super()._problems(q, k, v, causal, extras)
        if reason := self._too_long(max(q.shape[2], k.shape[2])):
            yield reason

    def _too_long(self, n: int) -> str | None:
        if n <= self.max_len:
            return None
        return f"its cosine turns negative beyond max_len={self.max_len} tokens, and here are {n}: set max_len to that"
