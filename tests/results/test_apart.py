"""Two runs that took no turns: the same code raises hardly an alarm whatever luck its processes and minutes had, and a
change is found all the same."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from attnbench.results.between import MOST_LUCK, USUAL_LUCK, USUAL_RUN, case_of, luck_of_groups, total
from attnbench.results.changes import Finding
from attnbench.results.compare import Comparison, Side, compare
from attnbench.results.mean_ratios import Variance

from .two_runs import VARIANTS, record

LENGTHS = (128, 256, 512, 1024, 2048, 4096)


def run_of(
    rng: np.random.Generator,
    *,
    processes: int = 4,
    luck: float = 0.01,
    mood: float = 0.015,
    slower: Mapping[tuple[str, int], float] | None = None,
    lengths: tuple[int, ...] = LENGTHS,
    variants: tuple[str, ...] = VARIANTS,
    rounds: int = 5,
) -> Side:
    """A run in which each process has its luck, and the cases of a length share the machine's mood."""
    made = []
    for length in lengths:
        shared = rng.normal(0, mood)
        for variant in variants:
            mean = shared + math.log((slower or {}).get((variant, length), 1.0))
            each = np.exp(mean + rng.normal(0, luck, (processes, 1)) + rng.normal(0, 0.002, (processes, rounds)))
            made.append(
                record(variant, length, samples_s=each.ravel().tolist(), rounds_per_process=[rounds] * processes)
            )
    return Side("run", made)


def times(found: Comparison, *verdicts: str) -> list[Finding]:
    return [f for f in found.findings if f.measure == "time" and f.verdict in (verdicts or ("worse", "better"))]


def everywhere(variant: str, factor: float) -> dict[tuple[str, int], float]:
    return {(variant, length): factor for length in LENGTHS}


# -- the same code ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[:2]])
@pytest.mark.parametrize("processes", [3, 12])
def test_luck_of_processes_and_of_minutes_raises_hardly_an_alarm(processes: int, lengths: tuple[int, ...]) -> None:
    """Though by their rounds nearly all cases differ, and most by more than the threshold."""
    rng = np.random.default_rng(0)
    options = {"processes": processes, "luck": 0.03, "mood": 0.03, "lengths": lengths}
    alarms = [bool(times(compare(run_of(rng, **options), run_of(rng, **options)))) for _ in range(120)]
    assert np.mean(alarms) <= 0.08


def test_the_same_code_by_one_process_a_case_raises_hardly_an_alarm() -> None:
    rng = np.random.default_rng(1)
    options = {"processes": 1, "rounds": 12, "luck": 0.04, "mood": 0.02}
    alarms = [bool(times(compare(run_of(rng, **options), run_of(rng, **options)))) for _ in range(120)]
    assert np.mean(alarms) <= 0.08


@pytest.mark.parametrize("relative", [False, True])
def test_what_changed_mirrors_what_changed_back(relative: bool) -> None:
    rng = np.random.default_rng(2)
    base, head = run_of(rng), run_of(rng, slower=everywhere("gla", 1.2) | {("topk", 512): 0.7})
    there, back = (compare(*sides, relative=relative) for sides in ((base, head), (head, base)))
    mirrored = {f.case.case_id: f for f in back.findings if f.measure == "time"}
    words = {"slower": "faster", "perhaps slower": "perhaps faster", "same": "same"}
    words |= {other: word for word, other in words.items()}
    for one in times(there, "worse", "better", "perhaps", "same"):
        other = mirrored[one.case.case_id]
        assert other.word == words[one.word]
        assert other.p == pytest.approx(one.p)
        assert one.ratio is not None
        assert other.ratio is not None
        assert (1 / other.ratio.high, 1 / other.ratio.low) == pytest.approx((one.ratio.low, one.ratio.high))
    assert len(times(there)) == 7


def test_a_group_that_moved_as_a_whole_is_no_change_of_its_cases() -> None:
    rng = np.random.default_rng(3)
    found = compare(run_of(rng, mood=0.0), run_of(rng, mood=0.0, slower={(v, 512): 1.06 for v in VARIANTS}))
    assert times(found) == []
    assert any("by groups that took turns" in note for note in found.notes)


