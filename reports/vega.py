"""How the page's charts are drawn: Vega-Lite specifications, by altair.

Names go in as data, never as expressions. Colours are CSS variables, so that the page's style sheet alone decides what
they are in light, in dark and in print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from . import encode
from .labels import beside, spread
from .palette import FAMILIES
from .series import FidelityAxis, Panel, Tradeoff, log_range, log_ticks, uniform_null
from .settings import Entry
from .words import count, percent

HEIGHT = 340
LINE_GAP = 13.0
"""Pixels from one direct label to the next."""
TRADEOFF_SIZE = (460, 330)
NULL = "plain mean of values"


def lines(panel: Panel, axis: str, base: int) -> dict[str, Any]:
    low, high = log_range([end for point in panel.points for end in (point.low, point.high)])
    height = max(HEIGHT, LINE_GAP * len(panel.lines) + 30)
    data_rows = [
        {
            **encode.who(line.label, line.style),
            "n": point.length,
            "v": point.value,
            "low": point.low,
            "high": point.high,
            **encode.facts(point.entry),
        }
        for line in panel.lines
        for point in line.points
    ]
    shares = [math.log(line.last.value / low) / math.log(high / low) for line in panel.lines]
    places = [low * (high / low) ** place for place in spread(shares, LINE_GAP / height, 0.0, 1.0)]
    ends = [
        {**encode.who(line.label, line.style), "n": line.last.length, "v": line.last.value, "at": place}
        for line, place in zip(panel.lines, places, strict=True)
    ]
    return _over_length(
        panel, data_rows, ends, encode.log((low, high)), encode.axis(axis, log_ticks(low, high, base)), height
    )


def fidelity(panel: Panel) -> dict[str, Any]:
    null = uniform_null(panel)
    scale = FidelityAxis.of([point.value for point in panel.points] + [value for _, value in null])
    data_rows, ends = [], []
    for line in panel.lines:
        for point in line.points:
            y = scale.position(point.value)
            data_rows.append(
                {
                    **encode.who(line.label, line.style),
                    "n": point.length,
                    "v": y,
                    "low": y,
                    "high": y,
                    **encode.facts(point.entry),
                }
            )
        ends.append({**encode.who(line.label, line.style), "n": line.last.length, "v": scale.position(line.last.value)})
    for length, value in null:
        y = scale.position(value)
        facts = {"fidelity": percent(value), "id": "", "time": "", "ratio": "", "memory": ""}
        data_rows.append(
            {"label": NULL, "family": "null", "style": 2, "n": length, "v": y, "low": y, "high": y, **facts}
        )
    if null:
        ends.append({"label": NULL, "family": "null", "style": 2, "n": null[-1][0], "v": scale.position(null[-1][1])})
    span = scale.top - scale.bottom
    places = spread([scale.share(end["v"]) for end in ends], LINE_GAP / HEIGHT, 0.0, 1.0)
    ends = [{**end, "at": scale.bottom + place * span} for end, place in zip(ends, places, strict=True)]
    linear = alt.Scale(domain=[scale.bottom, scale.top], nice=False, zero=False)
    return _over_length(panel, data_rows, ends, linear, encode.fidelity_axis(scale), HEIGHT, lane=scale)


def _over_length(
    panel: Panel,
    data_rows: list[dict[str, Any]],
    ends: list[dict[str, Any]],
    scale: Any,
    axis: Any,
    height: float,
    lane: FidelityAxis | None = None,
) -> dict[str, Any]:
    """Lines with marks, intervals, and names at the right edge. Pointing at one dims the others."""
    lengths = panel.lengths
    room = (lengths[-1] / lengths[0]) ** 0.02
    across = alt.Scale(type="log", base=2, domain=[lengths[0] / room, lengths[-1] * room], nice=False)
    x, right = alt.X("n:Q", scale=across, axis=encode.length_axis(lengths)), alt.value("width")

    def y(field: str) -> Any:
        return alt.Y(f"{field}:Q", scale=scale, axis=axis)

    pointed = alt.selection_point(name="pointed", on="pointerover", clear="pointerout", fields=["label"])
    seen = alt.condition(pointed, alt.value(1.0), alt.value(0.15))
    data, last = encode.data(data_rows), encode.data(ends)
    tips = encode.tips(
        label="variant",
        n="length",
        time="time",
        ratio="over the fastest exact",
        memory="peak memory",
        fidelity="distance",
        id="record",
    )
    layers = [
        last.mark_rule(strokeWidth=0.7).encode(
            x=x,
            x2=right,
            y=y("v"),
            y2="at:Q",
            color=encode.colour(),
            opacity=alt.condition(pointed, alt.value(0.5), alt.value(0.1)),
        ),
        data.mark_line(strokeWidth=1.8).encode(
            x=x, y=y("v"), color=encode.colour(), detail="label:N", strokeDash=encode.dash(), opacity=seen
        ),
        data.mark_rule(strokeWidth=1.4).encode(x=x, y=y("low"), y2="high:Q", color=encode.colour(), opacity=seen),
        data.mark_point(filled=True, size=46, opacity=1)
        .encode(x=x, y=y("v"), color=encode.colour(), shape=encode.shape(), tooltip=tips, opacity=seen)
        .add_params(pointed),
        last.mark_text(align="left", baseline="middle", dx=7, fontSize=11, limit=230).encode(
            x=right, y=y("at"), text="label:N", color=encode.colour(), opacity=seen
        ),
    ]
    if lane is not None:
        layers.insert(0, encode.lane(lane))
    return encode.finish(alt.layer(*layers), height=height)


def rows(panel: Panel, axis: str, base: int) -> dict[str, Any]:
    """A dot a variant, where there is but one length."""
    low, high = log_range([end for point in panel.points for end in (point.low, point.high)])
    lines = sorted(panel.lines, key=lambda line: line.last.value)
    data_rows = [
        {
            **encode.who(line.label, line.style),
            "v": line.last.value,
            "low": line.last.low,
            "high": line.last.high,
            **encode.facts(line.last.entry),
        }
        for line in lines
    ]
    scale, ticks = (
        encode.log((low, high)),
        encode.axis(f"{axis} {panel.setting.where(panel.lengths[0])}", log_ticks(low, high, base)),
    )
    y = encode.names([line.label for line in lines])
    data = encode.data(data_rows)
    tips = encode.tips(label="variant", time="time", ratio="over the fastest exact", memory="peak memory", id="record")
    chart = alt.layer(
        data.mark_rule(strokeWidth=1.6).encode(
            x=alt.X("low:Q", scale=scale, axis=ticks), x2="high:Q", y=y, color=encode.colour()
        ),
        data.mark_point(filled=True, size=60, opacity=1).encode(
            x=alt.X("v:Q", scale=scale, axis=ticks), y=y, color=encode.colour(), shape=encode.shape(), tooltip=tips
        ),
    )
    return encode.finish(chart, height=26 * len(data_rows) + 10)


def tradeoff(found: Sequence[Tradeoff]) -> dict[str, Any]:
    width, height = TRADEOFF_SIZE
    scale = FidelityAxis.of([each.error for each in found if not each.entry.exact])
    low, high = log_range([each.time_ms for each in found], room=0.15)
    spots = [
        (math.log(each.time_ms / low) / math.log(high / low) * width, scale.share(scale.position(each.error)) * height)
        for each in found
    ]
    labels = [each.entry.label for each in found]
    places = beside(spots, [len(label) * 6.6 for label in labels], 13.0, (0.0, 0.0, width * 1.1, float(height)))
    data_rows = [
        {
            **encode.who(each.entry.label, each.entry.style),
            "x": each.time_ms,
            "y": scale.position(each.error),
            "lx": spot[0] + place.dx,
            "ly": height - spot[1] - place.dy,
            "align": place.align,
            "best": "on the front" if each.best else "",
            "filled": 1 if each.best else 0,
            **encode.facts(each.entry),
        }
        for each, spot, place in zip(found, spots, places, strict=True)
    ]
    x = alt.X(
        "x:Q",
        scale=encode.log((low, high)),
        axis=encode.axis(f"Median time of a call at {count(found[0].entry.length)} tokens (ms)", log_ticks(low, high)),
    )
    y = alt.Y(
        "y:Q",
        scale=alt.Scale(domain=[scale.bottom, scale.top], nice=False, zero=False),
        axis=encode.fidelity_axis(scale),
    )
    data = encode.data(data_rows)
    front = encode.data([row for row in data_rows if row["best"]])
    tips = encode.tips(
        label="variant", time="time", ratio="over the fastest exact", fidelity="distance", best="Pareto", id="record"
    )
    texts = []
    for align in dict.fromkeys(row["align"] for row in data_rows):
        text = (
            encode.data([row for row in data_rows if row["align"] == align])
            .mark_text(align=align, baseline="middle", fontSize=11)
            .encode(x=alt.X("lx:Q", scale=None, axis=None), y=alt.Y("ly:Q", scale=None, axis=None), text="label:N")
        )
        halo = {"stroke": alt.value("var(--paper)"), "strokeWidth": alt.value(4), "fill": alt.value("var(--paper)")}
        texts += [text.encode(**halo), text.encode(color=encode.colour())]
    marks = alt.layer(
        encode.lane(scale),
        front.mark_line(interpolate="step-after", stroke="var(--muted)", strokeWidth=1.4).encode(x=x, y=y),
        data.mark_point(size=80, strokeWidth=1.8, opacity=1).encode(
            x=x,
            y=y,
            color=encode.colour(),
            shape=encode.shape(),
            fill=alt.Fill("family:N", scale=encode.family_scale(), legend=None),
            fillOpacity=alt.FillOpacity("filled:Q", scale=None, legend=None),
            tooltip=tips,
        ),
    )
    return encode.finish(
        alt.layer(marks, *texts).resolve_scale(x="independent", y="independent"), height=height, width=width, margin=60
    )


def against_limit(entries: Sequence[Entry]) -> dict[str, Any]:
    """Error over what is allowed, a mark a record; all of the entries have both."""
    data_rows = []
    for entry in sorted(entries, key=lambda entry: (FAMILIES.index(entry.style.family), entry.style.index)):
        record = entry.record
        error, allowed = record.error or 0.0, record.error_allowed or 1.0
        data_rows.append(
            {
                **encode.who(entry.label, entry.style),
                **({"family": "bad"} if record.status == "incorrect" else {}),
                "share": max(error / allowed, 1e-4),  # a logarithmic axis has no zero
                "length": count(entry.length),
                "error": f"{error:.2e} of {allowed:.2e}",
                "of": record.error_of or "",
                "status": record.status,
                "id": record.case_id,
            }
        )
    low, high = log_range([*(row["share"] for row in data_rows), 0.1, 1.3])
    order = list(dict.fromkeys(row["label"] for row in data_rows))
    axis = encode.axis("Largest error over what is allowed", log_ticks(low, high))
    shapes = alt.Scale(domain=["ok", "incorrect"], range=["circle", "cross"])
    dots = (
        encode.data(data_rows)
        .mark_point(size=42, strokeWidth=1.5)
        .encode(
            x=alt.X("share:Q", scale=encode.log((low, high)), axis=axis),
            y=encode.names(order),
            color=encode.colour(),
            shape=alt.Shape("status:N", scale=shapes, legend=None),
            tooltip=encode.tips(label="variant", length="length", error="error", of="of", status="status", id="record"),
        )
    )
    limit = (
        encode.data([{"one": 1}])
        .mark_rule(stroke="var(--bad)", strokeWidth=1.5)
        .encode(x=alt.X("one:Q", scale=encode.log((low, high))))
    )
    return encode.finish(alt.layer(limit, dots), height=26 * len(order) + 10)
