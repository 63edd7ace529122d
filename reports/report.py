"""A report of some runs: a page, a Markdown twin, figures, and the four sentences at its top.

Reads results only. No torch is needed, so a report can be made far from the machine that measured.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..results.files import is_file
from ..results.store import RECORDS
from . import cards, claims, data, dropins, growth, machines, missing, outlook, page, tables, training
from .answer import Sentence, answers, headline
from .errors import ReportsError
from .figures import save_figures
from .load import LoadedRun, load_runs, unsteady
from .palette import FAMILIES
from .settings import Setting, split
from .words import listed, plural

MOST_TABLES = 24
"""Settings with tables of their own: beyond these, charts and the table of all records serve better."""


@dataclass(frozen=True)
class Report:
    """What was written, and what it says."""

    folder: Path
    html: Path
    markdown: Path
    figures: list[Path]
    sentences: list[str]
    """Which variant to use, in plain text."""
    warnings: list[str]
    """What a reader must know about the runs: interrupted, torn lines, unlike machines."""
    sweeps: list[Path]
    """Those of the given runs that hold records of a sweep."""


def write(runs: Sequence[str | Path], out: Path | None = None) -> Report:
    """Writes the report of some run folders to `out`, by default `report` in the first of them.

    Raises ReportsError where nothing can be reported or the folder cannot be written, and ResultsError for a folder
    that is no run. A report that is there already is replaced.
    """
    beside = {
        "trained tasks": [path for path in runs if training.is_task_run(path)],
        "variants inside a model": [path for path in runs if dropins.is_dropin_run(path)],
        "published claims": [path for path in runs if claims.is_claim_run(path)],
    }
    sweeps = [path for path in runs if _swept(path) or not any(path in others for others in beside.values())]
    if runs and not sweeps:
        held = listed([what for what, others in beside.items() if others])
        raise ReportsError(f"these runs hold {held} only; name the run of a sweep beside them")
    loaded = load_runs(sweeps)
    task_records, task_warnings = training.load(beside["trained tasks"])
    dropin_records, dropin_warnings = dropins.load(beside["variants inside a model"])
    claim_records, claim_warnings = claims.load(beside["published claims"])
    folder = Path(out) if out is not None else loaded[0].path / "report"
    _claim(folder)
    settings = split(loaded)
    sentences = answers(settings)
    warnings = [note for run in loaded for note in run.warnings]
    warnings += task_warnings + dropin_warnings + claim_warnings
    warnings += _unlike_machines(loaded) + unsteady(loaded)
    ordered = _ordered(settings)
    figures = save_figures(ordered, folder / "figures")
    entries = [entry for setting in ordered for entry in setting.entries]
    tasks = training.trained(task_records, entries)
    fits = growth.fits(ordered)
    context = _content(loaded, ordered, sentences, warnings)
    context["outlooks"] = outlook.outlooks(ordered[:MOST_TABLES], fits)
    context |= {"tasks": tasks, "task_columns": training.COLUMNS, "dropins": dropins.dropins(dropin_records, entries)}
    context["recalled"] = tables.recalled(ordered)
    context |= {"claims": claim_records, "telling": claims}
    context["figures"] = [path.relative_to(folder).as_posix() for path in figures if path.suffix == ".png"]
    context["still"] = [{"title": name, "address": page.still(path)} for name, path in _stills(figures)]
    html, markdown = folder / "report.html", folder / "report.md"
    _replace(html, page.html(context, data.store(loaded, ordered, fits, tasks)))
    _replace(markdown, page.markdown(context))
    texts = [sentence.text for sentence in sentences]
    return Report(folder, html, markdown, figures, texts, warnings, [run.path for run in loaded])


def _swept(path: str | Path) -> bool:
    """Whether a folder holds records of a sweep: other commands leave an empty file of them."""
    file = Path(path) / RECORDS
    return is_file(file) and file.stat().st_size > 0


def _ordered(settings: Sequence[Setting]) -> list[Setting]:
    """The setting of the sentences first."""
    first = headline(settings)
    return sorted(settings, key=lambda setting: setting is not first)


def _stills(figures: Sequence[Path]) -> list[tuple[str, Path]]:
    """The figures that a page without scripts shows: the first of each topic that decides something."""
    titles = {"time": "Time over length", "memory": "Memory over length", "accuracy_time": "Accuracy against time"}
    by_stem = {path.stem: path for path in figures if path.suffix == ".png"}
    return [(title, by_stem[stem]) for stem, title in titles.items() if stem in by_stem]


def _content(
    runs: Sequence[LoadedRun], settings: Sequence[Setting], sentences: Sequence[Sentence], warnings: Sequence[str]
) -> dict[str, Any]:
    """Everything that the templates show."""
    records = [record for run in runs for record in run.records]
    return {
        "sentences": sentences,
        "warnings": warnings,
        "settings": [
            {
                "setting": setting,
                "comparison": tables.comparison(setting),
                "by_length": tables.by_length(setting),
            }
            for setting in settings[:MOST_TABLES]
        ],
        "left_out": len(settings[MOST_TABLES:]),
        "machines": machines.machines(runs, settings),
        "cards": cards.cards(runs),
        "uncarded": cards.uncarded(runs),
        "gaps": missing.gaps(settings),
        "remarks": missing.remarks(settings),
        "runs": runs,
        "sampling": tables.sampling(settings),
        "families": [name for name in FAMILIES if any(e.style.family == name for s in settings for e in s.entries)],
        "total": len(records),
        "measured": sum(record.status == "ok" for record in records),
        "provenance": {run.number: list(_flat(run.run.inputs)) for run in runs},
        "several_runs": len(runs) > 1,
    }


def _unlike_machines(runs: Sequence[LoadedRun]) -> list[str]:
    """What must be said where figures come from more than one machine."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for machine in dict.fromkeys([record.machine for record in run.records]):
            found.setdefault(machine, []).append(run.name)
    if len(found) < 2:
        return []
    machines = listed([f"{fingerprint[:8]} ({listed(names)})" for fingerprint, names in found.items()])
    return [
        f"The records come from {plural(len(found), 'unlike machine')}: {machines}; "
        "each has tables and lines of its own, and no figure of one is divided by one of another"
    ]


def _flat(value: Any, name: str = "") -> Any:
    """Nested provenance as (name, text) pairs."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(inner, (dict, list, tuple)) for inner in value):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{name}[{place}]")
    else:
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        yield name, text if len(text) <= 400 else f"{text[:400]} …"


def _claim(folder: Path) -> None:
    """Makes the folder, or raises ReportsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except FileExistsError:
        raise ReportsError(f"{folder} is a file, not a folder; choose another --out") from None
    except OSError as error:
        raise ReportsError(f"cannot write a report to {folder}: {error.strerror}; choose another --out") from None


def _replace(path: Path, text: str) -> None:
    """Writes a file as a whole, so that nobody opens half of it."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise ReportsError(f"cannot write {path}: {error.strerror}; choose another --out") from None
