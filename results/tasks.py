"""Reads trained tasks, and sums them up: each variant at its best learning rate, with the spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from .record import digest
from .store import Folder
from .task_record import TaskRecord, setting_id

TRAINED = ("ok", "diverged")


class TaskFolder(Folder[TaskRecord]):
    """The folder of a run of trained tasks: `run.json`, and `tasks.jsonl` with a record a line."""

    file = "tasks.jsonl"
    command = "attnbench tasks run"
    kind = TaskRecord


@dataclass(frozen=True)
class TaskSummary:
    """One variant on one task in one setting. Immutable.

    The learning rate is the one with the best median over seeds on the validation set; `median`, `low` and `high` are
    of the test set, so that choosing flatters nobody. Where no training gave a value, they are None and `reasons` says
    why.
    """

    task: str
    variant: str
    params: dict[str, JsonValue]
    spec: str
    family: str | None
    kind: str | None
    metric: str
    chance: float | None
    setting: str
    """Hash of what trainings share whose values may be compared: length, sizes, backbone, budget, …"""
    seq_len: int
    held_out_len: int
    """Tokens of validation and test sequences, which may be longer than those trained on."""
    d_model: int
    lr: float | None
    median: float | None
    low: float | None
    high: float | None
    """The least and the largest value over the seeds."""
    seeds: int
    """Trainings at this learning rate that have a value."""
    diverged: int
    """Trainings at this learning rate whose loss stopped being finite: they count as chance, or have no value."""
    mastered: int
    mastered_at: float | None
    """Median step of mastery, of those that mastered."""
    parameters: int | None
    state_bytes: int | None
    wall_s: float | None
    """Median of a training's time at this learning rate."""
    reasons: tuple[str, ...]
    records: tuple[TaskRecord, ...]
    """Those at this learning rate, or all where none has a value."""

    @property
    def better_is_higher(self) -> bool:
        return self.metric == "accuracy"


def load_tasks(*folders: str | Path) -> list[TaskRecord]:
    """All records of some runs of trained tasks, the latest of each training.

    Raises ResultsError for what is no such run; warns (ResultsWarning) of each line that cannot be read.
    """
    found: dict[tuple[str, str], TaskRecord] = {}
    for path in folders:
        folder = TaskFolder(path)
        folder.run()
        for record in folder.records():
            found[record.task_id, record.machine] = record
    return list(found.values())


def summarise(records: Iterable[TaskRecord]) -> list[TaskSummary]:
    """A summary for each task, setting and variant, in the order in which they first came."""
    groups: dict[tuple[str, str], list[TaskRecord]] = {}
    for record in records:
        key = setting_id(record.model_dump()), digest({"variant": record.variant, "params": record.params})
        groups.setdefault(key, []).append(record)
    return [_summary(setting, group) for (setting, _), group in groups.items()]


def ranked(summaries: Iterable[TaskSummary]) -> list[TaskSummary]:
    """By task and setting as they came, and in each the best median first; what has no value comes last."""
    order: dict[str, int] = {}
    found = list(summaries)
    for summary in found:
        order.setdefault(summary.setting, len(order))

    def place(summary: TaskSummary) -> tuple[int, float]:
        if summary.median is None:
            return order[summary.setting], float("inf")
        return order[summary.setting], -summary.median if summary.better_is_higher else summary.median

    return sorted(found, key=place)


def validated_value(record: TaskRecord) -> float | None:
    """The last value on the validation set: what a learning rate is chosen by. One that diverged learned nothing."""
    if record.status == "diverged":
        return record.chance
    return record.curve[-1].value if record.status == "ok" and record.curve else None


def tested_value(record: TaskRecord) -> float | None:
    """The value on the test set; that of guessing where training diverged."""
    return record.chance if record.status == "diverged" else record.value


def _summary(setting: str, group: Sequence[TaskRecord]) -> TaskSummary:
    first = group[0]
    by_lr: dict[float, list[TaskRecord]] = {}
    for record in group:
        if record.status in TRAINED:
            by_lr.setdefault(record.lr, []).append(record)
    sign = 1.0 if first.metric == "accuracy" else -1.0

    def rank(lr: float) -> tuple[int, float]:
        """More seeds that came through, then the better median."""
        values = [value for record in by_lr[lr] if (value := validated_value(record)) is not None]
        through = sum(record.status == "ok" for record in by_lr[lr])
        return through, sign * statistics.median(values) if values else float("-inf")

    lr = max(by_lr, key=rank) if by_lr else None
    chosen = by_lr[lr] if lr is not None else list(group)
    values = [value for record in chosen if (value := tested_value(record)) is not None]
    at = [record.mastered_at for record in chosen if record.mastered_at is not None]
    times = [record.wall_s for record in chosen if record.wall_s is not None]
    return TaskSummary(
        task=first.task,
        variant=first.variant,
        params=first.params,
        spec=first.spec or first.variant,
        family=first.family,
        kind=first.kind,
        metric=first.metric,
        chance=next((record.chance for record in chosen if record.chance is not None), None),
        setting=setting,
        seq_len=first.seq_len,
        held_out_len=_held_out(first),
        d_model=first.d_model,
        lr=lr,
        median=statistics.median(values) if values else None,
        low=min(values, default=None),
        high=max(values, default=None),
        seeds=len(values),
        diverged=sum(record.status == "diverged" for record in chosen),
        mastered=sum(record.mastered for record in chosen),
        mastered_at=statistics.median(at) if at else None,
        parameters=next((record.parameters for record in chosen if record.parameters is not None), None),
        state_bytes=next((record.state_bytes for record in chosen if record.state_bytes is not None), None),
        wall_s=statistics.median(times) if times else None,
        reasons=tuple(dict.fromkeys(reason for record in chosen for reason in record.reasons)),
        records=tuple(chosen),
    )


def _held_out(record: TaskRecord) -> int:
    """Tokens of validation and test sequences; those of training where a record does not say."""
    found = record.task_params.get("eval_seq_len")
    return found if isinstance(found, int) else record.seq_len
