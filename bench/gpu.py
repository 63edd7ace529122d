"""The GPU that is measured on: which one it is, what of its memory is held, and that no other run measures there.

Not run on a GPU by this project's tests: what asks the device is one line each, and tested with stand-ins.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import BenchError

if sys.platform != "win32":
    import fcntl

LEAST_FLUSH_BYTES = 256 << 20
"""More than the second-level cache of any GPU so far; and long enough to write that a call is launched meanwhile, by a
processor that is awake."""


def is_gpu(device: str) -> bool:
    return device.startswith("cuda")


def use(device: str) -> None:
    """Makes a GPU the one that events are recorded on and that kernels are launched on: not all ask a tensor."""
    import torch

    if is_gpu(device) and ":" in device:
        torch.cuda.set_device(device)


def flush_bytes(device: str) -> int:
    """How much must be written for nothing of what was there before to be left in the GPU's second-level cache."""
    import torch

    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
    return max(LEAST_FLUSH_BYTES, 2 * int(cache))


def memory(device: str) -> tuple[int, int]:
    """Bytes that this process holds on the GPU, what its calls have freed and it keeps included, and those still free.

    Gives back what is kept and not used.
    """
    import torch

    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device), torch.cuda.mem_get_info(device)[0]


def names(state: dict[str, Any], devices: list[str]) -> dict[str, str]:
    """For each device what no other GPU is called, whatever a process may see of them. Runs in a process of its own."""
    import torch

    return {device: str(torch.cuda.get_device_properties(device).uuid) for device in devices}


@contextlib.contextmanager
def alone(gpus: Mapping[str, str], way_on: str, home: Path | None = None) -> Iterator[None]:
    """Keeps every other run off these GPUs, by device and name, for as long as this process lives.

    Raises BenchError where another one measures there, with `way_on` for its advice. `home` holds the locks; the
    system's folder for temporary files, where every user's run sees them, by default.
    """
    home = home or Path(tempfile.gettempdir())
    with contextlib.ExitStack() as held:
        for device, name in gpus.items():
            path = home / f"attnbench-gpu-{name}.lock"
            try:
                file = _opened(path)
            except OSError as error:
                raise BenchError(f"cannot lock {device} by {path}: {error.strerror}; remove that file") from None
            held.callback(os.close, file)
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BenchError(f"another run measures on {device}, and both would be wrong; {way_on}") from None
        yield


def _opened(path: Path) -> int:
    """A file that may be locked: another user's as well, which is why it is only read. No link is followed."""
    how = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, how)
    except FileNotFoundError:
        return os.open(path, how | os.O_CREAT, 0o644)
