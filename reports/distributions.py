"""Distributions of inputs as a figure: what a head attends to, and its statistics beside a real model's.

By matplotlib, without torch.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..results.distributions import HITTERS, LOCAL, TOP, Look, Sheet
from .figures import RC
from .palette import LIGHT
from .pattern import TICKS, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

CELLS = 128
"""Of a panel, a side: longer attention is shown by the largest weight of each square of cells."""
PANEL, STRIP, GAP, ABOVE, LABELS = 2.15, 1.35, 0.55, 0.3, 1.25
"""In inches: a matrix and its statistics, the space between columns, above a matrix, and left of the first strip."""
COLUMNS = 5
DRAWN, CAPTURED, BAND = LIGHT["sparse"], LIGHT["linear"], "#d9d9d9"
TITLE = "What attention on each kind of input looks like"
ROWS = {
    "mass_first": "first key",
    "mass_local": f"keys nearer than {LOCAL}",
    "mass_hitters": f"{HITTERS} heavy hitters",
    "mass_planted": "planted keys",
    "mass_top": f"top {TOP} of a query",
    "effective_keys": "effective keys",
    "key_rank": "rank of the keys",
}
"""The statistics that are shown, and how they are called."""
LOW, HIGH = 10, 90
"""Percentiles of the captured heads between which the band lies."""


def save_inputs(sheet: Sheet, path: Path) -> Path:
    """A column for each input: a head's attention above, statistics of all heads below. Raises ReportsError."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(sheet.looks))
    rows = [sheet.looks[start : start + columns] for start in range(0, len(sheet.looks), columns)]
    width = LABELS + columns * (PANEL + GAP) + 0.45
    caption = [line for part in _caption(sheet) for line in textwrap.wrap(part, int(17.5 * width))]
    head, foot = 0.55, 0.25 + 0.15 * len(caption)
    cell = ABOVE + PANEL + 0.12 + STRIP + 0.38
    height = head + len(rows) * cell + foot
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width, height))
        figure.text(0.15 / width, 1 - 0.18 / height, TITLE, fontsize=13, fontweight="bold", va="top")
        image = None
        for line, looks in enumerate(rows):
            for place, look in enumerate(looks):
                x, y = LABELS + place * (PANEL + GAP), height - head - line * cell - ABOVE - PANEL
                axes = figure.add_axes((x / width, y / height, PANEL / width, PANEL / height))
                image = _attention(axes, look, first=place == 0)
                strip = figure.add_axes((x / width, (y - 0.12 - STRIP) / height, PANEL / width, STRIP / height))
                _statistics(strip, look, sheet, named=place == 0)
        scale = figure.add_axes(
            ((width - 0.62) / width, (height - head - ABOVE - PANEL) / height, 0.1 / width, PANEL / height)
        )
        bar = figure.colorbar(image, cax=scale)  # type: ignore[arg-type]
        bar.set_ticks([math.sqrt(tick) for tick in (0.0, *TICKS)], labels=[f"{tick:g}" for tick in (0.0, *TICKS)])
        bar.ax.tick_params(labelsize=6.5)
        figure.text(0.15 / width, 0.1 / height, "\n".join(caption), fontsize=7.5, color="#555555", va="bottom")
        return write_figure(figure, path, TITLE)


def _attention(axes: Axes, look: Look, *, first: bool) -> AxesImage:
    """Square roots of weights over the largest of their row."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("weights", ["#ffffff", "#8fb8dc", "#3f83bd", "#0b4a8a", "#052448"])
    shares = pooled(look.matrix / look.matrix.max(axis=1, keepdims=True), CELLS)
    n = len(look.matrix)
    image = axes.imshow(
        np.sqrt(shares), cmap=colours, vmin=0, vmax=1, interpolation="nearest", extent=(0, n, n, 0), aspect="auto"
    )
    axes.set_title(look.name, fontsize=9.5, fontweight="bold", loc="left", color=CAPTURED if look.captured else DRAWN)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    axes.tick_params(labelsize=6.5, length=2, pad=1.5, labelleft=first, top=False)
    axes.set_xticks([])
    if first:
        axes.set_ylabel("query", fontsize=7.5)
    return image


def _statistics(axes: Axes, look: Look, sheet: Sheet, *, named: bool) -> None:
    """A line for each statistic, from 0 to the most there can be: the captured heads' band, the input's dot and value.

    Nothing is planted in captured input: there that line is empty.
    """
    for place, name in enumerate(ROWS):
        value = getattr(look.statistics, name)
        if value is None:
            continue
        if name != "mass_planted":
            heads = [_scaled(name, getattr(found, name), sheet) for found in sheet.captured_heads]
            low, middle, high = np.percentile(heads, [LOW, 50, HIGH])
            axes.barh(place, high - low, left=low, height=0.62, color=BAND, zorder=1)
            axes.plot([middle, middle], [place - 0.31, place + 0.31], color="#8a8a8a", linewidth=1, zorder=2)
        if name in look.targets:
            target = _scaled(name, look.targets[name], sheet)
            axes.plot(target, place, marker="|", markersize=9, markeredgewidth=1.4, color="#222222", zorder=4)
        colour = CAPTURED if look.captured else DRAWN
        axes.plot(_scaled(name, value, sheet), place, marker="o", markersize=4.2, color=colour, zorder=3)
        shown = f"{value:.2f}" if name.startswith("mass") else f"{value:.0f}"
        axes.text(1.03, place, shown, transform=axes.get_yaxis_transform(), fontsize=6.8, va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(ROWS) - 0.4, -0.6)
    axes.set_yticks(range(len(ROWS)), list(ROWS.values()) if named else [""] * len(ROWS), fontsize=7)
    axes.set_xticks([0, 0.5, 1], ["0", "", "1"], fontsize=6.5)
    axes.tick_params(length=2, pad=1.5)
    axes.grid(axis="x")


def pooled(matrix: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """The largest of each square of a matrix (N, N), as at most `cells` squares a side."""
    n = len(matrix)
    step = max(1, math.ceil(n / cells))
    starts = np.arange(0, n, step)
    return np.maximum.reduceat(np.maximum.reduceat(matrix, starts, axis=0), starts, axis=1)


def _scaled(name: str, value: float, sheet: Sheet) -> float:
    """Where a statistic stands between 0 and 1: a mass as it is, keys by their logarithm, a rank by its dimension."""
    if name == "effective_keys":
        return math.log(max(1.0, value)) / math.log(sheet.seq_len)
    return value / sheet.head_dim if name == "key_rank" else value


def _caption(sheet: Sheet) -> list[str]:
    mask = "causal" if sheet.causal else "non-causal"
    step = math.ceil(sheet.seq_len / CELLS)
    pooling = f" (the largest of {step} × {step} cells)" if step > 1 else ""
    lines = [
        f"Above: head {sheet.head} (from 0), {sheet.seq_len} tokens, {mask}, seed {sheet.seed}. Colour: weight over "
        f"the largest of its row{pooling}, on a square-root scale.",
        "Below: statistics of all heads (dot and number) and what the input was fitted to (|). Grey: from the "
        f"{LOW}th to the {HIGH}th percentile of the heads of {sheet.about}, and their median. Masses run from 0 to 1, "
        f"effective keys from 1 to {sheet.seq_len} on a logarithmic scale, the rank (90 % of the variance) from 0 to "
        f"{sheet.head_dim}.",
    ]
    return [*lines, *(f"{look.name}: {sentence}." for look in sheet.looks for sentence in look.missed)]
