"""Plots for papers of what was measured over length: time, memory, throughput, ratios, decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import paper_panels as panels
from .paper import Drawing
from .series import mebibytes, milliseconds
from .series import panels as line_panels
from .settings import Entry, Setting
from .words import count

LENGTH = "Sequence length N (tokens)"
Values = tuple[float, float, float] | None


def time(settings: Sequence[Setting]) -> list[Drawing]:
    return _over_length(settings, milliseconds, y_label="Time of a call (ms)")


def memory(settings: Sequence[Setting]) -> list[Drawing]:
    return _over_length(settings, mebibytes, y_label="Peak memory (MiB)", base=2)


def tokens(settings: Sequence[Setting]) -> list[Drawing]:
    return _over_length(settings, _throughput, y_label="Tokens per second")


def ratios(settings: Sequence[Setting]) -> list[Drawing]:
    return _over_length(settings, _ratio, y_label="Time over fastest exact", at_one=True)


def decode(settings: Sequence[Setting]) -> list[Drawing]:
    steps = [setting for setting in settings if setting.of.mode == "decode"]
    found = []
    for setting in steps:
        found += _over_length([setting], milliseconds, y_label="Time of a step (ms)")
        found += _over_length([setting], _state, y_label="State (KiB)", base=2)
    return found


def _over_length(settings: Sequence[Setting], value: Callable[[Entry], Values], **how: Any) -> list[Drawing]:
    """A line a variant, a panel a setting; where a setting has one length, rows in place of lines."""
    found = []
    for panel in line_panels(settings, value):
        labels = [line.label for line in panel.lines]
        if len(panel.lengths) > 1:
            curves = [
                panels.Curve(
                    line.label,
                    line.style,
                    *([getattr(p, name) for p in line.points] for name in ("length", "value", "low", "high")),
                )
                for line in panel.lines
            ]
            draw = panels.bind(panels.lines, curves, x_label=LENGTH, **how)
            found.append(panels.drawing(panel.setting, draw, labels))
        else:
            rows = [
                panels.Row(line.label, line.style, [panels.Mark(line.last.value, line.last.low, line.last.high)])
                for line in sorted(panel.lines, key=lambda line: -line.last.value)
            ]
            where = f"{how['y_label']} at {count(panel.lengths[0])} tokens"
            found.append(panels.row_drawing(panel.setting, rows, x_label=where, log_x=True))
    return found


def _throughput(entry: Entry) -> Values:
    """Tokens a second: its interval is that of the time, turned round."""
    record = entry.record
    if not entry.timed or not record.time_s or not record.tokens_per_s:
        return None
    tokens = record.tokens_per_s * record.time_s
    low, high = record.time_s_low or record.time_s, record.time_s_high or record.time_s
    return record.tokens_per_s, tokens / high, tokens / low


def _ratio(entry: Entry) -> Values:
    record = entry.record
    if not entry.timed or not record.ratio:
        return None
    return record.ratio, record.ratio_low or record.ratio, record.ratio_high or record.ratio


def _state(entry: Entry) -> Values:
    size = entry.record.state_bytes
    return None if entry.record.status != "ok" or not size else (size / 2**10, size / 2**10, size / 2**10)
