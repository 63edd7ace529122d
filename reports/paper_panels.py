"""How the panels of a figure for papers are drawn: lines over an axis, points with names, rows with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .labels import beside, spread
from .palette import Style
from .paper import SMALL, TEXT, Drawing, inches, ticks_fit
from .series import log_range, log_ticks
from .settings import Setting
from .words import tick

GREY = "#777777"


@dataclass(frozen=True)
class Curve:
    """One line: its points along x, each with its interval."""

    label: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Spot:
    """One point with its name."""

    label: str
    style: Style
    x: float
    y: float
    filled: bool = True


@dataclass(frozen=True)
class Mark:
    """A value with its interval in a row; None at an end: it goes on beyond the axis."""

    value: float
    low: float | None
    high: float | None
    marker: str = "o"
    filled: bool = True
    arrow: str = ""
    """`<` or `>`: it lies there or farther."""


@dataclass(frozen=True)
class Row:
    """One name, and what stands in its row."""

    label: str
    style: Style
    marks: Sequence[Mark]
    declared: float | None = None


def lines(
    axes: Any,
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    base: int = 10,
    lengths: bool = True,
    log_y: bool = True,
    at_one: bool = False,
) -> None:
    """Lines with intervals over a logarithmic x axis, each with its name at the right; `at_one` draws a line at 1."""
    xs = sorted({x for curve in curves for x in curve.x})
    ends = [end for curve in curves for end in (*curve.low, *curve.high)]
    if at_one:
        ends.append(1.0)
    wide, high_in = inches(axes)
    if log_y:
        low, high = log_range(ends)
        axes.set_yscale("log")
        set_ticks(axes.yaxis, ticks_fit(log_ticks(low, high, base), high_in, 0.16))
    else:
        low, high = min(0.0, *ends), max(ends) * 1.05 or 1.0
    axes.set_ylim(low, high)
    log_x = min(xs) > 0
    if log_x:
        axes.set_xscale("log", base=2)
        axes.set_xlim(xs[0] / 1.06, xs[-1] * 1.06)
        axes.minorticks_off()
    if lengths:
        shown = ticks_fit(xs, wide, 0.3)
        axes.set_xticks(shown, [tick(int(x)) for x in shown])
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True)
    if at_one:
        axes.axhline(1, color=GREY, lw=0.8, ls=(0, (2, 2)), zorder=1)
    for curve in curves:
        _line(axes, curve)

    def share(y: float) -> float:
        return math.log(y / low) / math.log(high / low) if log_y else (y - low) / (high - low)

    names(axes, [(curve.label, curve.style, curve.x[-1], curve.y[-1]) for curve in curves], share)


def scatter(
    axes: Any,
    spots: Sequence[Spot],
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    log_y: bool = True,
    x_at: Sequence[float] = (),
) -> None:
    """Points with their names next to them, over a logarithmic x axis whose ticks are at `x_at`, or at round values."""
    from matplotlib.patheffects import withStroke

    wide, high = (72 * each for each in inches(axes))
    axes.set_xscale("log")
    axes.set_xlim(*x_range)
    set_ticks(axes.xaxis, x_at or ticks_fit(log_ticks(*x_range), wide / 72, 0.34))
    if log_y:
        axes.set_yscale("log")
        set_ticks(axes.yaxis, ticks_fit(log_ticks(*y_range), high / 72, 0.16))
    axes.set_ylim(*y_range)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True)
    for spot in spots:
        fill = spot.style.colour if spot.filled else "white"
        axes.plot(
            [spot.x], [spot.y], spot.style.mark.matplotlib, ms=4, mfc=fill, mec=spot.style.colour, mew=0.9, zorder=3
        )
    places = [(_log_share(spot.x, x_range) * wide, _y_share(spot.y, y_range, log_y) * high) for spot in spots]
    widths = [len(spot.label) * SMALL * 0.6 for spot in spots]
    found = beside(places, widths, SMALL * 1.2, (0.0, 0.0, wide, high))
    for spot, place in zip(spots, found, strict=True):
        axes.annotate(
            spot.label,
            xy=(spot.x, spot.y),
            xytext=(place.dx, place.dy),
            textcoords="offset points",
            ha=place.align,
            va="center",
            fontsize=SMALL,
            color=spot.style.colour,
            arrowprops={"arrowstyle": "-", "color": spot.style.colour, "lw": 0.4, "alpha": 0.6}
            if abs(place.dy) > SMALL * 1.5
            else None,
            path_effects=[withStroke(linewidth=1.8, foreground="white")],
            annotation_clip=False,
        )


def rows(axes: Any, found: Sequence[Row], *, x_label: str, log_x: bool, lengths: bool = False) -> None:
    """Names at the right, and in each row marks with intervals; a tick where something is declared."""
    values = [v for row in found for m in row.marks for v in (m.value, m.low, m.high) if v is not None]
    values += [row.declared for row in found if row.declared is not None]
    if log_x:
        low, high = log_range(values, room=0.08)
        axes.set_xscale("log", base=2 if lengths else 10)
        steps = log_ticks(low, high, 2 if lengths else 10)
        shown = ticks_fit(steps, inches(axes)[0], 0.32)
        set_ticks(axes.xaxis, shown, [tick(int(x)) for x in shown] if lengths else None)
    else:
        pad = 0.08 * (max(values) - min(values) or 1.0)
        low, high = min(values) - pad, max(values) + pad
    axes.set_xlim(low, high)
    axes.set_xlabel(x_label, loc="left")  # it may run on below the names
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.yaxis.tick_right()
    axes.set_yticks(range(len(found)), [row.label for row in found], fontsize=SMALL)
    axes.tick_params(axis="y", length=0, pad=3)
    for text, row in zip(axes.get_yticklabels(), found, strict=True):
        text.set_color(row.style.colour)
    axes.spines["left"].set_visible(False)
    axes.grid(True)
    for place, row in enumerate(found):
        colour, many = row.style.colour, len(row.marks) > 1
        if row.declared is not None:
            axes.plot([row.declared], [place], "|", ms=9, mew=1.6, color="#999999", zorder=2)
        for index, mark in enumerate(row.marks):
            y = place + (0.17 * (1 - 2 * index) if many else 0.0)
            ends = [high if e is None else min(max(e, low), high) for e in (mark.low, mark.high)]
            axes.plot(ends, [y, y], color=colour, lw=0.9, zorder=2)
            fill = colour if mark.filled else "white"
            shape = mark.arrow or mark.marker
            axes.plot([mark.value], [y], shape, ms=3.6, mfc=fill, mec=colour, mew=0.9, zorder=3)


def names(axes: Any, ends: Sequence[tuple[str, Style, float, float]], share: Callable[[float], float]) -> None:
    """Names in a column right of the axes, joined to where their lines end."""
    high = inches(axes)[1] * 72
    wanted = [share(y) for _, _, _, y in ends]
    places = spread(wanted, TEXT * 1.12 / high, 0.0, 1.0)
    right = axes.get_xlim()[1]
    for (label, style, x, _), at, place in zip(ends, wanted, places, strict=True):
        axes.annotate(
            label, (1, place), (7.5, 0), xycoords="axes fraction", textcoords="offset points", color=style.colour,
            fontsize=SMALL, va="center", annotation_clip=False,
        )  # fmt: skip
        across = axes.get_xaxis_transform()
        axes.plot([x, right], [at, at], transform=across, color=style.colour, lw=0.4, alpha=0.4, zorder=1)
        axes.annotate(
            "", (1, at), (6.5, (place - at) * high), xycoords="axes fraction", textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": style.colour, "lw": 0.4, "alpha": 0.7, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )  # fmt: skip


def set_ticks(axis: Any, values: Sequence[float], texts: Sequence[str] | None = None) -> None:
    from matplotlib.ticker import NullLocator

    axis.set_ticks(list(values), labels=list(texts) if texts else [_short(value) for value in values])
    axis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
    return f"{value:,.6g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _line(axes: Any, curve: Curve) -> None:
    mark, colour = curve.style.mark, curve.style.colour
    axes.plot(
        curve.x,
        curve.y,
        color=colour,
        lw=1.0,
        ls=(0, mark.dash) if mark.dash else "-",
        marker=mark.matplotlib,
        ms=3,
        mec="white",
        mew=0.3,
        zorder=3,
    )
    for x, low, high in zip(curve.x, curve.low, curve.high, strict=True):
        if high > low:
            axes.plot([x, x], [low, high], color=colour, lw=0.7, zorder=2)


def _log_share(x: float, ends: tuple[float, float]) -> float:
    return math.log(x / ends[0]) / math.log(ends[1] / ends[0])


def _y_share(y: float, ends: tuple[float, float], log: bool) -> float:
    return _log_share(y, ends) if log else (y - ends[0]) / (ends[1] - ends[0])


# -- for a setting --------------------------------------------------------------------------------------------------


def bind(draw: Callable[..., None], *args: Any, **how: Any) -> Callable[[Any], None]:
    """`draw` with all that it takes after the axes."""
    return lambda axes: draw(axes, *args, **how)


def drawing(setting: Setting, draw: Callable[[Any], None], labels: Sequence[str] = ()) -> Drawing:
    """A panel headed by what its setting is."""
    return Drawing(setting.title, setting.detail, draw, labels)


def row_drawing(setting: Setting, found: Sequence[Row], **how: Any) -> Drawing:
    """The same with rows in place of a free drawing; `how` as `rows` takes it."""
    labels = [row.label for row in found]
    return Drawing(setting.title, setting.detail, bind(rows, found, **how), labels, rows=len(found))
