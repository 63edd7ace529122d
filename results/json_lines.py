"""Files of records, one a line, as JSON: they are appended to, so a crash or a full disk may leave half a line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .errors import NewerWarning, ResultsWarning, in_words
from .files import read

R = TypeVar("R", bound=BaseModel)


def records_of(
    path: Path, kind: type[R], *, told_newer: bool = False, instead: str = "name another run"
) -> Iterator[R]:
    """The records of a file in the order of its lines. A torn or foreign one is warned of and skipped, and so is, once,
    that records are of a newer schema, unless that was `told_newer` already.

    Raises FileNotFoundError where there is no file, ResultsError where it cannot be read (see `files.read`).
    """
    known = kind.model_fields["schema_version"].default
    for number, line in enumerate(read(path, instead).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = kind.model_validate_json(line)
        except ValidationError as error:
            warnings.warn(f"{path}, line {number} skipped: {in_words(error)}", ResultsWarning, stacklevel=2)
            continue
        if not told_newer and (schema := vars(record)["schema_version"]) > known:
            told_newer = True
            warn_of_newer(path, schema, known)
        yield record


def warn_of_newer(path: Path, schema: int, known: int) -> None:
    warnings.warn(
        f"{path} was written by a newer attnbench (schema {schema}; this one knows {known}): it may hold fields that "
        "are unknown here, or mean others by them; update attnbench to read it",
        NewerWarning,
        stacklevel=3,
    )
