"""Several runs beside each other: what is alike and what is not, each by its own baseline, and how ranks change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..results.conditions import Side, unlike_conditions
from .load import LoadedRun
from .settings import Entry, Setting
from .tables import Cell
from .words import NONE, count, digits, interval, listed, percent, seconds


@dataclass(frozen=True)
class Row:
    """One variant in several runs."""

    entry: Entry
    cells: tuple[Cell, ...]
    change: str
    """Whether its rank is the same everywhere."""


@dataclass(frozen=True)
class Table:
    """One setting that several runs measured."""

    title: str
    caption: str
    runs: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Machines:
    """What is to be said of several runs together."""

    notes: tuple[str, ...]
    tables: tuple[Table, ...]


def machines(runs: Sequence[LoadedRun], settings: Sequence[Setting]) -> Machines | None:
    """None for a single run."""
    if len(runs) < 2:
        return None
    return Machines(tuple(_alike(runs)), tuple(_tables(settings)))


def _alike(runs: Sequence[LoadedRun]) -> list[str]:
    """How each run differs from the first, and what may hence be compared."""
    first, found = runs[0], []
    for other in runs[1:]:
        unlike = unlike_conditions(
            Side(first.name, first.records, first.run), Side(other.name, other.records, other.run)
        )
        pair = f"{first.name} and {other.name}"
        if unlike:
            found.append(
                f"{pair} differ in {'; '.join(unlike)}. Comparable: ratios to each run's own baseline, ranks, shares "
                "of ceilings, memory, error and distance. Not comparable: times and throughput."
            )
        else:
            found.append(
                f"{pair} were measured under like conditions: their times may be compared, by `attnbench compare`."
            )
    return found


def _tables(settings: Sequence[Setting]) -> list[Table]:
    """The settings that differ only in run, machine and threads, at the greatest length that all of them compared."""
    alike: dict[tuple[object, ...], list[Setting]] = {}
    for setting in settings:
        alike.setdefault(setting.sameness, []).append(setting)
    found = []
    for group in alike.values():
        shared = set.intersection(*(_compared_lengths(setting) for setting in group))
        if len(group) > 1 and shared:
            found.append(_table(group, max(shared)))
    return found


def _compared_lengths(setting: Setting) -> set[int]:
    return {length for length in setting.timed_lengths if setting.compared(length)}


def _table(group: Sequence[Setting], length: int) -> Table:
    ranked = [{entry.label: (place, entry) for place, entry in enumerate(each.compared(length), 1)} for each in group]
    labels = list(dict.fromkeys(label for each in ranked for label in each))
    everywhere = [label for label in labels if all(label in each for each in ranked)]
    # a rank counts among the variants that all of them have: one more elsewhere must not shift the others
    ranks = [{label: place for place, label in enumerate((n for n in each if n in everywhere), 1)} for each in ranked]
    rows = []
    for label in sorted(labels, key=lambda name: (name not in everywhere, ranks[0].get(name, 0), name)):
        entry = next(each[label][1] for each in ranked if label in each)
        cells = tuple(_cell(each.get(label), setting, length) for each, setting in zip(ranked, group, strict=True))
        rows.append(Row(entry, cells, _change(label, ranks, ranked) if label in everywhere else "not in all"))
    bases = [f"{setting.run.name}: {base.label}" for setting in group if (base := setting.baseline(length)) is not None]
    caption = (
        f"At {count(length)} tokens: time over that of each run's own fastest exact variant ({listed(bases)}); "
        "small: 95 % interval, time, share of the machine's own ceiling"
    )
    names = tuple(
        f"{each.run.name}, {each.of.threads} threads" if each.of.threads > 1 else f"{each.run.name}, 1 thread"
        for each in group
    )
    return Table(group[0].title, caption, names, tuple(rows))


def _cell(found: tuple[int, Entry] | None, setting: Setting, length: int) -> Cell:
    if found is None:
        return Cell(NONE)
    record = found[1].record
    share = "" if record.ceiling_share is None else f", {percent(record.ceiling_share)} of the ceiling"
    base = setting.baseline(length)
    small = "the baseline" if found[1] is base else interval(record.ratio_low, record.ratio_high)
    return Cell(digits(record.ratio or 0.0), small, f"{seconds(record.time_s)}{share}", found[1])


def _change(label: str, ranks: Sequence[dict[str, int]], ranked: Sequence[dict[str, tuple[int, Entry]]]) -> str:
    """The variant's ranks, and whether a change of them is more than noise: a pair whose intervals part both ways."""
    mine = [each[label] for each in ranks]
    if len(set(mine)) == 1:
        return f"{mine[0]} everywhere"
    text = " → ".join(map(str, mine))
    overtaken = [other for other in ranks[0] if other != label and _overtakes(label, other, ranked)]
    return f"{text}, clearly past {listed(overtaken)}" if overtaken else f"{text}, within the noise"


def _overtakes(label: str, other: str, ranked: Sequence[dict[str, tuple[int, Entry]]]) -> bool:
    """Whether in one run it is clearly faster than the other and in one clearly slower."""
    below = above = False
    for each in ranked:
        a, b = each[label][1].record, each[other][1].record
        if None in (a.ratio_low, a.ratio_high, b.ratio_low, b.ratio_high):
            continue
        below |= (a.ratio_high or 0.0) < (b.ratio_low or 0.0)
        above |= (a.ratio_low or 0.0) > (b.ratio_high or 0.0)
    return below and above
