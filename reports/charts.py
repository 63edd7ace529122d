"""Which charts the page has, with their captions and what a reader who does not see them is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import vega
from .series import Panel, distance, mebibytes, milliseconds, panels, tradeoffs
from .settings import Setting, captured
from .words import count, digits

TRADE = "Filled and joined: the Pareto front. Shaded: exact, or within 0.001 of softmax attention."
FIDELITY = (
    "Shaded: within 0.001 of softmax attention. Exact variants are softmax attention, and operators of their own are "
    "not compared with it: both are left out."
)
ERROR = "One mark a length. Right of the line a record is incorrect, and no time of it is published."


@dataclass(frozen=True)
class Chart:
    """One chart of the page."""

    id: str
    title: str
    caption: str
    spec: dict[str, Any]
    wide: bool = False
    """Of fixed width: it scrolls where the page is narrower."""


def setting_charts(setting: Setting) -> list[Chart]:
    """Time and memory over length."""
    found = []
    for name, title, axis, value, base in (
        ("time", "Time of one call", "Median time of a call (ms)", milliseconds, 10),
        ("memory", "Peak memory of one call, above its inputs", "Peak memory (MiB)", mebibytes, 2),
    ):
        for panel in panels([setting], value):
            caption = "Bars, where they are wider than the mark, are 95 % intervals." if name == "time" else ""
            spec = vega.lines(panel, axis, base) if len(panel.lengths) > 1 else vega.rows(panel, axis, base)
            spec["description"] = f"{title}, {setting.phrase}: {_extremes(panel)}"
            found.append(Chart(f"{setting.anchor}-{name}", title, caption, spec))
    return found


def accuracy_charts(settings: Sequence[Setting]) -> list[tuple[Setting, list[Chart]]]:
    """For each setting that has a fidelity: distance over length, and against time. Real inputs first."""
    found = []
    for setting in sorted(settings, key=lambda setting: not captured(setting.of)):
        charts = []
        if trade := tradeoffs(setting):
            spec = vega.tradeoff(trade)
            spec["description"] = f"Distance from softmax attention against time, {setting.phrase}"
            title = f"Accuracy against time, at {count(trade[0].entry.length)} tokens"
            charts.append(Chart(f"{setting.anchor}-trade", title, TRADE, spec, wide=True))
        for panel in panels([setting], distance):
            if len(panel.lengths) > 1:
                spec = vega.fidelity(panel)
                spec["description"] = f"Distance from softmax attention over length, {setting.phrase}"
                title = "Distance from softmax attention"
                charts.append(Chart(f"{setting.anchor}-fidelity", title, FIDELITY, spec))
        if charts:
            found.append((setting, charts))
    return found


def error_chart(setting: Setting) -> Chart | None:
    """Error over what is allowed, a mark a length."""
    entries = [entry for entry in setting.entries if entry.record.error is not None and entry.record.error_allowed]
    if not entries:
        return None
    spec = vega.against_limit(entries)
    spec["description"] = f"Error over what is allowed, {setting.phrase}"
    return Chart(f"{setting.anchor}-error", "Error against the variant's own definition", ERROR, spec)


def _extremes(panel: Panel) -> str:
    """For readers who do not see the chart."""
    last = panel.lengths[-1]
    where = panel.setting.where(last)
    ends = sorted((point.value, line.label) for line in panel.lines for point in line.points if point.length == last)
    (low, least), (high, most) = ends[0], ends[-1]
    return f"{where} from {least} ({digits(low)}) to {most} ({digits(high)})"
