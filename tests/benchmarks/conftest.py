"""What makes a file of pytest-benchmark's readable as a run: samples, and where they were measured."""

from __future__ import annotations

from typing import Any

import attnbench
from attnbench.bench import environment, memory

ALLOCATOR = "keep" if memory.keep_heap() else "system"


def pytest_configure(config: Any) -> None:
    config.option.benchmark_save_data = True


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["attnbench"] = {
        "attnbench_version": attnbench.__version__,
        "git_commit": environment.git_commit(),
        "config": {"allocator": ALLOCATOR},
        "machine": environment.machine().model_dump(),
    }
