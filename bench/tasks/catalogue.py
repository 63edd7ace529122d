"""The tasks there are."""

from __future__ import annotations

from ...variants.errors import suggest
from ..errors import ConfigError
from .induction import Induction
from .mqar import Mqar
from .needle import Needle
from .parity import Parity
from .selective_copy import SelectiveCopy
from .task import Task
from .text import Text

TASKS: dict[str, type[Task]] = {task.name: task for task in (Mqar, Induction, SelectiveCopy, Parity, Needle, Text)}


def task_class(name: str) -> type[Task]:
    """Raises ConfigError that lists what exists."""
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}; {suggest(name, TASKS)}")
    return TASKS[name]
