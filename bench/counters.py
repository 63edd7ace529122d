"""What the kernel counts of this machine, read twice: who used the cores in between, and what took them away.

From /proc and /sys of Linux. A counter that this machine does not have is None, never 0.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BUSY = (0, 1, 2, 5, 6)
"""Of the numbers of a line of /proc/stat: user, nice, system, interrupts and soft interrupts. What guests used is in
user already."""
STOLEN = 7


@dataclass(frozen=True)
class Process:
    """One process, as /proc/PID/stat has it."""

    pid: int
    parent: int
    name: str
    cpu_s: float


@dataclass(frozen=True)
class Counters:
    """One reading. Seconds and events count from when the machine or the group started."""

    at_s: float
    """By time.monotonic()."""
    busy_s: float | None = None
    """Of all cores together."""
    stolen_s: float | None = None
    """Time that this virtual machine's cores were ready to run, and the host ran others."""
    heat: int | None = None
    """How often a core or its package was slowed because it was hot."""
    throttled: int | None = None
    """In how many periods this control group had used up its share of the cores."""
    swapped: int | None = None
    """Pages that went to swap or came back."""
    processes: dict[int, Process] = field(default_factory=dict)


@dataclass(frozen=True)
class Used:
    """What passed between two readings."""

    wall_s: float
    busy_s: float | None
    stolen_s: float | None
    heat: int | None
    throttled: int | None
    swapped: int | None
    others: list[tuple[str, float]]
    """Name and CPU seconds of each process that is not ours, most first."""
    seen: bool = True
    """Whether processes can be seen at all."""

    @property
    def others_s(self) -> float:
        return sum(seconds for _, seconds in self.others)


def read(root: Path = Path("/")) -> Counters:
    """The counters now."""
    cores = text(root / "proc/stat") or ""
    line = next((line.split()[1:] for line in cores.splitlines() if line.startswith("cpu ")), [])
    numbers = [int(number) for number in line if number.isdigit()]
    tick = _ticks_per_s()
    return Counters(
        at_s=time.monotonic(),
        busy_s=sum(numbers[i] for i in BUSY) / tick if len(numbers) > max(BUSY) else None,
        stolen_s=numbers[STOLEN] / tick if len(numbers) > STOLEN else None,
        heat=_total((root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")),
        throttled=_throttled(root),
        swapped=_swapped(root),
        processes={process.pid: process for process in _processes(root)},
    )


def between(first: Counters, last: Counters, ours: int | None = None) -> Used:
    """What passed between two readings. `ours`: the process whose descendants, and which itself, count as ours."""
    mine = _family(last.processes, os.getpid() if ours is None else ours)
    others = []
    for pid, process in last.processes.items():
        before = first.processes.get(pid)
        same = before is not None and before.name == process.name and before.cpu_s <= process.cpu_s
        used = process.cpu_s - (before.cpu_s if same and before is not None else 0.0)
        if used > 0 and pid not in mine:
            others.append((process.name, used))
    return Used(
        wall_s=last.at_s - first.at_s,
        busy_s=_less(last.busy_s, first.busy_s),
        stolen_s=_less(last.stolen_s, first.stolen_s),
        heat=_fewer(last.heat, first.heat),
        throttled=_fewer(last.throttled, first.throttled),
        swapped=_fewer(last.swapped, first.swapped),
        others=sorted(others, key=lambda each: -each[1]),
        seen=bool(last.processes),
    )


def text(path: Path) -> str | None:
    """What a file of the kernel's says, None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def groups(root: Path, controller: str) -> Iterator[Path]:
    """The control groups around this process that have the controller, innermost first (versions 1 and 2)."""
    home = root / "sys/fs/cgroup"
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            top = home
        elif controller in controllers.split(","):
            top = home / controller
        else:
            continue
        inner = top / path.lstrip("/")
        for group in (inner, *inner.parents):
            if not group.is_relative_to(top):
                break
            if group.is_dir():
                yield group


def _throttled(root: Path) -> int | None:
    """Of the groups around this process, the one that was throttled most often."""
    found = []
    for group in groups(root, "cpu"):
        lines = dict(line.split(None, 1) for line in (text(group / "cpu.stat") or "").splitlines() if " " in line)
        if lines.get("nr_throttled", "").isdigit():
            found.append(int(lines["nr_throttled"]))
    return max(found, default=None)


def _swapped(root: Path) -> int | None:
    lines = [line.split() for line in (text(root / "proc/vmstat") or "").splitlines()]
    pages = [int(line[1]) for line in lines if line[0] in ("pswpin", "pswpout")]
    return sum(pages) if pages else None


def _processes(root: Path) -> Iterator[Process]:
    tick = _ticks_per_s()
    for stat in (root / "proc").glob("[0-9]*/stat"):
        # name in parentheses may hold anything, parentheses too
        match = re.match(r"(\d+) \((.*)\) (.*)", text(stat) or "", re.DOTALL)
        with contextlib.suppress(IndexError, ValueError):
            if match:
                rest = match[3].split()
                yield Process(int(match[1]), int(rest[1]), match[2], (int(rest[11]) + int(rest[12])) / tick)


def _family(processes: dict[int, Process], head: int) -> set[int]:
    family = {head}
    while more := {pid for pid, process in processes.items() if process.parent in family} - family:
        family |= more
    return family


def _total(files: Iterator[Path]) -> int | None:
    numbers = [int(found) for file in files if (found := text(file) or "").isdigit()]
    return sum(numbers) if numbers else None


def _less(last: float | None, first: float | None) -> float | None:
    return None if last is None or first is None else max(0.0, last - first)


def _fewer(last: int | None, first: int | None) -> int | None:
    return None if last is None or first is None else max(0, last - first)


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
