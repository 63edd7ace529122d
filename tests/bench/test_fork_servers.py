"""A case's processes come from fork servers of their own, which do not share where things lie in memory."""

from __future__ import annotations

import os
import sys
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
