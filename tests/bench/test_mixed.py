"""Batches of unlike requests, measured as one call: which calls it is made of, what is recorded, what is caught."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnbench.bench import flops, mixed
from attnbench.bench.case import Case
from attnbench.variants.api import get
from attnbench.variants.registry import load_plugin

from .conftest import FAST, Answer, read_records
from .test_faults import PLUGIN, by_variant

PACKED = Path(__file__).parent / "planted_packed.py"
TOKEN = 2 * 2 * 16 * 4
"""Bytes of keys and values of a token: 2 heads of 16 numbers of 4 bytes."""
ALONE = {
    "params": {}, "mode": "forward", "causal": True, "batch": 1, "heads": 2, "kv_heads": 2, "n_q": 1, "n_k": 1,
    "head_dim": 16, "dtype": "float32", "device": "cpu", "threads": 1, "inputs": "gaussian", "seed": 0,
}  # fmt: skip


def case(variant: str, requests: str, **changes: Any) -> Case:
    return Case(**{**ALONE, "variant": variant, "requests": requests, **changes})


def test_a_batch_is_one_record_with_the_figures_of_all_its_requests(sweep: Callable[..., Answer]) -> None:
    answer = sweep("--variants", "naive,sliding_window(window_size=8),gated_delta", "--batch-spec", "3q1s24_2q24")
    assert answer.code == 0, answer.err
    records = by_variant(answer.records)
    for record in records.values():
        assert record["status"] == "ok", record["reasons"]
        assert (record["requests"], record["batch"]) == ("3q1s24_2q24", 1)
        assert (record["n_q"], record["n_k"]) == (3 * 1 + 2 * 24, 5 * 24)
        assert record["batch_calls"] == ["decode 3q1s24", "forward 2q24"]
        assert record["tokens_per_s"] == pytest.approx((3 + 2 * 24) / record["time_s"])
        assert record["checked_rows"] == 1 + 24
        assert record["error"] <= record["error_allowed"]
        assert record["ceiling_share"] is None or 0 < record["ceiling_share"] <= 1
        assert record["declared_time_exponent"] is None
        assert record["fidelity_error"] is None
    assert records["naive"]["state_bytes"] == TOKEN * 5 * 24
    assert records["sliding_window"]["state_bytes"] == TOKEN * 5 * 8
    assert records["gated_delta"]["ratio"] > 0
    # 4 D operations for each pair and head: 24 for a step, 24 · 25 / 2 for a prompt
    assert records["naive"]["flops_needed"] == 4 * 16 * 2 * (3 * 24 + 2 * 24 * 25 // 2)
    token = 16 * 2 * 4
    assert records["naive"]["bytes_needed"] == token * (3 * (4 + 2 * 24) + 2 * 4 * 24)


def test_what_a_variant_cannot_do_of_a_batch_is_said_with_the_requests(sweep: Callable[..., Answer]) -> None:
    names = "naive,gated_delta,nystrom,xformers"
    records = by_variant(sweep("--variants", names, "--batch-spec", "q8_2q4s24_q1s24", "--inputs", "local").records)
    assert records["naive"]["batch_calls"] == ["forward q8", "forward 2q4s24", "decode q1s24"]
    for name in ("gated_delta", "nystrom", "xformers"):
        assert records[name]["status"] == "unsupported"
        assert records[name]["time_s"] is None
    assert records["gated_delta"]["reasons"] == ["needs as many queries as keys, not 4 and 24 (2q4s24)"]
    assert records["nystrom"]["reasons"][0] == "has no causal form"
    assert "has no decode form (q1s24)" in records["nystrom"]["reasons"]
    assert "runs on cuda, not on cpu" in records["xformers"]["reasons"]


def test_packed_sequences_are_one_call_and_every_request_is_checked(sweep: Callable[..., Answer]) -> None:
    wrong = ("leaks_between_sequences", "aligns_top_left", "writes_into_packed_keys", "forgets_the_last_sequence")
    names = ",".join(("packs", "packs_elsewhere", *wrong))
    answer = sweep("--plugin", PACKED, "--variants", names, "--batch-spec", "2q9_3q1s20_q4s12")
    records = by_variant(answer.records)
    assert records["packs"]["status"] == "ok", records["packs"]["reasons"]
    assert records["packs"]["batch_calls"] == ["varlen"]
    assert records["packs"]["checked_rows"] == 9 + 1 + 4
    # without a decode form, a step is one query over all keys
    assert records["packs_elsewhere"]["batch_calls"] == ["forward 2q9", "forward 3q1s20", "forward q4s12"]
    assert records["packs_elsewhere"]["status"] == "ok", records["packs_elsewhere"]["reasons"]
    for name in wrong:
        assert records[name]["status"] == "incorrect", name
        assert records[name]["time_s"] is None
    assert "writes into its packed input k" in records["writes_into_packed_keys"]["reasons"][0]
    assert "is due" in records["forgets_the_last_sequence"]["reasons"][0]
    assert answer.code == 1


def test_planted_bugs_are_caught_in_a_batch_too(sweep: Callable[..., Answer]) -> None:
    wrong = ("mask_wrong_by_one", "leaks_the_future", "writes_into_v", "gives_nan", "wrong_shape")
    answer = sweep("--plugin", PLUGIN, "--variants", ",".join(wrong), "--batch-spec", "q1s30_2q30")
    assert {record["status"] for record in answer.records} == {"incorrect"}
    assert "mask_wrong_by_one at q1s30_2q30, forward" not in answer.err  # --json: no words beside it


def test_narrow_dtypes_and_a_model_s_heads(cli: Callable[..., Answer], tmp_path: Path) -> None:
    options = ("--dtypes", "bfloat16", "--shape", "llama-3.2-1b", "--threads", "1", "--case-time", "0.02s", "--json")
    answer = cli(
        "run", "--plugin", PACKED, "--variants", "sdpa,packs", "--batch-spec", "q9_2q1s12", *options,
        "--out", tmp_path / "run",
    )  # fmt: skip
    records = by_variant(answer.records)
    for record in records.values():
        assert record["status"] == "ok", record["reasons"]
        assert (record["heads"], record["kv_heads"], record["head_dim"]) == (32, 8, 64)
    # torch's kernel for packed sequences runs on CUDA alone
    assert records["sdpa"]["batch_calls"] == ["forward q9", "decode 2q1s12"]


def test_a_file_may_hold_batches_and_lengths_side_by_side(cli: Callable[..., Answer], tmp_path: Path) -> None:
    file = tmp_path / "serving.toml"
    file.write_text(
        'variants = ["naive"]\nheads = 2\nhead_dim = 16\nthreads = 1\ncase_time = "0.02s"\n'
        '[[sweep]]\nseq_lens = [16]\n[[sweep]]\nbatch_specs = ["q16", "q16_2q1s8", "1q16"]\n'
    )
    answer = cli("run", file, "--out", tmp_path / "run", "--json")
    assert answer.code == 0, answer.err
    assert [record["requests"] for record in answer.records] == [None, "q16", "q16_2q1s8"]
    assert len({record["group_id"] for record in answer.records}) == 3


def test_a_batch_that_has_no_record_yet_is_measured_by_a_resume(cli: Callable[..., Answer], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("run", *FAST, "--variants", "naive,sdpa", "--batch-spec", "q16_2q1s8", "--out", run).code == 0
    before = {record["case_id"] for record in read_records(run)}
    (run / "results.jsonl").write_text((run / "results.jsonl").read_text().splitlines()[0] + "\n")
    answer = cli("run", "--resume", "--out", run, "--json")
    assert answer.code == 0, answer.err
    assert {record["case_id"] for record in answer.records} == before
    assert json.loads((run / "run.json").read_text())["config"]["sweep"][0]["batch_specs"] == ["q16_2q1s8"]


@pytest.mark.parametrize("requests", ["3q1s20_2q9_q4s12", "q1s3_q1_q1s2"])
def test_packed_and_stacked_give_the_same_numbers_from_the_same_inputs(requests: str) -> None:
    load_plugin(PACKED)
    stacked, packed = (mixed.Batch(get(name), case(name, requests)) for name in ("naive", "packs"))
    for batch in (stacked, packed):
        assert batch.check().correct
    rows: Any = packed()
    start = 0
    for part, out in zip(stacked.parts, stacked(), strict=True):  # type: ignore[call-overload]
        whole = out[0] if part.case.mode == "decode" else out
        tokens = part.case.batch * part.case.n_q
        mine = rows[start : start + tokens].unflatten(0, (part.case.batch, -1)).transpose(1, 2)
        torch.testing.assert_close(mine, whole, atol=1e-5, rtol=1e-5)
        start += tokens
    assert start == rows.shape[0]
    assert stacked.state_bytes() == TOKEN * sum(p.case.batch * p.case.n_k for p in stacked.parts)


def test_the_operations_of_a_batch_are_those_of_its_parts() -> None:
    naive = get("naive")
    batch = mixed.Batch(naive, case("naive", "3q1s20_2q9"))
    assert batch.check().correct
    way = mixed.way(naive, case("naive", "3q1s20_2q9"))
    # naive does whole squares where causality needs triangles
    assert flops.count(batch) == 4 * 16 * 2 * (3 * 20 + 2 * 9 * 9)
    assert sum(flops.needed(naive, part) for part in way.cases) == 4 * 16 * 2 * (3 * 20 + 2 * 45)


REFUSED = [
    (("--batch-spec", "8q1s"), "is not <count>q<tokens>"),
    (("--batch-spec", "q64", "--seq-lens", "64"), "leave out seq_lens"),
    (("--batch-spec", "q64", "--preset", "quick"), "leave out seq_lens"),
    (("--batch-spec", "q64", "--modes", "decode"), "has its decode steps in itself"),
    (("--batch-spec", "q64", "--modes", "forward,train"), "is measured forward"),
    (("--batch-spec", "q64", "--no-causal"), "attend causally"),
    (("--batch-spec", "q64", "--batch", "2"), "says how many requests"),
    (("--batch-spec", "q64", "--query-lens", "2"), "says how many queries"),
    (("--batch-spec", "q64", "--compiled"), "several shapes"),
    (("--batch-spec", "q64", "--inputs", "captured"), "captured input has one"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[" ".join(options) for options, _ in REFUSED])
def test_what_has_no_meaning_beside_a_batch_is_one_sentence(
    cli: Callable[..., Answer], tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    answer = cli("run", "--variants", "naive", *options, "--out", tmp_path / "run")
    assert answer.code == 2
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "run").exists()
