"""The grammar of mixed batches, and the cases that it stands for."""

from __future__ import annotations

import pytest

from attnbench.bench.case import Case
from attnbench.results.batch_spec import Requests, canonical, parse, tokens, words
from attnbench.results.errors import ResultsError
from attnbench.results.record import case_id, group_id


@pytest.mark.parametrize(
    ("spec", "requests"),
    [
        ("q2k", [(1, 2048, 2048)]),
        ("q1s1k", [(1, 1, 1024)]),
        ("8q1s1k", [(8, 1, 1024)]),
        ("16q4s1000", [(16, 4, 1000)]),
        ("2q2k_32q1s1k", [(2, 2048, 2048), (32, 1, 1024)]),
        ("q1_q1s1k_q1", [(2, 1, 1), (1, 1, 1024)]),
        (" q3 ", [(1, 3, 3)]),
    ],
)
def test_the_grammar(spec: str, requests: list[tuple[int, int, int]]) -> None:
    assert [(r.count, r.n_q, r.n_k) for r in parse(spec)] == requests


@pytest.mark.parametrize(
    "spec",
    ["", "2q", "q", "8s1k", "q1k_", "_q1k", "q1k__q1k", "q-1", "q1.5k", "q1m", "Q1k", "q1ks", "q1k s2k", "q1K", "٢q1k"],
)
def test_what_is_no_batch_is_refused_by_an_example(spec: str) -> None:
    with pytest.raises(ResultsError, match=r"write 2q2k_32q1s1k for two prompts"):
        parse(spec)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("q0", "has a zero"),
        ("0q1k", "has a zero"),
        ("q2ks1k", "2048 new tokens in a sequence of 1024; s is the whole length"),
        ("2000000q2k", "tokens; fewer than"),
        ("q9" + "9" * 5000, "is not <count>q<tokens>"),
    ],
)
def test_batches_that_cannot_be(spec: str, said: str) -> None:
    with pytest.raises(ResultsError, match=said):
        parse(spec)


def test_one_batch_has_one_way_to_write_it() -> None:
    assert canonical("q2048_1q2k_q1s1024_31q1s1k") == "2q2k_32q1s1k"
    assert canonical("q1k_q1s1000") == "q1k_q1s1000"
    assert tokens(parse("2q2k_32q1s1k")) == (2 * 2048 + 32, 2 * 2048 + 32 * 1024)
    assert words("q1k") == "1 prefill of 1k"
    assert words("2q2k_q4s1000_32q1s1k") == "2 prefills of 2k, 1 extension by 4 to 1000 and 32 decode steps at 1k"
    assert Requests(1, 2048, 2048).words == "1 prefill of 2k"
    assert Requests(32, 1, 1024).words == "32 decode steps at 1k"
    assert Requests(4, 16, 1024).words == "4 extensions by 16 to 1k"


def case(**changes: object) -> Case:
    fields = {
        "variant": "naive", "params": {}, "mode": "forward", "causal": True, "batch": 1, "heads": 4, "kv_heads": 4,
        "n_q": 64, "n_k": 64, "head_dim": 64, "dtype": "float32", "device": "cpu", "threads": 1, "inputs": "gaussian",
        "seed": 0,
    }  # fmt: skip
    return Case(**{**fields, **changes})  # type: ignore[arg-type]


def test_uniform_cases_keep_the_ids_that_they_had_before_there_were_batches() -> None:
    uniform = case()
    assert uniform.case_id == "27e73dd661b1d91c"
    assert uniform.group_id == "4697778b1354b02a"
    before = {name: value for name, value in uniform.identity().items() if name != "requests"}
    assert (case_id(before), group_id(before)) == (uniform.case_id, uniform.group_id)
    batch = case(requests="q64")
    assert batch.case_id != uniform.case_id
    assert batch.group_id != uniform.group_id


def test_a_batch_is_uniform_parts_with_inputs_of_their_own() -> None:
    parts = case(requests="2q8_3q1s16_q4s16_q1_q1s2", seed=2**63 - 1).parts()
    assert [(p.mode, p.batch, p.n_q, p.n_k) for p in parts] == [
        ("forward", 2, 8, 8),
        ("decode", 3, 1, 16),
        ("forward", 1, 4, 16),
        ("forward", 1, 1, 1),
        ("forward", 1, 1, 2),  # too short for a step after a prompt and a first step
    ]
    assert [p.seed for p in parts] == [2**63 - 1, 0, 1, 2, 3]
    assert {p.requests for p in parts} == {None}
