"""What follows from a setting's records, as tables: the longest length in a memory, crossovers, gains of a whole model.

All figures are those of results/derived.py and results/feasible.py. What is not measured says so: an extrapolated one
begins with ≈.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..results.derived import amdahl
from ..results.feasible import Feasible, feasible
from ..results.statistics import Interval
from .growth import CROSSINGS, Fit
from .settings import Entry, Setting, identity_of
from .tables import Cell, Row, Table, by_speed, comparison_length
from .words import DASH, NONE, capital, count, digits, interval, percent, size

GIB = 2**30
BUDGETS = (GIB // 4, GIB, 8 * GIB, 24 * GIB, 80 * GIB)
"""Bytes: parts of a small machine, and the memory of usual GPUs. On a CPU the run's own machine stands among them."""
LIKE = 1.25
"""A budget within this factor of the machine's own memory is left out beside it."""
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of a model's time that attention takes."""
ABOUT = "≈ "
HORIZON = 10**9
"""Tokens beyond which an extrapolated length is told as no number: nobody attends over so many."""


@dataclass(frozen=True)
class Outlook:
    """What follows from one setting; a table is None where its records carry none."""

    setting: Setting
    lengths: Table | None
    crossings: Table | None
    gains: Table | None

    @property
    def tables(self) -> list[Table]:
        return [table for table in (self.lengths, self.crossings, self.gains) if table is not None]


def outlooks(settings: Sequence[Setting], fits: Sequence[Fit]) -> list[Outlook]:
    """Of each setting that anything follows from. `fits` are those of these settings."""
    found = []
    for setting in settings:
        mine = [fit for fit in fits if fit.setting is setting and fit.what in CROSSINGS.values()]
        one = Outlook(setting, longest_lengths(setting), crossovers(setting, mine), gains(setting))
        if one.tables:
            found.append(one)
    return found


# -- memory ---------------------------------------------------------------------------------------------------------


def longest_lengths(setting: Setting) -> Table | None:
    """A column for each memory that tells variants apart, or limits one; None where none does."""
    if setting.mixed or len(setting.lengths) < 2:
        return None
    own = setting.run.run.machine.memory_bytes if setting.of.device.partition(":")[0] == "cpu" else None
    budgets = sorted(
        {b for b in BUDGETS if own is None or not own / LIKE <= b <= own * LIKE} | ({own} if own else set())
    )
    labels = {identity_of(entry.record): entry.label for entry in setting.entries}
    by_budget: dict[float, dict[str, Feasible]] = {}
    for one in feasible((entry.record for entry in setting.entries), *budgets):
        by_budget.setdefault(one.budget_bytes, {})[labels[identity_of(one.series.of)]] = one
    shown = [budget for budget, of in by_budget.items() if not all(one.at_least for one in of.values())]
    if not shown:
        return None
    entries = {entry.record.case_id: entry for entry in setting.entries}
    rows = []
    for label in by_speed(setting):
        if label in by_budget[shown[0]]:
            cells = tuple(_length_cell(by_budget[budget][label], entries) for budget in shown)
            rows.append(Row(next(entry for entry in setting.entries if entry.label == label), cells))
    what = "the state and the peak of a step" if setting.of.mode == "decode" else "the peak and the inputs of a call"
    more = [budget for budget in by_budget if budget > shown[-1]]
    beyond = f"; into {size(more[0])} all fit as far as a fit is followed" if more else ""
    caption = (
        f"Longest length, in tokens, at which {what} fit into a memory: one layer, without weights; "
        f"{ABOUT}extrapolated; small: what it rests on, with an interval where the fit has one"
    )
    columns = tuple(f"{size(budget)}{', all of this machine' if budget == own else ''}" for budget in shown)
    return Table(f"{caption}{beyond}", columns, tuple(rows))


def _length_cell(one: Feasible, entries: dict[str, Entry]) -> Cell:
    found = one.length
    if found is None:
        return Cell(f"not even {count(one.series.of.n_k)}", entry=_known(one.series.of.case_id, entries))
    spread = "" if _same(found.low, found.high) else f", {_ends(found.low, found.high)}"
    text = f"at least {count(found.value)}" if one.at_least else _about(found.value, found.basis)
    return Cell(text, f"{found.basis}{spread}", entry=_known(found.case_ids[-1], entries))


# -- crossovers -----------------------------------------------------------------------------------------------------


