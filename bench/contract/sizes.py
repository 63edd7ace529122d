"""A variant with small parameters, and the lengths that are awkward for it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

from ...variants.api import Variant

SMALL = {
    "window_size": 16,
    "chunk_size": 16,
    "block_size": 8,
    "segment_size": 16,
    "num_landmarks": 16,
    "num_features": 32,
    "top_k": 16,
    "num_blocks": 2,
    "page_size": 4,
    "num_pages": 3,
    "compress_size": 8,
    "compress_stride": 4,
    "num_selected": 4,
    "stride": 8,
}
"""Values of size parameters, by their names, at which short lengths already meet every boundary."""

GROWTH_SIZE = 128
"""Of every size parameter while growth is measured: well below the lengths, and not so small that it takes long."""

GROWTH_SIZES: dict[str, int] = {"num_blocks": 3, "num_pages": 3, "num_selected": 4}
"""Of those parameters for which that is too much: numbers of whole blocks, heads of an indexer."""

DOUBLINGS = 5

GRAIN = ("chunk_size", "window_size", "num_landmarks", "block_size", "segment_size", "top_k", "stride")
"""The parameters around whose value lengths are awkward, the telling one first."""


def shrunk(cls: type[Variant], **given: Any) -> Variant:
    """A variant with its size parameters small where they are not given, whatever else it is by default.

    Sizes that a variant refuses are doubled until it takes them. Raises VariantError where it never does.
    """
    small = {f.name: SMALL[f.name] for f in dataclasses.fields(cls) if f.name in SMALL}  # type: ignore[arg-type]
    for _ in range(DOUBLINGS):
        try:
            return cls(**{**small, **given})
        except ValueError:  # VariantError, and what other people's __post_init__ raises
            small = {name: 2 * size for name, size in small.items()}
    return cls(**given)


def sized(attn: Variant) -> Variant:
    """A variant with its size parameters as growth is measured; as it is, where it refuses those."""
    fields = {name: GROWTH_SIZES.get(name, GROWTH_SIZE) for name in SMALL if hasattr(attn, name)}
    try:
        return replace(attn, **fields)  # type: ignore[type-var]
    except ValueError:  # VariantError, and what other people's __post_init__ raises
        return attn


def lengths(attn: Variant) -> list[int]:
    """1, C - 1, C, C + 1 and a prime of several C, where C is the variant's own grain."""
    c = next((getattr(attn, name) for name in GRAIN if hasattr(attn, name)), 16)
    prime = next(n for n in range(3 * c + 5, 9 * c + 50) if all(n % d for d in range(2, n)))
    return sorted({1, max(1, c - 1), c, c + 1, prime})
