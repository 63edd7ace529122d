"""The parts that the page's charts share: scales, axes, tooltips, and what a record says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from .palette import FAMILIES, MARKS, Style
from .series import FidelityAxis
from .settings import Entry
from .words import digits, interval, percent, seconds, size

LENGTH_LABEL = (
    "datum.value >= 1024 && datum.value % 1024 == 0 ? format(datum.value / 1024, ',') + 'k' : format(datum.value, ',')"
)

CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--ink)",
        "gridColor": "var(--line)",
        "domainColor": "var(--muted)",
        "tickColor": "var(--muted)",
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
}


def data(values: Sequence[dict[str, Any]]) -> Any:
    """A chart that carries its rows inside."""
    return alt.Chart(alt.Data(values=list(values)))  # type: ignore[no-untyped-call]


def finish(chart: Any, height: float, width: int | None = None, margin: int = 8) -> dict[str, Any]:
    sizes = {"width": "container", "autosize": alt.AutoSizeParams(type="fit-x", contains="padding")}
    chart = chart.properties(
        height=height,
        padding={"left": 4, "top": 8, "right": margin, "bottom": 4},
        **(sizes if width is None else {"width": width}),
    )
    spec: dict[str, Any] = chart.to_dict()
    spec["config"] = CONFIG
    return spec


def who(label: str, style: Style) -> dict[str, Any]:
    return {"label": label, "family": style.family, "style": style.index % len(MARKS)}


def facts(entry: Entry) -> dict[str, str]:
    """What a tooltip says of a record."""
    record = entry.record
    ratio = "" if record.ratio is None else f"{digits(record.ratio)} ({interval(record.ratio_low, record.ratio_high)})"
    return {
        "time": seconds(record.time_s),
        "ratio": f"{ratio} × {record.baseline}" if ratio else "",
        "memory": size(record.peak_bytes),
        "fidelity": "" if record.fidelity_error is None else percent(record.fidelity_error),
        "id": record.case_id,
    }


def tips(**fields: str) -> list[Any]:
    return [alt.Tooltip(name, type="nominal", title=title) for name, title in fields.items()]


def family_scale() -> Any:
    names = [*FAMILIES, "null", "bad"]
    return alt.Scale(domain=names, range=[f"var(--{name})" for name in names])


def colour() -> Any:
    return alt.Color("family:N", scale=family_scale(), legend=None)


def dash() -> Any:
    patterns = [list(mark.dash) or [1, 0] for mark in MARKS]
    return alt.StrokeDash("style:N", scale=alt.Scale(domain=list(range(len(MARKS))), range=patterns), legend=None)


def shape() -> Any:
    shapes = [mark.vega for mark in MARKS]
    return alt.Shape("style:N", scale=alt.Scale(domain=list(range(len(MARKS))), range=shapes), legend=None)


def log(ends: tuple[float, float]) -> Any:
    return alt.Scale(type="log", domain=list(ends), nice=False)


def axis(title: str, ticks: Sequence[float]) -> Any:
    return alt.Axis(title=title, values=list(ticks), format=",~r", grid=True)


def fidelity_axis(scale: FidelityAxis) -> Any:
    values = [place for place, _ in scale.ticks]
    expression = f"datum.value < {scale.floor} ? 'none' : format(pow(10, datum.value), ',~r')"
    return alt.Axis(title="‖out − softmax‖ / ‖softmax‖", values=values, labelExpr=expression, grid=True)


def lane(scale: FidelityAxis) -> Any:
    """The shaded lane of what does not differ from softmax attention."""
    y = alt.Y(
        "low:Q", scale=alt.Scale(domain=[scale.bottom, scale.top], nice=False, zero=False), axis=fidelity_axis(scale)
    )
    return (
        data([{"low": scale.bottom, "high": scale.floor}])
        .mark_rect(fill="var(--line)", opacity=0.45)
        .encode(y=y, y2="high:Q")
    )


def names(order: Sequence[str]) -> Any:
    """Variants as rows."""
    axis = alt.Axis(title=None, labelLimit=220, grid=True, domain=False, ticks=False)
    return alt.Y("label:N", sort=list(order), axis=axis)


def length_axis(lengths: Sequence[int]) -> Any:
    """The lengths that were measured, written as 256, 1k, 32k."""
    title = "Sequence length N (tokens)"
    return alt.Axis(title=title, values=list(lengths), labelExpr=LENGTH_LABEL, labelOverlap="greedy", grid=True)
