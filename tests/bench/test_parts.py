"""A group that does not fit into memory side by side, and what processes do with memory that they freed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from attnbench.bench import scheduler

from .test_faults import PLUGIN, by_variant


def test_a_group_that_does_not_fit_is_measured_in_parts_beside_one_baseline(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "HELD_SHARE", -1.0)  # as if any memory held were too much
    answer = sweep("--variants", "linear_elu,naive,sdpa,sliding_window", "--seq-lens", "64")
    records = by_variant(answer.records)
    assert len(answer.records) == len(records) == 4
    assert {record["status"] for record in records.values()} == {"ok"}
    assert {record["baseline"] for record in records.values()} == {"naive"}  # the first exact one had a part for itself
    assert records["naive"]["ratio"] == 1.0
    assert not any("part" in reason for reason in records["naive"]["reasons"])
    for part, name in enumerate(("sdpa", "linear_elu", "sliding_window"), start=2):
        assert 0 < records[name]["ratio_low"] <= records[name]["ratio"] <= records[name]["ratio_high"]
        (note,) = (reason for reason in records[name]["reasons"] if "part" in reason)
        assert f"part {part} of its group, beside naive alone" in note


def test_what_runs_out_of_memory_beside_others_is_tried_again_without_them(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, before_asking: Callable[..., None]
) -> None:
    monkeypatch.setattr(scheduler, "LITTLE_SHARE", -1.0)
    tries = []

    def count(turn: Any, step: str, may_wait: bool) -> None:
        if turn.case.variant == "eats_memory" and step == "set_up":
            tries.append(may_wait)

    before_asking(count)
    answer = sweep("--plugin", PLUGIN, "--variants", "naive,eats_memory,ignores_q_and_k", "--seq-lens", "64")
    records = by_variant(answer.records)
    assert tries == [True, False]
    assert len(answer.records) == 3
    assert records["eats_memory"]["status"] == "oom"
    assert records["naive"]["status"] == records["ignores_q_and_k"]["status"] == "ok"


REPEATED = """
import resource, sys, torch
from attnbench.bench import memory
if sys.argv[1] == "keep":
    assert memory.keep_heap()
def call():
    return [torch.ones(40 << 20, dtype=torch.uint8) for _ in range(2)]
for _ in range(10):
    call()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    call()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
before = memory.resident()
memory.trim_heap()
print(before - memory.resident() > 60 << 20)
"""


def faults(how: str) -> tuple[int, bool]:
    out = subprocess.run([sys.executable, "-c", REPEATED, how], capture_output=True, text=True, check=True).stdout
    return int(out.split()[0]), out.split()[1] == "True"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_kept_memory_is_not_mapped_again_and_can_be_given_back() -> None:
    fresh, _ = faults("system")
    kept, given_back = faults("keep")
    assert kept < fresh / 50, (kept, fresh)
    assert given_back
