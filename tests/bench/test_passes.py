"""A run that goes through its cases several times, with a share of their rounds each time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench import scheduler
from attnbench.bench.config import build
from attnbench.bench.errors import ConfigError
from attnbench.bench.estimate import Series
from attnbench.results.statistics import paired_ratio

from .test_faults import by_variant

Steps = list[tuple[str, int, str]]


@pytest.fixture
def steps(before_asking: Callable[..., None]) -> Steps:
    """What was asked of the process of a case: variant, length, step."""
    asked: Steps = []
    before_asking(lambda turn, step, may_wait: asked.append((turn.case.variant, turn.case.n_k, step)))
    return asked


def configured(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_each_pass_goes_through_all_cases_with_a_share_of_their_rounds(
    sweep: Callable[..., Any], tmp_path: Path, steps: Steps
) -> None:
    config = configured(tmp_path / "c.toml", "min_rounds = 8\nmax_rounds = 8\nprocesses = 1\npasses = 3")
    records = sweep(config, "--variants", "sdpa,naive", "--seq-lens", "64,128").records
    assert [(r["status"], len(r["samples_s"]), r["processes"]) for r in records] == [("ok", 8, 3)] * 4
    assert all(sorted(r["rounds_per_process"]) == [2, 3, 3] for r in records)
    sampled: list[tuple[int, int]] = []  # a length, and how many turns it had in a row
    for _, length, step in steps:
        if step == "sample":
            before = sampled.pop() if sampled and sampled[-1][0] == length else (length, 0)
            sampled.append((length, before[1] + 1))
    assert sampled == [(64, 4), (128, 4), (64, 6), (128, 6), (64, 6), (128, 6)]
    times = Counter(step for *_, step in steps)
    assert (times["set_up"], times["set_up_again"], times["weigh"], times["look_back"]) == (4, 8, 4, 8)
    for length in (64, 128):
        base, other = sorted((r for r in records if r["n_k"] == length), key=lambda r: float(r["ratio"] != 1))
        assert base["baseline"] == other["baseline"] == base["variant"]
        assert paired_ratio(other["samples_s"], base["samples_s"]).value == pytest.approx(other["ratio"])


def test_what_is_not_precise_enough_goes_on_in_the_last_pass(sweep: Callable[..., Any], tmp_path: Path) -> None:
    config = configured(tmp_path / "c.toml", "min_rounds = 5\nmax_rounds = 12\nprecision = 1e-9\npasses = 5")
    (record,) = sweep(config, "--variants", "sdpa", "--seq-lens", "64", "--case-time", "9").records
    assert (len(record["samples_s"]), record["stopped_by"], record["processes"] >= 5) == (12, "rounds", True)


def test_a_case_that_ends_in_a_later_pass_has_one_record_and_the_rest_goes_on(
    sweep: Callable[..., Any], before_asking: Callable[..., None]
) -> None:
    def kill(turn: Any, step: str, may_wait: bool) -> None:
        if step == "set_up_again" and turn.case.variant == "naive":
            turn.child.process.kill()
            turn.child.process.join()

    before_asking(kill)
    records = sweep("--variants", "naive,sdpa,linear_elu", "--seq-lens", "64", "--passes", "2").records
    found = by_variant(records)
    assert len(records) == 3
    assert {name: record["status"] for name, record in found.items()} == {
        "naive": "crashed",
        "sdpa": "ok",
        "linear_elu": "ok",
    }
    assert found["linear_elu"]["baseline"] == "sdpa"


@pytest.mark.parametrize("share", [0.5, -1.0])
def test_what_cannot_go_on_in_another_process_keeps_its_own_where_there_is_memory(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, steps: Steps, share: float
) -> None:
    monkeypatch.setattr(scheduler, "HELD_SHARE", share)
    records = sweep("--variants", "sdpa", "--batch-spec", "2q8_1q1s9,1q16", "--passes", "2").records
    assert [(r["status"], r["processes"], len(r["samples_s"]) >= 8) for r in records] == [("ok", 1, True)] * 2
    assert "set_up_again" not in {step for *_, step in steps}
    turned = [length for _, length, step in steps if step == "sample"]
    times = sum(before != after for before, after in itertools.pairwise(turned))
    assert times == (3 if share > 0 else 1)
    for record in records:
        assert any("measured in one pass" in reason for reason in record["reasons"]) is (share < 0)


def test_a_length_that_would_run_out_is_skipped_before_shorter_ones_have_records(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = []
    monkeypatch.setattr(
        Series, "why_not", lambda series, case, *limits: expected.append(dict(series.peak_bytes)) or "too long"
    )
    records = sweep("--variants", "naive", "--seq-lens", "64,128", "--passes", "2").records
    assert [(r["n_k"], r["status"]) for r in records] == [(128, "skipped"), (64, "ok")]
    assert expected == [{64: records[1]["peak_bytes"]}]


def test_parts_of_a_group_go_through_the_passes_one_after_the_other(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, steps: Steps
) -> None:
    monkeypatch.setattr(scheduler, "HELD_SHARE", -1.0)
    records = by_variant(sweep("--variants", "linear_elu,naive,sdpa", "--seq-lens", "64", "--passes", "2").records)
    again = Counter(variant for variant, _, step in steps if step == "set_up_again")
    assert min(again[variant] for variant in records) >= 2
    assert {record["status"] for record in records.values()} == {"ok"}
    assert {record["baseline"] for record in records.values()} == {"naive"}
    assert {name: "part" in " ".join(record["reasons"]) for name, record in records.items()} == {
        "naive": False,
        "sdpa": True,
        "linear_elu": True,
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"passes": 9}, "9 passes and 8 rounds"),
        ({"passes": 2, "time_budget": "5m"}, "leave out one of time_budget and passes"),
        ({"passes": 0}, "greater than or equal to 1"),
    ],
)
def test_passes_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(options=options)