def test_processes_that_were_disturbed_hide_no_change_of_the_others() -> None:
    rng = np.random.default_rng(18)
    base, head = run_of(rng, processes=10), run_of(rng, processes=10, slower=everywhere("gla", 1.3))
    for number, record_of in enumerate(base.records):
        disturbed = [x * (100.0 if i < 5 else 3.0 if i < 10 else 1.0) for i, x in enumerate(record_of.samples_s or [])]
        base.records[number] = record_of.model_copy(update={"samples_s": disturbed})
    found = times(compare(base, head))
    assert [(f.case.variant, f.verdict) for f in found] == [("gla", "worse")] * len(LENGTHS)
    assert all(f.ratio and f.ratio.value == pytest.approx(1.3, abs=0.05) for f in found)
    assert all(f.base == pytest.approx(1.0, abs=0.1) for f in found)


def test_a_case_that_is_known_too_badly_is_named() -> None:
    """One of three processes was disturbed, so that nothing can be said; and that is."""
    rng = np.random.default_rng(19)
    base, head = run_of(rng, processes=3), run_of(rng, processes=3, slower={("gla", 512): 2.0})
    number = next(i for i, r in enumerate(base.records) if (r.variant, r.n_k) == ("gla", 512))
    disturbed = [x * (10.0 if i < 5 else 1.0) for i, x in enumerate(base.records[number].samples_s or [])]
    base.records[number] = base.records[number].model_copy(update={"samples_s": disturbed})
    found = compare(base, head)
    assert times(found) == []
    (note,) = [note for note in found.notes if "known too badly" in note]
    assert note.startswith("1 of 36 cases")
    assert "gla at 512 tokens" in note


def test_a_minute_in_which_one_process_was_disturbed_is_no_change() -> None:
    rng = np.random.default_rng(4)
    base, head = run_of(rng), run_of(rng)
    disturbed = [x * (1.4 if number < 5 else 1.0) for number, x in enumerate(head.records[2].samples_s or [])]
    head.records[2] = head.records[2].model_copy(update={"samples_s": disturbed})
    assert times(compare(base, head)) == []


@pytest.mark.parametrize(
    ("variants", "faster", "factor"),
    [(VARIANTS[:3], ("gla",), 0.5), (VARIANTS, ("gla", "topk", "sdpa"), 0.5), (VARIANTS, VARIANTS[:4], 0.9)],
)
def test_what_others_gained_is_not_lost_by_the_rest(
    variants: tuple[str, ...], faster: tuple[str, ...], factor: float
) -> None:
    rng = np.random.default_rng(16)
    slower = {(variant, length): factor for variant in faster for length in LENGTHS}
    found = [
        times(
            compare(
                run_of(rng, variants=variants, processes=6), run_of(rng, variants=variants, processes=6, slower=slower)
            )
        )
        for _ in range(40)
    ]
    assert np.mean([any(f.case.variant not in faster for f in each) for each in found]) <= 0.08
    assert all(f.verdict == "better" for each in found for f in each if f.case.variant in faster)


@pytest.mark.parametrize("relative", [False, True])
def test_a_machine_that_was_slower_for_a_whole_run_is_no_change(relative: bool) -> None:
    """Of a twentieth, in the standard deviation: nothing within two runs tells it from a change of all cases."""
    rng = np.random.default_rng(17)
    alarms = []
    for _ in range(60):
        slower = dict.fromkeys(((v, n) for v in VARIANTS for n in LENGTHS), float(rng.lognormal(0, 0.05)))
        alarms.append(bool(times(compare(run_of(rng), run_of(rng, slower=slower), relative=relative))))
    assert np.mean(alarms) <= 0.1


# -- changes ----------------------------------------------------------------------------------------------------


def test_a_variant_that_stands_out_of_its_groups_is_found_though_groups_wander() -> None:
    """6 % slower, where groups lie 3 % apart for luck: too little by itself."""
    rng = np.random.default_rng(5)
    options = {"processes": 12, "luck": 0.01, "mood": 0.03}
    found = [
        times(compare(run_of(rng, **options), run_of(rng, **options, slower=everywhere("gla", 1.06))))
        for _ in range(20)
    ]
    assert all({f.case.variant for f in each} <= {"gla"} for each in found)
    assert sum(bool(each) for each in found) >= 18
    worse = [f for each in found for f in each]
    assert all(f.verdict == "worse" and f.to_group is not None for f in worse)
    assert np.median([f.to_group.value for f in worse if f.to_group]) == pytest.approx(1.06, abs=0.01)
    notes = compare(run_of(rng, **options), run_of(rng, **options, slower=everywhere("gla", 1.2))).notes
    assert any("changes of time count by how they stand out" in note for note in notes)


