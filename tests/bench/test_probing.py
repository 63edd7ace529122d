"""The recall probe inside of a sweep, and as a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import attnbench
from attnbench.bench.recall import as_fields, probe
from attnbench.results.record import RECALL

from .conftest import read_records

FIGURES = [name for name in RECALL if name != "recall_why_not"]

PLUGIN = """
from dataclasses import dataclass

import os
import torch
from attnbench.variants.api import Complexity, Supports, register
from attnbench.variants.full.naive import Naive


def faulty(name):
    return register(name, family="full", kind="exact", supports=Supports(), complexity=Complexity(2, 2, "O(N²)"),
                    paper="none", formula="none")


def probed(q):
    return q.shape[0] > 8  # as many questions; the sweep asks one batch entry


@faulty("raises_when_asked")
@dataclass(frozen=True)
class Raises(Naive):
    def definition(self, q, k, v, **options):
        if probed(q):
            raise RuntimeError("not today")
        return super().definition(q, k, v, **options)


@faulty("dies_when_asked")
@dataclass(frozen=True)
class Dies(Naive):
    def definition(self, q, k, v, **options):
        if probed(q):
            os._exit(3)
        return super().definition(q, k, v, **options)
"""


def test_every_record_of_a_variant_says_what_it_recalls(sweep: Callable[..., Any], tmp_path: Path) -> None:
    records = sweep("--variants", "nystrom,sliding_window(window_size=16)", "--seq-lens", "24,32").records
    due = as_fields(probe(attnbench.get("sliding_window", window_size=16)))
    assert list(due) == FIGURES
    windows = [r for r in records if r["variant"] == "sliding_window"]
    assert len(windows) == 2
    assert all({name: r[name] for name in FIGURES} == due for r in windows)
    unsupported = [r for r in records if r["variant"] == "nystrom"]
    assert [r["status"] for r in unsupported] == ["unsupported"] * 2, "it has no causal form, so nothing is measured"
    assert all(r[name] is None for r in unsupported for name in RECALL)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["spent_s"]["recall"] > 0


def test_variants_that_only_some_cases_can_measure_are_asked_for_all(sweep: Callable[..., Any], tmp_path: Path) -> None:
    config = tmp_path / "both.toml"
    config.write_text('variants = ["nystrom"]\nseq_lens = [24]\n[[sweep]]\ncausal = [true, false]\n')
    records = sweep(config).records
    assert {r["status"] for r in records} == {"ok", "unsupported"}
    assert len({r["recall_32"] for r in records}) == 1
    assert records[0]["recall_32"] > 0


def test_a_probe_that_fails_leaves_null_and_why(sweep: Callable[..., Any], tmp_path: Path) -> None:
    plugin = tmp_path / "faulty.py"
    plugin.write_text(PLUGIN)
    names = "raises_when_asked,dies_when_asked,naive"
    found = {r["variant"]: r for r in sweep("--plugin", plugin, "--variants", names, "--seq-lens", "24").records}
    assert {r["status"] for r in found.values()} == {"ok"}, "what it costs is measured all the same"
    assert "not today" in found["raises_when_asked"]["recall_why_not"]
    assert "exit status 3" in found["dies_when_asked"]["recall_why_not"]
    for name in ("raises_when_asked", "dies_when_asked"):
        assert all(found[name][figure] is None for figure in FIGURES)
    assert found["naive"]["recall_64"] == 1.0
    assert found["naive"]["recall_why_not"] is None


def test_a_resumed_run_says_what_its_records_said(
    sweep: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    sweep("--variants", "naive", "--seq-lens", "24,32")
    file = tmp_path / "run" / "results.jsonl"
    kept = json.loads(file.read_text().splitlines()[0]) | {"recall_32": 0.125}
    file.write_text(json.dumps(kept) + "\n")
    assert cli("run", "--resume", "--out", tmp_path / "run").code == 0
    assert [r["recall_32"] for r in read_records(tmp_path / "run")] == [0.125, 0.125]


def test_a_budget_that_is_used_up_leaves_no_time_to_ask(sweep: Callable[..., Any]) -> None:
    (record,) = sweep("--variants", "naive", "--seq-lens", "24", "--time-budget", "0.001s").records
    assert record["status"] == "skipped"
    assert record["recall_32"] is None
    assert "time budget" in record["recall_why_not"]


def test_the_command_prints_a_table(cli: Callable[..., Any]) -> None:
    options = ("--loads", "16,32", "--trials", 2, "--rewritten-load", 0)
    answer = cli("recall", "naive,sliding_window(window_size=8)", *options)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines() == [
        "variant\t16 pairs\t32 pairs",
        "naive\t1.00\t1.00",
        "sliding_window(window_size=8)\t0.50\t0.25",
    ]
    (found,) = json.loads(cli("recall", "naive", *options, "--json").out)
    assert found["variant"] == "naive"
    assert [one["pairs"] for one in found["recall"]] == [16, 32]
    assert found["recall"][0]["accuracy"] == 1.0


def test_strengths_reach_the_command(cli: Callable[..., Any]) -> None:
    def asked(*options: object) -> float:
        answer = cli("recall", "gated_delta", "--loads", 24, "--trials", 2, "--rewritten-load", 0, "--json", *options)
        return float(json.loads(answer.out)[0]["recall"][0]["accuracy"])

    assert asked("--beta", 0) == 0.0
    assert asked("--decay", 0.3) < asked("--decay", 1) == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nave"], "did you mean 'naive'"),
        (["naive", "--loads", "0"], "recall needs at least one pair"),
        (["naive", "--loads", "many"], "'many' is not a whole number"),
        (["naive", "--trials", "1"], "at least two trials, whose spread is its error, not 1"),
        (["naive", "--rewritten-load", "1"], "it is 0 or at least 2, not 1"),
        (["naive", "--head-dim", "0"], "at least one dimension"),
        (["naive", "--decay", "1.5"], "0<=x<=1"),
    ],
)
def test_requests_that_make_no_sense(cli: Callable[..., Any], options: list[str], words: str) -> None:
    answer = cli("recall", *options)
    assert answer.code == 2
    assert words in answer.err
