"""Reads what stands in a folder that others can write to: regular files only, since whoever reads a pipe may wait for
ever, and a device has no end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import ResultsError


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file. Raises ResultsError where a folder may not be searched for it."""
    try:
        return Path(path).is_file()
    except PermissionError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}; make it readable, or name another run") from None


def refuse_irregular(path: Path, what: str, instead: str = "name another folder") -> None:
    """Raises ResultsError where there is something other than a regular file; OSError where that cannot be seen."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        raise ResultsError(f"cannot {what} {path}: it is not a regular file; remove it, or {instead}")


def read(path: Path, instead: str = "name another run") -> bytes:
    """All of a regular file. Raises FileNotFoundError where there is none, ResultsError where it cannot be read, which
    says what can be done `instead`."""
    try:
        refuse_irregular(path, "read", instead)
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}; make it readable, or {instead}") from None


def end_line(path: Path) -> None:
    """Ends a line that a crash tore."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
