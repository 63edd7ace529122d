"""Several fork servers, since what is forked from one shares where it lies in memory.

Addresses and the seed of hashes are drawn when a program starts, not when it forks. Calls of many small operations
take some percent more or less for them: of six servers with three processes each, all in turns, the medians of
`gated_delta` at length 1024 lay up to 3.8 % apart; their standard deviation was 1.3 % from server to server, and .3 %
within one. All processes of one server are one draw of that luck, and their interval does not tell of it: Mytkowicz et
al. 2009, "Producing Wrong Data Without Doing Anything Obviously Wrong!".
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker

_servers: dict[int, forkserver.ForkServer] = {}
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Servers start, and give processes, by one thread at a time.

    Ctrl-C reaches all processes of a terminal: a server that starts meanwhile holds it off for good, where it would
    print at which import it was interrupted. Here it comes at the end.
    """
    with _one_at_a_time:
        resource_tracker.ensure_running()  # multiprocessing starts it before a server, and lets Ctrl-C through after
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(count: int, preload: list[str]) -> None:
    """Starts so many servers side by side, where they do not run, without waiting for what they import: the modules of
    `preload`."""
    for number in range(count):
        _server(number, preload).ensure_running()


@contextlib.contextmanager
def forking(server: int, preload: list[str]) -> Iterator[None]:
    """Has what is started meanwhile by multiprocessing's method `forkserver` come from the server of that number, which
    is started where it does not run."""
    with starting():
        before = forkserver.connect_to_new_process  # multiprocessing knows of one server, and asks this for a process
        forkserver.connect_to_new_process = _server(server, preload).connect_to_new_process
        try:
            yield
        finally:
            forkserver.connect_to_new_process = before


def _server(number: int, preload: list[str]) -> forkserver.ForkServer:
    if number not in _servers:
        _servers[number] = forkserver.ForkServer()
        _servers[number].set_forkserver_preload(preload)
    return _servers[number]