def test_what_does_not_stand_out_by_the_threshold_is_no_change() -> None:
    """A group 2.5 % slower, and in it one case by 1 % more: past the threshold, but not by itself."""
    rng = np.random.default_rng(6)
    slower = {(v, 512): 1.025 for v in VARIANTS} | {("gla", 512): 1.035}
    options = {"processes": 40, "luck": 0.002, "mood": 0.0}
    assert times(compare(run_of(rng, **options), run_of(rng, **options, slower=slower))) == []


@pytest.mark.parametrize("variants", [VARIANTS, VARIANTS[:1]])
@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[:1]])
def test_what_is_far_slower_is_found_whatever_else_was_measured(
    variants: tuple[str, ...], lengths: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(7)
    slower = {(variant, length): 2.0 for variant in variants for length in lengths}
    base = run_of(rng, variants=variants, lengths=lengths)
    found = times(compare(base, run_of(rng, variants=variants, lengths=lengths, slower=slower)))
    assert [f.verdict for f in found] == ["worse"] * len(slower)


def test_intervals_of_the_same_code_cover_no_change() -> None:
    rng = np.random.default_rng(8)
    ratios = [
        f.ratio for _ in range(60) for f in times(compare(run_of(rng), run_of(rng)), "same", "perhaps") if f.ratio
    ]
    assert np.mean([ratio.low < 1 < ratio.high for ratio in ratios]) > 0.93


# -- one process ------------------------------------------------------------------------------------------------


def test_one_process_alone_counts_far_beyond_what_such_are_known_to_differ_by() -> None:
    rng = np.random.default_rng(9)
    options = {"processes": 1, "rounds": 12, "variants": VARIANTS[:1], "lengths": LENGTHS[:2]}
    base = run_of(rng, **options)
    (note,) = compare(base, run_of(rng, **options)).notes
    assert "2 of 2 cases were measured by one process" in note
    assert "10%" in note
    small, large = ({(VARIANTS[0], length): x for length in LENGTHS} for x in (1.2, 4.0))
    assert times(compare(base, run_of(rng, **options, slower=small))) == []
    assert len(times(compare(base, run_of(rng, **options, slower=large)))) == 2


def test_of_enough_cases_by_one_process_one_that_lies_far_from_all_is_found() -> None:
    rng = np.random.default_rng(10)
    options = {"processes": 1, "rounds": 12, "luck": 0.01, "mood": 0.01}
    found = times(compare(run_of(rng, **options), run_of(rng, **options, slower=everywhere("gla", 1.2))))
    assert {(f.case.variant, f.verdict) for f in found} == {("gla", "worse")}


@pytest.mark.parametrize("counts", [None, [5, 5], [20]])
def test_where_a_record_does_not_tell_of_its_processes_it_counts_as_one(counts: list[int] | None) -> None:
    (told,) = run_of(np.random.default_rng(11), variants=VARIANTS[:1], lengths=LENGTHS[:1]).records
    weights = [1.0] * 20, [1.0] * 20
    assert case_of((told, told), weights).own.df == pytest.approx(6)  # of four processes a side none is trimmed
    assert case_of((told, told.model_copy(update={"rounds_per_process": counts})), weights).own.df == 0


# -- what runs have between them ----------------------------------------------------------------------------------


def test_processes_that_hardly_count_lend_few_degrees_of_freedom() -> None:
    (one,) = run_of(np.random.default_rng(12), variants=VARIANTS[:1], lengths=LENGTHS[:1]).records
    full, half = [1.0] * 20, [1.0] * 10 + [0.0] * 10
    assert case_of((one, one), (full, half)).own.df == pytest.approx(total(Variance(1, 3), Variance(1, 1)).df, rel=0.5)
    assert case_of((one, one), (full, [1.0] * 5 + [0.0] * 15)).own == Variance(0.0, 0.0)


def test_a_sum_has_the_degrees_of_freedom_of_welch() -> None:
    assert total(Variance(2.0, 5), Variance(2.0, 5)) == Variance(4.0, pytest.approx(10))
    assert total(Variance(2.0, 5), Variance(0.0, 9)) == Variance(2.0, pytest.approx(5))
    assert total(Variance(2.0, 5), Variance(1e9, 3)).df == pytest.approx(3)
    assert total(Variance(0.0, 5), Variance(0.0, 3)) == Variance(0.0, 8)


@pytest.mark.parametrize("mood", [0.0, 0.02])
def test_how_far_groups_lie_apart_is_read_off_their_medians(mood: float) -> None:
    rng = np.random.default_rng(13)
    found = []
    for _ in range(200):
        base, head = run_of(rng, mood=mood), run_of(rng, mood=mood, slower=everywhere("gla", 3.0))
        cases = [case_of(pair, ([1.0] * 20, [1.0] * 20)) for pair in zip(base.records, head.records, strict=True)]
        found.append(luck_of_groups(cases, [case.own for case in cases]))
    wanted = (5 * 2 * mood**2 + USUAL_LUCK.df * USUAL_LUCK.value) / (5 + USUAL_LUCK.df)
    assert np.mean([luck.value for luck in found]) == pytest.approx(USUAL_RUN.value + wanted, rel=0.1)
    assert min(luck.df for luck in found) > USUAL_RUN.df


def test_groups_that_lie_farther_apart_than_luck_makes_them_are_not_put_down_to_it() -> None:
    rng = np.random.default_rng(13)
    base, head = run_of(rng), run_of(rng, slower={(variant, 512): 10.0 for variant in VARIANTS})
    cases = [case_of(pair, ([1.0] * 20, [1.0] * 20)) for pair in zip(base.records, head.records, strict=True)]
    assert luck_of_groups(cases, [case.own for case in cases]).value == pytest.approx(USUAL_RUN.value + MOST_LUCK**2)
    assert len(times(compare(base, head), "worse")) == len(VARIANTS)


def test_few_groups_or_small_ones_are_taken_to_be_as_far_apart_as_usual() -> None:
    rng = np.random.default_rng(14)
    for options in ({"lengths": LENGTHS[:1]}, {"variants": VARIANTS[:2]}):
        base, head = run_of(rng, **options), run_of(rng, **options)
        cases = [case_of(pair, ([1.0] * 20, [1.0] * 20)) for pair in zip(base.records, head.records, strict=True)]
        assert luck_of_groups(cases, [case.own for case in cases]) == total(USUAL_RUN, USUAL_LUCK)


# -- neighbours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "factor", "verdict"),
    [
        ({"eviction": (1.2, 1.9)}, 1.2, "perhaps"),  # read 1.58 times
        ({"eviction": (1.2, 1.9)}, 1.35, "worse"),  # more than neighbours ever made
        ({"eviction": (1.2, 1.4)}, 1.2, "worse"),  # more than was read, 1.17 times
        ({"eviction": (1.9, 1.2)}, 1.2, "worse"),  # against it
        ({"eviction": (1.2, 1.3)}, 1.2, "worse"),  # hardly another one
        ({"handover_s": (3e-6, 5e-6)}, 1.2, "perhaps"),
        ({"handover_s": (5e-6, 3e-6)}, 1 / 1.2, "perhaps"),
    ],
)
def test_a_change_that_neighbours_may_have_made_is_perhaps_one(
    fields: dict[str, tuple[float, float]], factor: float, verdict: str
) -> None:
    rng = np.random.default_rng(15)
    sides = run_of(rng, mood=0.0), run_of(rng, mood=0.0, slower=everywhere("gla", factor))
    for number, side in enumerate(sides):
        changes = {name: both[number] for name, both in fields.items()}
        side.records[:] = [r.model_copy(update=changes) for r in side.records]
    found = compare(*sides)
    assert {f.verdict for f in found.findings if f.measure == "time" and f.case.variant == "gla"} == {verdict}
    excused = [note for note in found.notes if "they may be all the neighbours'" in note]
    assert len(excused) == (verdict == "perhaps")
    if excused:
        assert all(next(iter(fields)) in f.why for f in times(found, "perhaps") if f.case.variant == "gla")
