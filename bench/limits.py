"""How much memory is left, and how a worker is kept from taking more: an exception in it, not the kernel's killer."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

MEMORY_SHARE = 0.9
"""A worker may map this share of the memory that is free at its start: beyond, an allocation fails as an exception
instead of waking the kernel's out-of-memory killer."""
KILLED_FIRST = "500"
"""Where the killer wakes all the same, the worker counts as using half of the memory more than it does."""
CGROUPS = Path("/sys/fs/cgroup")


def limit_memory() -> None:
    """Limits this process, and what it starts, to the memory that is free now."""
    free, mapped = memory_available(), _kib("/proc/self/status", "VmSize:")
    if free is not None and mapped is not None:
        limit = int(mapped * 1024 + free * MEMORY_SHARE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(KILLED_FIRST)


def memory_available() -> int | None:
    """Bytes that processes may still take without others being pushed out; None where the system does not say.

    What a container or a batch system allows (Linux's control groups, version 1 or 2) counts as all that there is.
    """
    free = _kib("/proc/meminfo", "MemAvailable:")
    return None if free is None else max(0, min([free * 1024, *_left_in_groups()]))


def kernel_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since it started; None where it does not count."""
    lines = _lines("/proc/vmstat")
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _left_in_groups() -> Iterator[int]:
    """What each control group around this process still allows it; what is cached of files can be had back."""
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            home, limit, usage, cached = CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            home, limit, usage, cached = (
                CGROUPS / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        inner = home / path.lstrip("/")
        for group in (inner, *inner.parents):
            if not group.is_relative_to(home):
                break
            with contextlib.suppress(OSError, ValueError):  # no such file, or no limit: the word max
                allowed = int((group / limit).read_text())
                used = int((group / usage).read_text())
                statistics = dict(line.split() for line in _lines(group / "memory.stat"))
                yield allowed - used + int(statistics.get(cached, 0))


def _kib(path: str, field: str) -> int | None:
    return next((int(line.split()[1]) for line in _lines(path) if line.startswith(field)), None)


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
