"""Linear attention: phi(q)·phi(k) in place of exp(q·k), so that keys and values are summed once and for all.

Katharopoulos et al. 2020, "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention",
arXiv:2006.16236, equations 4 to 7 and 18 to 20, phi(x) = elu(x) + 1. The paper has no scale: one applied to phi(q)
would cancel in the normaliser, so `scale` changes nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..api import Complexity, Supports, register
from ..definitions import positions
from ..linear_sum import LinearSum, divide


@register(
    "linear_elu",
    family="linear",
    kind="own",
    supports=Supports(decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N d²) time, O(N d) memory; decoding keeps d² numbers a head", state=0
    ),
    paper='Katharopoulos et al. 2020, "Transformers are RNNs", arXiv:2006.16236',
    formula="phi(q) sum(phi(k) vᵀ) / phi(q) sum(phi(k)), phi(x) = elu(x) + 1",
    tuning=("chunk_size",),
    position_free=True,
)
@dataclass(frozen=True)
class LinearElu(LinearSum):
    """Chunks of C: scores inside a chunk, the sum of phi(k) vᵀ for everything before it."""

    chunk_size: int = 64
    """C: tokens of a chunk (causal form). Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        scores = phi(q[:, :, rows]) @ phi(k).mT  # (B, H, R, Nk)
        if causal:
            i, j = positions(q, k, rows)
            scores = scores.masked_fill(j > i, 0.0)
        return divide(scores, scores.sum(dim=-1, keepdim=True))

    def queries(self, q: Tensor, first: int, scale: float) -> Tensor:
        return phi(q)

    def keys(self, k: Tensor, first: int) -> Tensor:
        return phi(k)


def phi(x: Tensor) -> Tensor:
    """elu(x) + 1, as e^min(x,0) + max(x,0): adding 1 to elu would round away all that is small."""
    return x.clamp(max=0).exp() + x.relu()
