"""Writes runs that two_runs.py makes up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from attnbench.results.record import Record
from attnbench.results.store import RunFolder

from .two_runs import Write, run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, made: Sequence[Record], **changes: Any) -> Path:
        folder = RunFolder.create(tmp_path / name, run(**changes))
        folder.append(made)
        folder.close()
        return tmp_path / name

    return written
