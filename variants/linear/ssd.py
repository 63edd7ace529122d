"""State-space duality, the layer of Mamba-2: a state that forgets at one rate for all channels, set by each token.

Dao & Gu 2024, "Transformers are SSMs", arXiv:2405.21060, equation 2 (the recurrence) and section 6 (chunks). In the
paper's letters q = C, k = B, v = x, so the state S is (D, Dv), and a step of length dt > 0 gives
S = exp(dt A) S + dt B xᵀ with one A < 0 for each head. Nothing is scaled by d^-1/2: `scale` defaults to 1 here. The
layer's convolution, gate, norm and the skip D x stand outside. Where the paper shares B and C among groups of heads,
repeat q and k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..api import Complexity, Extra, Identity, Supports, positive, register
from ..decay import decay_matrix, decayed_states
from ..recurrence import Recurrent, fading


def minus_exp(x: Tensor) -> Tensor:
    return -x.exp()


@register(
    "ssd",
    family="linear",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N d²) time, O(N d) memory; decoding keeps d² numbers a head", state=0
    ),
    paper='Dao & Gu 2024, "Transformers are SSMs" (Mamba-2), arXiv:2405.21060',
    formula="S_t = exp(dt_t A) S_{t-1} + dt_t k_t v_tᵀ, o_t = q_t S_t",
    reduces_to="linear attention without a feature map where A = 0 and dt = 1; retention where dt is constant",
    extras=(
        # steps around 0.01, and A around -4: where Mamba-2 starts (steps of 0.001 to 0.1, A of -1 to -16)
        Extra("dt", ("B", "H", "N"), "length of the token's step, > 0", F.softplus, bias=-4.6, extremes=(0.0, 20.0)),
        Extra("A", ("H",), "rate of forgetting, < 0", minus_exp, bias=1.4, extremes=(0.0, -16.0)),
    ),
    tuning=("chunk_size",),
    identities=(
        Identity("ssd", fading, "A = 0, dt = 1: linear attention", extras={"A": 0.0, "dt": 1.0}),
        Identity(
            "ssd",
            lambda q, k, v, **rest: fading(q, k, v, **rest, gamma=math.exp(-0.5)) / 2,
            "A = -1, dt = 1/2: retention with gamma = e^-1/2 and scale = dt",
            extras={"A": -1.0, "dt": 0.5},
        ),
    ),
)
@dataclass(frozen=True)
class SSD(Recurrent):
    """Chunks of C: masked scores within a chunk, one state for all before it."""

    chunk_size: int = 64
    """C: tokens of a chunk, best a power of two. Changes speed and memory, never the result."""

    def __post_init__(self) -> None:
        self.require(chunk_size=1)

    @staticmethod
    def default_scale(q: Tensor, scale: float | None) -> float:
        return 1.0 if scale is None else positive(scale)

    def step(
        self, state: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor, *, scale: float, dt: Tensor, A: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        write = (dt.unsqueeze(-1) * k).unsqueeze(-1) * v.unsqueeze(-2)  # (B, H, D, Dv)
        memory = (dt * A).exp()[..., None, None] * state["memory"] + write
        return ((scale * q).unsqueeze(-2) @ memory).squeeze(-2), {"memory": memory}

    def chunks(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, dt: Tensor, A: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        matrix, before, after = decay_matrix(dt * A[:, None, None])  # (B, H, n, C, C), (B, H, n, C) twice
        q, v = scale * q, dt.unsqueeze(-1) * v
        kept = before[..., -1].exp()[..., None, None]  # (B, H, n, 1, 1)
        states = decayed_states((k * after.exp().unsqueeze(-1)).mT @ v, kept)  # (B, H, n + 1, D, Dv)
        out = (q @ k.mT * matrix) @ v + (q * before.exp().unsqueeze(-1)) @ states[:, :, :-1]
        return out, {"memory": states[:, :, -1]}
