"""A variant with the sizes at which decoding keeps as many bytes as asked: recall is to be compared at equal memory."""

from __future__ import annotations

import dataclasses
import math

from ...variants.api import Variant, VariantError
from ...variants.registry import parse_spec
from ..contract.sizes import GROWTH_SIZES, SMALL
from .backbone import state_bytes
from .config import Setting

SIZES = frozenset((*SMALL, "feature_dim")) - frozenset(GROWTH_SIZES)
"""Parameters that may decide how much is kept; numbers of blocks stay."""
NEAR = 1.25
"""A state that is larger or smaller by more than this factor is not called matched."""
OCTAVES, STEPS = 8, 4
"""Sizes are tried from 2^-8 to 2^8 of their own, in quarter octaves."""


def matched(attn: Variant, spec: str, setting: Setting, target: int) -> tuple[Variant, list[str]]:
    """The variant with the state nearest to `target` bytes, and what a reader must know where it is not near.

    All sizes that the spec does not name grow or shrink together. A variant that has none stays as it is.
    """
    own = state_bytes(attn, setting, setting.held_out_len)
    if own is None:
        return attn, [f"{attn.name} has no decode form, so that there is no state to match"]
    given = parse_spec(spec)[1]
    sizes = [
        field.name
        for field in dataclasses.fields(attn)  # type: ignore[arg-type]
        if field.name in SIZES
        and field.name not in {*given, *attn.tuning}
        and isinstance(getattr(attn, field.name), int)
    ]
    best, kept = attn, own
    tried = {tuple(getattr(attn, name) for name in sizes)}
    for quarter in range(-OCTAVES * STEPS, OCTAVES * STEPS + 1) if sizes else ():
        scaled = tuple(max(1, round(getattr(attn, name) * 2 ** (quarter / STEPS))) for name in sizes)
        if scaled in tried:
            continue
        tried.add(scaled)
        try:
            other = dataclasses.replace(attn, **dict(zip(sizes, scaled, strict=True)))  # type: ignore[type-var]
            found = state_bytes(other, setting, setting.held_out_len)
        except VariantError:  # so small or so odd a size is refused
            continue
        if found is not None and _off(found, target) < _off(kept, target):
            best, kept = other, found
    if _off(kept, target) > math.log(NEAR):
        return best, [f"{best.spec} keeps {kept} bytes of a sequence: there is nothing nearer to {target}"]
    return best, []


def _off(found: int, target: int) -> float:
    return abs(math.log(max(1, found) / target))
