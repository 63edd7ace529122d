"""A case's processes come from fork servers of their own, which do not share where things lie in memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench.asking import Asking
from attnbench.bench.process import isolated


def lies(state: dict[str, Any]) -> tuple[int, int, tuple[str, ...], str | None]:
    """The fork server, the seed of hashes and the addresses of libraries that a process has."""
    with open("/proc/self/maps") as maps:
        torch = tuple(line.split("-")[0] for line in maps if "libtorch_cpu" in line)
    keeper = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
    return int(keeper[1]), hash("attention"), torch, os.environ.get("PYTHONSAFEPATH")


linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")


@linux
def test_processes_of_one_server_lie_alike_and_those_of_another_do_not() -> None:
    first, again, other, another = (isolated(lies, server=server) for server in (0, 0, 1, 1))
    assert first == again
    assert other == another
    assert first[0] != other[0]
    assert first[1] != other[1] or "PYTHONHASHSEED" in os.environ
    assert first[2]
    assert first[2] != other[2] or Path("/proc/sys/kernel/randomize_va_space").read_text().strip() == "0"
    assert (first[3], other[3]) == ("1", "1")


@linux
def test_several_threads_get_processes_of_the_server_that_they_ask_for() -> None:
    numbers, main = [0, 1, 1, 0, 1, 0, 0, 1], sys.modules["__main__"]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: isolated(lies, server=number)[0], numbers))
    assert len(set(zip(numbers, found, strict=True))) == 2
    assert sys.modules["__main__"] is main


@linux
def test_each_of_a_case_s_processes_comes_from_another(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[tuple[str, int]] = []
    ask = Asking.__call__

    def asking(self: Asking, turn: Any, function: Any, *args: Any, may_wait: bool = False) -> Any:
        if function.__name__ in ("set_up", "set_up_again"):
            came.append((turn.case.variant, turn.child.call(lies)[0]))
        return ask(self, turn, function, *args, may_wait=may_wait)

    monkeypatch.setattr(Asking, "__call__", asking)
    records = sweep("--variants", "sdpa,naive", "--seq-lens", "64", "--processes", "3").records
    assert [record["processes"] for record in records] == [3, 3]
    of_sdpa, of_naive = ([server for name, server in came if name == variant] for variant in ("sdpa", "naive"))
    assert of_sdpa == of_naive
    assert len(set(of_sdpa)) == 3


INTERRUPTED = """
import signal
from attnbench.bench.process import isolated, ready, start_servers
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored outside
try:
    start_servers(2)
    isolated(ready, server=1)
except KeyboardInterrupt:
    print("stopped")
"""


def servers_of(session: int) -> int:
    """How many fork servers there are of a session."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            its = folder.joinpath("stat").read_text(errors="replace").rpartition(")")[2].split()[3]
            found += int(its) == session and b"multiprocessing.forkserver" in folder.joinpath("cmdline").read_bytes()
    return found


@linux
def test_ctrl_c_prints_nothing_of_what_servers_import_meanwhile() -> None:
    """A terminal sends it to all of its processes."""
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        patience = time.monotonic() + 60
        while servers_of(process.pid) < 2:
            assert time.monotonic() < patience
            time.sleep(0.01)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("stopped\n", "")
