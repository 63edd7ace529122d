"""Two runs that differ in one known thing: compare finds it, calls it by its name, and finds nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from attnbench.results.changes import Finding
from attnbench.results.compare import Comparison, compare, read
from attnbench.results.conditions import Side
from attnbench.results.errors import ResultsError
from attnbench.results.record import Record

from .two_runs import VARIANTS, Write, ceiling, record, records


@pytest.fixture
def found(write: Write) -> Callable[..., Comparison]:
    """The comparison of a run with another one that has these changes."""

    def compared(head: Sequence[Record], base: Sequence[Record] | None = None, **options: Any) -> Comparison:
        sides = write("base", base or records(0)), write("head", head)
        return compare(*map(read, sides), **options)

    return compared


def called(comparison: Comparison, *verdicts: str) -> list[tuple[str, str, int, str]]:
    wanted = verdicts or ("worse", "better")
    return [(f.word, f.case.variant, f.case.n_k, f.measure) for f in comparison.findings if f.verdict in wanted]


def of(comparison: Comparison, variant: str, length: int, measure: str) -> Finding:
    (one,) = [f for f in comparison.findings if (f.case.variant, f.case.n_k, f.measure) == (variant, length, measure)]
    return one


def read_again(comparison: Comparison) -> tuple[Any, Any]:
    return read(comparison.base), read(comparison.head)


# -- what is called ---------------------------------------------------------------------------------------------


def test_the_same_code_measured_again_is_no_change(found: Callable[..., Comparison]) -> None:
    comparison = found(records(1))
    assert called(comparison, "worse", "better", "perhaps", "other") == []
    assert not comparison.worse
    assert comparison.notes == []
    assert comparison.summary == (
        "62 comparisons of 12 cases (12 times, 12 memory peaks, 12 sizes of state, 12 errors, 2 fidelity errors, "
        "12 statuses): 0 worse, 0 better, 0 perhaps changed, 0 otherwise changed, 62 unchanged; 0 only in BASE, "
        "0 only in HEAD"
    )


def test_hundreds_of_runs_of_the_same_code_hardly_ever_raise_an_alarm() -> None:
    """A noise far above the threshold, so that the test alone must hold back."""
    rng = np.random.default_rng(0)

    def noisy(name: str) -> Side:
        made = [(v, rng.lognormal(0, 0.2, 12).tolist()) for v in VARIANTS]
        return Side(name, [record(v, 512, samples_s=samples, rounds_per_process=[3] * 4) for v, samples in made])

    alarms = [bool(called(compare(noisy("a"), noisy("b")))) for _ in range(120)]
    assert np.mean(alarms) <= 0.12


def test_a_slower_case_is_found_with_its_effect_and_nothing_else(found: Callable[..., Comparison]) -> None:
    comparison = found(records(1, changes={("gla", 512): {"slower": 1.10}, ("topk", 1024): {"slower": 0.80}}))
    assert called(comparison) == [("slower", "gla", 512, "time"), ("faster", "topk", 1024, "time")]
    slower = comparison.findings[0]
    assert slower.ratio is not None
    assert slower.ratio.low < 1.10 < slower.ratio.high
    assert slower.ratio.value == pytest.approx(1.10, abs=0.015)
    assert slower.p is not None
    assert slower.p < 1e-3
    assert comparison.worse


def test_a_change_below_the_threshold_is_not_called_however_sure(found: Callable[..., Comparison]) -> None:
    comparison = found(records(1, rounds=60, changes={("gla", 512): {"slower": 1.02}}), records(0, rounds=60))
    assert called(comparison, "worse", "better", "perhaps") == []
    finer = compare(*(read_again(comparison)), threshold=0.01)
    assert called(finer) == [("slower", "gla", 512, "time")]


def test_a_large_effect_without_evidence_is_not_called(found: Callable[..., Comparison]) -> None:
    wild = {"samples_s": [0.004, 0.006, 0.009, 0.005, 0.012, 0.007], "rounds_per_process": [2] * 3}
    other = {"samples_s": [0.005, 0.009, 0.008, 0.006, 0.010, 0.004], "rounds_per_process": [2] * 3}
    comparison = found(records(1, changes={("gla", 512): wild}), records(0, changes={("gla", 512): other}))
    assert of(comparison, "gla", 512, "time").verdict == "same"


def test_what_the_correction_takes_away_is_perhaps_a_change_and_no_regression(found: Callable[..., Comparison]) -> None:
    """Of 12 cases, one with p = 0.01 does not count; alone it would."""
    ours, theirs = (
        {"samples_s": [x * 5.12e-3 for x in samples], "rounds_per_process": [1] * 4}
        for samples in ([1.15, 1.2, 1.3, 1.35], [0.9, 0.95, 1.05, 1.1])
    )
    comparison = found(records(1, changes={("naive", 512): ours}), records(0, changes={("naive", 512): theirs}))
    assert called(comparison, "perhaps") == [("perhaps slower", "naive", 512, "time")]
    assert not comparison.worse


def test_too_few_rounds_of_one_process_are_said_to_be_too_few(found: Callable[..., Comparison]) -> None:
    few = [r.model_copy(update={"samples_s": (r.samples_s or [])[:4]}) for r in records(1)]
    assert any("12 of 12 cases have too few rounds" in note for note in found(few, few).notes)


def test_memory_is_compared_to_the_byte_but_for_an_allocators_rounding(found: Callable[..., Comparison]) -> None:
    changes = {
        ("gla", 512): {"peak_bytes": (1 << 20) + (1 << 14)},
        ("sdpa", 512): {"peak_bytes": (1 << 20) + 4096},
        ("topk", 512): {"peak_bytes": 1 << 19},
        ("delta", 512): {"state_bytes": (1 << 14) + 256},
        ("naive", 512): {"peak_bytes": None},
    }
    comparison = found(records(1, changes=changes))
    assert sorted(called(comparison)) == [
        ("bigger", "delta", 512, "state"),
        ("bigger", "gla", 512, "peak"),
        ("smaller", "topk", 512, "peak"),
    ]


def test_a_small_peak_that_grew_by_a_few_bytes_is_the_same(found: Callable[..., Comparison]) -> None:
    small, grown = {"peak_bytes": 1000}, {"peak_bytes": 4000}
    comparison = found(records(1, changes={("gla", 512): grown}), records(0, changes={("gla", 512): small}))
    assert called(comparison) == []


@pytest.mark.parametrize("status", ["unsupported", "incorrect", "oom", "timeout", "crashed"])
def test_a_case_that_no_longer_works_is_worse_and_one_that_works_again_better(
    found: Callable[..., Comparison], status: str, write: Write
) -> None:
    broken = records(1, changes={("gla", 512): {"status": status, "samples_s": None, "reasons": ["because"]}})
    comparison = found(broken)
    assert called(comparison) == [(status, "gla", 512, "status")]
    assert comparison.findings[0].why == "because"
    back = compare(*reversed(read_again(comparison)))
    assert called(back) == [("works again", "gla", 512, "status")]


def test_a_case_that_was_skipped_says_nothing_of_the_code(found: Callable[..., Comparison]) -> None:
    comparison = found(records(1, changes={("gla", 512): {"status": "skipped", "samples_s": None}}))
    assert called(comparison, "worse", "other") == [("not measured", "gla", 512, "status")]
    assert comparison.findings[0].verdict == "other"


def test_from_bad_to_worse(found: Callable[..., Comparison]) -> None:
    one, other = ({"status": status, "samples_s": None} for status in ("oom", "incorrect"))
    comparison = found(records(1, changes={("gla", 512): other}), records(0, changes={("gla", 512): one}))
    assert called(comparison) == [("incorrect", "gla", 512, "status")]


def test_an_error_past_what_base_allowed_is_worse_even_where_head_allows_it(found: Callable[..., Comparison]) -> None:
    comparison = found(
        records(
            1,
            changes={
                ("gla", 512): {"error": 5e-6, "error_allowed": 1e-5},
                ("sdpa", 512): {"error": 9e-7},
            },
        )
    )
    assert called(comparison) == [("less exact", "gla", 512, "error")]


@pytest.mark.parametrize(("error", "less"), [(1.7e-6, False), (1.9e-6, True)])
def test_an_error_that_has_not_doubled_is_the_same_where_base_may_have_allowed_more(
    found: Callable[..., Comparison], error: float, less: bool
) -> None:
    """BASE's error is within the floor, which is then all that its record tells of what was allowed."""
    base = records(0, changes={("gla", 512): {"error": 9e-7, "error_allowed": 1e-6}})
    head = records(1, changes={("gla", 512): {"error": error, "error_allowed": 3e-6}})
    assert called(found(head, base)) == [("less exact", "gla", 512, "error")] * less


