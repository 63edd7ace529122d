"""The static figures, by matplotlib: one file a topic, one panel a setting, SVG for papers and PNG for slides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ReportsError
from .panels import draw_error, draw_fidelity, draw_lines, draw_tradeoff
from .series import distance, mebibytes, milliseconds, panels, tradeoffs
from .settings import Setting, captured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes"], None]

MOST_PANELS = 6
"""Settings that a figure of the report shows: the page draws all of them, and quickly."""
WIDTH, HEIGHT = 4.1, 3.1
"""Of a panel's axes, in inches."""
LEFT, TOP, BOTTOM = 0.95, 0.8, 0.78
HEAD = 0.55

RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that a figure looks the same everywhere
    "font.size": 9,
    "text.parse_math": False,  # names are text, whatever they hold
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": "#333333",
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "svg.hashsalt": "attnbench",  # the same records give the same file
    "savefig.dpi": 160,
}


def save_figures(settings: Sequence[Setting], folder: Path) -> list[Path]:
    """Draws every topic that has something to show, of the first settings; returns the files. Raises ReportsError."""
    topics: dict[str, tuple[str, list[tuple[Setting, Draw]]]] = {
        "time": ("Time of one call", _lines(settings, "time")),
        "memory": ("Peak memory of one call, above its inputs", _lines(settings, "memory")),
        "error": ("Error against the variant's own definition", _errors(settings)),
        "fidelity": ("Distance of approximate variants from softmax attention", _fidelities(settings)),
        "accuracy_time": ("Accuracy against time: which approximations pay", _tradeoffs(settings)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in topics:
            for old in [*folder.glob(f"{name}.*"), *folder.glob(f"{name}-*.*")]:
                old.unlink()
        return [
            path for name, (title, drawn) in topics.items() for path in _save(name, title, drawn[:MOST_PANELS], folder)
        ]
    except OSError as error:
        raise ReportsError(f"cannot write the figures to {folder}: {error.strerror}; choose another --out") from None


def _lines(settings: Sequence[Setting], topic: str) -> list[tuple[Setting, Draw]]:
    value, axis, base = (
        (milliseconds, "Median time of a call (ms)", 10) if topic == "time" else (mebibytes, "Peak memory (MiB)", 2)
    )
    return [
        (panel.setting, lambda ax, panel=panel: draw_lines(ax, panel, axis, base))  # type: ignore[misc]
        for panel in panels(settings, value)
    ]


def _errors(settings: Sequence[Setting]) -> list[tuple[Setting, Draw]]:
    return [
        (setting, lambda ax, setting=setting: draw_error(ax, setting))  # type: ignore[misc]
        for setting in settings
        if any(entry.record.error is not None and entry.record.error_allowed for entry in setting.entries)
    ]


def _fidelities(settings: Sequence[Setting]) -> list[tuple[Setting, Draw]]:
    return [
        (panel.setting, lambda ax, panel=panel: draw_fidelity(ax, panel))  # type: ignore[misc]
        for panel in panels(_real_first(settings), distance)
    ]


def _tradeoffs(settings: Sequence[Setting]) -> list[tuple[Setting, Draw]]:
    return [
        (setting, lambda ax, found=found: draw_tradeoff(ax, found))  # type: ignore[misc]
        for setting in _real_first(settings)
        if (found := tradeoffs(setting))
    ]


def _real_first(settings: Sequence[Setting]) -> list[Setting]:
    return sorted(settings, key=lambda setting: not captured(setting.of))


def _save(name: str, title: str, drawn: Sequence[tuple[Setting, Draw]], folder: Path) -> list[Path]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not drawn:
        return []
    paths = []
    labels = [entry.label for setting, _ in drawn for entry in setting.entries]
    right = min(0.35 + 0.072 * max(20, *map(len, labels)), 3.2)  # inches that the longest label takes
    columns = min(2, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    cell = (LEFT + WIDTH + right, TOP + HEIGHT + BOTTOM)
    total = (columns * cell[0], rows * cell[1] + HEAD)
    with mpl.rc_context(RC):
        figure = Figure(figsize=total)  # without pyplot: no global state, and no display is looked for
        figure.text(0.25 / total[0], 1 - 0.32 / total[1], title, fontsize=14, fontweight="bold", va="center")
        for place, (setting, draw) in enumerate(drawn):
            x = (place % columns) * cell[0] + LEFT
            y = (rows - 1 - place // columns) * cell[1] + BOTTOM
            axes = figure.add_axes((x / total[0], y / total[1], WIDTH / total[0], HEIGHT / total[1]))
            _head(axes, setting)
            draw(axes)
        for suffix, metadata in (("svg", {"Date": None, "Title": title}), ("png", {"Title": title})):
            path = folder / f"{name}.{suffix}"
            figure.savefig(path, metadata=metadata, facecolor="white")
            paths.append(path)
    return paths


def _head(axes: Any, setting: Setting) -> None:
    axes.text(0, 1.125, setting.title, transform=axes.transAxes, fontsize=10, fontweight="bold", va="baseline")
    axes.text(0, 1.055, setting.detail, transform=axes.transAxes, fontsize=7.5, color="#555555", va="baseline")
