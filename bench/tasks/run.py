"""A run of trained tasks from start to end: plan, claim the folder, train, sign it off. Resumable after any kill."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from ... import __version__
from ...results.errors import ResultsError, overheard
from ...results.run import Run
from ...results.task_record import TaskRecord
from ...results.tasks import TaskFolder
from .. import environment
from ..errors import ConfigError
from ..sweep import letting_go, new_folder, now, room
from .config import TasksConfig, restored, stored
from .plan import Plan, make_plan
from .progress import Quiet, Watching
from .scheduler import Scheduler

CHECKPOINTS = "checkpoints"
"""Folder of a run that holds what is half trained."""


class Stopped(Exception):
    """Ctrl-C: what was trained is kept, and what was half trained goes on from its checkpoint."""

    def __init__(self, folder: Path, done: int, count: int) -> None:
        super().__init__(
            f"stopped: {done} of {count} trainings are kept in {folder}; "
            f"go on with: attnbench tasks run --resume --out {folder}"
        )


def run_tasks(
    config: TasksConfig,
    out: str | Path | None = None,
    *,
    command: str = "attnbench.bench.tasks.run_tasks(…)",
    watching: Watching | None = None,
) -> Path:
    """Trains everything that a configuration asks for in a new folder, and returns the folder, for `load_tasks`.

    Raises ValueError with one sentence for a request that makes no sense, Stopped at Ctrl-C.
    """
    deadline = _deadline(config)
    config = config.model_copy(update={"plugins": [os.path.abspath(plugin) for plugin in config.plugins]})
    path = Path(out) if out is not None else new_folder()
    TaskFolder(path).refuse_used()
    plan = make_plan(config)
    run = Run(
        attnbench_version=__version__,
        command=command,
        config=stored(config),
        git_commit=environment.git_commit(),
        started_at=now(),
        cases=len(plan.trainings),
        machine=environment.machine(),
        inputs={setting.task.name: setting.task.params() for setting in config.task},
        notes=plan.notes,
    )
    with room():
        folder = TaskFolder.create(path, run)
        return _train(config, plan, folder, run, [], deadline, watching or Quiet())


def resume_tasks(out: str | Path, *, watching: Watching | None = None) -> Path:
    """Goes on with a run that was stopped or killed: trains what has no record, from its checkpoint if there is one."""
    folder, run = TaskFolder.reopen(out)
    with letting_go(folder):
        config = restored(run.config, f"{out}/run.json")
        for setting in config.task:
            before, today = run.inputs.get(setting.task.name), setting.task.params()
            if setting.task.name == "text" and before != today:
                raise ConfigError(
                    f"the text of {out} is no longer what it was when it began ({today['name']}); put it back, or "
                    "begin a new run"
                )
        records, _ = overheard(lambda: list(folder.records()))  # of a torn line: it is trained again
        plan = make_plan(config)
        machine = environment.machine()
        notes = list(run.notes)
        if machine.fingerprint != run.machine.fingerprint:
            notes.append("resumed on another machine or with other libraries: curves may differ in their last digits")
        run = run.model_copy(update={"notes": list(dict.fromkeys(notes)), "machine": machine, "finished_at": None})
    with room():
        return _train(config, plan, folder, run, records, _deadline(config), watching or Quiet())


def _train(
    config: TasksConfig,
    plan: Plan,
    folder: TaskFolder,
    run: Run,
    records: list[TaskRecord],
    deadline: float,
    watching: Watching,
) -> Path:
    began, records = time.monotonic(), list(records)

    def save(record: TaskRecord) -> None:
        folder.append([record])
        records.append(record)

    def accounted(end: str | None) -> Run:
        total = run.spent_s.get("total", 0.0) + time.monotonic() - began
        return run.model_copy(update={"spent_s": {"total": round(total, 3)}, "finished_at": end})

    with letting_go(folder), watching.training(len(plan.trainings), len(records)) as watcher:
        scheduler = Scheduler(
            config,
            plan.trainings,
            machine=run.machine.fingerprint,
            checkpoints=folder.path / CHECKPOINTS,
            save=save,
            watcher=watcher,
            deadline=deadline,
            finished=records,
        )
        try:
            folder.write_run(run)
            scheduler.run()
            folder.write_run(accounted(now()))
        except KeyboardInterrupt:
            with contextlib.suppress(ResultsError):
                folder.write_run(accounted(None))
            raise Stopped(folder.path, len(records), len(plan.trainings)) from None
        with contextlib.suppress(OSError):  # empty, unless something is left to be seen
            (folder.path / CHECKPOINTS).rmdir()
    folder.close()
    return folder.path


def _deadline(config: TasksConfig) -> float:
    """By time.monotonic(). A resumed run has its budget anew."""
    return time.monotonic() + config.time_budget if config.time_budget else float("inf")
