"""Drop-in accuracy in a report: what a model loses with each variant in place of its attention, beside both nulls.

The records are those of `attnbench dropin`; figures of one model, text and window may be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..results.dropin_record import DROPINS, DropinRecord, load_dropins
from ..results.errors import overheard
from ..results.files import is_file
from .palette import Style
from .settings import Entry, Names
from .words import NONE, count, plural

COLUMNS = {
    "embedding": {
        "embedding_cosine": "cosine",
        "ranking_agreement": "ranking τ",
        "top1_agreement": "nearest kept",
        "top10_overlap": "ten nearest kept",
    },
    "perplexity": {"perplexity": "perplexity", "next_token_agreement": "next token kept"},
}
"""Fields by metric, the leading one first, and their names as the head of a column."""
MEANING = {
    "embedding": "Cosine between a window's embedding and the original's; agreement of the rankings of all other "
    "windows by likeness (Kendall's τ); how often the nearest stays so, and what share of the ten nearest stays",
    "perplexity": "Perplexity of the text, lower is better; share of places where the likeliest next token stays",
}


@dataclass(frozen=True)
class Row:
    """One variant inside the model, or a null: each cell a figure and what stands small beneath it."""

    label: str
    parameters: str
    family: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Dropins:
    """Variants inside one model over one text."""

    title: str
    detail: str
    meaning: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def is_dropin_run(path: str | Path) -> bool:
    """Whether a folder holds variants measured inside a model."""
    return is_file(Path(path) / DROPINS)


def load(paths: Sequence[str | Path]) -> tuple[list[DropinRecord], list[str]]:
    """The records of the folders that hold some, of each measurement the last, and what is to be known of them.

    Raises ResultsError for a folder that cannot be read.
    """
    if not paths:
        return [], []
    records, told = overheard(lambda: load_dropins(*paths))
    return list({record.dropin_id: record for record in records}.values()), told


def dropins(records: Sequence[DropinRecord], entries: Sequence[Entry]) -> list[Dropins]:
    """A table for each model, text and window; a variant is called and coloured as in the sweep, where that has it."""
    names = Names(entries)
    groups: dict[tuple[object, ...], list[DropinRecord]] = {}
    for record in records:
        key = (record.weights_sha256, record.text_sha256, record.seq_len, record.windows, record.causal, record.metric)
        groups.setdefault(key, []).append(record)
    return [_table(group, names) for group in groups.values()]


def ranked(records: Sequence[DropinRecord]) -> list[DropinRecord]:
    """Of one model and text: the best by the leading figure first, those without it last."""
    metric = records[0].metric
    leading = next(iter(COLUMNS[metric]))
    sign = -1.0 if metric == "embedding" else 1.0

    def rank(record: DropinRecord) -> tuple[bool, float]:
        value = getattr(record, leading)
        return value is None, sign * (value or 0.0)

    return sorted(records, key=rank)


def words(value: float | None) -> str:
    """Three decimals, which tell cosines near 1 apart; none from 100 on."""
    return NONE if value is None else f"{value:.3f}" if value < 100 else f"{value:,.0f}"


def budget(record: DropinRecord) -> str:
    """How much a query looks at: keys as they were counted, else what the parameters were chosen for."""
    if record.keys is not None:
        return f"{record.keys:.0f} keys"
    return "" if record.budget is None else f"{record.budget} {record.budget_unit}"


def _table(group: Sequence[DropinRecord], names: Names) -> Dropins:
    first = group[0]
    told = [record for record in group if record.status == "ok"]
    every = COLUMNS[first.metric]
    fields = {key: name for key, name in every.items() if any(getattr(r, key) is not None for r in told)}
    fields = fields or dict([next(iter(every.items()))])
    rows = [_row(record, names.of(record), list(fields)) for record in ranked(group)]
    rows += _nulls(told, list(fields))
    mask = "causal" if first.causal else "non-causal"
    return Dropins(
        f"Inside a model: {first.model_type}, {count(first.seq_len)} tokens",
        f"{first.model}, {mask}, over {plural(first.windows, 'window')} of {first.text}",
        f"{MEANING[first.metric]}. Small: a window of as many keys in place of the variant",
        ("a query looks at", *fields.values()),
        tuple(rows),
    )


def _row(record: DropinRecord, called: tuple[str, Style], fields: Sequence[str]) -> Row:
    label, style = called
    parameters = ", ".join(f"{key}={value}" for key, value in record.params.items()) if "(" not in label else ""
    if record.status != "ok":
        why = (record.status, "; ".join(record.reasons))
        return Row(
            label, parameters, style.family, ((budget(record) or NONE, ""), why, *[(NONE, "")] * (len(fields) - 1))
        )
    figures = []
    for field in fields:
        window = getattr(record, f"{field}_window")
        worst = record.embedding_cosine_low if field == "embedding_cosine" else None
        small = [f"worst {words(worst)}"] if worst is not None else []
        small += [f"window {words(window)}"] if window is not None else []
        figures.append((words(getattr(record, field)), ", ".join(small)))
    return Row(label, parameters, style.family, ((budget(record) or NONE, ""), *figures))


def _nulls(told: Sequence[DropinRecord], fields: Sequence[str]) -> list[Row]:
    """The plain mean of the values in place of attention; and the original itself, where it has a figure of its own."""
    if not told:
        return []
    first, found = told[0], []
    means = tuple((words(getattr(first, f"{field}_uniform")), "") for field in fields)
    found.append(Row("plain mean of the values", "", "null", ((NONE, ""), *means)))
    if first.perplexity_original is not None:
        own = tuple((words(first.perplexity_original) if field == "perplexity" else NONE, "") for field in fields)
        found.append(Row("the model as it is", "", "null", ((NONE, ""), *own)))
    return found
