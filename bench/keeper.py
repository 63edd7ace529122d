"""A worker's keeper: the process above it that ends whatever a variant started, when the worker has ended or must.

A variant may fork, start programs and let them run in the background. On Linux orphans fall to the keeper, which is
their nearest subreaper, so that all of them are found beneath it. The keeper itself ends when the main process tells it
to, or when the fork server dies, which dies with the main process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PATIENCE_S = 5.0
"""What is not dead so long after it was killed waits for a device, and ends by itself when that answers."""
MOST_FILES = 1 << 16
_IMPORTER = os.getpid()
"""The fork server, which imports this before it forks."""


def split() -> None:
    """Forks: returns in the worker, and in the keeper never; that one ends as the worker did, after all beneath it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of a worker's memory could fill the disk
    awaited = {signal.SIGTERM, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    # asked now, who is above may be who took the orphan of a server that has died already
    above = os.getppid() if os.getpid() == _IMPORTER else _IMPORTER
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != above:
        os._exit(1)  # the fork server died before the signal was asked for
    keeper = os.getpid()
    worker = os.fork()
    if worker:
        _keep(worker, awaited)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep(worker: int, awaited: set[signal.Signals]) -> NoReturn:
    os.closerange(0, min(os.sysconf("SC_OPEN_MAX"), MOST_FILES))  # a pipe that it held open would never seem to end
    status = None
    while status is None:
        if signal.sigwait(awaited) == signal.SIGTERM:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        status = _reap(worker)
    _end_all()
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    with contextlib.suppress(OSError):
        signal.signal(-code, signal.SIG_DFL)  # SIGKILL has no other
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.kill(os.getpid(), -code)
    os._exit(1)


def _reap(worker: int) -> int | None:
    """Takes leave of all that ended beneath this process; returns the worker's wait status if it was among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == worker:
                found = status
    return found


def _end_all() -> None:
    """Kills what is left beneath this process, and what falls to it as parents die, until there is nothing."""
    patience = time.monotonic() + PATIENCE_S
    while time.monotonic() < patience:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def children() -> list[int]:
    """The processes whose parent is this one; none where the system has no /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text(errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def _prctl(option: int, value: int) -> None:
    """Linux's prctl(2); elsewhere nothing, and orphans are not found."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
