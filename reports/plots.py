"""`attnbench plot KIND RUN…`: from the records of runs to the panels of a figure for papers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..results.derived import Crossing, Exponent, crossings, exponents
from ..results.record import RECALL, Record
from ..results.work import moved_by
from . import paper_panels as panels
from .errors import ReportsError
from .load import LoadedRun, load_runs
from .palette import FAMILIES, Style
from .paper import WIDTHS, Drawing, most, save
from .pattern import check_format
from .series import FidelityAxis, distance, log_range, mebibytes, milliseconds, tradeoffs
from .series import panels as line_panels
from .settings import Entry, Setting, captured, identity_of, split
from .words import count

LENGTH = "Sequence length N (tokens)"
Values = tuple[float, float, float] | None


@dataclass(frozen=True)
class Choice:
    """What of the runs is drawn; None: all."""

    mode: str | None = None
    variants: tuple[str, ...] = ()
    dtype: str | None = None
    causal: bool | None = None
    inputs: str | None = None

    def holds(self, record: Record) -> bool:
        return (
            self.mode in (None, record.mode)
            and (not self.variants or record.variant in self.variants)
            and self.dtype in (None, record.dtype)
            and self.causal in (None, record.causal)
            and (self.inputs is None or self.inputs in (record.inputs, record.inputs.partition(":")[0]))
        )


@dataclass(frozen=True)
class Plotted:
    """What was written."""

    path: Path
    panels: int
    caption: str
    """What a reader must be told below the figure."""


def plot(kind: str, runs: Sequence[str | Path], out: Path, width: str = "two", choice: Choice | None = None) -> Plotted:
    """Draws one kind of figure to a .pdf, .svg or .png. Raises ReportsError where there is nothing to draw."""
    if kind not in KINDS:
        raise ReportsError(f"there is no plot {kind!r}; choose from {', '.join(KINDS)}")
    if width not in WIDTHS:
        raise ReportsError(f"--width is {' or '.join(WIDTHS)}, not {width!r}")
    check_format(out)
    of = KINDS[kind]
    choice = choice or Choice()
    drawings = of.make(settings_of(load_runs(runs), choice))
    if not drawings:
        raise ReportsError(f"there is nothing to draw: {of.needs}")
    path = save(drawings, out, of.title, width)
    return Plotted(path, min(len(drawings), 6), f"{of.title}. {of.caption}{most(len(drawings))}")


def settings_of(runs: Sequence[LoadedRun], choice: Choice) -> list[Setting]:
    """Settings with the records that were chosen, the most telling first."""
    found = []
    for setting in split(runs):
        entries = tuple(entry for entry in setting.entries if choice.holds(entry.record))
        if entries:
            found.append(Setting(setting.run, entries, setting.number, setting.told_apart_by))
    # those with most lengths, drawn inputs before captured ones
    return sorted(found, key=lambda s: (captured(s.of), -len(s.timed_lengths), s.number))


# -- over length ----------------------------------------------------------------------------------------------------


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
            draw = _bind(panels.lines, curves, x_label=LENGTH, **how)
            found.append(_drawing(panel.setting, draw, labels))
        else:
            rows = [
                panels.Row(line.label, line.style, [panels.Mark(line.last.value, line.last.low, line.last.high)])
                for line in sorted(panel.lines, key=lambda line: -line.last.value)
            ]
            where = f"{how['y_label']} at {count(panel.lengths[0])} tokens"
            found.append(_rows(panel.setting, rows, x_label=where, log_x=True))
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


def _time(settings: Sequence[Setting]) -> list[Drawing]:
    return _over_length(settings, milliseconds, y_label="Time of a call (ms)")


def _memory(settings: Sequence[Setting]) -> list[Drawing]:
    return _over_length(settings, mebibytes, y_label="Peak memory (MiB)", base=2)


def _tokens(settings: Sequence[Setting]) -> list[Drawing]:
    return _over_length(settings, _throughput, y_label="Tokens per second")


def _ratios(settings: Sequence[Setting]) -> list[Drawing]:
    return _over_length(settings, _ratio, y_label="Time over fastest exact", at_one=True)


def _decode(settings: Sequence[Setting]) -> list[Drawing]:
    steps = [setting for setting in settings if setting.of.mode == "decode"]
    found = []
    for setting in steps:
        found += _over_length([setting], milliseconds, y_label="Time of a step (ms)")
        found += _over_length([setting], _state, y_label="State (KiB)", base=2)
    return found


# -- accuracy -------------------------------------------------------------------------------------------------------


def _accuracy(settings: Sequence[Setting]) -> list[Drawing]:
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

        found.append(_drawing(setting, draw))
    return found


def _budget(settings: Sequence[Setting]) -> list[Drawing]:
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

        found.append(_drawing(setting, draw))
    return found


def _apart(values: Sequence[int]) -> list[int]:
    """Those that have room for a number each on a logarithmic axis."""
    found: list[int] = []
    for value in values:
        if not found or value > 1.15 * found[-1]:
            found.append(value)
    return found


def _recall(settings: Sequence[Setting]) -> list[Drawing]:
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
    draw = _bind(panels.lines, curves, **how)
    detail = "The definition, untrained, one head of 64 dimensions; unit keys and values at random"
    return [Drawing("Recall of written pairs", detail, draw, list(found))]


# -- derived --------------------------------------------------------------------------------------------------------


def _scaling(settings: Sequence[Setting]) -> list[Drawing]:
    found = []
    for setting in settings:
        for quantity in ("time", "memory"):
            mine = [e for e in exponents(entry.record for entry in setting.entries) if e.quantity == quantity]
            labels = _labels(setting)
            rows = [_exponent_row(e, *labels[identity_of(e.series.of)]) for e in _ordered(mine, labels)]
            if rows:
                found.append(_rows(setting, rows, x_label=f"Exponent of {quantity}", log_x=False))
    return found


def _exponent_row(found: Exponent, label: str, style: Style) -> panels.Row:
    whole, tail = (panels.Mark(f.value, f.low, f.high, filled=f is found.tail) for f in (found.figure, found.tail))
    apart = found.figure.case_ids != found.tail.case_ids
    return panels.Row(label, style, [tail, whole] if apart else [tail], found.declared)


def _crossovers(settings: Sequence[Setting]) -> list[Drawing]:
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
                found.append(_rows(setting, rows, x_label=axis, log_x=True, lengths=True))
    return found


def _memory_last(one: Crossing) -> bool:
    return one.quantity == "memory"


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


def _roofline(settings: Sequence[Setting]) -> list[Drawing]:
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

        found.append(_drawing(setting, draw))
    return found


# -- parts ----------------------------------------------------------------------------------------------------------


def _bind(draw: Callable[..., None], *args: Any, **how: Any) -> Callable[[Any], None]:
    return lambda axes: draw(axes, *args, **how)


def _drawing(setting: Setting, draw: Callable[[Any], None], labels: Sequence[str] = ()) -> Drawing:
    return Drawing(setting.title, setting.detail, draw, labels)


def _rows(setting: Setting, rows: Sequence[panels.Row], **how: Any) -> Drawing:
    labels = [row.label for row in rows]
    return Drawing(setting.title, setting.detail, _bind(panels.rows, rows, **how), labels, rows=len(rows))


def _labels(setting: Setting) -> dict[str, tuple[str, Style]]:
    return {identity_of(entry.record): (entry.label, entry.style) for entry in setting.entries}


def _place(style: Style) -> tuple[int, int]:
    return -FAMILIES.index(style.family), -style.index


def _ordered(found: Sequence[Exponent], labels: dict[str, tuple[str, Style]]) -> list[Exponent]:
    return sorted(found, key=lambda e: _place(labels[identity_of(e.series.of)][1]))


@dataclass(frozen=True)
class Kind:
    """One kind of figure."""

    title: str
    caption: str
    needs: str
    """What the runs would have to hold."""
    make: Callable[[Sequence[Setting]], list[Drawing]]


BARS = "Bars are 95 % intervals."
NO_TIMES = "no record of these runs that was chosen has a time"
KINDS = {
    "time": Kind("Time of one call", f"Medians. {BARS}", NO_TIMES, _time),
    "memory": Kind(
        "Peak memory of one call, above its inputs", "", "no record that was chosen has a peak of memory", _memory
    ),
    "throughput": Kind("Tokens per second", BARS, NO_TIMES, _tokens),
    "ratio": Kind(
        "Time over that of the fastest exact variant",
        f"Paired round by round. {BARS}",
        "no record has a ratio",
        _ratios,
    ),
    "accuracy": Kind(
        "Distance from softmax attention against time",
        "Filled and joined: the Pareto front. Shaded: exact, or within 0.001 of softmax attention.",
        "no timed record has a fidelity",
        _accuracy,
    ),
    "budget": Kind(
        "Distance from softmax attention over keys kept",
        "Dashes: softmax over as many nearest keys (light) and over those with the highest scores (dark).",
        "no record keeps some keys and leaves out others",
        _budget,
    ),
    "scaling": Kind(
        "Exponents of time and memory over length",
        f"Filled: of the three longest lengths; hollow: of all; grey tick: declared. {BARS}",
        "no variant was measured at two lengths",
        _scaling,
    ),
    "crossovers": Kind(
        "From which length on a variant takes less",
        "Circles: time; squares: memory. Hollow: extrapolated. Arrows: from the shortest length measured on, or none "
        f"up to the longest. {BARS}",
        "no variant was measured beside an exact one at two lengths",
        _crossovers,
    ),
    "roofline": Kind(
        "Needed operations per second, under the machine's measured ceilings",
        "The line: the rate of matrix products, and the bandwidth of copies.",
        "no timed record says what it needs, or its run has measured no ceilings",
        _roofline,
    ),
    "decode": Kind(
        "One more token: time of a step and size of state", BARS, "no record that was chosen is of mode decode", _decode
    ),
    "recall": Kind(
        "Pairs recalled without training", "The definition is asked.", "no record holds the recall probe", _recall
    ),
}
