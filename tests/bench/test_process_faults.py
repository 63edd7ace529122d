"""What a worker can do to the harness, done for real: no print fills a disk, no process stays, no hang lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench import limits
from attnbench.bench import plan as planning
from attnbench.bench.config import build
from attnbench.bench.errors import BenchError
from attnbench.bench.plan import ask
from attnbench.bench.process import TAIL_CHARS, _uninterrupted

from .conftest import read_records
from .test_faults import PLUGIN, by_variant

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def processes(marker: str) -> set[int]:
    """Those with `marker` in their command line or for their name."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ended = folder.joinpath("stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
            words = folder.joinpath("cmdline").read_bytes() + folder.joinpath("comm").read_bytes()
            if marker.encode() in words and not ended:
                found.add(int(folder.name))
    return found


@pytest.fixture
def marker() -> Iterator[str]:
    word = uuid.uuid4().hex[:12]
    yield word
    for pid in processes(word):  # a test that fails must not leave any either
        os.kill(pid, signal.SIGKILL)


def planted(
    sweep: Callable[..., Any], *variants: str, lengths: str = "64", timeout: str = "60s"
) -> list[dict[str, Any]]:
    answer = sweep("--plugin", PLUGIN, "--variants", ",".join(variants), "--seq-lens", lengths, "--timeout", timeout)
    assert answer.code == 0, (answer.err, answer.error)
    records: list[dict[str, Any]] = answer.records
    return records


@linux
@pytest.mark.parametrize("how", ["child", "daemon", "fork", "crash", "hang"])
def test_no_process_that_a_variant_starts_outlives_it(sweep: Callable[..., Any], marker: str, how: str) -> None:
    spec = f"starts_processes(marker='{marker}',how='{how}')"
    record = by_variant(planted(sweep, "naive", spec, timeout="60s" if how != "hang" else "2s"))["starts_processes"]
    assert record["status"] == {"crash": "crashed", "hang": "timeout"}.get(how, "ok"), record["reasons"]
    assert not processes(marker)


@linux
def test_the_marker_is_found_where_processes_do_live(marker: str) -> None:
    import subprocess
    import sys

    process = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(100)  # {marker}"])
    try:
        assert processes(marker) == {process.pid}
    finally:
        process.kill()
        process.wait()
    assert not processes(marker)


def test_signals_are_named_and_threads_and_copies_do_no_harm(sweep: Callable[..., Any]) -> None:
    signals = [f"raises_a_signal(number={number})" for number in (signal.SIGILL, signal.SIGBUS, signal.SIGTERM)]
    others = ["touches_no_memory", "starts_threads", "comes_back_twice", "naive"]
    records = planted(sweep, *signals, *others)
    by_number = {r["params"]["number"]: r for r in records if r["variant"] == "raises_a_signal"}
    for name in ("SIGILL", "SIGBUS", "SIGTERM"):
        record = by_number[int(signal.Signals[name])]
        assert record["status"] == "crashed"
        assert record["reasons"] == [f"killed by {name}"]
    found = by_variant(records)
    assert found["touches_no_memory"]["status"] == "crashed"
    assert "SIGSEGV" in found["touches_no_memory"]["reasons"][0]
    for name in others[1:]:
        assert found[name]["status"] == "ok", found[name]["reasons"]
        assert len(found[name]["samples_s"]) >= 5


def test_a_hang_that_listens_to_nobody_ends_as_a_timeout(sweep: Callable[..., Any]) -> None:
    records = by_variant(planted(sweep, "ignores_sigterm", "holds_the_gil", "naive", timeout="2s"))
    assert {name: record["status"] for name, record in records.items()} == {
        "ignores_sigterm": "timeout",
        "holds_the_gil": "timeout",
        "naive": "ok",
    }


