"""Checks of prefill and decode: the same outputs token by token, from a state of the size that was promised."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ...variants.api import State, Variant
from .growth import growth_lengths
from .shapes import Defect, Shape, close, prepare, tokens
from .sizes import sized

STATE_SLACK = 0.2
"""Allowed between the exponents, measured and declared: log N at these lengths grows as N^0.1."""


def check_decode(attn: Variant, shape: Shape) -> float:
    """Every split into a prompt and single tokens gives what `forward` gives, and the state is not changed by use."""
    q, k, v, extras = prepare(attn, replace(shape, causal=True, mode="decode"))
    worst = 0.0
    with torch.no_grad():
        whole = attn(q, k, v, causal=True, **extras)
        for prompt in sorted({1, shape.n_k // 2, shape.n_k - 1} - {0}):
            cut = slice(0, prompt)
            out, state = attn.prefill(q[:, :, cut], k[:, :, cut], v[:, :, cut], **tokens(attn, extras, cut))
            parts = [out]
            for t in range(prompt, shape.n_k):
                if state.seen != t:
                    raise Defect(f"the state says that it saw {state.seen} tokens, after {t}")
                now = slice(t, t + 1)
                kept = {name: x.clone() for name, x in state.tensors.items()}
                used = state
                out, state = attn.decode(q[:, :, now], k[:, :, now], v[:, :, now], used, **tokens(attn, extras, now))
                _same(used, kept)
                parts.append(out)
            worst = max(worst, close(f"a prompt of {prompt}, then token by token", torch.cat(parts, dim=2), whole))
    return worst


def _same(state: State, kept: dict[str, Tensor]) -> None:
    for name, x in kept.items():
        if not torch.equal(state[name], x):
            raise Defect(f"decode writes into the state it was given: {name}")


def check_state_growth(attn: Variant, shape: Shape) -> float:
    """The exponent with which the state after a prompt grows, against the declared; it holds no more than it shows."""
    declared = attn.complexity.state
    if declared is None:
        raise Defect("has a decode form, but does not declare how its state grows: Complexity(state=0) or 1")
    attn = sized(attn)
    sizes = []
    lengths = [n - 1 for n in growth_lengths(attn)[-2:]]  # in the middle of a chunk, for those that keep a part of one
    for n in lengths:
        q, k, v, extras = prepare(attn, replace(shape, n_q=n, n_k=n, batch=1, heads=1, kv_heads=1, mode="decode"))
        with torch.no_grad():
            _, state = attn.prefill(q, k, v, **extras)
        inputs = {x.untyped_storage().data_ptr() for x in (q, k, v, *extras.values())}
        for name, x in state.tensors.items():
            held, shown = x.untyped_storage().nbytes(), x.numel() * x.element_size()
            if held > 2 * shown + 4096 and x.untyped_storage().data_ptr() not in inputs:
                raise Defect(f"the state's {name} shows {shown} bytes, but is a view that keeps {held} alive")
        sizes.append(state.nbytes)
    slope = math.log(sizes[1] / sizes[0]) / math.log(lengths[1] / lengths[0])
    if abs(slope - declared) > STATE_SLACK:
        raise Defect(
            f"the state grows as N^{slope:.2f}, declared N^{declared:g}: {sizes} bytes at {list(lengths)}", slope
        )
    return slope
