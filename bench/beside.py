"""What instruments read right after a turn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Beside:
    """None for what was not read."""

    handover_s: float | None = None
    """See handover.py."""
    eviction: float | None = None
    """See shared_cache.py."""