def test_fidelity_counts_beyond_five_percent_and_beyond_rounding(found: Callable[..., Comparison]) -> None:
    changes = {
        ("nystrom", 512): {"fidelity_error": 0.11},
        ("nystrom", 1024): {"fidelity_error": 0.104},
    }
    assert called(found(records(1, changes=changes))) == [("farther off", "nystrom", 512, "fidelity")]


def test_fidelity_that_was_nothing_but_rounding_may_round_otherwise(found: Callable[..., Comparison]) -> None:
    before, after = ({("nystrom", 512): {"fidelity_error": x}} for x in (0.0, 4e-7))
    assert called(found(records(1, changes=after), records(0, changes=before))) == []


def test_cases_of_one_run_only_are_counted(found: Callable[..., Comparison]) -> None:
    comparison = found([r for r in records(1) if r.variant != "gla"], [r for r in records(0) if r.variant != "sdpa"])
    assert [r.variant for r in comparison.only_base] == ["gla", "gla"]
    assert [r.variant for r in comparison.only_head] == ["sdpa", "sdpa"]
    assert "2 only in BASE, 2 only in HEAD" in comparison.summary


def test_the_worst_comes_first(found: Callable[..., Comparison]) -> None:
    changes = {
        ("gla", 512): {"slower": 1.2},
        ("topk", 512): {"slower": 2.0},
        ("delta", 512): {"status": "incorrect", "samples_s": None},
        ("sdpa", 512): {"slower": 0.5},
    }
    comparison = found(records(1, changes=changes))
    assert [f.case.variant for f in comparison.findings[:4]] == ["delta", "topk", "gla", "sdpa"]


