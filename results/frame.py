"""Records as a pandas DataFrame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from .benchmark_file import opened
from .errors import ResultsError
from .record import Record


def load(*paths: str | Path) -> pd.DataFrame:
    """All records of some runs as a DataFrame: one row a record, one column a field, and `run` with the path.

    A run is its folder, or a file that `make bench` saved. `params` stays a dict, `samples_s` and `evictions` lists.
    Raises ResultsError for what is no run; warns (ResultsWarning) of each line that cannot be read and keeps the rest.
    """
    if not paths:
        raise ResultsError("name at least one run folder")
    rows: list[dict[str, Any]] = []
    for path in paths:
        folder = opened(path)
        folder.run()
        rows += [{"run": str(path), **record.model_dump()} for record in folder.records()]
    columns = ["run", *Record.model_fields]
    extra = sorted({key for row in rows for key in row} - set(columns))
    return pd.DataFrame(rows, columns=[*columns, *extra])


def plain_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The same frame with lists and dicts written as JSON text, for CSV and Parquet."""
    frame = frame.copy()
    for column in frame.columns:
        if frame[column].map(lambda value: isinstance(value, (list, dict))).any():
            frame[column] = frame[column].map(
                lambda value: json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
            )
    return frame
