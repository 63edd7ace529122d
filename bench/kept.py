"""What earlier passes of a run took, kept beside its records, so that a run that is stopped goes on from there.

A line for each pass of a group, of which the last one counts. They are gone once all cases have their records.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from ..results.distributions import Realised
from ..results.errors import ResultsError
from ..results.statistics import median_interval
from ..results.store import PASSES, RunFolder
from .plan import Planned
from .sampling import Part
from .turn import Taken, Turn


class KeptCase(BaseModel):
    """A case that waits for its next pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    case_id: str
    started_at: str
    fields: dict[str, JsonValue]
    samples: list[float]
    taken: list[Taken]
    wall_s: float
    sampling_s: float
    processes: int

    @classmethod
    def of(cls, turn: Turn) -> KeptCase:
        return cls(
            case_id=turn.case.case_id,
            started_at=turn.started_at,
            fields=turn.fields,
            samples=turn.samples,
            taken=turn.taken,
            wall_s=turn.wall_s,
            sampling_s=turn.sampling_s,
            processes=turn.processes,
        )

    def turn(self, planned: Planned) -> Turn:
        """The case, before another process goes on with it."""
        return Turn(
            planned,
            self.started_at,
            None,
            dict(self.fields),
            samples=list(self.samples),
            taken=list(self.taken),
            wall_s=self.wall_s,
            sampling_s=self.sampling_s,
            interval=median_interval(self.samples),
            processes=self.processes,
            weighed=True,
        )


class KeptGroup(BaseModel):
    """A group of cases that took turns, after a pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    conditions: str = ""
    """The machine and the code."""
    group_id: str
    done: int
    """Rounds, and of these beyond the goals of the passes that ended."""
    extra: int
    passed: int
    evictions: list[float]
    realised: Realised | None
    cases: list[KeptCase]

    @classmethod
    def of(cls, part: Part, realised: Realised | None) -> KeptGroup:
        """Of a group that is all in one part."""
        return cls(
            group_id=part.turns[0].case.group_id,
            done=part.done,
            extra=part.extra,
            passed=part.passed,
            evictions=part.rounds.evictions,
            realised=realised,
            cases=[KeptCase.of(turn) for turn in part.turns],
        )

    def turns(self, group: Iterable[Planned]) -> list[Turn] | None:
        """The cases of a group, before another process goes on with each; None where it has one that is not kept."""
        planned = {each.case.case_id: each for each in group}
        kept = [each.turn(planned[each.case_id]) for each in self.cases if each.case_id in planned]
        return kept if len(kept) == len(planned) else None

    def onto(self, part: Part) -> None:
        """Sets a part of these cases to where it was."""
        part.done, part.extra, part.passed = self.done, self.extra, self.passed
        part.rounds.evictions = list(self.evictions)


class Kept:
    """The groups that wait for their next pass, of a folder. `conditions`: others than these are not gone on with."""

    def __init__(self, folder: RunFolder, conditions: str) -> None:
        self.folder, self.conditions = folder, conditions
        self.groups: dict[str, KeptGroup] = {}
        for line in folder.lines(PASSES):
            try:
                group = KeptGroup.model_validate_json(line)
            except ValidationError:
                continue  # torn: the pass before it counts, or the group begins anew
            if group.conditions == conditions:
                self.groups[group.group_id] = group

    def keep(self, group: KeptGroup) -> None:
        """Raises ResultsError where it cannot be written."""
        group = group.model_copy(update={"conditions": self.conditions})
        self.folder.append([group], PASSES)
        self.groups[group.group_id] = group

    def waiting(self, finished: set[str]) -> int:
        """How many cases wait, those left out that have a record."""
        return sum(case.case_id not in finished for group in self.groups.values() for case in group.cases)


def forget(folder: RunFolder) -> None:
    """Nothing waits any more. Raises ResultsError."""
    path = folder.path / PASSES
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ResultsError(f"cannot remove {path}: {error.strerror}; remove it yourself") from None
