"""Figures in words: three significant digits and a unit that a reader need not convert."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

DASH = "–"
NONE = "—"
MOST_PLACES = 6
"""Of a percentage: below that two shares are equal."""


def digits(value: float) -> str:
    """Three significant digits, without an exponent between 0.0001 and a million."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    value = float(f"{value:.3g}")  # first, since 9.996 becomes 10.0, with one decimal fewer
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def seconds(value: float | None) -> str:
    """E.g. 41.2 ms."""
    if value is None:
        return NONE
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if abs(value) * factor < 999.5:
            return f"{digits(value * factor)} {unit}"
    return f"{digits(value)} s"


def size(value: float | None) -> str:
    """Bytes in binary units, e.g. 8.20 MiB."""
    if value is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 999.5:
            return f"{int(value)} B" if unit == "B" else f"{digits(value)} {unit}"
        value /= 1024
    return f"{digits(value)} TiB"


def percent(share: float) -> str:
    """E.g. 31 %; what is less than a thousandth is not given as a figure."""
    if abs(share) < 1e-3:
        return "less than 0.1 %"
    return f"{share * 100:.1f} %" if share < 0.1 else f"{share * 100:,.0f} %"


def percents(share: float, limit: float) -> tuple[str, str]:
    """Two shares of which one is more than the other, with as many digits as show it."""
    found = percent(share), percent(limit)
    places = 1
    while found[0] == found[1] and places < MOST_PLACES:
        found = f"{share * 100:.{places}f} %", f"{limit * 100:.{places}f} %"
        places += 1
    return found


def interval(low: float | None, high: float | None) -> str:
    return NONE if low is None or high is None else f"{digits(low)}{DASH}{digits(high)}"


def seconds_interval(low: float | None, high: float | None) -> str:
    """Both ends in the unit of the upper one, e.g. 40.9–41.6 ms."""
    if low is None or high is None:
        return NONE
    text = seconds(high)
    number, unit = text.rsplit(" ", 1)
    factor = {"µs": 1e6, "ms": 1e3, "s": 1.0}[unit]
    return f"{digits(low * factor)}{DASH}{number} {unit}"


def count(value: float) -> str:
    return f"{value:,.0f}"


def tick(length: int) -> str:
    """A length as an axis writes it: 256, 1k, 32k, 1,000."""
    if length >= 1 << 20 and length % (1 << 20) == 0:
        return f"{length >> 20}M"
    return f"{length >> 10}k" if length >= 1024 and length % 1024 == 0 else count(length)


def plural(number: int, thing: str, things: str | None = None) -> str:
    return f"{count(number)} {thing if number == 1 else things or thing + 's'}"


def lengths(values: Iterable[int]) -> str:
    """E.g. 256, 512 or 256–8,192 (6 lengths)."""
    found = sorted(set(values))
    if len(found) <= 3:
        return ", ".join(map(count, found))
    return f"{count(found[0])}{DASH}{count(found[-1])} ({len(found)} lengths)"


def listed(items: Sequence[str], last: str = "and") -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}" if items else ""


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
