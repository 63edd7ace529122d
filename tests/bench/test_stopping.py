"""SIGTERM and SIGHUP stop a command as Ctrl-C does: nothing is left behind, and a sentence says what is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import FAST, read_records
from .test_faults import PLUGIN
from .test_resume import RUN
from .test_sweep import LONG, alive, descendants, start, wait_for_records

WAITS = """
import time
from pathlib import Path
Path({mark!r}).touch()
time.sleep(600)
"""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for temporary files: the name of a socket in it, as fork servers have, may be of 107 bytes."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def seen(condition: Callable[[], object]) -> None:
    patience = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.02)


def heeding() -> None:
    """A shell has its jobs in the background ignore Ctrl-C, and nohup SIGHUP: what is started here does not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_stopped_while_it_is_planned_leaves_nothing(
    tmp_path: Path, short_path: Path, number: signal.Signals
) -> None:
    plugin, mark = tmp_path / "waits.py", tmp_path / "mark"
    plugin.write_text(PLUGIN.read_text() + WAITS.format(mark=str(mark)))
    command = [*RUN, "--plugin", str(plugin), "--variants", "naive", "--out", str(tmp_path / "run")]
    environ = {**os.environ, "TMPDIR": str(short_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ, preexec_fn=heeding) as process:
        try:
            seen(mark.exists)
            assert [path.name for path in short_path.glob("attnbench-*")]
            family = descendants(process.pid)
            process.send_signal(number)
            process.send_signal(number)  # as `timeout` does: to the process, and to its group
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 128 + number
    assert err == "stopped while it was planned, before a case was measured; give the command again\n"
    assert not list(short_path.iterdir())
    seen(lambda: not alive(family))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_done_is_kept_and_a_sentence_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    process = start(out, *LONG)
    wait_for_records(out, 4)
    family = descendants(process.pid)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err.startswith("stopped: ")
    assert err.endswith(f"go on with: attnbench run --resume --out {out}\n")
    assert len(read_records(out)) >= 4
    seen(lambda: not alive(family))


@pytest.mark.slow
def test_a_run_under_nohup_goes_on_when_its_terminal_closes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["nohup", *RUN, *FAST, "--variants", "sdpa", "--seq-lens", "64,65,66", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as one:
        try:
            seen((out / "run.json").exists)
            while one.poll() is None:
                os.killpg(one.pid, signal.SIGHUP)
                time.sleep(0.5)
        finally:
            one.kill()
    assert one.returncode == 0
    assert {record["status"] for record in read_records(out)} == {"ok"}


SCRIPT = """
import os, signal, sys
from attnbench.bench.stopping import stopped_as_by_ctrl_c
number = int(sys.argv[1])
@stopped_as_by_ctrl_c()
def command():
    try:
        if number:
            os.kill(os.getpid(), number)
    finally:
        if number:
            os.kill(os.getpid(), number)
        print("tidied up", flush=True)
    sys.exit(int(sys.argv[2]))
command()
"""


@pytest.mark.parametrize(
    ("number", "status", "code", "told"),
    [
        (0, 1, 1, ""),
        (0, 130, 130, ""),
        (signal.SIGTERM, 1, 143, "stopped by SIGTERM\n"),
        (signal.SIGHUP, 1, 129, "stopped by SIGHUP\n"),
    ],
)
def test_a_command_ends_in_the_status_of_the_signal(number: int, status: int, code: int, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, str(int(number)), str(status)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=heeding,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "tidied up\n", told)
