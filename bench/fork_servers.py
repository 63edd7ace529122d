"""Several fork servers, since what is forked from one shares where it lies in memory.

Addresses and the seed of hashes are drawn when a program starts, not when it forks. Calls of many small operations
take some percent more or less for them: of six servers with three processes each, all in turns, the medians of
`gated_delta` at length 1024 lay up to 3.8 % apart; their standard deviation was 1.3 % from server to server, and .3 %
within one. All processes of one server are one draw of that luck, and their interval does not tell of it: Mytkowicz et
al. 2009, "Producing Wrong Data Without Doing Anything Obviously Wrong!".
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, resource_tracker

START_S = 120.0
"""In which a server that starts gives its first process: it imports torch before, on a busy machine for a minute."""
PRESSED_S = 3.0
"""In which a start ends that is under way at Ctrl-C."""
KILLED_S = 5.0
"""In which a start ends whose server was killed."""
ENDED_S = 0.5
"""A server that has ended closes its pipes a moment before its end is known."""
TICK_S = 0.1

_servers: dict[int, forkserver.ForkServer] = {}
_one_at_a_time = threading.Lock()
_awake: set[int] = set()
"""Process ids of servers that have given a process: they do so in milliseconds from then on."""
_silent: set[int] = set()
"""Of those that were killed here, since they gave no answer."""


class NotForked(Exception):
    """A server gave no process."""


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Servers start, and give processes, by one thread at a time.

    Ctrl-C reaches all processes of a terminal: a server that starts meanwhile holds it off for good, where it would
    print at which import it was interrupted. Here it comes at the end.
    """
    with _one_at_a_time, _held_off():
        yield


def start(count: int, preload: list[str]) -> None:
    """Starts so many servers side by side, where they do not run, without waiting for what they import: the modules of
    `preload`."""
    for number in range(count):
        _server(number, preload).ensure_running()


def fork(
    server: int, preload: list[str], start: Callable[[], None], timeout_s: float | None, pressed: list[int]
) -> int:
    """Has what `start` starts by multiprocessing's method `forkserver` come from the server of that number, which is
    started where it does not run. Returns the server's process id.

    `timeout_s`: for a server that has given a process before; one that starts has START_S. `pressed` holds the signals
    that came meanwhile and ask for an end. Raises NotForked where the server gives none in time, and kills it, so that
    the next is another; or where it ends.
    """
    with _one_at_a_time:
        asked = _server(server, preload)
        before = forkserver.connect_to_new_process  # multiprocessing knows of one server, and asks this for a process
        forkserver.connect_to_new_process = asked.connect_to_new_process
        try:
            _in_time(start, asked, f"fork server {server + 1}", timeout_s, pressed)
        finally:
            forkserver.connect_to_new_process = before
        pid = _pid(asked)
        _awake.add(pid)
        _silent.discard(pid)
        return pid


def kill(pid: int) -> None:
    """Ends a server that gives no answer, and with it all that it has started; the next is another."""
    if end_of(pid) is None:
        _silent.add(pid)
        os.kill(pid, signal.SIGKILL)


def end_of(pid: int, within_s: float = 0.0) -> str | None:
    """How a server ended, as the end of a sentence; None where it still runs after so long."""
    end = time.monotonic() + within_s
    while (how := _end_of(pid)) is None and time.monotonic() < end:
        time.sleep(0.01)
    return how


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _in_time(
    start: Callable[[], None], asked: forkserver.ForkServer, name: str, timeout_s: float | None, pressed: list[int]
) -> None:
    """Carries out `start` in a thread of its own, since it waits for a server's answer, and a server that is stopped
    has none: whoever waits for it can neither look at the time nor hear Ctrl-C."""
    failed: list[BaseException] = []

    def carry_out() -> None:
        try:
            with _held_off():
                start()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=carry_out, daemon=True)
    thread.start()
    began, pressed_at, why = time.monotonic(), float("inf"), None
    while thread.is_alive() and why is None:
        thread.join(TICK_S)
        now, awake = time.monotonic(), _pid(asked) in _awake
        pressed_at = min(pressed_at, now if pressed else float("inf"))
        limit = START_S if timeout_s is None or not awake else min(START_S, timeout_s)
        if now - began > limit:
            why = f"{name} gave no process within {limit:g} s, as one that is stopped, and was killed"
        elif now - pressed_at > PRESSED_S:
            why = f"{name} gave no process after Ctrl-C, and was killed"
    if why is not None and thread.is_alive():
        kill(_pid(asked))
        thread.join(KILLED_S)
        raise NotForked(why)
    for error in failed:
        if isinstance(error, (EOFError, ConnectionError)):
            how = end_of(_pid(asked), ENDED_S) or "gave up"
            raise NotForked(f"{name} {how} meanwhile, perhaps for want of memory") from None
        raise error


@contextlib.contextmanager
def _held_off() -> Iterator[None]:
    """Holds Ctrl-C off this thread, and off a server that it starts."""
    resource_tracker.ensure_running()  # multiprocessing starts it before a server, and lets Ctrl-C through after
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_of(pid: int) -> str | None:
    if pid in _silent:
        return "gave no answer and was killed"
    if not hasattr(os, "waitid"):
        return None
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # leaves it to multiprocessing
    except ChildProcessError:  # which has seen it already
        return "ended"
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return f"ended with exit status {found.si_status}"
    return f"was killed by {signal_name(found.si_status)}"


def _pid(server: forkserver.ForkServer) -> int:
    """0 where it does not run."""
    return getattr(server, "_forkserver_pid", None) or 0


def _server(number: int, preload: list[str]) -> forkserver.ForkServer:
    if number not in _servers:
        _servers[number] = forkserver.ForkServer()
        _servers[number].set_forkserver_preload(preload)
    return _servers[number]
