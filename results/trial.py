"""One comparison whose answer is known: what `attnbench doctor` measured, raw, as a JSON line of its file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from .json_lines import records_of

SCHEMA_VERSION = 2
"""In version 1 all processes came from one server, and each chose the size of its turns."""


class Trial(BaseModel):
    """Code against itself, in pairs of processes that took turns. Immutable."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    schema_version: int = SCHEMA_VERSION
    planted: float = Field(ge=0)
    """Share of work that HEAD does beyond BASE's: 0 is the same code twice."""
    base_s: list[float] = Field(min_length=1)
    head_s: list[float] = Field(min_length=1)
    """Seconds of a call in each round, in the order of rounds."""
    rounds_per_process: list[PositiveInt] = Field(min_length=1)
    """How many of the rounds each pair of processes took, in their order."""
    wall_s: float
    """All of it, the starting of processes too."""
    asked_s: float
    """What it was to take."""
    others_cores: float | None = None
    """CPU seconds a second that other processes used meanwhile; null where they cannot be seen."""
    dtype: str
    threads: int
    units: int
    """Calls of the fixed attention in one of BASE's calls."""
    seed: int
    machine: str
    """Fingerprint, as in a run."""
    started_at: str

    @property
    def pairs(self) -> int:
        """Of processes."""
        return len(self.rounds_per_process)

    @model_validator(mode="after")
    def _fits(self) -> Trial:
        if not len(self.base_s) == len(self.head_s) == sum(self.rounds_per_process):
            raise ValueError("rounds_per_process must add up to the samples of each side")
        if min(self.base_s) <= 0 or min(self.head_s) <= 0:
            raise ValueError("times must be positive")
        return self


def load_trials(path: str | Path) -> list[Trial]:
    """All comparisons of a file of `doctor --out`; none where there is no file yet. A torn or foreign line is warned of
    and skipped. Raises ResultsError for a file that cannot be read."""
    try:
        return list(records_of(Path(path), Trial, instead="choose another --out"))
    except FileNotFoundError:
        return []
