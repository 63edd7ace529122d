"""Isolated processes: forked from servers that have torch loaded already, so that a fresh one costs milliseconds.

The main process calls nothing of torch. A child answers requests over a pipe; what it prints comes over another, and if
it dies, the end of that says why. Children die with the server, and the server with the main process; what a child has
started dies with it: nothing stays behind.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from . import fork_servers, keeper
from .limits import kernel_kills, limit_memory

PRELOAD = "attnbench.bench.preload"
TAIL_CHARS = 600
SAID_CHARS = 2000
"""Of what an exception says, so much is kept."""
PIPE_BYTES = 1 << 16
GRACE_S = 10.0
"""A keeper ends at once, unless what it keeps waits for a device."""
LOST = 255
"""What multiprocessing says of a process whose fork server is gone: nobody else knows how it ended."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""That ask for an end."""


class Died(Exception):
    """A child ended without an answer, or could not be started: it was …"""

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

    @property
    def report(self) -> str:
        """For who asked for what was wrong: its sentence; or that it is a defect, and where."""
        return str(self) if self.refusal else f"{self}; this is a defect of attnbench or of a plugin:\n{self.trace}"


class Child:
    """One isolated process that carries out functions, one at a time, keeping what it is told to keep between them.

    A function is named by module and name and called with the child's own dict first, so that nothing but plain data
    crosses the pipe. `process` is the keeper of that process: see `keeper`.
    """

    def __init__(self, server: int = 0, timeout_s: float | None = None) -> None:
        """`server`: the number of the fork server that it comes from, see fork_servers.py. That has `timeout_s` to give
        a process, but longer where it must import torch first. Raises Died where it gives none."""
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        printed, out = context.Pipe(duplex=False)
        os.set_blocking(printed.fileno(), False)
        self.printed: Connection | None = printed
        """What the child prints comes here and is forgotten but for its end, so that no print fills a disk."""
        self.tail = b""
        self.kills = kernel_kills()
        self.process: ForkServerProcess = context.Process(target=_serve, args=(theirs, out), daemon=True)
        try:
            with _uninterrupted() as pressed:
                self.server = fork_servers.fork(server, [PRELOAD], self._start, timeout_s, pressed)
        except fork_servers.NotForked as error:
            self.connection.close()
            printed.close()
            raise Died(f"not started: {error}") from None
        finally:
            theirs.close()
            out.close()

    def call(self, function: Callable[..., Any], *args: Any, timeout_s: float | None = None) -> Any:
        """Runs `function(state, *args)` in the child and returns its result.

        Raises Died, TookTooLong, OutOfMemory or Raised. After Died and TookTooLong the child is gone.
        """
        try:
            self.connection.send((function.__module__, function.__qualname__, args))
            if not self._answers(timeout_s):
                self.close()
                raise TookTooLong
            kind, payload = self.connection.recv()
        except (EOFError, OSError):
            raise self._obituary() from None
        if kind == "result":
            return payload
        if kind == "oom":
            raise OutOfMemory(payload)
        raise Raised(*payload)

    def close(self) -> None:
        """Ends the child, by force, and all that it started: it holds nothing worth a farewell."""
        self.connection.close()
        if self.process.is_alive():
            self.process.terminate()  # the keeper, which kills the worker and all beneath it
            self.process.join(GRACE_S)
            if self.process.is_alive():
                self.process.kill()
                self.process.join(GRACE_S)
            if self.process.is_alive():  # as far as its server tells, which is stopped
                fork_servers.kill(self.server)
        self.process.join()
        if self.printed is not None:
            self.printed.close()
            self.printed = None

    def _start(self) -> None:
        with _no_main_module(), _server_environment():
            self.process.start()

    def _answers(self, timeout_s: float | None) -> bool:
        """Waits for an answer, and reads meanwhile what is printed; False where none came in time."""
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if timeout_s is None else max(0.0, end - time.monotonic())
            awaited: list[Connection | int] = [self.connection, self.process.sentinel]
            if self.printed is not None:
                awaited.append(self.printed)
            ready = wait(awaited, left)
            self._read()
            if self.connection in ready:
                return True
            if self.process.sentinel in ready:
                raise EOFError
            if time.monotonic() >= end:
                return False

    def _read(self, most: int = PIPE_BYTES) -> None:
        """Takes what was printed, up to some bytes, and keeps its end."""
        while self.printed is not None and most > 0:
            try:
                text = os.read(self.printed.fileno(), PIPE_BYTES)
            except BlockingIOError:
                return
            if not text:
                self.printed.close()
                self.printed = None
            self.tail = (self.tail + text)[-4 * TAIL_CHARS :]
            most -= len(text)

    def _obituary(self) -> Died | OutOfMemory:
        """Why the child ended: what the kernel says, and the last that it printed."""
        self.process.join(timeout=GRACE_S)
        code = self.process.exitcode
        self._read(16 * PIPE_BYTES)
        tail = self.tail.decode(errors="replace")[-TAIL_CHARS:].strip()
        kills = kernel_kills()
        self.close()
        if code == -signal.SIGKILL and kills is not None and self.kills is not None and kills > self.kills:
            return OutOfMemory("killed by the kernel for want of memory")
        by_signal = -code if code is not None and code < 0 else None
        why = f"killed by {fork_servers.signal_name(by_signal)}" if by_signal else f"ended with exit status {code}"
        if code in (None, LOST) and (end := fork_servers.end_of(self.server, fork_servers.ENDED_S)) is not None:
            why = f"lost with its fork server, which {end}: how it ended itself is unknown"
        if code == -signal.SIGKILL:
            why += (
                ", probably by the kernel for want of memory"
                if kills is None
                else " from outside, probably by a person or a batch system: the kernel lacked no memory"
            )
        return Died(f"{why}; its last words: {tail}" if tail else why)


def start_servers(count: int) -> None:
    """Starts so many fork servers side by side; who asks one for a process waits until it has imported torch."""
    with _uninterrupted(), fork_servers.starting(), _no_main_module(), _server_environment():
        fork_servers.start(count, [PRELOAD])


def ready(state: dict[str, Any]) -> bool:
    """An answer to this says that the child has started."""
    return True


def isolated(function: Callable[..., Any], *args: Any, timeout_s: float | None = None, server: int = 0) -> Any:
    """Runs one function in a process of its own, from that fork server."""
    child = Child(server, timeout_s)
    try:
        return child.call(function, *args, timeout_s=timeout_s)
    finally:
        child.close()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[list[int]]:
    """Keeps Ctrl-C, and what else asks for an end, until the end of a start: a child that has been told half of what it
    needs complains of the rest. Yields what came so far."""
    pressed: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in SIGNALS}
        # what is ignored stays so in all that is started here, as under nohup
        before = {number: handler for number, handler in found.items() if handler not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, lambda number, frame: pressed.append(number))
    try:
        yield pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for came in dict.fromkeys(pressed):
            signal.raise_signal(came)


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
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking whether there is a GPU would else keep what is forked later off it
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


def _serve(connection: Connection, out: Connection) -> None:
    """The child's life: requests in, answers out, until the pipe closes."""
    keeper.split()
    worker = os.getpid()
    os.dup2(out.fileno(), 1)
    os.dup2(out.fileno(), 2)
    out.close()
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    limit_memory()
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
        if os.getpid() != worker:
            os._exit(1)  # a variant forked, and its copy came back from the call too: one answer is enough
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
    if len(text) > SAID_CHARS:  # a compiler's whole output
        text = f"{text[:SAID_CHARS]} …"
    trace = "".join(traceback.format_exception(error))
    return "raised", (type(error).__name__, text, trace[-4000:], refusal)
