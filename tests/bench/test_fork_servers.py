"""A case's processes come from fork servers of their own, which do not share where things lie in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from attnbench.bench.process import isolated

from .test_process_faults import linux, processes


def parent(pid: int) -> int | None:
    """None of a process that has just ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return None


def lies(state: dict[str, Any]) -> tuple[int | None, int, tuple[str, ...], str | None]:
    """The fork server, the seed of hashes and the addresses of libraries that a process has."""
    with open("/proc/self/maps") as maps:
        torch = tuple(line.split("-")[0] for line in maps if "libtorch_cpu" in line)
    return parent(os.getppid()), hash("attention"), torch, os.environ.get("PYTHONSAFEPATH")


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
    sweep: Callable[..., Any], before_asking: Callable[..., None]
) -> None:
    came: list[tuple[str, int]] = []

    def see(turn: Any, step: str, may_wait: bool) -> None:
        if step in ("set_up", "set_up_again"):
            came.append((turn.case.variant, turn.child.call(lies)[0]))

    before_asking(see)
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
        patience = time.monotonic() + 180
        while sum(parent(pid) == process.pid for pid in processes("multiprocessing.forkserver")) < 2:
            assert time.monotonic() < patience
            time.sleep(0.01)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("stopped\n", "")
