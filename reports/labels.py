"""Where direct labels stand, so that none lies on another: geometry only, in any unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels: as near to the wanted ones as may be with `gap` between any two, all within low..high.

    The least-squares answer, by pooling: labels that would collide form a block that is centred on their mean. Where
    the room is too small for all, the gap shrinks.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[float, int]] = []  # start of the block, how many labels
    for i in order:
        start, size = min(max(wanted[i], low), high), 1
        while blocks and blocks[-1][0] + blocks[-1][1] * gap > start:
            before, number = blocks.pop()
            # the mean of where each member would have the block start
            start, size = (before * number + (start - number * gap) * size) / (number + size), number + size
        start = min(max(start, low), high - (size - 1) * gap)
        blocks.append((start, size))
    # a block pushed up by `low` or down by `high` may touch its neighbour: settle from the top down
    places = [start + k * gap for start, size in blocks for k in range(size)]
    for k in range(len(places) - 2, -1, -1):
        places[k] = min(places[k], places[k + 1] - gap)
    result = [0.0] * len(wanted)
    for place, i in zip(places, order, strict=True):
        result[i] = place
    return result


@dataclass(frozen=True)
class Place:
    """Where a label stands: its anchor relative to its point (up is positive) and which of its ends that anchor is."""

    dx: float
    dy: float
    align: str
    """`left`, `right` or `center`: the part of the text that is at the anchor."""


Box = tuple[float, float, float, float]
Cost = tuple[float, float]


def beside(points: Sequence[tuple[float, float]], widths: Sequence[float], height: float, room: Box) -> list[Place]:
    """Places for the labels of a scatter plot: next to their points, off the other points and labels, within `room`.

    Greedy, from the left: of all candidates around a point the one that hides least, the nearest among equals.
    `room` is (left, bottom, right, top); all in one unit.
    """
    marks = [(x - 0.5 * height, y - 0.5 * height, x + 0.5 * height, y + 0.5 * height) for x, y in points]
    taken: list[Box] = []
    places: dict[int, Place] = {}
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        x, y = points[i]
        others = [mark for k, mark in enumerate(marks) if k != i]

        def cost(
            place: Place, x: float = x, y: float = y, i: int = i, others: list[Box] = others
        ) -> tuple[float, float]:
            box = _box(place, x, y, widths[i], height)
            inside = _shared(box, room)
            hidden = (widths[i] * height - inside) * 4 + sum(_shared(box, other) for other in [*others, *taken])
            return round(hidden, 6), abs(place.dx) + 1.5 * abs(place.dy)

        places[i] = min(_candidates(height), key=cost)
        taken.append(_box(places[i], x, y, widths[i], height))
    return [places[i] for i in range(len(points))]


def _candidates(height: float) -> list[Place]:
    near = [Place(0.8 * height, 0.0, "left"), Place(-0.8 * height, 0.0, "right")]
    rings = []
    for ring in (1.0, 1.9, 2.8, 3.7):
        for up in (ring * height, -ring * height):
            rings += [Place(0.0, up, "center"), Place(0.35 * height, up, "left"), Place(-0.35 * height, up, "right")]
    return near + rings


def _box(place: Place, x: float, y: float, width: float, height: float) -> Box:
    start = x + place.dx - {"left": 0.0, "center": width / 2, "right": width}[place.align]
    return start, y + place.dy - height / 2, start + width, y + place.dy + height / 2


def _shared(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    across, up = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return across * up if across > 0 and up > 0 else 0.0
