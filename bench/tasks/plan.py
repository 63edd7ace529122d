"""From a configuration to the list of its trainings, each with its identity and what is known before it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ...results.task_record import task_id
from ..plan import ask
from . import worker
from .config import Setting, TasksConfig

PLAN_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Planned:
    """One training."""

    setting: Setting
    candidate: worker.Candidate
    lr: float
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """The fields of its record that say which it is."""
        own = {"variant": self.candidate.variant, "params": self.candidate.params, "lr": self.lr, "seed": self.seed}
        return {**self.setting.identity(), **own}

    @property
    def task_id(self) -> str:
        return task_id(self.identity)

    @property
    def label(self) -> str:
        return f"{self.setting.task.name}, {self.candidate.spec}, lr {self.lr:g}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """All trainings of a run, each once."""

    trainings: list[Planned]
    notes: list[str] = field(default_factory=list)


def make_plan(config: TasksConfig) -> Plan:
    """Resolves variants and lays out the trainings. Raises BenchError for what does not exist."""
    plugins = [os.path.abspath(plugin) for plugin in config.plugins]
    found, failures = ask(worker.candidates, config.task, plugins, timeout_s=PLAN_TIMEOUT_S)
    trainings: dict[str, Planned] = {}
    for setting, variants in zip(config.task, found, strict=True):
        for candidate in variants:
            for lr in setting.lrs:
                for seed in setting.seeds:
                    planned = Planned(setting, candidate, lr, seed)
                    trainings.setdefault(planned.task_id, planned)
    notes = [f"{where} could not be loaded: {why}" for where, why in failures.items()]
    return Plan(list(trainings.values()), notes)
