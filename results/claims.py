"""Reads what `attnbench reproduce` wrote."""

from __future__ import annotations

from pathlib import Path

from .claim_record import ClaimRecord
from .store import Folder


class ClaimFolder(Folder[ClaimRecord]):
    """A folder of claims: `run.json`, `claims.jsonl` with a record a line, and the runs that they come from."""

    file = "claims.jsonl"
    command = "attnbench reproduce"
    kind = ClaimRecord


def load_claims(*folders: str | Path) -> list[ClaimRecord]:
    """All records of some folders, the latest of each claim as it was asked, in the order of their first.

    Raises ResultsError for what is no such folder; warns (ResultsWarning) of each line that cannot be read.
    """
    found: dict[str, ClaimRecord] = {}
    for path in folders:
        folder = ClaimFolder(path)
        folder.run()
        for record in folder.records():
            before = found.get(record.claim_id)
            if before is None or before.started_at <= record.started_at:
                found[record.claim_id] = record
    return list(found.values())
