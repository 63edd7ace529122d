"""How families and variants look: the same in the static figures, in the page's charts and in its tables.

A family is a colour, after Okabe & Ito, "Color Universal Design" (2008): told apart with every common form of colour
blindness; darkened on white and lightened on black so far that text in it is readable. Within a family, a variant is
a dash pattern and a marker.
"""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES = ("full", "chunked", "sparse", "linear", "other")

LIGHT = {"full": "#1f1f1f", "chunked": "#007a59", "sparse": "#0067a5", "linear": "#c04a00", "other": "#a14d80"}
DARK = {"full": "#f0f0f0", "chunked": "#2fcfa0", "sparse": "#62b8f0", "linear": "#f5a35c", "other": "#e0a3c6"}


@dataclass(frozen=True)
class Mark:
    """A dash pattern (on, off, … in points; empty is solid) and a marker, as matplotlib and as Vega call it."""

    dash: tuple[float, ...]
    matplotlib: str
    vega: str


MARKS = (
    Mark((), "o", "circle"),
    Mark((5, 2), "s", "square"),
    Mark((1.5, 1.5), "^", "triangle-up"),
    Mark((7, 2, 1.5, 2), "D", "diamond"),
    Mark((3, 1.5), "v", "triangle-down"),
    Mark((9, 3), "P", "cross"),
)


@dataclass(frozen=True)
class Style:
    """How one variant is drawn."""

    family: str
    index: int
    """Which of its family's variants it is, counted from 0."""

    @property
    def mark(self) -> Mark:
        return MARKS[self.index % len(MARKS)]

    @property
    def colour(self) -> str:
        return LIGHT[self.family]


def family_of(name: str | None) -> str:
    """A family that the palette knows; `other` for a record that names none, or a newer one."""
    return name if name in FAMILIES else "other"
