"""What goes wrong in a variant ends in the right record; the others go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parent / "planted.py"
LATE = Path(__file__).parent / "planted_late.py"

WRONG = [
    "mask_wrong_by_one",
    "missing_scale",
    "leaks_the_future",
    "writes_into_v",
    "gives_nan",
    "wrong_dtype",
    "wrong_shape",
]
WRONG_IN_TRAINING = ["wrong_gradient", "forgets_a_gradient"]


def by_variant(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {record["variant"]: record for record in records}


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_planted_bugs_give_incorrect_and_no_time(sweep: Callable[..., Any], mode: str) -> None:
    planted = WRONG + (WRONG_IN_TRAINING if mode == "train" else [])
    answer = sweep(
        "--plugin", PLUGIN, "--variants", ",".join(["naive", *planted]), "--seq-lens", "100", "--modes", mode
    )
    assert answer.code == 1  # incorrect, and asked for by name
    records = by_variant(answer.records)
    assert len(records) == len(planted) + 1
    assert records["naive"]["status"] == "ok"
    for name in planted:
        assert records[name]["status"] == "incorrect", name
        assert records[name]["reasons"], name
        assert records[name]["time_s"] is None, name
        assert records[name]["ratio"] is None, name


@pytest.mark.parametrize(
    ("variants", "what", "written"),
    [
        ("writes_into_v_later", ("--seq-lens", "20", "--modes", "forward"), "v"),
        ("writes_into_v_later", ("--seq-lens", "20", "--modes", "train"), "v"),
        ("writes_into_its_state_later", ("--seq-lens", "20", "--modes", "decode"), "state (k)"),
        ("writes_into_v_later", ("--batch-spec", "2q9_q12"), "v of 2q9"),
        ("writes_into_packed_keys_later", ("--batch-spec", "2q9_q12"), "k"),
    ],
)
def test_inputs_written_to_after_the_check_give_incorrect_and_no_time(
    sweep: Callable[..., Any], variants: str, what: tuple[str, ...], written: str
) -> None:
    answer = sweep("--plugin", LATE, "--variants", f"naive,{variants}", *what)
    assert answer.code == 1
    records = by_variant(answer.records)
    assert records["naive"]["status"] == "ok"
    late = records[variants]
    assert late["reasons"] == [f"writes into its input {written}, at a call after that which was checked"]
    assert (late["status"], late["time_s"], late["ratio"], late["peak_bytes"]) == ("incorrect", None, None, None)
    assert late["error"] <= late["error_allowed"]  # of the call that was checked


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_planted_bugs_are_caught_in_other_dtypes(sweep: Callable[..., Any], dtype: str) -> None:
    answer = sweep(
        "--plugin", PLUGIN, "--variants", ",".join(["naive", *WRONG[:3]]), "--seq-lens", "100", "--dtypes", dtype
    )
    statuses = {name: record["status"] for name, record in by_variant(answer.records).items()}
    assert statuses == {"naive": "ok", **dict.fromkeys(WRONG[:3], "incorrect")}


def test_a_slip_that_rounding_hides_is_found_in_narrow_dtypes(sweep: Callable[..., Any]) -> None:
    names = "naive,mask_wrong_by_one_in_many"
    records = by_variant(
        sweep("--plugin", PLUGIN, "--variants", names, "--seq-lens", "1000", "--dtypes", "bfloat16").records
    )
    assert records["naive"]["status"] == "ok"
    assert records["mask_wrong_by_one_in_many"]["status"] == "incorrect"


def test_a_right_variant_that_uses_no_q_can_be_trained(sweep: Callable[..., Any]) -> None:
    (record,) = sweep(
        "--plugin", PLUGIN, "--variants", "ignores_q_and_k", "--seq-lens", "20", "--modes", "train"
    ).records
    assert record["status"] == "ok", record["reasons"]


def test_a_wrong_row_is_found_at_a_length_where_rows_are_sampled(sweep: Callable[..., Any]) -> None:
    answer = sweep("--plugin", PLUGIN, "--variants", "naive,missing_scale", "--seq-lens", "3000")
    records = by_variant(answer.records)
    assert records["missing_scale"]["status"] == "incorrect"
    assert records["naive"]["status"] == "ok"
    assert records["naive"]["checked_rows"] < 3000


def test_faults_become_records_and_the_rest_goes_on(sweep: Callable[..., Any]) -> None:
    faulty = ["raises", "exits", "aborts", "hangs", "eats_memory", "prints_megabytes"]
    answer = sweep(
        "--plugin", PLUGIN, "--variants", ",".join([*faulty, "naive"]), "--seq-lens", "64,128", "--timeout", "2s"
    )
    assert answer.code == 0, answer.err
    first = by_variant([r for r in answer.records if r["n_k"] == 64])
    second = by_variant([r for r in answer.records if r["n_k"] == 128])
    assert {name: record["status"] for name, record in first.items()} == {
        "raises": "crashed",
        "exits": "crashed",
        "aborts": "crashed",
        "hangs": "timeout",
        "eats_memory": "oom",
        "prints_megabytes": "ok",
        "naive": "ok",
    }
    assert "the kernel said no" in first["raises"]["reasons"][0]
    assert "exit status 7" in first["exits"]["reasons"][0]
    assert "these are my last words" in first["exits"]["reasons"][0]
    assert "SIGABRT" in first["aborts"]["reasons"][0]
    assert "2 s" in first["hangs"]["reasons"][0]
    # a length that ran out lets longer ones be skipped; a crash does not
    assert second["hangs"]["status"] == second["eats_memory"]["status"] == "skipped"
    assert "timeout at length 64" in second["hangs"]["reasons"][0]
    assert second["raises"]["status"] == "crashed"
