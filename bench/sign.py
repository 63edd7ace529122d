"""One sign of what may disturb measurements, and how the kernel writes what the signs are read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

UNREADABLE = "not readable here"

Verdict = Literal["fine", "perhaps", "disturbs", "unreadable"]


@dataclass(frozen=True)
class Sign:
    """One thing that may disturb."""

    name: str
    found: str
    verdict: Verdict
    advice: str = ""
    """What to do, where it disturbs or may."""


def unreadable(name: str) -> Sign:
    """What the system does not say is said to be so."""
    return Sign(name, UNREADABLE, "unreadable")


def numbers(listed: str) -> set[int]:
    """`0-2,5` as the kernel writes lists of cores."""
    return set(_ranges(listed))


def _ranges(listed: str) -> Iterator[int]:
    for part in listed.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)
