"""A run that was killed, met a full disk or lost a plugin, and goes on: the cases are those of an uninterrupted one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import attnbench

from .conftest import FAST, read_records
from .test_bad_input import refused
from .test_faults import PLUGIN

SWEEP = [
    *("--plugin", str(PLUGIN), "--variants", "naive,sdpa,nystrom,eats_memory,raises,mask_wrong_by_one"),
    *("--seq-lens", "32,48,64"),
]
INCORRECT = 1
"""The exit status of such a sweep: mask_wrong_by_one is incorrect, and was asked for by name."""
RUN = [sys.executable, "-P", "-m", "attnbench.bench.cli", "run"]


def statuses(folder: Path) -> dict[str, str]:
    """By case; fails where a case has two records."""
    records = [json.loads(line) for line in whole_lines(folder)]
    found = {record["case_id"]: record["status"] for record in records}
    assert len(found) == len(records), "a case has two records"
    return found


def whole_lines(folder: Path) -> list[bytes]:
    """Those that are JSON: a kill may tear one, and it is then measured again."""
    lines = []
    for line in (folder / "results.jsonl").read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            json.loads(line)
            lines.append(line)
    return lines


def marked(mark: str) -> set[int]:
    """Processes that were started with `mark` in their environment, or forked from such a one."""
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            ended = (environ.parent / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
            if not ended and mark.encode() in environ.read_bytes():
                found.add(int(environ.parent.name))
    return found


def kill_and_resume(kills: int, sweep: list[str], reference: dict[str, str], tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")  # pytest shows it where the test fails
    chance = random.Random(seed)
    folder, number = tmp_path / "killed-0", 0
    for _ in range(kills):
        mark = f"ATTNBENCH_TEST={uuid.uuid4().hex}"
        begun = (folder / "run.json").exists()
        command = [*RUN, "--resume", "--out", folder] if begun else [*RUN, *FAST, *sweep, "--out", folder]
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **dict([mark.split("=")])},
            start_new_session=True,
        ) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=chance.uniform(0, 12))
            whole_group = chance.random() < 0.5
            if process.poll() is None:
                assert marked(mark)
                os.killpg(process.pid, signal.SIGKILL) if whole_group else process.kill()
            _, err = process.communicate()
            finished = process.returncode in (0, INCORRECT)
            assert finished or process.returncode == -signal.SIGKILL, err
        patience = time.monotonic() + 30  # a fork server that still imports torch sees the end when it has done so
        while marked(mark) and time.monotonic() < patience:
            time.sleep(0.05)
        assert not marked(mark), "a process outlived the run"
        if (folder / "results.jsonl").exists():
            assert statuses(folder).items() <= reference.items()
        if finished:
            assert statuses(folder) == reference
            number += 1
            folder = tmp_path / f"killed-{number}"
    arguments = ["--resume"] if (folder / "run.json").exists() else [*FAST, *sweep]
    last = subprocess.run([*RUN, *arguments, "--out", folder], check=False, capture_output=True, timeout=300)
    assert last.returncode in (0, INCORRECT), last.stderr
    assert statuses(folder) == reference


@pytest.fixture
def reference(cli: Callable[..., Any], tmp_path: Path) -> dict[str, str]:
    """What an uninterrupted run gives."""
    answer = cli("run", *FAST, *SWEEP, "--out", tmp_path / "whole")
    assert answer.code == INCORRECT, answer.err
    found = statuses(tmp_path / "whole")
    assert len(found) == 6 * 3
    assert set(found.values()) == {"ok", "unsupported", "oom", "skipped", "crashed", "incorrect"}
    return found


linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("passes", ["1", "3"])
def test_killed_ten_times_and_resumed_gives_the_cases_of_an_uninterrupted_run(
    reference: dict[str, str], tmp_path: Path, passes: str
) -> None:
    kill_and_resume(10, [*SWEEP, "--passes", passes], reference, tmp_path, seed=random.randrange(1 << 32))


def drop(folder: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Leaves only some records, as if the run had been killed before the others."""
    path = folder / "results.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if keep(json.loads(line))))


