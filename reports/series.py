"""What the plots draw, before either library draws it: panels of lines and points, axes, labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from .palette import Style
from .phrases import SAME_AS_SOFTMAX
from .settings import Entry, Setting

Value = Callable[[Entry], tuple[float, float, float] | None]


@dataclass(frozen=True)
class Point:
    """One record in a plot: a value and its interval, in the unit of the axis."""

    length: int
    value: float
    low: float
    high: float
    entry: Entry


@dataclass(frozen=True)
class Line:
    """One variant in a plot, by length."""

    label: str
    style: Style
    points: tuple[Point, ...]

    @property
    def last(self) -> Point:
        return self.points[-1]


@dataclass(frozen=True)
class Panel:
    """One setting in a plot."""

    setting: Setting
    lines: tuple[Line, ...]

    @property
    def points(self) -> list[Point]:
        return [point for line in self.lines for point in line.points]

    @property
    def lengths(self) -> list[int]:
        return sorted({point.length for point in self.points})


def milliseconds(entry: Entry) -> tuple[float, float, float] | None:
    """Time of a call with its interval."""
    record = entry.record
    if not entry.timed or record.time_s is None:
        return None
    low, high = record.time_s_low or record.time_s, record.time_s_high or record.time_s
    return record.time_s * 1e3, low * 1e3, high * 1e3


def mebibytes(entry: Entry) -> tuple[float, float, float] | None:
    """Peak memory of a call. Zero bytes have no place on a logarithmic axis and stay in the tables."""
    if not entry.weighed or not entry.record.peak_bytes:
        return None
    value = entry.record.peak_bytes / 2**20
    return value, value, value


def distance(entry: Entry) -> tuple[float, float, float] | None:
    """Fidelity error of an approximate variant: an exact one has none, an operator of its own no meaningful one."""
    value = entry.record.fidelity_error
    if entry.record.status != "ok" or entry.record.kind != "approximate" or value is None:
        return None
    return value, value, value


def panels(settings: Sequence[Setting], value: Value) -> list[Panel]:
    """One panel a setting that has anything to draw."""
    found = []
    for setting in settings:
        lines = []
        for label in setting.labels:
            entries = sorted((e for e in setting.entries if e.label == label), key=lambda e: e.length)
            points = [Point(e.length, *figures, e) for e in entries if (figures := value(e)) is not None]
            if points:
                lines.append(Line(label, entries[0].style, tuple(points)))
        if lines:
            found.append(Panel(setting, tuple(lines)))
    return found


# -- axes -----------------------------------------------------------------------------------------------------------


def log_range(values: Sequence[float], room: float = 0.06) -> tuple[float, float]:
    """The ends of a logarithmic axis that holds all values with some room."""
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = max((high - low) * room, 0.08)
    return 10 ** (low - pad), 10 ** (high + pad)


def log_ticks(low: float, high: float, base: int = 10) -> list[float]:
    """Round values within a logarithmic axis: powers, with more between or fewer of them as the span asks."""
    steps = (1.0, 2.0, 5.0) if base == 10 and math.log10(high / low) < 2.2 else (1.0,)
    exponents = range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1)
    ticks = [step * float(base) ** exponent for exponent in exponents for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if base == 10 and len(ticks) < 2:  # one number tells no distance
        ticks = [step * 10.0**exponent for exponent in exponents for step in range(1, 10)]
        ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks[:: math.ceil(len(ticks) / 8)] if len(ticks) > 8 else ticks


@dataclass(frozen=True)
class FidelityAxis:
    """A logarithmic axis of distances from softmax attention, with a lane below it for "no distance".

    Exact variants are at zero, which a logarithmic axis does not have, and a linear one would squeeze 0.05 and 0.1
    together as soon as anything stands at 5. Positions are decimal logarithms; below SAME_AS_SOFTMAX is the lane.
    """

    floor: float
    """Decimal logarithm of the axis' lower end."""
    top: float

    @classmethod
    def of(cls, errors: Sequence[float]) -> FidelityAxis:
        shown = [error for error in errors if error >= SAME_AS_SOFTMAX] or [0.1]
        low, high = math.log10(min(shown)), math.log10(max(*shown, 1.0))
        room = max(0.08, 0.06 * (high - low))
        return cls(low - room, high + room)

    @property
    def lane(self) -> float:
        return self.floor - 0.16 * (self.top - self.floor)

    @property
    def bottom(self) -> float:
        return self.floor - 0.32 * (self.top - self.floor)

    def position(self, error: float) -> float:
        return self.lane if error < SAME_AS_SOFTMAX else math.log10(error)

    def share(self, position: float) -> float:
        """How far up the axis a position is, from 0 to 1."""
        return (position - self.bottom) / (self.top - self.bottom)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        values = log_ticks(10**self.floor, 10**self.top)
        return [(self.lane, "none"), *((math.log10(value), f"{value:g}") for value in values)]


def uniform_null(panel: Panel) -> list[tuple[int, float]]:
    """By length, the fidelity error of giving every query the plain mean of the values that it may see."""
    found: dict[int, list[float]] = {}
    for point in panel.points:
        if (null := point.entry.record.fidelity_error_uniform) is not None and null > 0:
            found.setdefault(point.length, []).append(null)
    return [(length, median(values)) for length, values in sorted(found.items())]


# -- accuracy against time ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tradeoff:
    """One variant's time and distance from softmax attention, at one setting and length."""

    entry: Entry
    time_ms: float
    error: float
    """Zero for an exact variant."""
    best: bool
    """On the Pareto front: no other is both as fast and as close, and better in one of the two."""


def tradeoffs(setting: Setting) -> list[Tradeoff]:
    """Exact and approximate variants at the greatest length that has a fidelity; [] where none has."""
    length = setting.longest(lambda entry: entry.timed and distance(entry) is not None)
    if length is None:
        return []
    found: list[tuple[Entry, float, float]] = []
    for entry in setting.at(length, lambda entry: entry.timed):
        time, far = milliseconds(entry), distance(entry)
        if time is not None and (entry.exact or far is not None):
            found.append((entry, time[0], 0.0 if far is None else far[0]))
    front = pareto([(time, error if error >= SAME_AS_SOFTMAX else 0.0) for _, time, error in found])
    return [Tradeoff(*each, best) for each, best in zip(found, front, strict=True)]


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each point, whether no other one is at most as large in both coordinates and smaller in one."""
    return [not any(x <= a and y <= b and (x, y) != (a, b) for x, y in points) for a, b in points]
