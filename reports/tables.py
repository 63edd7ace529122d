"""The report's tables: what stands in each cell, for the page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .settings import REFERENCE, Entry, Setting, captured
from .words import NONE, capital, count, digits, interval, percent, plural, seconds, seconds_interval, size

LOADS = {
    "recall_32": "32 pairs",
    "recall_64": "64 pairs",
    "recall_128": "128 pairs",
    "recall_256": "256 pairs",
    "recall_32_rewritten": "32 pairs, 16 of them rewritten",
}
"""Fields of a record that the recall probe fills, and what it was asked there."""


@dataclass(frozen=True)
class Cell:
    """A figure, what stands small beneath it, and the record that all are of."""

    text: str
    small: str = ""
    more: str = ""
    entry: Entry | None = None


@dataclass(frozen=True)
class Row:
    """One variant."""

    entry: Entry
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Variants by rows."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def comparison_length(setting: Setting) -> int | None:
    """The greatest length at which there are ratios; without any, the greatest that was timed."""
    return setting.longest(lambda e: e in setting.compared(e.length)) or setting.longest(lambda e: e.timed)


def comparison(setting: Setting) -> Table | None:
    """All variants at the greatest compared length, fastest first; None where nothing was timed."""
    length = comparison_length(setting)
    if length is None:
        return None
    base = setting.baseline(length)
    reference = next((e for e in setting.at(length, lambda e: e.weighed) if e.record.variant == REFERENCE), None)
    entries = sorted(setting.at(length), key=lambda e: _rank(e, setting, length))
    over = base.label if base else "the fastest exact"
    columns = (
        f"Time over {over}",
        "Time of a call",
        "Peak memory",
        f"Memory over {REFERENCE}",
        "Error / allowed",
        f"Distance from softmax{'' if captured(setting.of) else ' (drawn input)'}",
        "Share of ceiling",
    )
    rows = tuple(Row(entry, _compared_cells(entry, base, reference)) for entry in entries)
    least = min((e.record.peak_bytes for e in entries if e.weighed and e.record.peak_bytes is not None), default=None)
    rows = tuple(_mark_least(row, least) for row in rows)
    against = f"ratios to {base.label}, the fastest exact variant" if base else "no exact variant was timed beside them"
    return Table(f"{capital(setting.where(length))}: {against}; small: 95 % intervals", columns, rows)


def by_speed(setting: Setting) -> list[str]:
    """The labels of all variants, the fastest at the greatest compared length first, those without a time last."""
    last = comparison_length(setting) or setting.lengths[-1]
    return sorted(setting.labels, key=lambda label: _label_rank(label, setting, last))


def by_length(setting: Setting) -> Table | None:
    """Ratio, time and memory of every variant at every length; None where only one length was asked for."""
    if len(setting.lengths) < 2 or not setting.timed_lengths:
        return None
    rows = []
    for label in by_speed(setting):
        mine = {entry.length: entry for entry in setting.entries if entry.label == label}
        cells = tuple(_length_cell(mine.get(length), setting, length) for length in setting.lengths)
        rows.append(Row(next(iter(mine.values())), cells))
    columns = tuple(f"{count(length)} tokens" for length in setting.lengths)
    caption = (
        "Every length: time over that of the fastest exact variant there; small: 95 % interval, time and peak memory"
    )
    return Table(caption, columns, tuple(rows))


def _compared_cells(entry: Entry, base: Entry | None, reference: Entry | None) -> tuple[Cell, ...]:
    record = entry.record
    if not entry.timed:
        return (Cell(record.status, entry=entry), *[Cell(NONE)] * 3, _error(entry), Cell(NONE), Cell(NONE))
    memory = Cell(NONE)
    if reference is not None and reference.record.peak_bytes and record.peak_bytes is not None:
        memory = Cell(digits(record.peak_bytes / reference.record.peak_bytes))
    share = record.ceiling_share
    parts = {"resident": record.peak_rss_bytes, "state for decoding": record.state_bytes}
    besides = ", ".join(f"{size(figure)} {what}" for what, figure in parts.items() if figure is not None)
    return (
        _ratio(entry, base),
        Cell(
            seconds(record.time_s),
            seconds_interval(record.time_s_low, record.time_s_high),
            more=", ".join(record.batch_calls or []),
        ),
        Cell(size(record.peak_bytes), more=besides),
        memory,
        _error(entry),
        _distance(entry),
        Cell(NONE if share is None else percent(share)),
    )


def _ratio(entry: Entry, base: Entry | None) -> Cell:
    record = entry.record
    if record.ratio is None:
        return Cell(NONE, entry=entry)
    other = "" if base is None or record.baseline == base.record.variant else f" over {record.baseline}"
    if entry is base:
        return Cell("1", "the baseline", entry=entry)
    return Cell(digits(record.ratio), interval(record.ratio_low, record.ratio_high) + other, entry=entry)


def _error(entry: Entry) -> Cell:
    record = entry.record
    if record.error is None:
        return Cell(NONE)
    allowed = "" if record.error_allowed is None else f" / {record.error_allowed:.1e}"
    return Cell(f"{record.error:.1e}{allowed}", f"in {record.error_of}" if record.error_of else "")


def _distance(entry: Entry) -> Cell:
    record = entry.record
    if entry.exact:
        return Cell("exact")
    if record.kind == "own":
        return Cell(NONE, "an operator of its own")
    if record.fidelity_error is None:
        return Cell(NONE, "not measured")
    null = record.fidelity_error_uniform
    return Cell(percent(record.fidelity_error), "" if null is None else f"plain mean: {percent(null)}")


def _length_cell(entry: Entry | None, setting: Setting, length: int) -> Cell:
    if entry is None:
        return Cell(NONE)
    if not entry.timed:
        return Cell(entry.record.status, entry=entry)
    memory = f", {size(entry.record.peak_bytes)}" if entry.weighed else ""
    head = _ratio(entry, setting.baseline(length))
    return Cell(head.text, head.small, f"{seconds(entry.record.time_s)}{memory}", entry)


def _mark_least(row: Row, least: int | None) -> Row:
    """Marks the smallest peak, which is easily missed in a table that time orders."""
    if least is None or not row.entry.weighed or row.entry.record.peak_bytes != least:
        return row
    cells = tuple(Cell(c.text, "the least", entry=c.entry) if i == 2 else c for i, c in enumerate(row.cells))
    return Row(row.entry, cells)


def _rank(entry: Entry, setting: Setting, length: int) -> tuple[int, float, str]:
    record = entry.record
    if entry in setting.compared(length):
        return 0, record.ratio or 0.0, entry.label
    return (1, record.time_s or 0.0, entry.label) if entry.timed else (2, 0.0, entry.label)


def _label_rank(label: str, setting: Setting, length: int) -> tuple[int, float, str]:
    found = [entry for entry in setting.at(length) if entry.label == label]
    if found and found[0].timed:
        return _rank(found[0], setting, length)
    some = any(entry.timed for entry in setting.entries if entry.label == label)
    return (3 if some else 4, 0.0, label)


# -- recall ------------------------------------------------------------------------------------------------------------


def recalled(settings: Sequence[Setting]) -> Table | None:
    """What each variant recalls without training, the most of the largest load first; None where nothing was asked.

    A row for each variant: the probe is asked once in a run, and all its records hold what came of it.
    """
    found: dict[str, Entry] = {}
    for entry in (entry for setting in settings for entry in setting.entries):
        if any(getattr(entry.record, name) is not None for name in LOADS):
            found.setdefault(entry.label, entry)
    columns = {name: words for name, words in LOADS.items() if any(_share(e, name) is not None for e in found.values())}
    if not columns:
        return None
    write_once = [name for name in reversed(columns) if "rewritten" not in name] or list(columns)

    def rank(entry: Entry) -> tuple[list[float], str]:
        return [-(_share(entry, name) or 0.0) for name in write_once], entry.label

    rows = [
        Row(entry, tuple(Cell(NONE if (x := _share(entry, name)) is None else f"{x * 100:.0f} %") for name in columns))
        for entry in sorted(found.values(), key=rank)
    ]
    return Table("Of random pairs, the share whose key brings back the value", tuple(columns.values()), tuple(rows))


def _share(entry: Entry, name: str) -> float | None:
    share: float | None = getattr(entry.record, name)
    return share


# -- sampling ----------------------------------------------------------------------------------------------------------


def sampling(settings: Sequence[Setting]) -> str:
    """Why sampling ended, over all timed records."""
    timed = [entry.record for setting in settings for entry in setting.entries if entry.timed]
    ended = {why: sum(record.stopped_by == why for record in timed) for why in ("precision", "time", "rounds")}
    words = {
        "precision": "because the interval was as narrow as asked",
        "time": "because the time of the case was used up",
        "rounds": "because the rounds were used up",
    }
    parts = [f"{count(number)} {words[why]}" for why, number in ended.items() if number]
    rounds = sorted(len(record.samples_s) for record in timed if record.samples_s)
    of = f", after {rounds[0]} to {rounds[-1]} rounds" if rounds else ""
    return f"Sampling of {plural(len(timed), 'case')} ended{of}: {'; '.join(parts)}." if parts else ""
