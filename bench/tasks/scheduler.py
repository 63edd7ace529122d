"""Trains what has no record yet, several at a time, each in a process of its own, and turns each into one record.

What is trained is judged by accuracy, so trainings may share the machine; those of a setting that is `alone` do not,
and come last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...results.task_record import TaskRecord
from ..process import Child, Died, OutOfMemory, Raised, TookTooLong
from . import worker
from .config import TasksConfig
from .plan import Planned
from .progress import Watcher


@dataclass
class Unit:
    """Trainings that one thread does one after the other."""

    trainings: list[Planned]
    jobs: int
    finished: list[TaskRecord] = field(default_factory=list)


class Scheduler:
    """Trains the trainings of a plan that have no record yet."""

    def __init__(
        self,
        config: TasksConfig,
        trainings: Iterable[Planned],
        *,
        machine: str,
        checkpoints: Path,
        save: Callable[[TaskRecord], None],
        watcher: Watcher,
        deadline: float = float("inf"),
        finished: Iterable[TaskRecord] = (),
    ) -> None:
        self.config, self.trainings, self.machine = config, list(trainings), machine
        self.checkpoints, self.save, self.watcher, self.deadline = checkpoints, save, watcher, deadline
        self.finished = {record.task_id: record for record in finished}
        self.lock = threading.Lock()  # of what the threads share: children, records, the bar
        self.children: set[Child] = set()
        self.stopping = threading.Event()

    def run(self) -> None:
        """Every training is saved as one record, whatever happens to it. At Ctrl-C all processes are ended first."""
        together = [planned for planned in self.trainings if not planned.setting.alone]
        alone = [planned for planned in self.trainings if planned.setting.alone]
        self._side_by_side(self._units(together, self.config.jobs), self.config.jobs)
        self._side_by_side(self._units(alone, 1), 1)

    def _units(self, trainings: list[Planned], jobs: int) -> list[Unit]:
        """One a training; where learning rates may be left out, one for all trainings of a variant on a task."""
        units: dict[str, Unit] = {}
        for planned in trainings:
            key = planned.task_id
            if planned.setting.skip_after_mastery:
                key = repr((planned.setting.identity(), planned.candidate))
            units.setdefault(key, Unit([], jobs)).trainings.append(planned)
        for unit in units.values():
            there = (self.finished.get(planned.task_id) for planned in unit.trainings)
            unit.finished = [record for record in there if record is not None]
        return list(units.values())

    def _side_by_side(self, units: list[Unit], jobs: int) -> None:
        with ThreadPoolExecutor(jobs) as pool:
            try:
                futures = [pool.submit(self._do, unit) for unit in units]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:  # Ctrl-C, a full disk: threads end when their children do
                with self.lock:
                    self.stopping.set()
                    for child in self.children:
                        child.process.terminate()
                pool.shutdown(cancel_futures=True)
                raise

    def _do(self, unit: Unit) -> None:
        for planned in unit.trainings:
            if planned.task_id in self.finished or self.stopping.is_set():
                continue
            record = self._record(planned, unit)
            with self.lock:
                if self.stopping.is_set():  # its process was ended by us: it has a checkpoint, and no record
                    return
                self.save(record)
                unit.finished.append(record)
                self.watcher.done(record)
            self._checkpoint(planned).unlink(missing_ok=True)

    def _record(self, planned: Planned, unit: Unit) -> TaskRecord:
        setting = planned.setting
        fields: dict[str, Any] = {}
        if planned.candidate.reasons:
            fields = {"status": "unsupported", "reasons": list(planned.candidate.reasons)}
        elif why := self._skip(planned, unit):
            fields = {"status": "skipped", "reasons": [why]}
        started_at, began = datetime.now(UTC).isoformat(timespec="milliseconds"), time.monotonic()
        if not fields:
            with self.lock:
                self.watcher.begin(planned.label)
            fields = self._train(planned)
            if fields["status"] in ("ok", "diverged"):
                fields["reasons"] = [*fields["reasons"], *planned.candidate.notes]
            with self.lock:
                self.watcher.end(planned.label)
        return TaskRecord(
            task_id=planned.task_id,
            **planned.identity,
            spec=planned.candidate.spec,
            family=planned.candidate.family,
            kind=planned.candidate.kind,
            metric=setting.task.metric,
            chance=setting.task.chance(setting.vocab),
            jobs=unit.jobs,
            machine=self.machine,
            started_at=started_at,
            **{"wall_s": time.monotonic() - began, **fields},
        )

    def _skip(self, planned: Planned, unit: Unit) -> str | None:
        if time.monotonic() > self.deadline:
            return f"the time budget of {self.config.time_budget:g} s was used up"
        setting = planned.setting
        if setting.skip_after_mastery:
            for lr in setting.lrs:
                mastered = sum(record.mastered for record in unit.finished if record.lr == lr)
                if lr != planned.lr and mastered == len(setting.seeds):
                    return f"all seeds had mastered the task at a learning rate of {lr:g}"
        return None

    def _train(self, planned: Planned) -> dict[str, Any]:
        """The record's fields. What a process dies of is told in words."""
        with self.lock:  # starting one changes what all threads share: the environment, the main module
            if self.stopping.is_set():
                return {"status": "crashed", "reasons": ["stopped"]}
            try:
                child = Child(timeout_s=self.config.timeout)
            except Died as error:
                return {"status": "crashed", "reasons": [error.why]}
            self.children.add(child)
        arguments = (planned.setting, planned.candidate, planned.lr, planned.seed, list(self.config.plugins))
        path, timeout_s = str(self._checkpoint(planned)), self.config.timeout
        try:
            found: dict[str, Any] = child.call(
                worker.train, *arguments, path, self.config.checkpoint_time, timeout_s=timeout_s
            )
            return found
        except OutOfMemory as error:
            return {"status": "oom", "reasons": [str(error)]}
        except TookTooLong:
            return {"status": "timeout", "reasons": [f"took longer than {timeout_s:g} s"]}
        except Died as error:
            return {"status": "crashed", "reasons": [error.why]}
        except Raised as error:
            return {"status": "crashed", "reasons": [str(error)]}
        finally:
            with self.lock:
                self.children.discard(child)
                child.close()

    def _checkpoint(self, planned: Planned) -> Path:
        return self.checkpoints / f"{planned.task_id}.safetensors"
