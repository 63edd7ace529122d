"""Plots for papers of accuracy without training: distance against time and against keys kept, and recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..results.record import RECALL
from . import paper_panels as panels
from .paper import Drawing
from .series import FidelityAxis, distance, log_range, tradeoffs
from .settings import Entry, Setting, captured
from .words import count


def accuracy(settings: Sequence[Setting]) -> list[Drawing]:
    found = []
    for setting in sorted(settings, key=lambda s: not captured(s.of)):
        trades = tradeoffs(setting)
        if not trades:
            continue
        scale = FidelityAxis.of([trade.error for trade in trades if not trade.entry.exact])

        def draw(axes: Any, trades: Any = trades, scale: FidelityAxis = scale) -> None:
            spots = [
                panels.Spot(t.entry.label, t.entry.style, t.time_ms, scale.position(t.error), t.best) for t in trades
            ]
            front = sorted((spot.x, spot.y) for spot in spots if spot.filled)
            axes.step([x for x, _ in front], [y for _, y in front], where="post", color="#aaaaaa", lw=1.0, zorder=1)
            axes.axhspan(scale.bottom, scale.floor, color="#f3f3f3", zorder=0)
            panels.scatter(
                axes,
                spots,
                x_label=f"Time of a call at {count(trades[0].entry.length)} tokens (ms)",
                y_label="‖out − softmax‖ / ‖softmax‖",
                x_range=log_range([t.time_ms for t in trades], room=0.3),
                y_range=(scale.bottom, scale.top),
                log_y=False,
            )
            axes.set_yticks([place for place, _ in scale.ticks], [text for _, text in scale.ticks])

        found.append(panels.drawing(setting, draw))
    return found


def budget(settings: Sequence[Setting]) -> list[Drawing]:
    """Distance over keys kept, at the longest length where any variant keeps some."""
    found = []
    for setting in sorted(settings, key=lambda s: not captured(s.of)):

        def keeps(entry: Entry) -> bool:
            return bool(entry.record.fidelity_keys) and distance(entry) is not None and distance(entry)[0] > 0  # type: ignore[index]

        length = setting.longest(keeps)
        if length is None:
            continue
        entries = setting.at(length, keeps)

        def draw(axes: Any, entries: Sequence[Entry] = tuple(entries), length: int = length) -> None:
            records = [entry.record for entry in entries]
            nulls = [
                (r.fidelity_keys, null, colour)
                for r in records
                for null, colour in ((r.fidelity_error_window, "#aaaaaa"), (r.fidelity_error_oracle, "#333333"))
                if null
            ]
            spots = [
                panels.Spot(e.label, e.style, e.record.fidelity_keys or 1.0, e.record.fidelity_error or 1.0)
                for e in entries
            ]
            ys = [spot.y for spot in spots] + [null for _, null, _ in nulls]
            for x, y, colour in nulls:
                axes.plot([x], [y], "_", ms=8, mew=1.4, color=colour, zorder=2)
            panels.scatter(
                axes,
                spots,
                x_label=f"Keys kept a query, of {count(length)}",
                y_label="‖out − softmax‖ / ‖softmax‖",
                x_range=log_range([spot.x for spot in spots], room=0.25),
                y_range=log_range(ys, room=0.1),
                x_at=_apart(sorted({round(spot.x) for spot in spots})),
            )

        found.append(panels.drawing(setting, draw))
    return found


def _apart(values: Sequence[int]) -> list[int]:
    """Those that have room for a number each on a logarithmic axis."""
    found: list[int] = []
    for value in values:
        if not found or value > 1.15 * found[-1]:
            found.append(value)
    return found


def recall(settings: Sequence[Setting]) -> list[Drawing]:
    """One panel: what is recalled is the same in all settings of a variant."""
    found: dict[str, Entry] = {}
    for setting in settings:
        for entry in setting.entries:
            if entry.record.recall_32 is not None:
                found.setdefault(entry.label, entry)
    if not found:
        return []
    loads = [int(name.rpartition("_")[2]) for name in RECALL if name.rpartition("_")[2].isdigit()]
    curves = []
    for label, entry in found.items():
        values = [(n, v) for n in loads if (v := getattr(entry.record, f"recall_{n}")) is not None]
        xs, ys = [float(n) for n, _ in values], [v for _, v in values]
        curves.append(panels.Curve(label, entry.style, xs, ys, ys, ys))
    how = {"x_label": "Pairs written", "y_label": "Share recalled", "log_y": False}
    draw = panels.bind(panels.lines, curves, **how)
    detail = "The definition, untrained, one head of 64 dimensions; unit keys and values at random"
    return [Drawing("Recall of written pairs", detail, draw, list(found))]
