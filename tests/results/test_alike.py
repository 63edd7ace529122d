"""Two runs with unlike neighbours: rounds that are alike are compared, and ratios agree as far as those do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attnbench.results import alike
from attnbench.results.agreement import agreement
from attnbench.results.alike import FEWEST, FEWEST_READINGS, weights, weights_of
from attnbench.results.compare import Side, compare
from attnbench.results.record import Record
from attnbench.results.statistics import paired_ratio

from .two_runs import record

ROUNDS = 200
READINGS = [1.9 + 1e-4 * number for number in range(ROUNDS)]
PER_EVICTION = {"sdpa": 0.0, "gla": 0.1, "topk": 0.06, "delta": 0.08, "nystrom": 0.05}
"""By what share calls take longer where a reading is higher by 1: a neighbour alone makes them so."""


def run_beside(usual: float, seed: int, slower: dict[str, float] | None = None, rounds: int = ROUNDS) -> Side:
    """A run whose neighbours use the shared cache about so much; `slower` are factors of what the code takes."""
    rng = np.random.default_rng(seed)
    evictions = (1 + (usual - 1) * rng.lognormal(0, 0.25, rounds)).tolist()
    moods = rng.lognormal(0, 0.02, rounds)  # what a round's turns have in common
    samples = {
        variant: (slower or {}).get(variant, 1.0)
        * 1e-3
        * (1 + share * (np.array(evictions) - 1))
        * moods
        * rng.lognormal(0, 0.01, rounds)
        for variant, share in PER_EVICTION.items()
    }
    return Side(
        f"usual {usual}",
        [
            record(
                variant,
                1024,
                kind="exact" if variant == "sdpa" else "approximate",
                samples_s=took.tolist(),
                rounds_per_process=[rounds // 20] * 20,
                evictions=evictions,
                eviction=float(np.median(evictions)),
                baseline="sdpa",
                ratio=paired_ratio(took, samples["sdpa"]).value,
            )
            for variant, took in samples.items()
        ],
    )


def without_readings(side: Side) -> Side:
    return Side(side.name, [r.model_copy(update={"evictions": None, "eviction": None}) for r in side.records])


def any_number_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEWEST", "FEWEST_READINGS"):
        monkeypatch.setattr(alike, name, 0)
    monkeypatch.setattr(alike, "UNLIKE", 1.0)


def pairs(base: Side, head: Side) -> list[tuple[Record, Record]]:
    return list(zip(base.records, head.records, strict=True))


@pytest.mark.parametrize(
    ("base", "head", "wanted"),
    [
        ([1.0, 2.0, 3.0], [3.01, 1.01, 2.01], ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])),
        ([2.5, 1.0], [1.5, 2.5, 9.0], ([1.0, 0.0], [0.0, 1.0, 0.0])),
        ([2.5, 2.5, 2.5, 9.0], [2.5, 1.0, 2.5], ([2 / 3, 2 / 3, 2 / 3, 0.0], [1.0, 0.0, 1.0])),
        ([], [1.0], ([], [1.0])),
    ],
)
def test_both_runs_have_as_many_rounds_of_each_reading(
    base: list[float], head: list[float], wanted: tuple[list[float], list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    any_number_counts(monkeypatch)
    assert weights(base, head) == wanted
    assert weights(head, base) == wanted[::-1]


def test_neighbours_alone_are_not_called_where_rounds_tell_of_them() -> None:
    base, head = run_beside(1.9, 0), run_beside(2.6, 1)
    found = compare(base, head)
    assert found.count("same") == len(found.findings)
    blind = compare(without_readings(base), without_readings(head))
    off = {
        name: [abs(f.ratio.value - 1) for f in each.findings if f.measure == "time" and f.ratio]
        for name, each in (("found", found), ("blind", blind))
    }
    assert max(off["found"]) < 0.02 < 0.03 < np.median(off["blind"])
    (note,) = [note for note in found.notes if "`evictions`" in note]
    assert "of 5 of 5 cases rounds were weighed" in note
    assert any("others used the cache" in note for note in found.notes)


def test_of_runs_whose_neighbours_hardly_differ_all_rounds_are_compared() -> None:
    """Leaving out half of the rounds would cost more than those do."""
    base, head = run_beside(2.2, 0), run_beside(2.3, 1)
    assert weights_of(base.records[1], head.records[1]) == ([1.0] * ROUNDS, [1.0] * ROUNDS)
    assert compare(base, head).notes == []


def test_what_readings_miss_is_left_and_the_reader_is_told() -> None:
    base, head = run_beside(1.9, 0), run_beside(2.6, 1)
    rng = np.random.default_rng(2)
    for side in (base, head):
        noise = rng.lognormal(0, 0.1, ROUNDS)
        for number, one in enumerate(side.records):
            read = (np.array(one.evictions) * noise).tolist()
            side.records[number] = one.model_copy(update={"evictions": read, "eviction": float(np.median(read))})
    found, blind = compare(base, head), compare(without_readings(base), without_readings(head))
    assert found.ratios is not None
    assert blind.ratios is not None
    assert 0.005 < found.ratios.worst < 0.75 * blind.ratios.worst
    assert any("others used the cache" in note for note in found.notes)


def test_what_the_code_takes_longer_is_seen_all_the_same() -> None:
    found = compare(run_beside(1.9, 0), run_beside(2.6, 1, slower={"gla": 1.15}))
    (slower,) = [f for f in found.findings if f.verdict in ("worse", "perhaps")]
    assert (slower.case.variant, slower.verdict) == ("gla", "worse")
    assert slower.ratio is not None
    assert slower.ratio.low < 1.15 < slower.ratio.high


def test_ratios_agree_as_far_as_rounds_were_alike() -> None:
    base, head = run_beside(1.9, 0), run_beside(2.6, 1)
    found = compare(base, head).ratios
    blind = compare(without_readings(base), without_readings(head)).ratios
    assert found is not None
    assert blind is not None
    assert found.cases == blind.cases == 4
    assert found.worst < 0.015 < 0.03 < blind.median <= blind.worst
    assert blind.worst_case.variant == "gla"
    recorded = [h.ratio / b.ratio - 1 for b, h in pairs(base, head)[1:] if b.ratio and h.ratio]
    assert blind.worst == pytest.approx(max(recorded))
    assert f"of 4 cases, differ by {found.median:.1%} in the median and by {found.worst:.1%} at most" in str(found)


def test_rounds_that_were_not_taken_together_make_no_ratio() -> None:
    """Of a case measured in another part of its group, what was recorded is compared."""
    base, head = run_beside(1.9, 0), run_beside(2.6, 1)
    apart = [r if r.variant == "sdpa" else r.model_copy(update={"ratio": 7.0}) for r in head.records]
    found = agreement(pairs(base, Side("head", apart)), base.records, apart)
    assert found is not None
    assert found.worst == pytest.approx(7.0 / min(r.ratio for r in base.records[1:] if r.ratio) - 1)


def test_without_a_ratio_in_both_there_is_nothing_to_agree_on() -> None:
    base, head = run_beside(1.9, 0), run_beside(2.6, 1)
    bare = [r.model_copy(update={"ratio": None, "baseline": None}) for r in head.records]
    assert compare(base, Side("head", bare)).ratios is None


@pytest.mark.parametrize(
    "changes",
    [
        {"evictions": None},
        {"evictions": [1.9] * (ROUNDS - 1)},
        {"evictions": [9.0] * (ROUNDS - FEWEST + 1) + READINGS[: FEWEST - 1]},
        {"evictions": READINGS[: FEWEST_READINGS - 1] * 10 + [9.0] * (ROUNDS - 10 * (FEWEST_READINGS - 1))},
    ],
)
def test_where_readings_are_lacking_or_unlike_all_rounds_are_compared(changes: dict[str, Any]) -> None:
    base, head = (record("gla", 1024, samples_s=[1e-3] * ROUNDS, evictions=READINGS, eviction=1.9) for _ in range(2))
    head = head.model_copy(update=changes)
    assert weights_of(base, head) == ([1.0] * ROUNDS, [1.0] * ROUNDS)