def crossovers(setting: Setting, fits: Sequence[Fit]) -> Table | None:
    """Time and memory, against the fastest exact variant of each length and against naive."""
    found: dict[str, dict[str, Fit]] = {}
    for fit in fits:
        found.setdefault(fit.label, {})[fit.what] = fit
    present = [what for what in CROSSINGS.values() if any(what in row for row in found.values())]
    rows = tuple(
        Row(
            next(entry for entry in setting.entries if entry.label == label),
            tuple(_crossing_cell(found[label].get(what)) for what in present),
        )
        for label in by_speed(setting)
        if label in found
    )
    if not rows:
        return None
    rivals = {"exact": "the fastest exact", "naive": "naive"}
    heads = {what: f"{capital(quantity)}, against {rivals[rival]}" for (quantity, rival), what in CROSSINGS.items()}
    caption = (
        "Length from which on a variant takes less, in tokens (memory: the peak of a call; decoding, the state too); "
        f"small: 95 % intervals; {ABOUT}extrapolated"
    )
    return Table(caption, tuple(heads[what] for what in present), rows)


def _crossing_cell(fit: Fit | None) -> Cell:
    if fit is None:
        return Cell(NONE)
    last, own = fit.longest, fit.mine[-1]
    if fit.value is None and fit.beyond is not None:
        ahead = fit.beyond
        small = f"extrapolated, {_ends(ahead.low, ahead.high)}"
        return Cell(_about(ahead.value, ahead.basis), small, f"none up to {count(last)}", own)
    if fit.value is None:
        perhaps = "" if fit.low is None else f"though perhaps {_at(fit, fit.low)}"
        return Cell(f"none up to {count(last)}", perhaps, entry=own)
    if fit.high is None:
        return Cell(_at(fit, fit.value), f"not surely: {_at(fit, fit.low)} to none up to {count(last)}", entry=own)
    if fit.high <= fit.shortest or _same(fit.low, fit.high):
        return Cell(_at(fit, fit.value), entry=own)
    joined = " to " if fit.low is not None and fit.low <= fit.shortest else DASH
    return Cell(_at(fit, fit.value), f"{_at(fit, fit.low)}{joined}{count(fit.high)}", entry=own)


def _at(fit: Fit, length: float | None) -> str:
    first = fit.shortest
    return f"{count(first)} or before" if length is None or length <= first else count(length)


# -- a whole model --------------------------------------------------------------------------------------------------


def gains(setting: Setting) -> Table | None:
    """How many times as fast a model becomes, by share of attention in its time, at the greatest compared length."""
    length = comparison_length(setting)
    base = None if length is None else setting.baseline(length)
    if length is None or base is None:
        return None
    rows = []
    for entry in setting.compared(length):
        record = entry.record
        if entry is not base and record.ratio is not None:
            ratio = Interval(record.ratio, record.ratio_low or record.ratio, record.ratio_high or record.ratio)
            rows.append(Row(entry, tuple(_gain_cell(amdahl(ratio, share), entry) for share in SHARES)))
    if not rows:
        return None
    most = ", ".join(f"{digits(1 / (1 - share))} at {percent(share)}" for share in SHARES)
    caption = (
        f"How many times as fast a model becomes {setting.where(length)} in which attention, by {base.label}, takes "
        f"this share of the time (Amdahl); small: 95 % intervals. At most {most}"
    )
    return Table(caption, tuple(f"Attention {percent(share)}" for share in SHARES), tuple(rows))


def _gain_cell(gain: Interval, entry: Entry) -> Cell:
    return Cell(digits(gain.value), interval(gain.low, gain.high), entry=entry)


# -- parts ----------------------------------------------------------------------------------------------------------


def _about(length: float, basis: str) -> str:
    """Of an extrapolated length no more digits than it deserves."""
    return f"{ABOUT}{_far(length)}" if basis == "extrapolated" else count(length)


def _ends(low: float, high: float) -> str:
    """The interval of an extrapolated length."""
    if low >= HORIZON:
        return _far(low)
    return f"{_far(low)}{' to ' if high >= HORIZON else DASH}{'never' if math.isinf(high) else _far(high)}"


def _far(length: float) -> str:
    return count(float(f"{length:.3g}")) if length < HORIZON else f"{count(HORIZON)} or more"


def _same(low: float | None, high: float | None) -> bool:
    """Whether an interval is none to three digits: bytes do not vary."""
    return low is None or high is None or math.isclose(low, high, rel_tol=1e-3)


def _known(case_id: str, entries: dict[str, Entry]) -> Entry | None:
    return entries.get(case_id)
