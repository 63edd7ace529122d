"""Trained tasks: what a small model learns with each variant, the rest of the model being the same for all.

    from attnbench.bench.tasks import build, run_tasks

    folder = run_tasks(build(preset="smoke", options={"variants": ["sdpa", "delta"]}), "runs/mine")
    records = attnbench.results.tasks.load_tasks(folder)

Data are drawn with numpy and need no torch; models are trained in processes of their own.
"""

from __future__ import annotations

from .catalogue import TASKS
from .config import Setting, TasksConfig, build, from_dict
from .run import resume_tasks, run_tasks

__all__ = ["TASKS", "Setting", "TasksConfig", "build", "from_dict", "resume_tasks", "run_tasks"]
