"""What measured: the machine, its libraries, the commit. No torch: its version is read from its metadata."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..results.record import digest
from ..results.run import Machine
from .counters import text

LIBRARIES = ("torch", "triton", "xformers", "flash-attn", "numpy", "transformers", "safetensors")
COMPARABLE = ("torch", "triton", "xformers", "flash-attn")
"""Libraries whose version changes what is measured."""


def machine() -> Machine:
    """This machine and what is installed on it."""
    libraries = {name: version for name in LIBRARIES if (version := _version(name))}
    gpus, driver = _gpus()
    facts: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
        "driver": driver,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }
    identity = {**facts, "memory_bytes": round(facts["memory_bytes"] / 2**30)}  # a GiB; the kernel's share varies
    identity["libraries"] = {name: version for name, version in libraries.items() if name in COMPARABLE}
    return Machine(fingerprint=digest(identity), libraries=libraries, **facts)


def is_virtual(root: Path = Path("/")) -> bool | None:
    """Whether this is a virtual machine, by what the processor tells the kernel; None where the kernel does not say."""
    said = text(root / "proc/cpuinfo")
    if said is None:
        return None
    flags = next((line.split() for line in said.splitlines() if line.startswith(("flags", "Features"))), [])
    return "hypervisor" in flags


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sources(plugins: Sequence[str]) -> str:
    """A hash of attnbench's own code and of plugin files, which must not change between passes."""
    home = Path(__file__).resolve().parent.parent
    files = [file for folder in ("variants", "bench", "results") for file in sorted((home / folder).rglob("*.py"))]
    for plugin in map(Path, plugins):
        files += sorted(plugin.rglob("*.py")) if plugin.is_dir() else [plugin]
    found = hashlib.sha256()
    for file in files:
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def git_commit() -> str | None:
    """The commit of attnbench's own sources, with `-dirty` where they were changed; None outside a checkout."""
    home = Path(__file__).resolve().parent.parent
    if not (home / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> tuple[list[str], str | None]:
    """Names of the NVIDIA GPUs and the driver's version, asked of nvidia-smi so that no CUDA context is made."""
    try:
        result = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return [], None
    rows = [[part.strip() for part in line.split(",")] for line in result.stdout.splitlines() if line.strip()]
    return [f"{row[0]} ({row[1]})" for row in rows], rows[0][2] if rows else None
