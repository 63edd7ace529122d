"""Plots for papers of what follows from the records: exponents, crossovers, and the machine's own ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..results.derived import Crossing, Exponent, crossings, exponents
from ..results.work import moved_by
from . import paper_panels as panels
from .palette import FAMILIES, Style
from .paper import Drawing
from .series import log_range
from .settings import Entry, Setting, identity_of
from .words import count


def scaling(settings: Sequence[Setting]) -> list[Drawing]:
    found = []
    for setting in settings:
        for quantity in ("time", "memory"):
            mine = [e for e in exponents(entry.record for entry in setting.entries) if e.quantity == quantity]
            labels = _labels(setting)
            rows = [_exponent_row(e, *labels[identity_of(e.series.of)]) for e in _ordered(mine, labels)]
            if rows:
                found.append(panels.row_drawing(setting, rows, x_label=f"Exponent of {quantity}", log_x=False))
    return found


def _exponent_row(found: Exponent, label: str, style: Style) -> panels.Row:
    whole, tail = (panels.Mark(f.value, f.low, f.high, filled=f is found.tail) for f in (found.figure, found.tail))
    apart = found.figure.case_ids != found.tail.case_ids
    return panels.Row(label, style, [tail, whole] if apart else [tail], found.declared)


def crossovers(settings: Sequence[Setting]) -> list[Drawing]:
    found = []
    for setting in settings:
        every = crossings(record for record in setting.run.records)
        labels = _labels(setting)
        ids = {entry.record.case_id for entry in setting.entries}
        for against, words in (("exact", "the fastest exact"), ("naive", "naive")):
            mine: dict[str, list[Crossing]] = {}
            for one in every:
                if one.against == against and one.series.of.case_id in ids:
                    mine.setdefault(identity_of(one.series.of), []).append(one)
            rows = [
                panels.Row(
                    *labels[key], [_crossing_mark(one) for one in sorted(of, key=lambda o: o.quantity != "time")]
                )
                for key, of in sorted(mine.items(), key=lambda item: _place(labels[item[0]][1]))
                if of[0].found.longest > of[0].found.shortest
            ]
            if rows:
                axis = f"N from which it takes less than {words}"
                found.append(panels.row_drawing(setting, rows, x_label=axis, log_x=True, lengths=True))
    return found


def _crossing_mark(one: Crossing) -> panels.Mark:
    """A circle for time, a square for memory; hollow where extrapolated; an arrow where it lies beyond."""
    marker = "o" if one.quantity == "time" else "s"
    found = one.found
    if found.length is not None:
        low = found.low or found.shortest
        return panels.Mark(found.length, low, found.high, marker, arrow="<" if found.length <= found.shortest else "")
    if one.beyond is not None:
        high = one.beyond.high if one.beyond.high < one.found.longest * 64 else None
        return panels.Mark(one.beyond.value, one.beyond.low, high, marker, filled=False)
    return panels.Mark(found.longest, found.longest, found.longest, marker, filled=False, arrow=">")


def roofline(settings: Sequence[Setting]) -> list[Drawing]:
    found = []
    for setting in settings:
        of = setting.of
        ceilings = next(
            (
                c
                for c in setting.run.run.ceilings
                if (c.device, c.dtype, c.threads) == (of.device, of.dtype, of.threads)
            ),
            None,
        )
        length = setting.longest(lambda e: e.timed and bool(e.record.flops_needed) and moved_by(e.record) is not None)
        if ceilings is None or length is None:
            continue
        entries = setting.at(length, lambda e: e.timed and bool(e.record.flops_needed))

        def draw(axes: Any, entries: Sequence[Entry] = tuple(entries), roof: Any = ceilings, n: int = length) -> None:
            spots = []
            for entry in entries:
                needed, moved, time_s = entry.record.flops_needed, moved_by(entry.record), entry.record.time_s
                if needed and moved and time_s:
                    spots.append(panels.Spot(entry.label, entry.style, needed / moved, needed / time_s / 1e9))
            top, wide = roof.matmul_flops_per_s / 1e9, roof.copy_bytes_per_s / 1e9
            x_range = log_range([*(spot.x for spot in spots), top / wide], room=0.15)
            y_range = log_range([*(spot.y for spot in spots), top], room=0.1)
            xs = [x_range[0], top / wide, x_range[1]]
            axes.plot(xs, [min(top, wide * x) for x in xs], color="#555555", lw=1.0, zorder=1)
            panels.scatter(
                axes,
                spots,
                x_label=f"Needed operations a byte of inputs and outputs, {count(n)} tokens",
                y_label="Needed operations per second (G)",
                x_range=x_range,
                y_range=y_range,
            )

        found.append(panels.drawing(setting, draw))
    return found


# -- parts ----------------------------------------------------------------------------------------------------------


def _labels(setting: Setting) -> dict[str, tuple[str, Style]]:
    return {identity_of(entry.record): (entry.label, entry.style) for entry in setting.entries}


def _place(style: Style) -> tuple[int, int]:
    return -FAMILIES.index(style.family), -style.index


def _ordered(found: Sequence[Exponent], labels: dict[str, tuple[str, Style]]) -> list[Exponent]:
    return sorted(found, key=lambda e: _place(labels[identity_of(e.series.of)][1]))
