"""Trained tasks in a report: each variant at its best learning rate, its spread over seeds, its curve and its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..results.errors import overheard
from ..results.files import is_file
from ..results.task_record import TaskRecord
from ..results.tasks import TaskFolder, TaskSummary, load_tasks, summarise, tested_value
from .palette import Style
from .settings import Entry, Names
from .words import NONE, count, digits, interval, percent, plural, seconds, size


@dataclass(frozen=True)
class Trained:
    """One variant on one task in one setting."""

    summary: TaskSummary
    label: str
    style: Style

    @property
    def curve(self) -> TaskRecord:
        """The training whose value is the nearest to the median: the lower one of two."""
        middle = self.summary.median
        with_value = [record for record in self.summary.records if tested_value(record) is not None]
        if middle is None or not with_value:
            return self.summary.records[0]
        return min(with_value, key=lambda record: abs((tested_value(record) or 0.0) - middle))

    @property
    def cells(self) -> tuple[tuple[str, str], ...]:
        """What the table says: a figure and what stands small beneath it, column by column."""
        s = self.summary
        if s.median is None:
            return ((self.curve.status, "; ".join(s.reasons)), *[(NONE, "")] * 5)
        spread = "" if s.seeds < 2 else f"{interval(s.low, s.high)} over {plural(s.seeds, 'seed')}"
        unsteady = f"{plural(s.diverged, 'training')} diverged" if s.diverged else ""
        return (
            (self.value, "; ".join(part for part in (spread, unsteady) if part) or plural(s.seeds, "seed")),
            (NONE if s.lr is None else f"{s.lr:g}", ""),
            (size(s.state_bytes), ""),
            (NONE if s.parameters is None else count(s.parameters), ""),
            (NONE if s.mastered_at is None else count(s.mastered_at), ""),
            (seconds(s.wall_s), ""),
        )

    @property
    def value(self) -> str:
        middle = self.summary.median
        return NONE if middle is None else percent(middle) if self.summary.better_is_higher else digits(middle)


COLUMNS = ("Value on the test set", "Learning rate", "State", "Parameters", "Mastered at step", "Time of a training")


@dataclass(frozen=True)
class TaskSetting:
    """Trainings whose values may be compared."""

    number: int
    trained: tuple[Trained, ...]

    @property
    def of(self) -> TaskSummary:
        return self.trained[0].summary

    @property
    def title(self) -> str:
        longer = "" if self.of.held_out_len == self.of.seq_len else f", tested at {count(self.of.held_out_len)}"
        return f"{self.of.task}, {count(self.of.seq_len)} tokens{longer}"

    @property
    def detail(self) -> str:
        record = self.of.records[0]
        guess = "" if self.of.chance is None else f", guessing gives {percent(self.of.chance)}"
        return f"{plural(record.layers, 'layer')} of width {record.d_model}, {self.metric}{guess}"

    @property
    def metric(self) -> str:
        return self.of.metric.replace("_", " ")


def is_task_run(path: str | Path) -> bool:
    """Whether a folder holds trained tasks."""
    return is_file(Path(path) / TaskFolder.file)


def load(paths: Sequence[str | Path]) -> tuple[list[TaskRecord], list[str]]:
    """The records of the folders that hold trained tasks, and what is to be known of them. Raises ResultsError."""
    return overheard(lambda: load_tasks(*paths))


def trained(records: Sequence[TaskRecord], entries: Sequence[Entry]) -> list[TaskSetting]:
    """The tasks by setting, the best value first; a variant is named and drawn as in the sweep, where that has it."""
    names = Names(entries)
    groups: dict[str, list[Trained]] = {}
    for summary in summarise(records):
        groups.setdefault(summary.setting, []).append(Trained(summary, *names.of(summary)))
    return [
        TaskSetting(number, tuple(sorted(group, key=_rank))) for number, group in enumerate(groups.values(), start=1)
    ]


def as_data(settings: Sequence[TaskSetting]) -> list[dict[str, Any]]:
    """What the page embeds of them."""
    return [
        {
            "number": setting.number,
            "title": setting.title,
            "detail": setting.detail,
            "phrase": f"{setting.title}, {setting.detail}",
            "metric": setting.metric,
            "chance": setting.of.chance,
            "trained": [
                {
                    "label": each.label,
                    "family": each.style.family,
                    "style": each.style.index,
                    "value": each.summary.median,
                    "low": each.summary.low,
                    "high": each.summary.high,
                    "said": each.value,
                    "lr": each.summary.lr,
                    "seeds": each.summary.seeds,
                    "state": each.summary.state_bytes,
                    "curve": [[point.tokens, point.value, point.wall_s] for point in each.curve.curve],
                }
                for each in setting.trained
            ],
        }
        for setting in settings
    ]


def _rank(each: Trained) -> tuple[bool, float, str]:
    middle = each.summary.median
    sign = -1.0 if each.summary.better_is_higher else 1.0
    return middle is None, sign * (middle or 0.0), each.label
