"""The doctor, on this machine for a moment: all parts of its answer, what it keeps, what it refuses."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench import doctor, trials
from attnbench.bench.doctor import Request, examine
from attnbench.bench.turns import MIN_ROUNDS, PAIRS
from attnbench.results import resolution as resolving
from attnbench.results.run import Ceilings
from attnbench.results.trial import Trial, load_trials

FAST = ["--pairs", "1", "--pair-time", "0.5s"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges few joined comparisons, and takes the ceilings for known."""
    monkeypatch.setattr(resolving, "JOINED", 20)
    monkeypatch.setattr(resolving, "JOINED_PLANTED", 10)
    monkeypatch.setattr(doctor, "IDLE_S", 0.01)
    monkeypatch.setattr(doctor, "CACHE_PAUSE_S", 0.0)

    def ceiling(function: Any, device: str, dtype: str, threads: int, timeout_s: float) -> Ceilings:
        return Ceilings(device=device, dtype=dtype, threads=threads, matmul_flops_per_s=1e9, copy_bytes_per_s=1e9)

    monkeypatch.setattr(doctor, "ask", ceiling)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Comparisons that take no time; the list tells what was planted in each."""
    planted: list[float] = []

    def compared(asked: Any, share: float, order: random.Random) -> Trial:
        planted.append(share)
        base = [order.gauss(1.0, 0.01) for _ in range(60)]
        return Trial(
            planted=share,
            base_s=base,
            head_s=[order.gauss(1.0, 0.01) * (1 + share) for _ in base],
            rounds_per_process=[10] * PAIRS,
            wall_s=asked.pair_time_s,
            asked_s=asked.pair_time_s,
            dtype=asked.work.dtype,
            threads=asked.work.threads,
            units=asked.work.units,
            seed=asked.work.seed,
            machine=asked.machine,
            started_at="2026-01-01T00:00:00+00:00",
        )

    monkeypatch.setattr(doctor, "compared", compared)
    monkeypatch.setattr(doctor, "start_own_servers", lambda: None)
    monkeypatch.setattr(doctor, "sized", lambda dtype, threads, seed: trials.Work(dtype, threads, seed, 100))
    return planted


def test_a_short_examination_has_all_parts(cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "trials.jsonl"
    answer = cli("doctor", *FAST, "--plant", "50%", "--json", "--out", out)
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert {c["dtype"] for c in told["ceilings"]} == {"float32", "bfloat16"}
    assert told["comparisons"] == 2
    assert [ratio["planted"] for ratio in told["ratios"]] == [0.0, 0.5]
    assert all(row["of"] == 1 and row["found"][0]["of"] == 1 for row in told["thresholds"])
    assert {sign["name"] for sign in told["signs"]} > {"CPU governor", "load average", "swap", "hyper-threading"}
    kept = load_trials(out)
    assert sorted(trial.planted for trial in kept) == [0.0, 0.5]
    assert all(trial.pairs == PAIRS and min(trial.rounds_per_process) >= MIN_ROUNDS for trial in kept)
    assert "comparison 2 of 2" in answer.err


def test_planted_work_is_real_work() -> None:
    """Twice as many calls take about twice as long, by any machine's noise."""
    asked = trials.Asked(trials.sized("float32", 1, 0), 1.0, "f")
    one = trials.compared(asked, 1.0, random.Random(0))
    assert one.units % 100 == 0
    assert resolving.resolution([one.model_copy(update={"planted": 0.0})]).planted[0.0].value > 1.4


def test_a_person_reads_a_threshold_to_use_and_what_disturbs(cli: Callable[..., Any], made: list[float]) -> None:
    answer = cli("doctor", "--pairs", "6", "--plant", "3%,5%")
    assert answer.code == 0
    assert sorted(made) == [0.0] * 6 + [0.03] * 6 + [0.05] * 6
    assert made != sorted(made), "kinds are mixed, so that no hour falls on one alone"
    assert "Use --threshold 1% here" in answer.out
    ratio = re.search(r"^3% planted: (\S+) times", answer.out, re.MULTILINE)
    assert ratio
    assert float(ratio[1]) == pytest.approx(1.03, abs=0.003)
    assert "What disturbs" in answer.out
    rows = [line.split("\t") for line in answer.out.splitlines()]
    assert ["threshold", "false alarms", "of joined pairs", "3% found", "5% found", "resolves"] in rows
    assert any(row[:2] == ["1%", "0 of 6"] and row[3:5] == ["6 of 6", "6 of 6"] for row in rows)


