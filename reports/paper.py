"""Figures for papers: panels in one column or two, text of a size to be read in print, fonts embedded whole."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .pattern import check_format, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTHS = {"one": 3.35, "two": 7.0}
"""Inches of a column, and of both, in the usual conference styles."""
TEXT, SMALL = 7.0, 6.0
"""Points: of axes and labels, and of what stands below a title."""
LEFT, BARE, BOTTOM, GAP = 0.52, 0.15, 0.44, 0.06
"""Inches left of a panel's axes, the same where they have rows, below them, and above its head."""
LETTER = 0.048
"""Inches of a letter of a name."""
HEIGHT, ROW = 1.9, 0.145
"""Inches of axes, and of each row where names stand beside rows."""
MOST_PANELS = 6

RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that a figure looks the same everywhere
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "text.parse_math": False,  # names are text, whatever they hold
    "pdf.fonttype": 42,  # TrueType, which journals ask for, in place of Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "attnbench",  # the same records give the same file
    "savefig.dpi": 300,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.6,
    "axes.labelpad": 2.0,
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
}


@dataclass(frozen=True)
class Drawing:
    """One panel: its head, how much room it needs, and how it is drawn."""

    title: str
    detail: str
    draw: Callable[[Axes], None]
    labels: Sequence[str] = ()
    """What stands right of the axes."""
    rows: int = 0
    """Names beside rows: they set the height; 0 for a plain panel."""


def save(drawings: Sequence[Drawing], path: Path, title: str, width: str) -> Path:
    """Writes the panels, at most MOST_PANELS of them, to a .pdf, .svg or .png. Raises ReportsError."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    check_format(path)
    shown = list(drawings[:MOST_PANELS])
    columns = 2 if width == "two" and len(shown) > 1 else 1
    cell = WIDTHS[width] / columns
    rows = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    heads = [[_head(drawing, cell) for drawing in row] for row in rows]
    tops = [max(GAP + 0.14 + 0.1 * len(lines) for lines in row) for row in heads]
    heights = [max(_height(drawing) for drawing in row) for row in rows]
    total = sum(tops) + sum(heights) + BOTTOM * len(rows)
    with mpl.rc_context(RC):
        figure = Figure(figsize=(WIDTHS[width], total))  # without pyplot: no global state, and no display
        y = total
        for row, lines_of, top, height in zip(rows, heads, tops, heights, strict=True):
            y -= top + height
            for place, (drawing, lines) in enumerate(zip(row, lines_of, strict=True)):
                left = BARE if drawing.rows else LEFT
                right = 0.14 + LETTER * max(map(len, drawing.labels), default=0)
                wide = max(cell - left - right, 0.9)
                box = (place * cell + left, y + height - _height(drawing), wide, _height(drawing))
                axes = figure.add_axes((box[0] / WIDTHS[width], box[1] / total, box[2] / WIDTHS[width], box[3] / total))
                drawing.draw(axes)
                x = (place * cell + 0.08) / WIDTHS[width]
                head = (y + height + 0.06 + 0.1 * len(lines)) / total
                figure.text(x, head, drawing.title, fontsize=TEXT + 0.5, fontweight="bold", va="bottom")
                text = "\n".join(lines)
                figure.text(x, head - 0.01 / total, text, fontsize=SMALL - 0.5, color="#555555", va="top")
            y -= BOTTOM
        return write_figure(figure, path, title)


def _head(drawing: Drawing, cell: float) -> list[str]:
    return textwrap.wrap(drawing.detail, int((cell - 0.1) / 0.046))


def _height(drawing: Drawing) -> float:
    return max(0.6, drawing.rows * ROW + 0.2) if drawing.rows else HEIGHT


def inches(axes: Any) -> tuple[float, float]:
    """Width and height of axes."""
    place, figure = axes.get_position(), axes.figure
    return place.width * figure.get_figwidth(), place.height * figure.get_figheight()


def most(count: int) -> str:
    """What is said where there are more panels than a figure holds."""
    left = count - MOST_PANELS
    return "" if left <= 0 else f"; {left} more panels left out: choose with --mode, --variants or --dtype"


def ticks_fit(values: Sequence[float], room: float, each: float) -> list[float]:
    """Every so many of the ticks, so that each has the room it needs."""
    step = max(1, math.ceil(len(values) * each / max(room, 1e-9)))
    return list(values)[::step]
