"""Trained tasks as figures, one for each task and setting: curves, values over what decoding keeps, reach.

By matplotlib, without torch. A variant is shown at its best learning rate: see results/tasks.py.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..results.task_record import TaskRecord
from ..results.tasks import TaskSummary, ranked, summarise
from .errors import ReportsError
from .figures import RC
from .labels import spread
from .palette import Style, family_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, GAP = 3.6, 3.4, 0.75
"""A panel, and what its labels take to its right beside the names, in inches."""
LETTER = 0.064
"""Of a label, in inches."""
LINE = 0.115
"""From label to label, in inches."""
SMALL_LETTERS, SMALL_LINE = 14, 0.14
"""Letters of the line below the title in an inch, and the height of such a line in inches."""
LOG_SUFFIXES = ("B", "KiB", "MiB", "GiB")


def save_task_figures(records: Sequence[TaskRecord], folder: Path) -> list[Path]:
    """Draws every task and setting that has a value; returns the files, SVG and PNG. Raises ReportsError."""
    groups: dict[str, list[TaskSummary]] = {}
    for summary in ranked(summarise(records)):
        if summary.median is not None:
            groups.setdefault(summary.setting, []).append(summary)
    if not groups:
        raise ReportsError("no training of these runs has a value; there is nothing to draw")
    names = [summaries[0].task for summaries in groups.values()]
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, (name, summaries) in enumerate(zip(names, groups.values(), strict=True)):
            number = "" if names.count(name) == 1 else f"-{names[: place + 1].count(name)}"
            paths += _save(summaries, folder / f"task-{name}{number}")
    except OSError as error:
        raise ReportsError(f"cannot write the figures to {folder}: {error.strerror}; choose another --out") from None
    return paths


def _save(summaries: list[TaskSummary], stem: Path) -> list[Path]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    first = summaries[0]
    styles = _styles(summaries)
    kept = [summary for summary in summaries if summary.state_bytes is not None]
    far = [summary for summary in summaries if any(record.reach for record in summary.records)]
    timed = first.metric == "bits_per_byte"
    learning = "learning: validation set, every seed"
    panels: list[tuple[str, Any]] = [(learning, lambda ax: _curves(ax, summaries, styles, "step"))]
    if timed:
        panels.append(("the same over training time", lambda ax: _curves(ax, summaries, styles, "wall_s")))
    if kept:
        panels.append(("test set, over what decoding keeps", lambda ax: _over_state(ax, kept, styles)))
    if far:
        panels.append(("test set, by distance to what is asked for", lambda ax: _reach(ax, far, styles)))
    room = GAP + LETTER * max(len(summary.spec) for summary in summaries)
    height = max(HEIGHT, LINE * len(summaries))
    guess = "" if first.chance is None else f" Dotted: {first.chance:.3f}, by guessing."
    longer = "" if first.held_out_len == first.seq_len else f", validated and tested at {first.held_out_len}"
    shared = {record.jobs for summary in summaries for record in summary.records}
    contended = f" Trainings shared the machine, {max(shared)} at a time." if max(shared) > 1 else ""
    width = 0.7 + len(panels) * (WIDTH + room)
    detail = textwrap.wrap(
        f"Length {first.seq_len}{longer}, d_model {first.d_model}; each variant at its best learning rate of the "
        f"validation set; dots: median over seeds, lines: their range.{guess}{contended}",
        int(SMALL_LETTERS * width),
    )
    total = (width, height + 1.55 + SMALL_LINE * max(0, len(detail) - 2))
    with mpl.rc_context(RC):
        figure = Figure(figsize=total)
        title = f"{first.task}: {first.metric.replace('_', ' ')}"
        figure.text(0.15 / total[0], 1 - 0.18 / total[1], title, fontsize=13, fontweight="bold", va="top")
        figure.text(0.15 / total[0], 1 - 0.47 / total[1], "\n".join(detail), fontsize=8, color="#555555", va="top")
        for place, (label, draw) in enumerate(panels):
            x, y = 0.6 + place * (WIDTH + room), 0.55
            axes = figure.add_axes((x / total[0], y / total[1], WIDTH / total[0], height / total[1]))
            axes.set_title(label, fontsize=9.5, fontweight="bold", loc="left")
            axes.grid(visible=True)
            if first.chance is not None:
                axes.axhline(first.chance, color="#888888", linewidth=1, linestyle=":")
            draw(axes)
        paths = []
        for suffix, metadata in ((".svg", {"Date": None, "Title": title}), (".png", {"Title": title})):
            path = stem.with_name(stem.name + suffix)
            figure.savefig(path, metadata=metadata, facecolor="white")
            paths.append(path)
    return paths


def _styles(summaries: Sequence[TaskSummary]) -> dict[str, Style]:
    """By spec: the family's colour, and a mark of its own within the family."""
    counts: dict[str, int] = {}
    found = {}
    for summary in summaries:
        family = family_of(summary.family)
        found[summary.spec] = Style(family, counts.get(family, 0))
        counts[family] = counts.get(family, 0) + 1
    return found