def test_what_a_file_holds_is_not_measured_again(made: list[float], tmp_path: Path) -> None:
    out = tmp_path / "trials.jsonl"
    first = examine(Request(pairs=2, out=out))
    assert sorted(made) == [0.0, 0.0, 0.03, 0.03]
    with out.open("a") as file:
        file.write('{"torn')
    made.clear()
    with pytest.warns(UserWarning, match="line 5 skipped"):
        second = examine(Request(pairs=3, plants=(0.03, 0.05), out=out))
    assert sorted(made) == [0.0, 0.03, 0.05, 0.05, 0.05]
    assert second.trials[:4] == first.trials
    with pytest.warns(UserWarning, match="line 5 skipped"):
        assert load_trials(out) == second.trials


def test_ctrl_c_keeps_what_was_compared_and_says_how_to_go_on(
    cli: Callable[..., Any], made: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compare, out = doctor.compared, tmp_path / "trials.jsonl"

    def stopped(*args: Any) -> Trial:
        if len(made) == 3:
            raise KeyboardInterrupt
        return compare(*args)

    monkeypatch.setattr(doctor, "compared", stopped)
    answer = cli("doctor", "--pairs", "4", "--out", out)
    assert answer.code == 130
    assert f"3 of 8 comparisons are kept in {out}" in answer.err
    assert len(load_trials(out)) == 3
    assert "not kept: give --out" in cli("doctor", "--pairs", "4").err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pairs", "0"], "at least one"),
        (["--pairs", "many"], "is not a whole number"),
        (["--pair-time", "soon"], "is not a time"),
        (["--pair-time", "0.1s"], "at least 0.5"),
        (["--plant", "2.5%"], "whole percents"),
        (["--plant", "0%"], "whole percents"),
        (["--plant", "-3%"], "is not a percentage"),
        (["--threads", "0"], "at least 1"),
        (["--dtype", "float31"], "unknown dtype"),
        (["--out", "/nonexistent/folder/trials.jsonl"], "choose another --out"),
        (["somewhere", "--pairs", "3"], "leave it out beside RUN"),
        (["/nonexistent"], "is not a run"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_exit_status_2(
    cli: Callable[..., Any], made: list[float], arguments: list[str], words: str
) -> None:
    answer = cli("doctor", *arguments)
    assert answer.code == 2
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert made == []


def test_comparisons_made_otherwise_are_not_mixed(cli: Callable[..., Any], made: list[float], tmp_path: Path) -> None:
    out = tmp_path / "trials.jsonl"
    examine(Request(pairs=1, out=out))
    answer = cli("doctor", "--pairs", "2", "--threads", "2", "--out", out)
    assert answer.code == 2
    assert "holds comparisons with threads 1, and 2 is asked for" in answer.err
    written = out.read_text()
    out.write_text(written.replace('"schema_version":2', '"schema_version":1'))
    assert "of another version of the doctor" in cli("doctor", "--pairs", "2", "--out", out).err
    out.write_text(written.replace(str([10] * PAIRS).replace(" ", ""), "[20,20,20]"))
    answer = cli("doctor", "--pairs", "2", "--out", out)
    assert answer.code == 2
    assert "holds comparisons with pairs 3, and 6 is asked for" in answer.err


def test_a_process_that_fails_is_one_sentence() -> None:
    asked = trials.Asked(trials.Work("float31", 1, 0, 100), 0.5, "f")
    with pytest.raises(ValueError, match=r"the process that the doctor measures failed: .*float31"):
        trials.compared(asked, 0.0, random.Random(0))


@pytest.mark.usefixtures("ceilings_anew")
def test_where_the_time_of_a_run_went_adds_up(sweep: Callable[..., Any], cli: Callable[..., Any]) -> None:
    answer = sweep("--variants", "naive,sdpa", "--seq-lens", "32,48")
    folder = json.loads(answer.out)["folder"]
    (told,) = json.loads(cli("doctor", folder, "--json").out)
    assert sum(told["spent_s"].values()) == pytest.approx(told["total_s"], abs=0.01)
    assert told["spent_s"]["warming"] == pytest.approx(sum(r["warmup_s"] for r in answer.records), abs=1e-3)
    assert told["spent_s"]["rest"] < 0.2 * told["total_s"]
    assert 0 < told["harness_share"] < told["unmeasured_share"] < told["untimed_share"] < 1
    assert told["start_s"] > 0
    read = cli("doctor", folder)
    assert read.code == 0, read.error
    assert f"{told['unmeasured_share']:.1%} of it not inside of measured calls" in read.out
    rows = [line.split("\t") for line in read.out.splitlines()]
    assert [f"{told['spent_s']['measured']:.1f} s", "inside of timed calls"] in [row[::2] for row in rows]


def test_few_comparisons_advise_no_threshold(cli: Callable[..., Any], made: list[float]) -> None:
    answer = cli("doctor", "--pairs", "2", "--plant", "3%")
    assert "No threshold is advised by 2 comparisons" in answer.out
    assert "--pairs 5 or more" in answer.out
    assert "Use --threshold" not in answer.out
