"""What a turn tells besides its figure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Beside:
    """None for what instruments did not read right after it."""

    timed_s: float = 0.0
    """Seconds inside of its timed calls: those that were interrupted too, of which the median takes no notice."""
    handover_s: float | None = None
    """See handover.py."""
    eviction: float | None = None
    """See shared_cache.py."""