def test_figures_that_one_of_both_lacks_are_said_not_to_be_compared(found: Callable[..., Comparison]) -> None:
    lacking = {("gla", 512): {"peak_bytes": None}, ("topk", 512): {"peak_bytes": None, "error": None}}
    notes = found(records(1, changes=lacking)).notes
    assert "2 cases have a memory peak (`peak_bytes`) in BASE alone, which is not compared" in notes
    assert any("1 cases have an error (`error`) in BASE alone" in note for note in notes)


def test_records_without_samples_are_said_not_to_be_compared(found: Callable[..., Comparison]) -> None:
    comparison = found(records(1, changes={("gla", 512): {"samples_s": None}, ("sdpa", 512): {"samples_s": None}}))
    assert any("2 cases have no samples" in note for note in comparison.notes)


# -- sides that took turns --------------------------------------------------------------------------------------


def in_turns(factors: Sequence[float], rounds: int = 10) -> Comparison:
    """Two sides on a machine that wanders by far more than the effect; one factor for each pair of processes."""
    rng = np.random.default_rng(0)
    count = rounds * len(factors)
    drift = np.exp(np.cumsum(rng.normal(0, 0.1, count)))
    base, head = drift * rng.lognormal(0, 0.005, count), drift * rng.lognormal(0, 0.005, count)
    head *= np.repeat(factors, rounds)
    lasted = [rounds] * len(factors)
    sides = [
        Side(name, [record("gla", 512, samples_s=samples.tolist(), rounds_per_process=lasted)])
        for name, samples in (("base", base), ("head", head))
    ]
    return compare(*sides, paired=True)