def test_a_length_that_ran_out_before_the_kill_skips_longer_ones_after_it(
    sweep: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert sweep("--plugin", PLUGIN, "--variants", "eats_memory,naive", "--seq-lens", "32,64,128").code == 0
    whole = statuses(out)
    drop(out, lambda record: record["n_k"] == 32)
    assert cli("run", "--resume", "--out", out).code == 0
    assert statuses(out) == whole
    skipped = [r for r in read_records(out) if r["status"] == "skipped"]
    assert [r["n_k"] for r in skipped] == [64, 128]
    assert skipped[0]["reasons"] == ["ended as oom at length 32 already"]


def test_a_group_of_which_nothing_was_timed_gets_its_ratios_after_a_resume(
    sweep: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert sweep("--plugin", PLUGIN, "--variants", "naive,sdpa,nystrom,raises", "--seq-lens", "32").code == 0
    drop(out, lambda record: record["status"] != "ok")
    assert cli("run", "--resume", "--out", out).code == 0
    ratios = {r["variant"]: r["ratio"] for r in read_records(out) if r["status"] == "ok"}
    assert set(ratios) == {"naive", "sdpa"}
    assert None not in ratios.values()


def test_garbage_and_a_cut_line_cost_their_own_records_only(
    sweep: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert sweep("--variants", "naive,sdpa", "--seq-lens", "32,48").code == 0
    whole, path = statuses(out), out / "results.jsonl"
    first, second, third, fourth = path.read_bytes().splitlines(keepends=True)
    garbage = [b"\0" * 4096 + b"\n", b"\xff\xfe garbage\n", b'{"case_id": 3}\n', second[:200] + b"\n"]
    path.write_bytes(first + b"".join(garbage) + third + fourth[:-30])  # cut where a power failure might
    answer = cli("run", "--resume", "--out", out)
    assert answer.code == 0
    told = [line for line in answer.err.splitlines() if line.startswith(f"warning: {path}, line ")]
    assert [line.split(",")[1].split(":")[0] for line in told] == [f" line {n} skipped" for n in (2, 3, 4, 5, 7)]
    assert answer.out.startswith("4 cases: 4 ok.")
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[:6] == [first, *garbage, third]  # nothing that was there is touched
    with pytest.warns(attnbench.results.errors.ResultsWarning):
        frame = attnbench.load(out)
    assert dict(zip(frame["case_id"], frame["status"], strict=True)) == whole
    assert cli("report", out).code == 0


def test_a_case_that_has_two_records_counts_once(
    sweep: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert sweep("--variants", "naive,sdpa", "--seq-lens", "32").code == 0
    path = out / "results.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])
    answer = cli("run", "--resume", "--out", out)
    assert answer.out.startswith("2 cases: 2 ok."), answer.err


def test_a_plugin_that_is_gone_is_named_and_may_come_back(cli: Callable[..., Any], tmp_path: Path) -> None:
    out, plugin = tmp_path / "run", tmp_path / "mine.py"
    shutil.copy(PLUGIN, plugin)
    names = ["--plugin", plugin, "--variants", "naive,ignores_q_and_k", "--seq-lens", "32,48"]
    assert cli("run", *FAST, *names, "--out", out).code == 0
    whole = statuses(out)
    drop(out, lambda record: record["n_k"] == 32)
    kept = (out / "results.jsonl").read_bytes()
    plugin.unlink()
    refused(cli("run", "--resume", "--out", out), "mine.py", "does not exist")
    assert (out / "results.jsonl").read_bytes() == kept
    shutil.copy(PLUGIN, plugin)
    assert cli("run", "--resume", "--out", out).code == 0
    assert statuses(out) == whole


def test_a_run_resumed_elsewhere_says_what_changed(
    sweep: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert sweep("--variants", "naive", "--seq-lens", "32,48").code == 0
    path = out / "run.json"
    run = json.loads(path.read_text())
    here = run["machine"]["fingerprint"]
    drop(out, lambda record: record["n_k"] == 32)
    assert cli("run", "--resume", "--out", out).code == 0
    assert json.loads(path.read_text())["notes"] == run["notes"]  # nothing to say where nothing changed

    threads = run["machine"]["cores"] + 1
    run["machine"] |= {"cpu": "Another CPU", "cores": 512, "fingerprint": "elsewhere"}
    run["machine"]["libraries"] |= {"torch": "1.0"}
    run |= {"git_commit": "0123abcd", "cases": 3}
    run["config"]["sweep"][0]["threads"] = [threads]
    path.write_text(json.dumps(run))
    (out / "results.jsonl").write_text("")
    answer = cli("run", "--resume", "--out", out)
    assert answer.code == 0, answer.err
    after = json.loads(path.read_text())
    told = " ".join(after["notes"])
    for words in ("Another CPU became", "cores 512 became", "torch 1.0 became", "its commit 0123abcd became"):
        assert words in told
    assert f"with {threads} threads" in told
    assert "stood for 2 cases; it was 3" in told
    assert all(f"warning: {note}" in answer.err for note in after["notes"])
    assert {r["machine"] for r in read_records(out)} == {here}


def test_a_variant_that_changed_since_is_told_of(cli: Callable[..., Any], tmp_path: Path) -> None:
    out, plugin = tmp_path / "run", tmp_path / "mine.py"
    shutil.copy(PLUGIN, plugin)
    names = ["--plugin", plugin, "--variants", "naive,takes_time", "--seq-lens", "32"]
    assert cli("run", *FAST, *names, "--out", out).code == 0
    plugin.write_text(plugin.read_text().replace("pair_us: int = 1", "pair_us: int = 2"))
    assert cli("run", "--resume", "--out", out).code == 0
    assert "1 of its records were of cases" in " ".join(json.loads((out / "run.json").read_text())["notes"])


def test_a_second_run_into_a_folder_is_refused_and_the_first_goes_on(cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*RUN, *FAST, "--variants", "naive,sdpa", "--seq-lens", "32,33,34,35,36"]
    with subprocess.Popen([*command, "--out", out], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        patience = time.monotonic() + 180
        while not (out / "results.jsonl").exists() or not (out / "results.jsonl").stat().st_size:
            assert time.monotonic() < patience
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # so that it is not done too soon
        try:
            refused(cli("run", "--resume", "--out", out), "another run is writing to", "choose another --out")
            refused(cli("run", "--variants", "naive", "--seq-lens", "16", "--out", out), "holds another run already")
        finally:
            process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert len(statuses(out)) == 10


FULL_DISK = """
set -e
mount -t tmpfs -o size=16k tmpfs "$1"
set +e
shift
"$@" --out "$DISK/run"
echo "status $?"
cp "$DISK"/run/results.jsonl "$COPY"/full.jsonl
"$ATTNBENCH" -P -m attnbench.bench.cli run --resume --out "$DISK/run"
echo "status $?"
cp -r "$DISK"/run "$COPY"
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a tmpfs")
@pytest.mark.parametrize("passes", [1, 2])
def test_a_full_disk_ends_the_run_in_a_sentence_and_a_resume_goes_on(
    cli: Callable[..., Any], tmp_path: Path, passes: int
) -> None:
    """A tmpfs of 16 KiB, in a mount namespace of its own: no rights are needed where users may have one.

    The folder as it was left goes on where there is room.
    """
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    copy.mkdir()
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*alone, "mount", "-t", "tmpfs", "tmpfs", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"may not mount a tmpfs here: {error}")
    lengths = ",".join(map(str, range(16, 21)))
    command = [*RUN, *FAST, "--variants", "naive,sdpa", "--seq-lens", lengths, "--passes", str(passes)]
    result = subprocess.run(
        [*alone, "sh", "-c", FULL_DISK, "sh", disk, *command],
        env={**os.environ, "DISK": str(disk), "COPY": str(copy), "ATTNBENCH": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    told = [line for line in result.stdout.splitlines() if line.startswith("status")]
    assert told == ["status 2", "status 2"], (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    first, second = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    for sentence in (first, second):
        assert "No space left on device" in sentence
        assert f"go on with: attnbench run --resume --out {disk}/run" in sentence
    before = (copy / "full.jsonl").read_bytes()
    kept = before if passes == 1 else (copy / "run" / "passes.jsonl").read_bytes()
    assert kept.endswith(b"\n")  # no half record
    assert 2 <= len(kept.splitlines()) < 10
    assert cli("run", "--resume", "--out", copy / "run").code == 0
    assert (copy / "run" / "results.jsonl").read_bytes().startswith(before)
    assert list(statuses(copy / "run").values()) == ["ok"] * 10


@pytest.mark.usefixtures("ceilings_anew")
def test_where_the_time_went_adds_up_over_a_resume(
    sweep: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # in one process, whose calls a turn are those of all turns
    assert sweep("--variants", "naive,sdpa", "--seq-lens", "32,48", "--processes", "1").code == 0
    first = json.loads((out / "run.json").read_text())["spent_s"]
    assert set(first) == {
        *(
            "total",
            "planning",
            "ceilings",
            "recall",
            "preloading",
            "starting",
            "checking",
            "sampling",
            "weighing",
            "measured",
        )
    }
    parts = sum(seconds for what, seconds in first.items() if what not in ("total", "measured"))
    assert parts <= first["total"]
    assert 0 < first["measured"] < first["sampling"]
    # a sample is the median of a turn's parts, and at least half of these took as long
    assert first["measured"] >= sum(sum(r["samples_s"]) * r["calls_per_sample"] for r in read_records(out)) / 2
    drop(out, lambda record: record["n_k"] == 32)
    assert cli("run", "--resume", "--out", out).code == 0
    second = json.loads((out / "run.json").read_text())["spent_s"]
    assert all(second[what] > first[what] for what in first if what not in ("ceilings", "recall", "preloading"))
