"""The one store that the page draws from: every record, by columns, each different value of text once.

A column is `{"all": value}` where all records share it; `{"different": [...], "at": [...]}` where values repeat, with
-1 for null; else `{"values": [...]}`. Figures are rounded to six digits: results.jsonl has them whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from ..results.record import Record
from ..results.work import moved_by
from . import training
from .growth import Fit
from .load import LoadedRun
from .missing import MEANING
from .palette import FAMILIES, family_of
from .settings import MODES, Entry, Setting, captured, causality, shape_words
from .training import TaskSetting

LEFT_OUT = ("samples_s", "evictions", "schema_version", "group_id", "causal", "machine")
"""Fields that the page does without, or has under another name."""
HELPERS = ("run_number", "setting", "moved_bytes")
"""Columns that charts need and the table does not show."""


def store(
    runs: Sequence[LoadedRun], settings: Sequence[Setting], fits: Sequence[Fit], tasks: Sequence[TaskSetting]
) -> dict[str, Any]:
    """What the page embeds, as plain data."""
    entries = [entry for setting in settings for entry in setting.entries]
    numbers = [setting.number for setting in settings for _ in setting.entries]
    columns = _columns(runs, entries, numbers)
    return {
        "count": len(entries),
        "columns": {name: packed(values) for name, values in columns.items()},
        "hidden": list(HELPERS),
        "orders": {"family": list(FAMILIES), "mode": list(MODES), "status": ["ok", *MEANING]},
        "families": dict.fromkeys(FAMILIES, True),
        "variants": {
            entry.label: {
                "family": entry.style.family,
                "style": entry.style.index,
                "kind": entry.record.kind,
                "parameters": entry.parameters,
            }
            for entry in entries
        },
        "settings": [
            {
                "number": setting.number,
                "title": setting.title,
                "detail": setting.detail,
                "phrase": setting.phrase,
                "drawn": not captured(setting.of),
            }
            for setting in settings
        ],
        "tasks": training.as_data(tasks),
        "ceilings": [
            {"run": run.number, **ceiling.model_dump(exclude_none=True)} for run in runs for ceiling in run.run.ceilings
        ],
        "fits": [
            {
                "what": fit.what,
                "setting": fit.setting.number,
                "label": fit.label,
                "value": rounded(fit.value),
                "low": rounded(fit.low),
                "high": rounded(fit.high),
                "declared": fit.declared,
                "text": fit.text,
                "beyond": _ahead(fit),
                "lengths": fit.lengths,
                "longest": fit.longest,
                "record": fit.mine[-1].reference,
            }
            for fit in fits
        ],
    }


def _ahead(fit: Fit) -> list[float | None] | None:
    """An extrapolated crossover with its interval; null at an end that is never reached."""
    if fit.beyond is None:
        return None
    ends = (fit.beyond.value, fit.beyond.low, fit.beyond.high)
    return [rounded(end) if math.isfinite(end) else None for end in ends]


def _columns(runs: Sequence[LoadedRun], entries: Sequence[Entry], numbers: Sequence[int]) -> dict[str, list[Any]]:
    several = len(runs) > 1
    machines = {run.number: f"{run.name}: {hardware(run)}" if several else hardware(run) for run in runs}
    names = [name for name in Record.model_fields if name not in LEFT_OUT]
    names += sorted({name for entry in entries for name in entry.record.model_extra or {}} - {*Record.model_fields})
    columns: dict[str, list[Any]] = {"case_id": [], "label": [entry.label for entry in entries]}
    columns |= {name: [_plain(getattr(entry.record, name, None)) for entry in entries] for name in names}
    columns["family"] = [family_of(entry.record.family) for entry in entries]
    columns["causality"] = [causality(entry.record) for entry in entries]
    columns["shape"] = [", ".join(shape_words(entry.record)) for entry in entries]
    columns["machine"] = [machines[entry.run.number] for entry in entries]
    columns["fingerprint"] = [entry.record.machine for entry in entries]
    columns["run"] = [entry.run.name for entry in entries]
    columns["run_number"] = [entry.run.number for entry in entries]
    columns["setting"] = list(numbers)
    columns["moved_bytes"] = [moved_by(entry.record) for entry in entries]
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def hardware(run: LoadedRun) -> str:
    """The machine of a run in a few words."""
    return ", ".join(run.run.machine.gpus) or run.run.machine.cpu


def packed(values: Sequence[Any]) -> dict[str, Any]:
    """A column in the fewest signs: see the top of this file."""
    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return {"all": different[0]}
    if len(different) * 4 > len(values) and not any(isinstance(value, str) and len(value) > 16 for value in different):
        return {"values": list(values)}
    known = [value for value in different if value is not None]
    place = {value: number for number, value in enumerate(known)} | {None: -1}
    return {"different": known, "at": [place[value] for value in values]}


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _plain(value: Any) -> Any:
    """A number, a string, a truth value or null: lists and mappings as text."""
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={_text(each)}" for key, each in value.items()) or None
    if isinstance(value, (list, tuple)):
        return "\n".join(map(_text, value)) or None
    return str(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
