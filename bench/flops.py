"""Instrument: the floating-point operations that a call really does, and those that it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .case import Case

if TYPE_CHECKING:
    from ..variants.api import Variant

BACKWARD = 2.5
"""The backward pass of attention over its forward: five matrix products against two."""


def needed(attn: Variant, case: Case) -> int:
    """Operations that the definition needs for a case: forward, with the backward pass when training, or a decode step.

    A step needs what its token adds to the tokens before it. That holds for a cache, where it is one row of scores, and
    for a recurrence, whose operations for a whole length are those of all its steps.
    """
    if case.mode != "decode":
        forward = attn.flops_needed(case)
        return round(forward * (1 + BACKWARD)) if case.mode == "train" else forward
    prompt, whole = (replace(case, mode="forward", n_q=n, n_k=n) for n in (case.n_k - 1, case.n_k))
    return attn.flops_needed(whole) - (attn.flops_needed(prompt) if prompt.n_k else 0)


def count(call: Callable[[], object]) -> int:
    """Operations of all matrix products and attention kernels in one call, two for each multiply-add.

    torch's counter knows no formula for the CPU's fused attention kernel and takes every fused kernel as dense; both
    are mended here. Elementwise work is not counted.
    """
    with FlopCounterMode(display=False, custom_mapping=_fused_kernels()) as counter:
        call()
    return int(counter.get_total_flops())


def _fused_kernels() -> dict[Any, Callable[..., int]]:
    aten = torch.ops.aten
    forward = [
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    ]
    mapping: dict[Any, Callable[..., int]] = {}
    for name in forward:
        position = _causal_position(getattr(aten, name))
        back_position = _causal_position(getattr(aten, f"{name}_backward"))
        mapping[getattr(aten, name)] = _forward_formula(position)
        mapping[getattr(aten, f"{name}_backward")] = _backward_formula(back_position)
    return mapping


def _causal_position(op: Any) -> int:
    """Where `is_causal` stands among an operator's arguments: it differs from kernel to kernel."""
    return [argument.name for argument in op.default._schema.arguments].index("is_causal")


def _forward_formula(position: int) -> Callable[..., int]:
    def formula(q: Sequence[int], k: Sequence[int], v: Sequence[int], *args: Any, **kwargs: Any) -> int:
        return _pairs(q, k, _is_causal(args, kwargs, position - 3)) * 2 * (q[3] + v[3])

    return formula


def _backward_formula(position: int) -> Callable[..., int]:
    def formula(
        grad: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], *args: Any, **kw: Any
    ) -> int:
        return int(_pairs(q, k, _is_causal(args, kw, position - 4)) * 2 * (q[3] + v[3]) * BACKWARD)

    return formula


def _is_causal(args: Sequence[Any], kwargs: dict[str, Any], position: int) -> bool:
    if "is_causal" in kwargs:
        return bool(kwargs["is_causal"])
    return bool(args[position]) if position < len(args) else False


def _pairs(q: Sequence[int], k: Sequence[int], causal: bool) -> int:
    """(query, key) pairs that a fused kernel looks at; torch's causal mask aligns top-left."""
    n_q, n_k = q[2], k[2]
    if not causal:
        return q[0] * q[1] * n_q * n_k
    square = min(n_q, n_k)
    return q[0] * q[1] * (square * (square + 1) // 2 + (n_q - square) * n_k)
