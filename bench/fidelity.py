"""Instrument: how far an approximate variant is from softmax attention, on the inputs of the case. No threshold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fidelity:
    error: float
    """‖out - softmax‖ / ‖softmax‖, Frobenius norms over all checked rows."""
    cosine: float
    """Mean over rows of the cosine between the two outputs."""
    error_uniform: float
    """The null: the same error of giving each query the plain mean of the values that it may see."""


def fidelity(out: Tensor, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, rows: Tensor) -> Fidelity:
    """Compares `out` (B, H, len(rows), D), a variant's output for the queries `rows`, with softmax in float64."""
    from ..variants.api import get, repeat_heads

    with torch.no_grad():
        exact = get("naive").definition(q, k, v, causal=causal, rows=rows)
        values = repeat_heads(v.double(), q.shape[1])
        if causal:
            seen = (rows + 1 + k.shape[2] - q.shape[2]).clamp(min=0)
            sums = torch.nn.functional.pad(values.cumsum(dim=2), (0, 0, 1, 0))
            uniform = sums[:, :, seen] / seen.clamp(min=1)[:, None]
        else:
            uniform = values.mean(dim=2, keepdim=True).expand_as(exact)
        return Fidelity(
            error=relative_error(out.double(), exact),
            cosine=torch.nn.functional.cosine_similarity(out.double(), exact, dim=-1).mean().item(),
            error_uniform=relative_error(uniform, exact),
        )


def relative_error(out: Tensor, exact: Tensor) -> float:
    return float((out - exact).norm() / exact.norm().clamp(min=torch.finfo(torch.float64).tiny))
