"""What is timed of a uniform case, and how it is held to the definition before that."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..variants.api import Variant
from . import error
from .case import Case
from .decoding import Decoder

NARROW = ("bfloat16", "float16")


def check(
    attn: Variant,
    form: Variant,
    case: Case,
    qkv: tuple[Tensor, Tensor, Tensor],
    extras: dict[str, Tensor],
    rows: Tensor,
    fast: Callable[[Mapping[str, Tensor]], Tensor] | None = None,
) -> tuple[error.Check, Tensor, Decoder | None]:
    """Holds `form`, which is `attn` itself or compiled, to the definition with the case's inputs and in its mode.

    Rounding in a narrow dtype can hide a small slip, so the same numbers are checked in float32 first; of a compiled
    form that is the code it was compiled from. Of a decode step the latest Decoder is returned too. `fast` is what is
    held to it in place of `form`, as `error.check` takes it.
    """
    own = qkv[0].dtype
    wide = case.dtype in NARROW and "float32" in attn.supports.dtypes
    wanted: dict[str, Tensor] = {}
    for dtype in (torch.float32, own) if wide else (own,):
        tried = form if dtype == own else attn
        decoder = Decoder(tried) if case.mode == "decode" else None
        x, y, z = (tensor.to(dtype) for tensor in qkv)
        verdict, out = error.check(
            tried,
            x,
            y,
            z,
            causal=case.causal,
            train=case.mode == "train",
            rows=rows,
            seed=case.seed,
            extras={name: tensor.to(dtype) for name, tensor in extras.items()},
            fast=decoder or fast,
            wanted=wanted,
        )
        if not verdict.correct:
            break
    return verdict, out, decoder


def make_call(
    attn: Variant, case: Case, q: Tensor, k: Tensor, v: Tensor, extras: dict[str, Tensor]
) -> Callable[[], object]:
    """The call that is timed and weighed: the inputs were checked once, so the variant's `forward` alone."""
    scale = attn.default_scale(q, None)
    if case.mode == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return attn.forward(q, k, v, causal=case.causal, scale=scale, **extras)

        return forward

    leaves = [tensor.requires_grad_() for tensor in (q, k, v, *extras.values())]
    upstream = torch.randn(q.shape[:3] + v.shape[3:], generator=torch.Generator().manual_seed(case.seed)).to(q)

    def train() -> tuple[Tensor, ...]:
        # gradients are returned, not accumulated: each call starts from none
        out = attn.forward(q, k, v, causal=case.causal, scale=scale, **extras)
        return torch.autograd.grad(out, leaves, upstream, allow_unused=True)

    return train
