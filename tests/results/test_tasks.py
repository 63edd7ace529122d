"""Records of trained tasks, and what they come to: the learning rate is chosen on one set, the value is of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attnbench.results.errors import ResultsError, ResultsWarning
from attnbench.results.task_record import TASK_IDENTITY, CurvePoint, TaskRecord, task_id
from attnbench.results.tasks import TaskFolder, load_tasks, ranked, summarise

IDENTITY: dict[str, Any] = {
    "task": "mqar",
    "task_params": {"kv_pairs": 4},
    "variant": "sdpa",
    "params": {},
    "seq_len": 32,
    "vocab": 64,
    "d_model": 16,
    "layers": 2,
    "heads": 2,
    "backbone": {"conv_size": 3},
    "lr": 1e-3,
    "seed": 0,
    "batch": 8,
    "budget": {"steps": 10},
    "dtype": "float32",
    "device": "cpu",
    "threads": 1,
}


def record(validated: float | None = 0.5, tested: float | None = 0.5, **fields: Any) -> TaskRecord:
    identity = {key: fields.pop(key, value) for key, value in IDENTITY.items()}
    point = CurvePoint(step=10, tokens=2560, wall_s=1.0, loss=1.0, value=validated)
    rest: dict[str, Any] = {
        "status": "ok",
        "metric": "accuracy",
        "chance": 0.25,
        "value": tested,
        "curve": [point],
        "wall_s": 2.0,
        "machine": "m",
        "started_at": "2026-01-01T00:00:00Z",
    }
    return TaskRecord(task_id=task_id(identity), **identity, **{**rest, **fields})


def test_every_field_of_the_identity_counts() -> None:
    assert set(IDENTITY) == set(TASK_IDENTITY)
    other: dict[str, Any] = {"task": "x", "variant": "x", "dtype": "x", "device": "x", "lr": 0.5}
    for field, value in IDENTITY.items():
        changed = other.get(field, {"a": 1} if isinstance(value, dict) else 77)
        assert task_id({**IDENTITY, field: changed}) != task_id(IDENTITY), field


def test_the_learning_rate_is_chosen_on_validation_and_the_value_is_of_the_test_set() -> None:
    records = [record(0.9, 0.6, lr=1e-3, seed=seed) for seed in range(3)]
    records += [record(0.8, 0.99, lr=3e-3, seed=seed) for seed in range(3)]
    (summary,) = summarise(records)
    assert (summary.lr, summary.median, summary.seeds) == (1e-3, 0.6, 3)


def test_a_summary_says_at_which_length_it_was_tested() -> None:
    (same,) = summarise([record()])
    (longer,) = summarise([record(task_params={"eval_seq_len": 64})])
    assert (same.seq_len, same.held_out_len) == (32, 32)
    assert (longer.seq_len, longer.held_out_len) == (32, 64)


def test_the_spread_is_that_of_the_seeds() -> None:
    records = [record(x, x, seed=seed, wall_s=float(seed)) for seed, x in enumerate((0.2, 0.9, 0.7))]
    (summary,) = summarise(records)
    assert (summary.low, summary.median, summary.high, summary.wall_s) == (0.2, 0.7, 0.9, 1.0)


def test_bits_per_byte_are_better_when_few() -> None:
    records = [
        record(x, x, lr=lr, metric="bits_per_byte", chance=None, variant=v)
        for lr, v, x in ((1e-3, "sdpa", 3.0), (1e-2, "sdpa", 2.0), (1e-3, "delta", 1.5))
    ]
    summaries = ranked(summarise(records))
    assert [(summary.variant, summary.lr, summary.median) for summary in summaries] == [
        ("delta", 1e-3, 1.5),
        ("sdpa", 1e-2, 2.0),
    ]


def test_a_training_that_diverged_learned_nothing_and_is_no_reason_to_choose_its_rate() -> None:
    steady = [record(0.5, 0.5, lr=1e-3, seed=seed) for seed in range(2)]
    lucky = [record(1.0, 1.0, lr=1e-1, seed=0), record(None, None, lr=1e-1, seed=1, status="diverged")]
    (summary,) = summarise([*steady, *lucky])
    assert (summary.lr, summary.median) == (1e-3, 0.5)
    (summary,) = summarise(lucky)
    assert (summary.low, summary.high, summary.diverged, summary.seeds) == (0.25, 1.0, 1, 2)


def test_what_was_not_trained_says_why() -> None:
    records = [
        record(None, None, seed=seed, status="unsupported", reasons=["no causal form"], curve=[]) for seed in (0, 1)
    ]
    (summary,) = summarise(records)
    assert (summary.median, summary.lr, summary.seeds, summary.reasons) == (None, None, 0, ("no causal form",))


def test_settings_are_not_mixed() -> None:
    records = [record(), record(seq_len=64), record(variant="delta"), record(seed=1), record(lr=1e-2)]
    summaries = summarise(records)
    assert [(summary.variant, summary.seq_len) for summary in summaries] == [("sdpa", 32), ("sdpa", 64), ("delta", 32)]
    assert len({summary.setting for summary in summaries}) == 2


def test_records_come_back_and_a_torn_line_is_warned_of(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"has no run\.json; name a folder that `attnbench tasks run` wrote"):
        load_tasks(tmp_path)
    written = record(spec="sdpa", a_newer_field=1)
    (tmp_path / "tasks.jsonl").write_text(written.model_dump_json() + "\n" + written.model_dump_json()[:100] + "\n")
    (read,) = _quiet(tmp_path)
    assert read == written
    assert read.model_dump()["a_newer_field"] == 1


def _quiet(path: Path) -> list[TaskRecord]:
    with pytest.warns(ResultsWarning, match="line 2 skipped"):
        return list(TaskFolder(path).records())