def test_memory_that_is_eaten_bit_by_bit_ends_as_an_exception(sweep: Callable[..., Any]) -> None:
    records = by_variant(planted(sweep, "eats_memory_bit_by_bit", "naive"))
    assert records["eats_memory_bit_by_bit"]["status"] == "oom"
    assert "allocate memory" in records["eats_memory_bit_by_bit"]["reasons"][0]
    assert records["naive"]["status"] == "ok"


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A control group that allows 200 MiB and no swap; skips where this user may make none."""
    name = f"attnbench-test-{os.getpid()}"
    two = (limits.CGROUPS / "cgroup.controllers").exists()
    group = limits.CGROUPS / name if two else limits.CGROUPS / "memory" / name
    try:
        group.mkdir()
        (group / ("memory.max" if two else "memory.limit_in_bytes")).write_text(str(200 << 20))
        with contextlib.suppress(OSError):
            (group / ("memory.swap.max" if two else "memory.memsw.limit_in_bytes")).write_text("0" if two else "200M")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"needs a memory control group of its own: {error}")
    yield group
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)


def test_the_kernels_killer_is_recognised(sweep: Callable[..., Any], control_group: Path) -> None:
    if limits.kernel_kills() is None:
        pytest.skip("this kernel does not count what it kills")
    spec = f"wakes_the_kernels_killer(group='{control_group}')"
    records = by_variant(planted(sweep, spec, "naive"))
    assert records["wakes_the_kernels_killer"]["status"] == "oom"
    assert records["wakes_the_kernels_killer"]["reasons"] == ["killed by the kernel for want of memory"]
    assert records["naive"]["status"] == "ok"


MEMORY_SEEN = "import os; {join}; from attnbench.bench.limits import memory_available; print(memory_available())"


def test_what_a_control_group_allows_is_all_the_memory_that_there_is(control_group: Path) -> None:
    import subprocess
    import sys

    join = f"open({str(control_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
    out = subprocess.run(
        [sys.executable, "-c", MEMORY_SEEN.format(join=join)], capture_output=True, text=True, check=True, cwd="/"
    ).stdout
    assert 100 << 20 < int(out) <= 200 << 20


def test_a_worker_that_somebody_kills_is_recorded_so(sweep: Callable[..., Any]) -> None:
    records = planted(sweep, f"raises_a_signal(number={int(signal.SIGKILL)})", "naive")
    killed = by_variant(records)["raises_a_signal"]
    assert killed["status"] == "crashed"
    assert "SIGKILL" in killed["reasons"][0]
    assert "the kernel lacked no memory" in killed["reasons"][0]


def test_without_the_kernels_count_a_kill_is_guessed_at(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnbench.bench.process.kernel_kills", lambda: None)
    killed = by_variant(planted(sweep, f"raises_a_signal(number={int(signal.SIGKILL)})"))["raises_a_signal"]
    assert killed["reasons"] == ["killed by SIGKILL, probably by the kernel for want of memory"]


@linux
def test_what_is_printed_goes_to_no_file_and_its_end_is_kept(sweep: Callable[..., Any]) -> None:
    (record,) = planted(sweep, "prints_and_exits(megabytes=40)")
    (why,) = record["reasons"]
    assert why.startswith("ended with exit status 3; its last words: yyy")
    assert why.endswith("y and so to pipe and pipe, at last")
    assert len(why) < TAIL_CHARS + 100


def test_prints_without_end_are_no_hang_of_the_harness(sweep: Callable[..., Any]) -> None:
    names = ["prints_from_c", "prints_without_end", "naive"]
    records = by_variant(planted(sweep, *names, timeout="3s"))
    assert [records[name]["status"] for name in names] == ["ok", "timeout", "ok"]


def test_the_end_of_the_fork_server_costs_only_those_that_it_had_started(sweep: Callable[..., Any]) -> None:
    records = planted(sweep, "kills_the_server", "naive", lengths="64,65", timeout="20s")
    lost = [r for r in records if r["variant"] == "kills_the_server"]
    assert {r["status"] for r in lost} == {"crashed"}
    assert all(r["reasons"][0].startswith("lost with its fork server, which") for r in lost), lost
    assert any(r["status"] == "ok" for r in records if r["variant"] == "naive")
    assert len(records) == 4


def test_a_clock_that_jumps_changes_stamps_and_no_duration(
    sweep: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datetime
    import itertools

    from attnbench.bench import scheduler
    from attnbench.bench import sweep as sweeping

    days = itertools.cycle((40, -30, 3))
    now, now_s = datetime.datetime.now, time.time

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now(tz) + datetime.timedelta(days=next(days))

    monkeypatch.setattr(scheduler, "datetime", Jumping)
    monkeypatch.setattr(sweeping, "datetime", Jumping)
    monkeypatch.setattr(time, "time", lambda: now_s() + 86400 * next(days))
    records = planted(sweep, "turns_the_clock", "naive", lengths="64,128", timeout="30s")
    assert [record["status"] for record in records] == ["ok"] * 4
    stamps = [record["started_at"] for record in records]
    assert max(stamps)[:10] > min(stamps)[:10]  # days apart: the clock did jump
    for record in records:
        assert 0 < record["time_s"] <= record["wall_s"] < 600
        assert all(0 < sample < 60 for sample in record["samples_s"])
        assert 0 < record["warmup_s"] < 60
    assert read_records(tmp_path / "run") == records


@pytest.fixture
def heeded() -> Iterator[Any]:
    """Ctrl-C raises, also where whoever runs the tests has it ignored, as a shell does for jobs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_until_a_child_has_been_started(heeded: Any) -> None:
    done: list[bool] = []

    def start() -> None:
        with _uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append(signal.getsignal(signal.SIGINT) is not heeded)

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) is heeded


def hang(state: dict[str, Any]) -> None:
    time.sleep(600)


def test_a_helper_that_hangs_before_the_first_case_ends_in_a_sentence() -> None:
    with pytest.raises(BenchError, match=r"^test_process_faults\.hang took longer than 0\.5 s: see what else"):
        ask(hang, timeout_s=0.5)


STOPS = """
import os, signal
from pathlib import Path
asked = Path({asked!r})
asked.write_text(asked.read_text() + "." if asked.exists() else ".")
if len(asked.read_text()) == {number}:
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.parametrize(("number", "name"), [(1, "resolve"), (2, "at_budgets"), (3, "describe"), (4, "cards")])
def test_a_helper_that_is_stopped_while_a_run_is_planned_ends_in_a_sentence(
    sweep: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    """Each question before the first case loads plugins, in a process of its own."""
    plugin = tmp_path / "stops.py"
    plugin.write_text(PLUGIN.read_text() + STOPS.format(asked=str(tmp_path / "asked"), number=number))
    monkeypatch.setattr(planning, "PLAN_TIMEOUT_S", 3.0)
    answer = sweep("--plugin", plugin, "--variants", "sliding_window", "--budgets", "8", "--timeout", "1s")
    assert answer.code == 2, (answer.err, answer.error)
    assert answer.err == (
        f"Error: worker.{name} took longer than 3 s: see what else keeps this machine busy, or stops its processes, "
        "and try again\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_step_of_a_case_may_have_longer_than_a_question_before_the_first() -> None:
    times = {asked: planning.planning_s(build(options={"timeout": asked})) for asked in ("2s", "90s")}
    assert times == {"2s": planning.PLAN_TIMEOUT_S, "90s": 90.0}
