"""Both sides of a comparison share cores, the next pair has others, and no thread of a process strays from them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attnbench.bench import cores

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A machine with some cores, and what it says of their siblings."""

    def made(count: int, siblings: dict[int, str] | None = None) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)))
        monkeypatch.setattr(cores, "CPUS", tmp_path)
        for core, text in (siblings or {}).items():
            folder = tmp_path / f"cpu{core}" / "topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(f"{text}\n")

    return made


def test_pairs_go_from_core_to_core(machine: Machine) -> None:
    machine(2)
    first, second, third = cores.draw(1, 3, random.Random(0))
    assert first == third
    assert sorted([*first, *second]) == [0, 1]
    assert {cores.draw(1, 1, random.Random(seed))[0][0] for seed in range(20)} == {0, 1}


def test_a_pair_has_as_many_cores_as_threads_and_none_twice(machine: Machine) -> None:
    machine(5)
    for on in cores.draw(3, 7, random.Random(0)):
        assert len(set(on)) == len(on) == 3


@pytest.mark.parametrize("threads", [2, 3])
def test_where_all_cores_are_needed_none_is_chosen(machine: Machine, threads: int) -> None:
    machine(2)
    assert cores.draw(threads, 3, random.Random(0)) == [[], [], []]


@pytest.mark.parametrize(
    ("siblings", "order"),
    [
        ({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, [0, 2, 1, 3]),
        ({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, [0, 1, 2, 3]),
        ({0: "nonsense"}, [0, 1, 2, 3]),
    ],
)
def test_second_threads_of_a_core_come_last(machine: Machine, siblings: dict[int, str], order: list[int]) -> None:
    machine(4, siblings)
    assert cores.usable() == order


def test_a_system_without_affinity_has_none_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores.draw(1, 2, random.Random(0)) == [[], []]
    assert not cores.may_keep()


def test_a_sandbox_that_refuses_affinity_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, where: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    assert not cores.may_keep()


KEPT = """
import os, sys, threading
from attnbench.bench import cores

found, go = [], threading.Event()

def look():
    go.wait()
    found.append(os.sched_getaffinity(0))

before, after = threading.Thread(target=look), threading.Thread(target=look)
before.start()
cores.keep_to([int(core) for core in sys.argv[1:]])
after.start()
go.set()
before.join(), after.join()
print([sorted(one) for one in (*found, os.sched_getaffinity(0))])
"""
"""Prints where a thread from before, one from after and the main one may run."""


@pytest.mark.skipif(
    len(cores.usable()) < 2 or not cores.may_keep(), reason="there is one core, or the system keeps no process to it"
)
def test_all_threads_of_a_process_are_kept_to_its_cores() -> None:
    all_of_them = sorted(cores.usable())
    for asked, got in (([], all_of_them), *(([core], [core]) for core in all_of_them[:2])):
        done = subprocess.run(
            [sys.executable, "-P", "-c", KEPT, *map(str, asked)], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == [got] * 3