def _curves(axes: Axes, summaries: Sequence[TaskSummary], styles: dict[str, Style], over: str) -> None:
    """Every seed's curve, thin; the name stands where the median of their ends is."""
    ends = []
    for summary in summaries:
        style = styles[summary.spec]
        last = []
        for record in summary.records:
            points = [(getattr(point, over), point.value) for point in record.curve if point.value is not None]
            if not points:
                continue
            axes.plot(
                [x for x, _ in points],
                [value for _, value in points],
                color=style.colour,
                dashes=style.mark.dash or (None, None),
                linewidth=0.9,
                alpha=0.75,
            )
            last.append(points[-1][1])
        if last:
            ends.append((statistics.median(last), summary))
    axes.set_xlabel("step" if over == "step" else "seconds of training (evaluations not counted)")
    _value_axis(axes, summaries)
    _names(axes, ends, styles)


def _over_state(axes: Axes, summaries: Sequence[TaskSummary], styles: dict[str, Style]) -> None:
    points = []
    for summary in summaries:
        style = styles[summary.spec]
        assert summary.state_bytes is not None
        assert summary.median is not None
        assert summary.low is not None
        assert summary.high is not None
        axes.plot([summary.state_bytes] * 2, [summary.low, summary.high], color=style.colour, linewidth=1)
        axes.plot(summary.state_bytes, summary.median, marker=style.mark.matplotlib, color=style.colour, markersize=5)
        points.append((summary.median, summary))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: _bytes(value))
    axes.set_xlabel("bytes that decoding keeps of one sequence")
    _value_axis(axes, summaries)
    _names(axes, points, styles, lead=lambda summary: float(summary.state_bytes or 0))


def _reach(axes: Axes, summaries: Sequence[TaskSummary], styles: dict[str, Style]) -> None:
    ends = []
    for summary in summaries:
        style = styles[summary.spec]
        found: dict[int, list[float]] = {}
        for record in summary.records:
            for span in record.reach:
                found.setdefault(span.farthest.bit_length(), []).append(span.accuracy)
        spans = sorted(found)
        values = [statistics.median(found[span]) for span in spans]
        axes.plot(
            [2.0 ** (span - 1) for span in spans],
            values,
            color=style.colour,
            dashes=style.mark.dash or (None, None),
            marker=style.mark.matplotlib,
            markersize=3.2,
            linewidth=0.9,
        )
        if values:
            ends.append((values[-1], summary))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("tokens back, from each power of two to the next")
    _value_axis(axes, summaries)
    _names(axes, ends, styles)


def _value_axis(axes: Axes, summaries: Sequence[TaskSummary]) -> None:
    if summaries[0].metric == "accuracy":
        axes.set_ylim(-0.02, 1.03)
        axes.set_ylabel("accuracy")
        return
    highest = max(summary.high for summary in summaries if summary.high is not None)
    lowest = min(summary.low for summary in summaries if summary.low is not None)
    # the first steps, from eight bits down, would leave no room for the differences
    axes.set_ylim(lowest - 0.1 * (highest - lowest) - 0.05, highest + 1.0)
    axes.set_ylabel("bits per byte (less is better)")


def _names(axes: Axes, ends: Sequence[tuple[float, TaskSummary]], styles: dict[str, Style], lead: Any = None) -> None:
    """Names to the right of the axes, none on another; with `lead`, a thin line to where the point is."""
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height / axes.figure.dpi
    wanted = [min(max((value - low) / (high - low), 0.0), 1.0) for value, _ in ends]
    places = spread(wanted, LINE / height, 0.0, 1.0)
    for (_, summary), place, want in zip(ends, places, wanted, strict=True):
        style = styles[summary.spec]
        begin = 1.0
        if lead is not None:
            begin = axes.transAxes.inverted().transform(axes.transData.transform((lead(summary), low)))[0]
        axes.plot(
            [begin, 1.02, 1.05],
            [want, place, place],
            transform=axes.transAxes,
            color=style.colour,
            linewidth=0.4,
            alpha=0.5,
            clip_on=False,
        )
        axes.text(1.06, place, summary.spec, transform=axes.transAxes, fontsize=7, color=style.colour, va="center")


def _bytes(value: float) -> str:
    for suffix in LOG_SUFFIXES:
        if value < 1024 or suffix == LOG_SUFFIXES[-1]:
            return f"{value:g} {suffix}"
        value /= 1024
    return ""
