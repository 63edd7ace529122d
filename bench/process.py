"""Isolated processes: forked from a server that has torch loaded already, so that a fresh one costs milliseconds.

The main process never imports torch. A child answers requests over a pipe; whatever it prints goes to a file, and if it
dies, that file's end says why. Children die with the server, and the server with the main process: none stays behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

PRELOAD = "attnbench.bench.preload"
PR_SET_PDEATHSIG = 1
MEMORY_SHARE = 0.9
"""A child may map this share of the memory that is free at its start: beyond, an allocation fails as an exception
instead of waking the kernel's out-of-memory killer."""
TAIL_CHARS = 600


class Died(Exception):
    """A child ended without an answer."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class TookTooLong(Exception):
    """A child did not answer in time, and was killed."""


class OutOfMemory(Exception):
    """An allocation failed in a child."""


class Raised(Exception):
    """The code in a child raised. `refusal` marks the sentence of a wrong request, not a defect."""

    def __init__(self, kind: str, message: str, trace: str, refusal: bool) -> None:
        super().__init__(f"{kind}: {message}" if not refusal else message)
        self.trace = trace
        self.refusal = refusal


class Child:
    """One isolated process that carries out functions, one at a time, keeping what it is told to keep between them.

    A function is named by module and name and called with the child's own dict first, so that nothing but plain data
    crosses the pipe.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PRELOAD])
        handle, name = tempfile.mkstemp(prefix="attnbench-worker-", suffix=".log")
        os.close(handle)
        self.log = Path(name)
        self.connection, theirs = context.Pipe()
        self.process: ForkServerProcess = context.Process(target=_serve, args=(theirs, name), daemon=True)
        with _no_main_module(), _server_environment():
            self.process.start()
        theirs.close()

    def call(self, function: Callable[..., Any], *args: Any, timeout_s: float | None = None) -> Any:
        """Runs `function(state, *args)` in the child and returns its result.

        Raises Died, TookTooLong, OutOfMemory or Raised. After all but OutOfMemory and Raised, the child is gone.
        """
        try:
            self.connection.send((function.__module__, function.__qualname__, args))
            if not self.connection.poll(timeout_s):
                self.close()
                raise TookTooLong
            kind, payload = self.connection.recv()
        except (EOFError, OSError):
            raise Died(self._obituary()) from None
        if kind == "result":
            return payload
        if kind == "oom":
            raise OutOfMemory(payload)
        raise Raised(*payload)

    def close(self) -> None:
        """Ends the child, by force: it holds nothing worth a farewell."""
        self.connection.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        with contextlib.suppress(OSError):
            self.log.unlink()

    def _obituary(self) -> str:
        self.process.join(timeout=10)
        code = self.process.exitcode
        tail = self.log.read_text(errors="replace")[-TAIL_CHARS:].strip() if self.log.exists() else ""
        if code is not None and code < 0:
            why = f"killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                why += ", probably by the kernel for want of memory"
        else:
            why = f"ended with exit status {code}"
        self.close()
        return f"{why}; its last words: {tail}" if tail else why


def isolated(function: Callable[..., Any], *args: Any, timeout_s: float | None = None) -> Any:
    """Runs one function in a process of its own."""
    child = Child()
    try:
        return child.call(function, *args, timeout_s=timeout_s)
    finally:
        child.close()


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hides the program's main module from multiprocessing, which would import it again in every child.

    A child needs nothing of it; and a user's script that calls `attnbench.run` without a guard would run twice.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


SERVER_ENVIRONMENT = {
    "KINETO_LOG_LEVEL": "99",  # the profiler prints a line at each start and stop
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compilers would outlive the worker that is killed
    "PYTHONSAFEPATH": "1",  # a copy.py in the user's folder is not the standard library's
}


@contextlib.contextmanager
def _server_environment() -> Iterator[None]:
    """The environment that the fork server starts in, and that every child inherits. What the user has set stays."""
    before = dict(os.environ)
    for name, value in SERVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(connection: Connection, log: str) -> None:
    """The child's life: requests in, answers out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    target = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    _limit_memory()
    # locks that libraries make here (tqdm's, torch's compiler's) are then unlinked at once, and leak nothing at a kill
    multiprocessing.set_start_method("fork", force=True)
    state: dict[str, Any] = {}
    while True:
        try:
            module, name, args = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (
                "result",
                getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name)(state, *args),
            )
        except BaseException as error:  # a variant may raise anything, SystemExit too: all of it is an answer
            answer = _as_answer(error)
        try:
            connection.send(answer)
        except (BrokenPipeError, OSError):
            return


def _as_answer(error: BaseException) -> tuple[str, Any]:
    import torch

    text = str(error)
    cpu_oom = isinstance(error, RuntimeError) and "allocate memory" in text
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or cpu_oom:
        return "oom", " ".join(text.split())[:TAIL_CHARS] or "out of memory"
    from ..variants.errors import VariantError
    from .errors import BenchError

    refusal = isinstance(error, (VariantError, BenchError))
    trace = "".join(traceback.format_exception(error))
    return "raised", (type(error).__name__, text, trace[-4000:], refusal)


def _limit_memory() -> None:
    free = memory_available()
    mapped = _kib("/proc/self/status", "VmSize:")
    if free is not None and mapped is not None:
        limit = int(mapped * 1024 + free * MEMORY_SHARE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def memory_available() -> int | None:
    """Bytes that processes may still take without others being pushed out; None where the system does not say."""
    free = _kib("/proc/meminfo", "MemAvailable:")
    return None if free is None else free * 1024


def _kib(path: str, field: str) -> int | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), None)
