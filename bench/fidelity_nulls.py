"""Instrument: what a variant that keeps some keys keeps of softmax attention, beside what the same number would hold.

Two nulls stand beside it. A window keeps the nearest keys: whatever chooses by content should beat it. The oracle keeps
those with the highest scores: no choice of as many keys recalls more. Both keep in each row as many keys as the variant
keeps there, so that neither gains by spending its budget on other rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..variants.api import Variant

ENTRIES = 1 << 21
"""Weights held at a time, of each kind: 16 MiB in float64."""
LOOKED_AT = 64
"""Queries at which kept keys are counted inside a model, in each layer."""
FAMILIES = ("sparse", "chunked")
"""Families whose approximations keep some keys and leave out others."""


@dataclass(frozen=True)
class Kept:
    """Means over the rows looked at, of all heads. Masses are shares of softmax attention's 1."""

    keys: float
    """How many keys a query keeps: the budget."""
    mass: float
    """Mass of softmax attention on the keys that are kept."""
    mass_window: float
    """The null: that of as many nearest keys."""
    mass_oracle: float
    """That of as many keys with the highest scores: the most there is."""
    error_window: float
    """‖out - softmax‖ / ‖softmax‖ of softmax over as many nearest keys, Frobenius norms over all rows."""
    error_oracle: float
    """The same over as many keys with the highest scores."""


def chooses_keys(attn: Variant) -> bool:
    """Whether a variant stands in for softmax attention by keeping some keys, and writes down which."""
    from ..variants.api import Variant as Base

    return attn.kind == "approximate" and attn.family in FAMILIES and type(attn).weights is not Base.weights


def kept(
    attn: Variant,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    rows: Tensor,
    extras: Mapping[str, Tensor] | None = None,
) -> Kept:
    """What `attn` keeps for the query positions `rows` (R,), by the weights of its definition in float64.

    q (B, H, Nq, D), k and v (B, Hkv, Nk, ·) and extras are those that the variant is called with. Rows are taken block
    by block; memory is O(R · Nk) for a few rows.

    Raises ValueError for a variant of which `chooses_keys` is false, and VariantError as the variant does.
    """
    from ..variants.api import repeat_heads

    if not chooses_keys(attn):
        raise ValueError(f"{attn.name} does not choose keys; its fidelity is the error of its output alone")
    extras = {name: x.double() for name, x in (extras or {}).items()}
    attn.check(q, k, v, causal=causal, extras=extras)
    heads = q.shape[1]
    q, k, v = q.double(), repeat_heads(k.double(), heads), repeat_heads(v.double(), heads)
    scale = attn.default_scale(q, None)
    step = max(1, ENTRIES // (q.shape[0] * heads * k.shape[2]))
    blocks = []
    with torch.no_grad():
        for block in rows.to(q.device).split(step):
            weights = attn.weights(q, k, causal=causal, scale=scale, rows=block, **extras)
            blocks.append(_compare(weights != 0, q, k, v, causal=causal, scale=scale, rows=block))
    total = torch.stack(blocks).sum(dim=0)
    keys, mass, window, oracle = (total[:4] / (q.shape[0] * heads * len(rows))).tolist()
    norm = max(float(total[6]), torch.finfo(torch.float64).tiny)
    return Kept(keys, mass, window, oracle, math.sqrt(float(total[4]) / norm), math.sqrt(float(total[5]) / norm))


def _compare(chosen: Tensor, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
    """Sums over the rows of a block, (7,): keys, masses chosen, in the window and of the oracle; squares of both's
    errors and of the exact output."""
    from ..variants.definitions import masked_softmax, positions

    i, j = positions(q, k, rows)
    p = masked_softmax(q, k, scale=scale, rows=rows, allowed=j <= i if causal else None)  # (B, H, R, Nk)
    chosen = chosen.expand_as(p)
    count = chosen.sum(dim=-1, keepdim=True)  # (B, H, R, 1)
    exact = p @ v
    window = nearest(count, i, j, causal=causal)
    oracle = highest(count, p)
    masses, errors = [(p * chosen).sum()], []
    for mask in (window, oracle):
        some = p * mask
        mass = some.sum(dim=-1, keepdim=True)
        # a row that keeps nothing gives zeros
        out = (some @ v) / mass.clamp(min=torch.finfo(p.dtype).tiny)
        masses.append(mass.sum())
        errors.append((out - exact).square().sum())
    return torch.stack([count.sum().double(), *masses, *errors, exact.square().sum()])


def nearest(count: Tensor, i: Tensor, j: Tensor, *, causal: bool) -> Tensor:
    """The `count` (B, H, R, 1) keys nearest to each position i (R, 1), as a mask over j (1, Nk): (B, H, R, Nk).

    Backwards from the position with a causal mask, around it without; at an end, more of those on the other side.
    """
    n_k = j.shape[1]
    reach = count - 1 if causal else (count - 1) // 2
    last = i if causal else torch.full_like(i, n_k - 1)
    first = torch.minimum((i - reach).clamp(min=0), last - count + 1)
    return (j >= first) & (j < first + count)


def keys_kept(attn: Variant, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None) -> float:
    """Keys that a query keeps, on average over batch, heads and `looked_at` rows, by the weights of the definition.

    q (B, H, Nq, D), k and v (B, Hkv, Nk, ·); extras are drawn as for a measurement.
    """
    from ..variants.api import make_extras, repeat_heads

    extras: dict[str, Tensor] = {name: x.double() for name, x in make_extras(attn, q, k, v).items()}
    rows, keys = looked_at(q.shape[2]), repeat_heads(k.double(), q.shape[1])
    weights = attn.weights(q.double(), keys, causal=causal, scale=attn.default_scale(q, scale), rows=rows, **extras)
    return float((weights != 0).expand(*q.shape[:2], -1, -1).sum(dim=-1).double().mean())


def looked_at(length: int) -> Tensor:
    """At most LOOKED_AT of the query positions, from the first to the last: (R,)."""
    return torch.linspace(0, length - 1, min(length, LOOKED_AT)).round().long()


def window_size(keys: float, rows: Tensor, length: int, *, causal: bool) -> int:
    """The `window_size` of the sliding window whose queries `rows` (R,) see, on average, the nearest to `keys` keys.

    Queries near an end see fewer: a window of 128 tokens keeps 112 on average over 512, and one of 112 would keep 100.
    """
    sizes = torch.arange(1, length + 1)[:, None]
    i = rows.cpu()[None, :]
    last = i if causal else (i + sizes - 1).clamp(max=length - 1)
    seen = (last - (i - sizes + 1).clamp(min=0) + 1).double().mean(dim=1)  # (length,)
    return int((seen - keys).abs().argmin()) + 1


def highest(count: Tensor, p: Tensor) -> Tensor:
    """The `count` (B, H, R, 1) largest of each row of p (B, H, R, Nk), as a mask; the earlier key among equals."""
    # a few of the largest are found sooner than all are sorted
    top = p.topk(max(1, int(count.max())), dim=-1).values
    least = top.gather(-1, (count - 1).clamp(min=0))
    above, equal = p > least, p == least
    return above | (equal & (equal.cumsum(dim=-1) <= count - above.sum(dim=-1, keepdim=True)))


def as_fields(found: Kept) -> dict[str, float]:
    """The record's fields."""
    return {
        "fidelity_keys": found.keys,
        "fidelity_mass": found.mass,
        "fidelity_mass_window": found.mass_window,
        "fidelity_mass_oracle": found.mass_oracle,
        "fidelity_error_window": found.error_window,
        "fidelity_error_oracle": found.error_oracle,
    }
