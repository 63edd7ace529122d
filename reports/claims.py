"""Published claims measured anew: a row for each figure, for terminal and report; a section for each, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..results.claim_record import ClaimRecord, Quantity
from ..results.claims import ClaimFolder, load_claims
from ..results.errors import overheard
from ..results.files import is_file
from .words import plural

HEADER = ("claim", "verdict", "figure", "published", "measured", "difference", "cost")


def is_claim_run(path: str | Path) -> bool:
    """Whether a folder holds claims that `attnbench reproduce` measured."""
    return is_file(Path(path) / ClaimFolder.file)


def load(paths: Sequence[str | Path]) -> tuple[list[ClaimRecord], list[str]]:
    """The records of the folders that hold claims, and what is to be known of them. Raises ResultsError."""
    return overheard(lambda: load_claims(*paths))


def rows(record: ClaimRecord) -> list[tuple[str, ...]]:
    """A row for each figure; one with the reason where there is none. What all rows share stands in the first."""
    if not record.quantities:
        return [(record.name, word(record), "; ".join(record.reasons), "", "", "", cost(record))]
    table: list[tuple[str, ...]] = []
    for number, one in enumerate(record.quantities):
        mine = "" if len(record.quantities) == 1 else f" ({one.verdict})"
        first = (record.name, word(record)) if number == 0 else ("", "")
        figures = (f"{one.name}{mine}", published(one), measured(one), difference(one))
        table.append((*first, *figures, cost(record) if number == 0 else ""))
    return table


def word(record: ClaimRecord) -> str:
    """The verdict; the status where nothing was found out."""
    return record.verdict or record.status


def published(one: Quantity) -> str:
    return "in words" if one.published is None else f"{number(one.published)}{one.unit}"


def measured(one: Quantity) -> str:
    """The value with its interval where it has one, and a mark where its noise could have made another verdict."""
    interval = "" if one.low == one.high else f" ({number(one.low)} to {number(one.high)})"
    return f"{number(one.value)}{one.unit}{interval}{'' if one.sure else ', not surely'}"


def difference(one: Quantity) -> str:
    """Measured less published; of percentages in points, since `+0.5 %` would say by which share it is larger."""
    if one.difference is None:
        return ""
    unit = " points" if one.unit == " %" else one.unit
    return f"{'+' if one.difference >= 0 else ''}{number(one.difference)}{unit}"


def cost(record: ClaimRecord) -> str:
    shared = f" + {record.shared_s:.0f} s shared" if record.shared_s else ""
    return f"{record.wall_s:.1f} s{shared}"


def number(value: float) -> str:
    """Three digits that count, and no more of an error's noise than its power of ten."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def summary(records: Sequence[ClaimRecord]) -> str:
    """E.g. `9 claims: 5 holds, 4 does not hold; 120 s`."""
    counts = Counter(word(record) for record in records)
    told = ", ".join(f"{count} × {what}" for what, count in counts.most_common())
    return (
        f"{plural(len(records), 'claim')}: {told or 'none'}. In all {sum(record.wall_s for record in records):.0f} s."
    )


def as_markdown(records: Sequence[ClaimRecord]) -> str:
    """A page: the table, then a section for each claim with source, setting, what differs, tolerance and notes."""
    parts = ["# Published claims, measured anew", "", summary(records), "", _line(HEADER), _line(["---"] * len(HEADER))]
    parts += [_line(row) for record in records for row in rows(record)]
    for record in records:
        parts += ["", f"## {_plain(record.name)}: {_plain(word(record))}", "", f"{_plain(record.text)}."]
        parts += ["", f"- **Source:** {_plain(record.source)}", f"- **There:** {_plain(record.setting)}"]
        parts += [f"- **Here:** {_plain(record.here)}", f"- **Cost:** {cost(record)}"]
        parts += [f"- {_plain(sentence(one))}" for one in record.quantities]
        parts += [f"- {_plain(reason)}" for reason in record.reasons]
    return "\n".join([*parts, ""])


def sentence(one: Quantity) -> str:
    """What was asked of a figure, and what came."""
    asked = f"holds {_band(one.within_low, one.within_high, one.unit)}"
    if one.toward_low is not None or one.toward_high is not None:
        asked += f", the direction {_band(one.toward_low, one.toward_high, one.unit)}"
    source = f"published {published(one)} ({one.obtained}); {asked}"
    return f"{one.name}: {source}; measured {measured(one)} ({one.of}): {one.verdict}"


def _band(low: float | None, high: float | None, unit: str) -> str:
    if low is None:
        return "anywhere" if high is None else f"up to {number(high)}{unit}"
    return f"from {number(low)}{unit}" if high is None else f"from {number(low)} to {number(high)}{unit}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """Text that stays text in Markdown: what is read from a file could hold anything."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(escaped.split())
