"""Gated linear attention: each channel of the state forgets at its own rate, which each token sets anew.

Yang et al. 2023, "Gated Linear Attention Transformers with Hardware-Efficient Training", arXiv:2312.06635, section 4:
the recurrence, its chunks, chunks within them (4.3), and alpha = sigmoid(x W)^(1/16) (4.4). The gate comes as its
logarithm; the paper's norm and output gate stand outside. As in the authors' code, and unlike the paper's formulas, q
is scaled by d^-1/2.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import Complexity, Extra, Identity, Supports, register
from ..decay import decayed_scores, decayed_states
from ..recurrence import Recurrent, fading


def log_gate(x: Tensor) -> Tensor:
    """log(sigmoid(x)^(1/16))."""
    return F.logsigmoid(x) / 16


@register(
    "gla",
    family="linear",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N d²) time, O(N d) memory; decoding keeps d² numbers a head", state=0
    ),
    paper='Yang et al. 2023, "Gated Linear Attention Transformers", arXiv:2312.06635',
    formula="S_t = diag(alpha_t) S_{t-1} + k_t v_tᵀ, o_t = d^-1/2 q_t S_t, log alpha = log_decay",
    reduces_to="linear attention without a feature map where log_decay = 0; retention where it is the same "
    "for all tokens and channels of a head",
    extras=(
        Extra(
            "log_decay", ("B", "H", "N", "D"), "log of what each channel keeps, <= 0", log_gate, extremes=(0.0, -50.0)
        ),
    ),
    tuning=("chunk_size",),
    identities=(
        Identity("gla", fading, "log_decay = 0 is linear attention", extras={"log_decay": 0.0}),
        Identity("gla", "retention(gamma=1.0)", extras={"log_decay": 0.0}),
        Identity(
            "gla",
            functools.partial(fading, gamma=0.5),
            "equal, constant gates are retention",
            extras={"log_decay": lambda x: torch.full_like(x, math.log(0.5))},
        ),
        Identity(
            "gla",
            functools.partial(fading, gamma=0.0),
            "shut gates: each token sees itself",
            extras={"log_decay": -5e3},
        ),
    ),
)
@dataclass(frozen=True)
class GLA(Recurrent):
    """Chunks of C: scores within a chunk by halves, whose decays cannot overflow; one state for all before it."""

    chunk_size: int = 64
    """C: tokens of a chunk, best a power of two. Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)

    def step(
        self, state: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor, *, scale: float, log_decay: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        memory = log_decay.exp().unsqueeze(-1) * state["memory"] + k.unsqueeze(-1) * v.unsqueeze(-2)  # (B, H, D, Dv)
        return ((scale * q).unsqueeze(-2) @ memory).squeeze(-2), {"memory": memory}

    def chunks(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, log_decay: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q = scale * q
        (scores,), before, after = decayed_scores((q,), k, log_decay)  # (B, H, n, C, C), (B, H, n, C, D) twice
        kept = before[..., -1, :].exp().unsqueeze(-1)  # (B, H, n, D, 1)
        states = decayed_states((k * after.exp()).mT @ v, kept)  # (B, H, n + 1, D, Dv)
        out = scores @ v + (q * before.exp()) @ states[:, :, :-1]
        return out, {"memory": states[:, :, -1]}
