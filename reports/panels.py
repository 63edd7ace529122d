"""One panel of a static figure: lines over length, dots against a limit, a trade-off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..results.record import Record
from .labels import beside, spread
from .palette import FAMILIES, Style
from .series import (
    FidelityAxis,
    Panel,
    Point,
    Tradeoff,
    log_range,
    log_ticks,
    uniform_null,
)
from .settings import Setting, captured
from .words import count, tick

GREY = "#777777"
BAD = "#b00020"
LABEL = 8.0
"""Size of direct labels, in points."""


def draw_lines(axes: Any, panel: Panel, axis: str, base: int) -> None:
    """Value over length, both logarithmic, with intervals; dots by variant where there is but one length."""
    values = [end for point in panel.points for end in (point.low, point.high)]
    low, high = log_range(values)
    if len(panel.lengths) == 1:
        _dots(axes, panel, axis, base, low, high)
        return
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    _ticks(axes.yaxis, log_ticks(low, high, base))
    _length_axis(axes, panel.lengths)
    axes.set_ylabel(axis)
    for line in panel.lines:
        _line(axes, line.style, line.points, [point.value for point in line.points])
        for point in line.points:
            axes.plot([point.length] * 2, [point.low, point.high], color=line.style.colour, lw=1, zorder=2)
    ends = [(line.label, line.style, line.last.length, line.last.value) for line in panel.lines]
    _end_labels(axes, ends, lambda value: math.log(value / low) / math.log(high / low))


def draw_fidelity(axes: Any, panel: Panel) -> None:
    """Distance from softmax attention over length, with the null of a plain mean."""
    null = uniform_null(panel)
    scale = FidelityAxis.of([point.value for point in panel.points] + [value for _, value in null])
    _fidelity_axis(axes, scale)
    _length_axis(axes, panel.lengths)
    ends: list[tuple[str, Style | None, int, float]] = []
    if null:
        heights = [scale.position(value) for _, value in null]
        axes.plot([length for length, _ in null], heights, color=GREY, lw=1, ls=(0, (2, 2)), marker="_", zorder=1)
        ends.append(("plain mean of values", None, null[-1][0], heights[-1]))
    for line in panel.lines:
        heights = [scale.position(point.value) for point in line.points]
        _line(axes, line.style, line.points, heights)
        ends.append((line.label, line.style, line.last.length, heights[-1]))
    _warn_of_drawn(axes, panel.setting.of)
    _note(axes, "Shaded: within 0.001 of softmax attention. Exact variants, and operators of their own, are left out.")
    _end_labels(axes, ends, scale.share)


def draw_tradeoff(axes: Any, found: Sequence[Tradeoff]) -> None:
    """Distance from softmax attention against time; the Pareto front is filled and joined."""
    from matplotlib.patheffects import withStroke

    scale = FidelityAxis.of([each.error for each in found if not each.entry.exact])
    low, high = log_range([each.time_ms for each in found], room=0.15)
    _fidelity_axis(axes, scale)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _ticks(axes.xaxis, log_ticks(low, high))
    axes.set_xlabel(f"Median time of a call at {count(found[0].entry.length)} tokens (ms)")
    front = sorted((each.time_ms, scale.position(each.error)) for each in found if each.best)
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color="#aaaaaa", lw=1.4, zorder=1)
    for each in found:
        style = each.entry.style
        fill = style.colour if each.best else "white"
        y = scale.position(each.error)
        axes.plot([each.time_ms], [y], style.mark.matplotlib, ms=6.5, mfc=fill, mec=style.colour, mew=1.4, zorder=3)
    width, height = (72 * inches for inches in _inches(axes))
    spots = [
        (math.log(each.time_ms / low) / math.log(high / low) * width, scale.share(scale.position(each.error)) * height)
        for each in found
    ]
    room = (0.0, 0.0, width * 1.25, height)  # labels may run into the margin at the right
    places = beside(spots, [len(each.entry.label) * LABEL * 0.62 for each in found], LABEL * 1.25, room)
    for each, place in zip(found, places, strict=True):
        far = abs(place.dy) > LABEL * 1.5
        axes.annotate(
            each.entry.label,
            xy=(each.time_ms, scale.position(each.error)),
            xytext=(place.dx, place.dy),
            textcoords="offset points",
            ha=place.align,
            va="center",
            fontsize=LABEL,
            fontweight="bold" if each.best else "normal",
            color=each.entry.style.colour,
            arrowprops={"arrowstyle": "-", "color": each.entry.style.colour, "lw": 0.5, "alpha": 0.6} if far else None,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            annotation_clip=False,
        )
    _warn_of_drawn(axes, found[0].entry.record)
    _note(axes, "Filled and joined: the Pareto front. Shaded: exact, or within 0.001 of softmax attention.")


def draw_error(axes: Any, setting: Setting) -> None:
    """Error over what is allowed, a dot a length, the worst of each variant filled."""
    rows: dict[str, list[tuple[float, bool]]] = {}
    styles: dict[str, Style] = {}
    for entry in setting.entries:
        record = entry.record
        if record.error is not None and record.error_allowed:
            rows.setdefault(entry.label, []).append((record.error / record.error_allowed, record.status == "incorrect"))
            styles[entry.label] = entry.style
    shares = [share for row in rows.values() for share, _ in row if share > 0]
    low, high = log_range([*shares, 1.0])
    low, high = min(low, 0.09), max(high, 1.3)
    ordered = sorted(rows, key=lambda label: (FAMILIES.index(styles[label].family), styles[label].index), reverse=True)
    for place, label in enumerate(ordered):
        row = rows[label]
        worst = max(share for share, _ in row)
        for share, wrong in row:
            colour = BAD if wrong else styles[label].colour
            marker = "X" if wrong else "o" if share > 0 else "<"  # a zero stands at the edge
            fill = colour if share == worst or wrong else "white"
            axes.plot([max(share, low * 1.05)], [place], marker, ms=6, mfc=fill, mec=colour, mew=1.1, zorder=3)
    axes.axvline(1, color=BAD, lw=1.2, zorder=2)
    axes.text(1, len(rows) - 0.45, "allowed ", color=BAD, fontsize=7.5, ha="right", va="top")
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _ticks(axes.xaxis, log_ticks(low, high))
    axes.set_xlabel("Largest error over what it is held to")
    _rows(axes, ordered, [styles[label].colour for label in ordered])
    wrong = any(wrong for row in rows.values() for _, wrong in row)
    _note(axes, f"A dot a length, the worst filled{'; a red cross: incorrect, so no time is given' if wrong else ''}.")


# -- parts ----------------------------------------------------------------------------------------------------------


def _line(axes: Any, style: Style, points: Sequence[Point], heights: Sequence[float]) -> None:
    mark = style.mark
    axes.plot(
        [point.length for point in points],
        heights,
        color=style.colour,
        lw=1.5,
        ls=(0, mark.dash) if mark.dash else "-",
        marker=mark.matplotlib,
        ms=4,
        mec="white",
        mew=0.5,
        zorder=3,
    )


def _dots(axes: Any, panel: Panel, axis: str, base: int, low: float, high: float) -> None:
    lines = sorted(panel.lines, key=lambda line: -line.last.value)
    for place, line in enumerate(lines):
        point = line.last
        axes.plot([point.low, point.high], [place, place], color=line.style.colour, lw=1.4)
        axes.plot([point.value], [place], line.style.mark.matplotlib, color=line.style.colour, ms=6)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _ticks(axes.xaxis, log_ticks(low, high, base))
    axes.set_xlabel(f"{axis} {panel.setting.where(panel.lengths[0])}")
    _rows(axes, [line.label for line in lines], [line.style.colour for line in lines])


def _rows(axes: Any, labels: Sequence[str], colours: Sequence[str]) -> None:
    """Names at the right, as in the panels with lines."""
    axes.set_ylim(-0.7, len(labels) - 0.3)
    axes.yaxis.tick_right()
    axes.set_yticks(range(len(labels)), labels, fontsize=LABEL)
    axes.tick_params(axis="y", length=0)
    for text, colour in zip(axes.get_yticklabels(), colours, strict=True):
        text.set_color(colour)
    axes.grid(True, axis="both")


def _length_axis(axes: Any, lengths: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    room = 1.06 if len(lengths) > 1 else 1.5
    axes.set_xlim(lengths[0] / room, lengths[-1] * room)
    shown = lengths[:: math.ceil(len(lengths) / 9)]
    axes.set_xticks(shown, [tick(length) for length in shown])
    axes.minorticks_off()
    axes.set_xlabel("Sequence length N (tokens)")
    axes.grid(True)


def _fidelity_axis(axes: Any, scale: FidelityAxis) -> None:
    axes.set_ylim(scale.bottom, scale.top)
    axes.set_yticks([place for place, _ in scale.ticks], [text for _, text in scale.ticks])
    axes.set_ylabel("‖out − softmax‖ / ‖softmax‖")
    axes.axhspan(scale.bottom, scale.floor, color="#f3f3f3", zorder=0)
    axes.grid(True)


def _ticks(axis: Any, values: Sequence[float]) -> None:
    axis.set_ticks(list(values), labels=[f"{value:,.6g}" for value in values])
    axis.set_tick_params(which="minor", length=0)
    axis.set_minor_locator(_no_ticks())
    axis.axes.grid(True)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _end_labels(axes: Any, ends: Sequence[tuple[str, Style | None, float, float]], fraction: Any) -> None:
    """Names in a column at the right edge, joined to where their lines end."""
    inches = _inches(axes)[1]
    wanted = [fraction(value) for _, _, _, value in ends]
    places = spread(wanted, LABEL * 1.25 / 72 / inches, 0.0, 1.0)
    across = axes.get_xaxis_transform  # x in data, y in axes
    right = axes.get_xlim()[1]
    for (label, style, x, _), height, place in zip(ends, wanted, places, strict=True):
        colour = style.colour if style else GREY
        axes.annotate(
            label,
            xy=(1, place),
            xytext=(11, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            fontsize=LABEL,
            va="center",
            annotation_clip=False,
        )
        axes.plot([x, right], [height, height], transform=across(), color=colour, lw=0.6, alpha=0.35, zorder=1)
        axes.annotate(
            "",
            xy=(1, height),
            xytext=(9, (place - height) * inches * 72),
            xycoords="axes fraction",
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )


def _inches(axes: Any) -> tuple[float, float]:
    """Width and height of the axes."""
    place, figure = axes.get_position(), axes.figure
    return place.width * figure.get_figwidth(), place.height * figure.get_figheight()


def _warn_of_drawn(axes: Any, record: Record) -> None:
    if not captured(record):
        text = "Drawn input: rankings differ on real input."
        axes.text(0, 1.012, text, transform=axes.transAxes, fontsize=7, color=BAD, va="bottom")


def _note(axes: Any, text: str) -> None:
    axes.text(0, -0.215, text, transform=axes.transAxes, fontsize=7, color=GREY, va="bottom")
