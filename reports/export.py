"""Records as a table for other programs: CSV and Parquet."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from ..results.frame import plain_columns
from ..results.record import Record
from .errors import ReportsError

if TYPE_CHECKING:
    import pandas as pd


def to_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes all records, one a row; lists and parameters as JSON text. Raises ReportsError."""
    table = _whole_numbers(plain_columns(frame))
    try:
        table.to_csv(path, index=False)
    except OSError as error:
        raise _unwritable(path, error) from None


def to_parquet(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes all records, one a row; lists and parameters as JSON text. Raises ReportsError."""
    table = _whole_numbers(plain_columns(frame))
    # a column that is null throughout has no type of its own; text keeps it readable everywhere
    empty = [column for column in table.columns if table[column].isna().all() and table[column].dtype == object]
    table = table.astype(dict.fromkeys(empty, "string"))
    try:
        table.to_parquet(path, index=False)
    except OSError as error:
        raise _unwritable(path, error) from None


def _whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Bytes and counts as whole numbers: a null among them would make them floating-point."""
    whole = [
        name
        for name, field in Record.model_fields.items()
        if name in table.columns and _plain(field.annotation) <= {int, type(None)}
    ]
    return table.astype(dict.fromkeys(whole, "Int64"))


def _plain(annotation: Any) -> set[Any]:
    """The types of a field, without the bounds of its numbers."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*(_plain(one) for one in get_args(annotation)))
    return {annotation}


def _unwritable(path: str | Path, error: OSError) -> ReportsError:
    return ReportsError(f"cannot write {path}: {error.strerror or error}; choose another file")
