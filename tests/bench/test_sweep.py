"""A sweep end to end: every case one record, figures that fit together, ratios paired within a group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnbench

from .conftest import FAST, read_records


def test_every_case_has_exactly_one_record(sweep: Callable[..., Any], tmp_path: Path) -> None:
    answer = sweep("--variants", "naive,sdpa,nystrom,xformers", "--seq-lens", "40,70", "--modes", "forward,train")
    assert answer.code == 0, answer.err
    records = answer.records
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["cases"] == len(records) == len({r["case_id"] for r in records}) == 4 * 2 * 2
    assert run["finished_at"] is not None
    statuses = {(r["variant"], r["status"]) for r in records}
    assert ("naive", "ok") in statuses
    assert ("nystrom", "unsupported") in statuses  # it has no causal form
    assert all(r["reasons"] for r in records if r["status"] != "ok")
    assert json.loads(answer.out)["statuses"]["ok"] == sum(r["status"] == "ok" for r in records)


def test_figures_fit_together(sweep: Callable[..., Any]) -> None:
    records = sweep("--variants", "naive,sdpa,linear_elu", "--seq-lens", "200").records
    assert len({r["group_id"] for r in records}) == 1
    exact = [r for r in records if r["kind"] == "exact"]
    fastest = min(exact, key=lambda r: r["time_s"])
    samples = {r["variant"]: r["samples_s"] for r in records}
    for r in records:
        assert r["status"] == "ok"
        assert r["time_s"] == pytest.approx(np.median(r["samples_s"]))
        assert r["time_s_low"] <= r["time_s"] <= r["time_s_high"]
        assert r["tokens_per_s"] == pytest.approx(200 / r["time_s"])
        assert r["baseline"] == fastest["variant"]
        shared = min(len(r["samples_s"]), len(samples[r["baseline"]]))
        pairs = np.divide(r["samples_s"][:shared], samples[r["baseline"]][:shared])
        assert r["ratio"] == pytest.approx(np.median(pairs))
        assert r["ratio_low"] <= r["ratio"] <= r["ratio_high"]
        assert len(r["samples_s"]) >= 5
        assert 0 < r["ceiling_share"] < 1
        assert r["error"] <= r["error_allowed"]
        assert r["checked_rows"] == 200
        assert r["peak_bytes"] > 0
        assert r["flops"] > 0
    assert fastest["ratio"] == 1.0


def test_approximate_variants_have_fidelity_and_others_none(sweep: Callable[..., Any]) -> None:
    records = sweep("--variants", "naive,sliding_window(window_size=8),linear_elu", "--seq-lens", "64").records
    found = {r["variant"]: r for r in records}
    assert found["sliding_window"]["params"]["window_size"] == 8
    assert found["sliding_window"]["fidelity_error"] > 0.1
    assert -1 <= found["sliding_window"]["fidelity_cosine"] < 1
    assert found["sliding_window"]["fidelity_error_uniform"] > 0
    assert found["naive"]["fidelity_error"] is None
    assert found["linear_elu"]["fidelity_error"] is None


def test_the_state_of_decoding_is_weighed_where_there_is_one(sweep: Callable[..., Any]) -> None:
    """In float32, 2 heads of 16, keys and values: 256 bytes a token; the sums of linear attention stay as they are."""
    names = "sdpa,sliding_window(window_size=32),linear_elu,nystrom"
    records = sweep("--variants", names, "--seq-lens", "64,128").records
    state = {(r["variant"], r["causal"], r["n_k"]): r["state_bytes"] for r in records}
    assert [state["sdpa", True, n] for n in (64, 128)] == [64 * 256, 128 * 256]
    assert [state["sliding_window", True, n] for n in (64, 128)] == [32 * 256, 32 * 256]
    assert [state["linear_elu", True, n] for n in (64, 128)] == [2 * 4 * (16 * 16 + 16)] * 2
    assert all(bytes_ is None for (name, _, _), bytes_ in state.items() if name == "nystrom")


def test_the_same_case_asked_for_twice_is_measured_once(sweep: Callable[..., Any]) -> None:
    assert len(sweep("--variants", "naive,naive()", "--seq-lens", "32,32").records) == 1


def test_a_device_that_is_not_here_is_recorded_not_dropped(sweep: Callable[..., Any]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    records = sweep("--variants", "naive", "--seq-lens", "32", "--devices", "cpu,cuda").records
    assert {r["device"]: r["status"] for r in records} == {"cpu": "ok", "cuda": "unsupported"}


def test_a_used_up_time_budget_skips_the_rest(sweep: Callable[..., Any]) -> None:
    answer = sweep("--variants", "naive", "--seq-lens", "32,64,128", "--time-budget", "0.001s")
    assert [r["status"] for r in answer.records] == ["skipped"] * 3
    assert "time budget" in answer.records[0]["reasons"][0]


def test_what_is_measured_after_a_resume_gets_no_ratio_to_what_was_before(
    sweep: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert sweep("--variants", "naive,sdpa", "--seq-lens", "32").code == 0
    path = out / "results.jsonl"
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + second[:400])  # torn by a crash
    assert cli("run", "--resume", "--out", out).code == 0
    kept, torn, anew = path.read_text().splitlines(keepends=True)
    assert (kept, torn) == (first, second[:400] + "\n")
    assert json.loads(anew)["status"] == "ok"
    assert json.loads(anew)["ratio"] is None
    assert cli("report", out).code == 0


def test_grouped_heads_and_batch_reach_the_variant(sweep: Callable[..., Any]) -> None:
    (record,) = sweep(
        "--variants", "naive", "--seq-lens", "32", "--heads", "4", "--kv-heads", "2", "--batch", "3"
    ).records
    assert (record["batch"], record["heads"], record["kv_heads"]) == (3, 4, 2)
    assert record["flops"] == 4 * 3 * 4 * 32 * 32 * 16


def test_a_toml_file_with_sweeps_and_options_on_top(cli: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        'variants = ["naive"]\nheads = 2\nhead_dim = 8\nthreads = [1]\ncase_time = "0.02s"\n'
        '[[sweep]]\nseq_lens = [16, 32]\n[[sweep]]\nmodes = ["train"]\nseq_lens = [24]\n'
    )
    answer = cli("run", config, "--heads", "1", "--out", tmp_path / "r", "--json")
    assert answer.code == 0, answer.err
    assert sorted((r["mode"], r["n_q"], r["heads"]) for r in answer.records) == [
        ("forward", 16, 1),
        ("forward", 32, 1),
        ("train", 24, 1),
    ]


def test_the_python_interface(tmp_path: Path) -> None:
    folder = attnbench.run(
        variants=["naive"], seq_lens=[16], heads=1, head_dim=8, threads=[1], case_time=0.02, out=tmp_path / "r"
    )
    frame = attnbench.load(folder)
    assert frame["status"].tolist() == ["ok"]


def start(out: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "attnbench.bench.cli", "run", *FAST, "--out", str(out), *args]
    # a shell's background job ignores Ctrl-C, and so would what it starts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


LONG = ["--variants", "naive,sdpa", "--seq-lens", ",".join(map(str, range(64, 88))), "--case-time", "0.1s"]


def wait_for_records(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not (out / "results.jsonl").exists() or len(read_records(out)) < count:
        assert time.monotonic() < deadline, "the run wrote no records"
        time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def alive(pids: set[int]) -> set[int]:
    return {
        pid
        for pid in pids
        if Path(f"/proc/{pid}").exists()
        and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    }


@pytest.mark.slow
def test_kill_9_keeps_all_finished_records_leaves_no_process_and_can_be_resumed(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(out, *LONG)
    wait_for_records(out, 6)
    family = descendants(process.pid)
    assert family
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while alive(family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(family)
    before = read_records(out)
    assert len(before) >= 6
    assert len(attnbench.load(out)) == len(before)
    answer = cli("report", out, "--json")
    assert answer.code == 0, answer.err
    assert cli("run", "--resume", "--out", out).code == 0
    after = read_records(out)
    assert after[: len(before)] == before
    assert len(after) == len({r["case_id"] for r in after}) == 48
    assert json.loads((out / "run.json").read_text())["finished_at"]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(out, *LONG)
    wait_for_records(out, 4)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"--resume --out {out}" in err
    assert "Traceback" not in err
    assert len(read_records(out)) >= 4
    assert json.loads((out / "run.json").read_text())["finished_at"] is None
