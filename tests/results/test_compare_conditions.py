"""Runs under unlike conditions: refused by name, or pointed out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from attnbench.results.compare import compare, read
from attnbench.results.errors import ResultsError

from .two_runs import GIB, Write, record, records


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fingerprint": "g", "cpu": "Another CPU"}, "cpu A CPU and Another CPU"),
        ({"fingerprint": "g", "cores": 8}, "cores 2 and 8"),
        ({"fingerprint": "g", "gpus": ["A GPU"]}, "gpus none and A GPU"),
        ({"fingerprint": "g", "memory_bytes": 16 * GIB}, "memory 8 GiB and 16 GiB"),
        ({"fingerprint": "g", "libraries": {"torch": "2.14.0", "numpy": "2.4.6"}}, "torch 2.13.0 and 2.14.0"),
        ({"fingerprint": "g"}, "machines f and g"),
        ({"config": {"allocator": "system"}}, "allocator keep and system"),
        ({"config": {}}, "allocator keep and not recorded"),
    ],
)
def test_unlike_conditions_are_refused_by_name_or_flagged(write: Write, changes: dict[str, Any], words: str) -> None:
    sides = read(write("base", records(0))), read(write("head", records(1), **changes))
    with pytest.raises(ResultsError, match=words) as caught:
        compare(*sides)
    assert "--unlike" in str(caught.value)
    assert any(words in note for note in compare(*sides, unlike=True).notes)


def test_a_library_that_changes_no_figure_is_not_held_against_a_run(write: Write) -> None:
    libraries = {"torch": "2.13.0", "numpy": "9.9"}
    sides = read(write("base", records(0))), read(write("head", records(1), libraries=libraries))
    assert compare(*sides).notes == []


def test_unlike_thread_counts_are_refused_or_matched_all_the_same(write: Write) -> None:
    four = [record(r.variant, r.n_k, threads=4, samples_s=r.samples_s) for r in records(1)]
    sides = read(write("base", records(0))), read(write("head", four))
    with pytest.raises(ResultsError, match="threads 2 and 4"):
        compare(*sides)
    comparison = compare(*sides, unlike=True)
    assert comparison.count("same") == 62
    assert comparison.only_base == []


@pytest.mark.parametrize(
    ("base_us", "head_us", "words"),
    [
        (3.6, 4.1, None),
        (3.6, 5.4, r"1\.50 times as long in \S+head as"),
        (5.4, 3.6, r"1\.50 times as long in \S+base as"),
    ],
)
def test_slower_handing_over_of_work_to_threads_is_pointed_out(
    write: Write, base_us: float, head_us: float, words: str | None
) -> None:
    timed = [
        [r.model_copy(update={"handover_s": us * 1e-6}) for r in records(seed)]
        for seed, us in enumerate((base_us, head_us))
    ]
    notes = compare(read(write("base", timed[0])), read(write("head", timed[1]))).notes
    assert notes == [] if words is None else re.search(words, "".join(notes))


@pytest.mark.parametrize(
    ("base", "head", "words"),
    [
        (1.05, 1.15, None),
        (1.05, 1.8, r"of (\d+) cases, beside \1 in \S+head\. "),
        (1.8, 1.05, r"of (\d+) cases, beside \1 in \S+base\. "),
    ],
)
def test_others_in_the_shared_cache_are_pointed_out(write: Write, base: float, head: float, words: str | None) -> None:
    timed = [[r.model_copy(update={"eviction": x}) for r in records(seed)] for seed, x in enumerate((base, head))]
    notes = compare(read(write("base", timed[0])), read(write("head", timed[1]))).notes
    assert notes == [] if words is None else re.search(words, "".join(notes))


def test_others_beside_a_few_cases_are_pointed_out_too(write: Write) -> None:
    calm = [[r.model_copy(update={"eviction": 1.0}) for r in records(seed)] for seed in (0, 1)]
    calm[0][3] = calm[0][3].model_copy(update={"eviction": 2.0})
    calm[1][5:7] = [r.model_copy(update={"eviction": 2.0}) for r in calm[1][5:7]]
    (note,) = compare(read(write("base", calm[0])), read(write("head", calm[1]))).notes
    assert re.search(r"beside 2 in \S+head and 1 in \S+base\. ", note)


def test_captured_input_of_another_text_is_unlike(write: Write) -> None:
    sides = [
        read(write(name, records(seed), inputs={"captured": {"text_sha256": text, "file": name}}))
        for seed, (name, text) in enumerate((("base", "aa"), ("head", "bb")))
    ]
    with pytest.raises(ResultsError, match="the input captured differs in text_sha256"):
        compare(*sides)


def test_a_run_of_two_machines_is_unlike_itself(write: Write) -> None:
    mixed = [*records(0)[:6], *(r.model_copy(update={"machine": "g"}) for r in records(0)[6:])]
    with pytest.raises(ResultsError, match="itself was measured on more than one machine"):
        compare(read(write("base", mixed)), read(write("head", records(1))))


def test_runs_that_share_no_case_and_runs_that_are_none(write: Write, tmp_path: Path) -> None:
    base = write("base", records(0)[:6], cases=6)
    with pytest.raises(ResultsError, match="no case in common"):
        compare(read(base), read(write("head", records(0)[6:], cases=6)))
    with pytest.raises(ResultsError, match="holds no record"):
        read(write("empty", []))
    with pytest.raises(ResultsError, match=r"has no run\.json"):
        read(tmp_path / "nothing")


def test_an_unfinished_run_is_compared_and_said_to_be_unfinished(write: Write) -> None:
    comparison = compare(read(write("base", records(0))), read(write("head", records(1)[:6])))
    assert any("has 6 of the 12 cases" in note for note in comparison.notes)
