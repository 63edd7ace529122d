"""Retention: linear attention without a feature map, whose state fades at a fixed rate, another for each head.

Sun et al. 2023, "Retentive Network: A Successor to Transformer for Large Language Models", arXiv:2307.08621, equations
5 to 8. Positions (the paper's xPos rotation) belong to q and k and are the caller's. So is the group norm behind it.
The paper also divides scores, decays and rows by norms, which that group norm takes out again as they only scale a row
(section 2.2); so there is no normaliser here.

`decay="lightning"` is the rates of Lightning Attention-2 (Qin et al. 2024, arXiv:2401.04658, in the layer of
TransNormerLLM, arXiv:2307.14995). For layer l of L the latter paper writes gamma = exp(-8h/H (1 - l/L)); public code
has ALiBi's slopes 2^(-8h/H) in the place of 8h/H, and a factor that falls from 1 in the first layer to 1e-5 in the last
one. This follows the code, for the first layer.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..api import Complexity, Identity, Supports, register
from ..decay import decayed_states
from ..errors import VariantError
from ..recurrence import Recurrent, fading


@register(
    "retention",
    family="linear",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N d²) time, O(N d) memory; decoding keeps d² numbers a head", state=0
    ),
    paper='Sun et al. 2023, "Retentive Network", arXiv:2307.08621',
    formula="S_t = gamma S_{t-1} + k_t v_tᵀ, o_t = d^-1/2 q_t S_t; gamma = 1 - 2^(-5-h) for head h",
    reduces_to="linear attention without a feature map where gamma = 1",
    tuning=("chunk_size",),
    identities=(
        Identity("retention(gamma=1.0)", fading, "gamma = 1 is linear attention"),
        Identity("retention(gamma=0.75)", functools.partial(fading, gamma=0.75), "its own parallel form (equation 5)"),
    ),
)
@dataclass(frozen=True)
class Retention(Recurrent):
    """Chunks of C: decayed scores within a chunk, one state for all before it. Powers of gamma are exp(n log gamma)."""

    decay: str = "retnet"
    """How heads fade: "retnet", gamma = 1 - 2^(-5-h) for head h = 0, 1, …; or "lightning", exp(-2^(-8(h+1)/H))."""
    gamma: float | None = None
    """One gamma for all heads instead, above 0 and at most 1."""
    chunk_size: int = 64
    """C: tokens of a chunk. Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)
        if self.decay not in ("retnet", "lightning"):
            raise VariantError(f"{self.name}: decay must be 'retnet' or 'lightning', not {self.decay!r}")
        if self.gamma is not None and not (type(self.gamma) in (int, float) and 0 < self.gamma <= 1):
            raise VariantError(
                f"{self.name}: gamma must be None, or a number above 0 and at most 1, not {self.gamma!r}"
            )

    def log_gamma(self, like: Tensor) -> Tensor:
        """log gamma of each head, (H,), for a tensor (B, H, …)."""
        heads = like.shape[1]
        if self.gamma is not None:
            logs = [math.log(self.gamma)] * heads
        elif self.decay == "retnet":
            logs = [math.log1p(-(2.0 ** (-5 - h))) for h in range(heads)]
        else:
            logs = [-slope for slope in slopes(heads)]
        return torch.tensor(logs, dtype=like.dtype, device=like.device)

    def step(
        self, state: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor, *, scale: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gamma = self.log_gamma(q).exp()[:, None, None]
        memory = gamma * state["memory"] + k.unsqueeze(-1) * v.unsqueeze(-2)  # (B, H, D, Dv)
        return ((scale * q).unsqueeze(-2) @ memory).squeeze(-2), {"memory": memory}

    def chunks(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
        n, c = q.shape[2:4]
        log_gamma = self.log_gamma(q)[:, None, None, None]  # (H, 1, 1, 1)
        i = torch.arange(c, dtype=q.dtype, device=q.device)
        age = (i[:, None] - i).clamp_min(0)
        inner = (scale * (age * log_gamma).exp()).tril()  # (H, 1, C, C)
        since = scale * ((i[:, None] + 1) * log_gamma).exp()  # (H, 1, C, 1): from the chunk's border to each query
        until = ((c - 1 - i[:, None]) * log_gamma).exp()  # from each key to the end of its chunk
        states = decayed_states((k * until).mT @ v, (c * log_gamma).exp().expand(1, -1, n, 1, 1))
        out = (q @ k.mT * inner) @ v + (q * since) @ states[:, :, :-1]
        return out, {"memory": states[:, :, -1]}


def slopes(heads: int) -> list[float]:
    """ALiBi's slopes: 2^(-8h/H), h = 1 … H, for a power of two; else those of the next lower one and, for the rest,
    every other of the next higher one."""
    whole = 1 << (heads.bit_length() - 1)
    first = [2.0 ** (-8 * (h + 1) / whole) for h in range(whole)]
    return first + [2.0 ** (-4 * (2 * h + 1) / whole) for h in range(heads - whole)]
