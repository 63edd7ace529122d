"""What is no regular file, or may not be read, is refused in a sentence: nobody waits for a pipe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .two_runs import Write, records

WITHOUT_ALL_RIGHTS = ["setpriv", *(f"--{of}=-dac_override,-dac_read_search" for of in ("inh-caps", "bounding-set"))]
"""The superuser reads everything: these are what it does so by."""
READERS = [["compare"], ["table"], ["report"], ["recommend", "--seq-len", "512"]]


def told(*arguments: object, under: list[str] | None = None) -> str:
    """The sentence that a command refuses by; in a process of its own, which can be ended where it waits."""
    command = [*(under or []), sys.executable, "-P", "-m", "attnbench.bench.cli", *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 2, answer
    assert "Traceback" not in answer.stderr
    return answer.stderr.splitlines()[-1]


def of(command: list[str], run: Path) -> list[Path]:
    """The runs that a command is asked about: one, or one against itself."""
    return [run, run] if command == ["compare"] else [run]


@pytest.mark.parametrize("file", ["run.json", "results.jsonl"])
@pytest.mark.parametrize("command", [*READERS, ["run", "--resume", "--out"]], ids=lambda command: command[0])
def test_a_pipe_in_place_of_a_file_is_refused(write: Write, command: list[str], file: str) -> None:
    run = write("run", records(0))
    (run / file).unlink()
    os.mkfifo(run / file)
    assert f"{run / file}: it is not a regular file; remove it" in told(*command, *of(command, run))


def test_a_pipe_in_a_new_folder_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "results.jsonl")
    sentence = told("run", "--variants", "naive", "--seq-lens", "16", "--out", tmp_path)
    assert f"cannot write to {tmp_path / 'results.jsonl'}: it is not a regular file" in sentence


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
@pytest.mark.parametrize("shut", [".", "run", "run/results.jsonl"])
def test_a_run_that_may_not_be_read_is_refused(write: Write, command: list[str], shut: str) -> None:
    run = write("run", records(0))
    under = WITHOUT_ALL_RIGHTS if os.geteuid() == 0 else []
    if under and not shutil.which("setpriv"):
        pytest.skip("the superuser may read everything, and setpriv is not there to take that from it")
    place = run.parent / shut
    place.chmod(0)
    try:
        sentence = told(*command, *of(command, run), under=under)
    finally:
        place.chmod(0o700)
    assert f"cannot read {run}" in sentence
    assert "Permission denied; make it readable, or name another run" in sentence


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_a_link_to_itself_is_refused(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in told(*command, *of(command, tmp_path / "loop"))