def test_what_took_turns_is_judged_by_pairs_of_processes() -> None:
    comparison = in_turns([1.05] * 6)
    assert called(comparison) == [("slower", "gla", 512, "time")]
    assert comparison.findings[0].ratio is not None
    assert comparison.findings[0].ratio.value == pytest.approx(1.05, abs=0.005)
    assert called(in_turns([0.9] * 6)) == [("faster", "gla", 512, "time")]
    assert called(in_turns([1.0] * 6), "worse", "better", "perhaps") == []


def test_what_one_process_alone_shows_is_the_luck_of_that_process() -> None:
    """However many rounds saw it."""
    (found,) = [f for f in in_turns([1.3, 1.0, 1.0, 1.0, 1.0, 1.0], rounds=50).findings if f.measure == "time"]
    assert found.ratio is not None
    assert found.ratio.value > 1.03
    assert (found.verdict, found.p) == ("same", pytest.approx(0.363, abs=0.1))
    assert called(in_turns([1.3, 1.2, 1.1, 1.2, 1.3, 1.1])) == [("slower", "gla", 512, "time")]


# -- a machine that was slower as a whole -----------------------------------------------------------------------


def test_a_shift_of_everything_is_put_into_words_and_not_taken_off_unasked(write: Write) -> None:
    sides = (
        read(write("base", records(0), **ceiling(1.0e9))),
        read(write("head", records(1, shift=1.10, changes={("gla", 512): {"slower": 1.2}}), **ceiling(0.9e9))),
    )
    plain = compare(*sides)
    assert called(plain) == [("slower", "gla", 512, "time")]
    assert plain.count("perhaps") == 11  # a machine may be slower by as much
    assert plain.shift is not None
    assert plain.shift.value == pytest.approx(1.10, abs=0.01)
    assert "took 10." in plain.notes[0]
    assert "a matrix product took 11.1 % longer" in plain.notes[0]
    relative = compare(*sides, relative=True)
    assert called(relative) == [("slower", "gla", 512, "time")]
    assert relative.findings[0].ratio is not None
    assert relative.findings[0].ratio.value == pytest.approx(1.2, abs=0.02)
    assert "a change that all share is not seen" in relative.notes[0]


def test_a_shift_that_no_machine_makes_is_called(found: Callable[..., Comparison]) -> None:
    assert found(records(1, shift=1.5)).count("worse") == 12


@pytest.mark.parametrize("shift", [1.0, 1.02])
def test_what_relative_takes_off_is_told_however_little(found: Callable[..., Comparison], shift: float) -> None:
    assert any("Ratios are to the shift" in note for note in found(records(1, shift=shift), relative=True).notes)


def test_each_group_has_the_shift_of_those_that_took_turns(write: Write) -> None:
    changes = {(variant, 1024): {"slower": 1.3} for variant in VARIANTS}
    changes["topk", 1024] = {"slower": 1.5}
    sides = read(write("base", records(0))), read(write("head", records(1, changes=changes)))
    assert called(compare(*sides, relative=True)) == [("slower", "topk", 1024, "time")]
    assert compare(*sides).count("worse") == 6


def test_a_shift_of_few_cases_is_none(write: Write) -> None:
    sides = (
        read(write("base", records(0)[:3], cases=3)),
        read(write("head", records(1, shift=1.2)[:3], cases=3)),
    )
    assert compare(*sides).shift is None
    with pytest.raises(ResultsError, match="3 cases were timed in both, too few"):
        compare(*sides, relative=True)
