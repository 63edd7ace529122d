"""Fork servers that are stopped or killed, done for real: no start hangs, and what was lost with a server says so."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from attnbench.bench import fork_servers, process
from attnbench.bench.process import Child, Died, isolated, ready

from .test_faults import by_variant
from .test_fork_servers import parent
from .test_process_faults import linux

NUMBERS = itertools.count(100)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The number of a server that no other test asks, and that imports no torch: it starts at once."""
    monkeypatch.setattr(process, "PRELOAD", "attnbench.bench.keeper")
    number = next(NUMBERS)
    yield number
    with contextlib.suppress(ProcessLookupError, KeyError):
        os.kill(pid_of(number), signal.SIGKILL)


def pid_of(server: int) -> int:
    return fork_servers._pid(fork_servers._servers[server])


def kill(server: int) -> int:
    """Kills it and waits for its end: until then multiprocessing takes it for alive, and asks it. Returns its pid."""
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # leaves it to multiprocessing, as fork_servers does
    return pid


def exits(state: dict[str, Any], code: int) -> None:
    print("good-bye", flush=True)
    os._exit(code)


def hangs(state: dict[str, Any]) -> None:
    time.sleep(600)


@linux
def test_a_server_that_is_stopped_is_given_up_and_the_next_is_another(server: int) -> None:
    assert isolated(ready, server=server)
    stopped, began = pid_of(server), time.monotonic()
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(Died) as raised:
        Child(server, timeout_s=0.5)
    assert raised.value.why == (
        f"not started: fork server {server + 1} gave no process within 0.5 s, as one that is stopped, and was killed"
    )
    assert time.monotonic() - began < 5
    assert isolated(ready, server=server)
    assert pid_of(server) != stopped
    assert parent(stopped) is None


@linux
def test_a_server_that_starts_has_longer_than_a_step_of_a_case(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PRELOAD", "torch")  # which takes a second
    with closing(Child(server, timeout_s=0.1)) as child:
        assert child.call(ready)
    monkeypatch.setattr(fork_servers, "START_S", 0.3)
    kill(server)
    with pytest.raises(Died, match=r"gave no process within 0\.3 s"):
        Child(server)


@linux
def test_a_process_whose_server_is_stopped_can_be_ended(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.3)
    one, other = Child(server), Child(server)
    assert one.call(ready)
    assert other.call(ready)
    os.kill(pid_of(server), signal.SIGSTOP)
    with pytest.raises(Died, match=r"^lost with its fork server, which gave no answer and was killed: how"):
        one.call(exits, 3, timeout_s=20)
    other.close()
    assert isolated(ready, server=server)


STOPPED = """
import os, signal
from attnbench.bench import fork_servers, process
process.PRELOAD = "attnbench.bench.keeper"
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored outside
process.isolated(process.ready)
os.kill(fork_servers._pid(fork_servers._servers[0]), signal.SIGSTOP)
print("stopped", flush=True)
try:
    process.isolated(process.ready)
except KeyboardInterrupt:
    print("interrupted")
"""


@linux
def test_ctrl_c_ends_a_start_that_hangs() -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", STOPPED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == "stopped\n"
            time.sleep(0.5)
            one.send_signal(signal.SIGINT)
            assert one.communicate(timeout=3 * fork_servers.PRESSED_S) == ("interrupted\n", "")
        finally:
            one.kill()


ORPHAN = """
import os, time
from attnbench.bench import keeper
server = os.getpid()
if not os.fork():
    while os.getppid() == server:
        time.sleep(0.001)
    keeper.split()
    print("lived", flush=True)
"""


@linux
def test_a_process_whose_server_died_before_it_could_be_told_ends_too() -> None:
    """The signal of a parent's death is asked for by the child: it comes no more where that has happened already."""
    done = subprocess.run([sys.executable, "-P", "-c", ORPHAN], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("", "")


@linux
def test_what_is_lost_with_a_server_is_told_from_what_ends_by_itself(server: int) -> None:
    with closing(Child(server)) as child, pytest.raises(Died) as raised:
        child.call(exits, process.LOST, timeout_s=20)
    assert raised.value.why == "ended with exit status 255; its last words: good-bye"
    with closing(Child(server)) as child:
        assert child.call(ready)
        kill(server)
        with pytest.raises(Died) as raised:
            child.call(hangs, timeout_s=20)
    assert raised.value.why == (
        "lost with its fork server, which was killed by SIGKILL: how it ended itself is unknown"
    )
    with closing(Child(server)) as child:
        first = kill(server)
        with closing(Child(server)), pytest.raises(Died, match=r"^lost with its fork server, which ended: how"):
            child.call(hangs, timeout_s=20)
        assert pid_of(server) != first


@linux
def test_a_server_that_ends_while_it_starts_a_process_costs_that_one(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isolated(ready, server=server)
    asked = fork_servers._servers[server]
    seen_to = asked.ensure_running

    def killed_then() -> None:
        seen_to()
        kill(server)

    with monkeypatch.context() as patch:
        patch.setattr(asked, "ensure_running", killed_then)
        with pytest.raises(Died, match=f"^not started: fork server {server + 1} was killed by SIGKILL meanwhile"):
            Child(server)
    assert isolated(ready, server=server)


@pytest.mark.slow
@linux
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_sweep_goes_on_without_a_server(
    sweep: Callable[..., Any], before_asking: Callable[..., None], number: signal.Signals
) -> None:
    """The first case loses the server that its process comes from, or that its second would come from."""
    done: list[str] = []

    def lose(turn: Any, step: str, may_wait: bool) -> None:
        if not done and step == ("look_back" if number == signal.SIGSTOP else "sample"):
            done.append(turn.case.variant)
            os.kill(pid_of(1 if number == signal.SIGSTOP else 0), number)

    before_asking(lose)
    options = ("--seq-lens", "64,65", "--processes", "2", "--timeout", "4s")
    answer = sweep("--variants", "naive", *options)
    assert answer.code == 0, (answer.err, answer.error)
    lost, other = answer.records
    assert by_variant([lost])[done[0]]["status"] == "crashed"
    assert "fork server" in lost["reasons"][0]
    assert "SIGKILL" in lost["reasons"][0] or "gave no process within 4 s" in lost["reasons"][0]
    assert (other["status"], other["processes"]) == ("ok", 2)
