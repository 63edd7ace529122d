"""Decode steps, compiled forms, cross lengths and shapes of models, asked for on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import Answer


def test_decode_is_one_query_and_records_its_state(sweep: Callable[..., Answer]) -> None:
    answer = sweep("--variants", "naive,sliding_window(window_size=8)", "--seq-lens", "32,64", "--modes", "decode")
    assert answer.code == 0, answer.err
    records = answer.records
    assert [(r["status"], r["n_q"]) for r in records] == [("ok", 1)] * 4
    token = 2 * 2 * 16 * 4  # keys and values of 2 heads of 16 numbers of 4 bytes
    states = {(r["variant"], r["n_k"]): r["state_bytes"] for r in records}
    assert states == {(v, n): token * (n if v == "naive" else 8) for v in ("naive", "sliding_window") for n in (32, 64)}


def test_decode_without_a_past_or_without_causality_is_unsupported(sweep: Callable[..., Answer]) -> None:
    answer = sweep("--variants", "naive", "--seq-lens", "2", "--modes", "decode", "--no-causal")
    (record,) = answer.records
    assert record["status"] == "unsupported"
    assert "decoding is causal" in record["reasons"][0]


def test_query_lengths_cross_key_lengths(sweep: Callable[..., Answer]) -> None:
    answer = sweep("--variants", "naive", "--seq-lens", "32,64", "--query-lens", "4,16")
    assert {(r["n_q"], r["n_k"], r["status"]) for r in answer.records} == {
        (q, k, "ok") for q in (4, 16) for k in (32, 64)
    }


@pytest.mark.slow
def test_compiled_forms_keep_compile_time_apart(sweep: Callable[..., Answer]) -> None:
    answer = sweep("--variants", "naive", "--seq-lens", "32", "--compiled")
    (record,) = answer.records
    assert (record["status"], record["compiled"]) == ("ok", True), record["reasons"]
    assert record["compile_s"] > record["time_s"]


def test_a_shape_is_the_model_s_heads(cli: Callable[..., Answer], tmp_path: object) -> None:
    options = ("--variants", "naive", "--seq-lens", "16", "--case-time", "0.02s", "--threads", "1", "--json")
    answer = cli("run", *options, "--shape", "llama-3.2-1b", "--out", f"{tmp_path}/run")
    assert answer.code == 0, answer.err
    (record,) = answer.records
    assert (record["heads"], record["kv_heads"], record["head_dim"]) == (32, 8, 64)


def test_shapes_are_listed_with_their_sources(cli: Callable[..., Answer]) -> None:
    shapes = json.loads(cli("run", "--shape", "list", "--json").out)
    assert {"name", "heads", "kv_heads", "head_dim", "source"} <= set(shapes[0])
    assert all(shape["source"] for shape in shapes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shape", "lama-3-8b"), "did you mean 'llama-3-8b'"),
        (("--shape", "llama-3-8b", "--heads", "4"), "leave out heads, or the shape"),
    ],
)
def test_a_wrong_shape_is_one_sentence(
    cli: Callable[..., Answer], tmp_path: object, options: tuple[str, ...], words: str
) -> None:
    answer = cli("run", "--variants", "naive", *options, "--out", f"{tmp_path}/run")
    assert answer.code == 2
    assert words in answer.err
    assert "Traceback" not in answer.err
