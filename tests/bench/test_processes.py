"""A case's samples come from several processes, so that no figure is one process's luck."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLUGIN = '''
import os
from dataclasses import dataclass
from pathlib import Path

from attnbench.variants.api import Complexity, Supports, register
from attnbench.variants.full.naive import SoftmaxAttention

CALLS, MARK = Path({calls!r}), Path({mark!r})


@register("told", family="full", kind="exact", supports=Supports(), complexity=Complexity(2, 2, "O(N²)"), paper="none",
          formula="softmax(scale q kᵀ) v")
@dataclass(frozen=True)
class Told(SoftmaxAttention):
    """Tells which process calls it, and with which inputs; where there is a mark, the second process is killed."""

    def forward(self, q, k, v, *, causal, scale):
        if q.shape[2] == 64:  # not the recall probe
            with CALLS.open("a") as file:
                file.write(f"{{os.getpid()}} {{q.sum().item()}} {{k.sum().item()}} {{v.sum().item()}}\\n")
            if MARK.exists() and len({{line.split()[0] for line in CALLS.read_text().splitlines()}}) > 1:
                os.kill(os.getpid(), 9)
        scores = (q * scale) @ k.mT
        return scores.masked_fill(scores.new_ones(scores.shape[-2:]).triu(1).bool(), float("-inf")).softmax(-1) @ v
'''


@pytest.fixture
def told(tmp_path: Path) -> Path:
    path = tmp_path / "told.py"
    path.write_text(PLUGIN.format(calls=str(tmp_path / "calls"), mark=str(tmp_path / "mark")), encoding="utf-8")
    return path


@pytest.mark.parametrize(("inputs", "processes"), [("gaussian", 1), ("gaussian", 3), ("structured", 2)])
def test_each_process_has_its_share_of_the_rounds_and_the_same_inputs(
    sweep: Callable[..., Any], told: Path, inputs: str, processes: int
) -> None:
    options = ("--plugin", str(told), "--inputs", inputs, "--processes", str(processes))
    records = sweep("--variants", "told,sdpa", "--seq-lens", "64", *options).records
    found = {(r["variant"], r["status"], r["processes"], len(r["samples_s"]) >= 8) for r in records}
    assert found == {("told", "ok", processes, True), ("sdpa", "ok", processes, True)}
    spent = json.loads((told.parent / "run" / "run.json").read_text(encoding="utf-8"))["spent_s"]
    assert ("renewing" in spent) is (processes > 1)
    calls = [line.split() for line in (told.parent / "calls").read_text().splitlines()]
    assert len({call[0] for call in calls}) == processes
    assert len({tuple(call[1:]) for call in calls}) == 1
    assert records[0]["inputs_effective_keys"] == records[1]["inputs_effective_keys"]


@pytest.mark.parametrize(("end", "case_time", "max_rounds"), [("time", "2s", 10000), ("rounds", "100s", 60)])
def test_none_takes_more_than_its_share_of_further_rounds_either(
    sweep: Callable[..., Any], told: Path, end: str, case_time: str, max_rounds: int
) -> None:
    """Where the interval is too wide, rounds go on for the case's time or to their end; no process may take most."""
    config = told.parent / "long.toml"
    config.write_text(f"precision = 1e-6\nmin_rounds = 6\nmax_rounds = {max_rounds}\nprocesses = 3\npatience = 0\n")
    asked = (config, "--case-time", case_time, "--plugin", str(told), "--variants", "told", "--seq-lens", "64")
    (record,) = sweep(*asked).records
    assert (record["status"], record["stopped_by"]) == ("ok", end)
    assert 4 <= record["processes"] <= 6
    if end == "rounds":
        assert record["rounds_per_process"] == [2, 2, 20, 20, 16]
    calls = [line.split()[0] for line in (told.parent / "calls").read_text().splitlines()]
    counts = {pid: calls.count(pid) for pid in set(calls)}
    assert len(counts) == record["processes"]
    assert max(counts.values()) < 0.6 * len(calls)


def test_a_long_call_has_one_process(sweep: Callable[..., Any], told: Path) -> None:
    slow = told.read_text().replace(
        "scores = (q", "import time; time.sleep(0.16 if q.shape[2] == 64 else 0)\n        scores = (q"
    )
    told.write_text(slow)
    options = ("--plugin", str(told), "--processes", "2")
    records = sweep("--variants", "told,sdpa", "--seq-lens", "64", *options).records
    assert {r["variant"]: (r["status"], r["processes"]) for r in records} == {"told": ("ok", 1), "sdpa": ("ok", 2)}


def test_what_an_earlier_process_wrote_is_found(sweep: Callable[..., Any], told: Path) -> None:
    """The first of two processes writes into its inputs after the check; the second, which is weighed, does not."""
    writes = """
            calls = [line.split()[0] for line in CALLS.read_text().splitlines()]
            if len(set(calls)) == 1 and len(calls) > 3:
                v.data[..., -1, :].mul_(0.5)
"""
    told.write_text(told.read_text().replace("            if MARK", f"{writes}            if MARK"))
    options = ("--plugin", str(told), "--processes", "2")
    found = {r["variant"]: r for r in sweep("--variants", "told,sdpa", "--seq-lens", "64", *options).records}
    assert (found["told"]["status"], found["sdpa"]["status"]) == ("incorrect", "ok")
    assert found["told"]["reasons"] == ["writes into its input v, at a call after that which was checked"]


def test_what_dies_in_a_later_process_is_recorded_and_the_rest_goes_on(sweep: Callable[..., Any], told: Path) -> None:
    (told.parent / "mark").touch()
    options = ("--plugin", str(told), "--processes", "2")
    found = {r["variant"]: r for r in sweep("--variants", "told,sdpa", "--seq-lens", "64", *options).records}
    assert (found["told"]["status"], found["sdpa"]["status"]) == ("crashed", "ok")
    assert "SIGKILL" in found["told"]["reasons"][0]
    assert found["sdpa"]["processes"] == 2


def test_decode_steps_and_training_change_processes_too(sweep: Callable[..., Any]) -> None:
    modes = ("--variants", "sdpa,gla", "--seq-lens", "64", "--modes", "decode,train", "--processes", "2")
    records = sweep(*modes).records
    assert {(r["mode"], r["status"], r["processes"]) for r in records} == {("decode", "ok", 2), ("train", "ok", 2)}


def test_a_batch_of_unlike_requests_has_one_process(sweep: Callable[..., Any]) -> None:
    (record,) = sweep("--variants", "sdpa", "--batch-spec", "2q8_1q1s9", "--processes", "2").records
    assert (record["status"], record["processes"]) == ("ok", 1)
