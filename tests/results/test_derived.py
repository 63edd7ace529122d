"""What follows from records: each figure is computed again here, from the fields of the records alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from attnbench.results.derived import (
    amdahl,
    crossings,
    estimate,
    exponents,
)
from attnbench.results.feasible import feasible
from attnbench.results.record import Record
from attnbench.results.series import input_bytes, needed_bytes, ratio_between, split
from attnbench.results.statistics import Interval, median_interval, paired_ratio, ratio_of_medians

from .identified import identified

LENGTHS = (256, 512, 1024, 2048, 4096)
KINDS = {"naive": ("full", "exact"), "sdpa": ("full", "exact"), "window": ("sparse", "approximate")}


def record(variant: str, length: int, *, mode: str = "forward", **fields: Any) -> Record:
    family, kind = KINDS[variant]
    queries = 1 if mode == "decode" else length
    usual = {"heads": 4, "head_dim": 64, "threads": 2, "family": family, "kind": kind, "mode": mode, "n_q": queries}
    return Record.model_validate(identified(variant, length, **{**usual, **fields}))


def group(length: int, seconds: dict[str, float], *, seed: int = 0, noise: float = 0.05, **fields: Any) -> list[Record]:
    """Variants that took turns for 20 rounds; the ratio is to the fastest exact one."""
    rng = np.random.default_rng([seed, length])
    drift = np.exp(np.cumsum(rng.normal(0, 0.02, 20)))
    drawn = {name: s * drift * rng.lognormal(0, noise, 20) for name, s in seconds.items()}
    base = min((name for name in drawn if KINDS[name][1] == "exact"), key=lambda name: float(np.median(drawn[name])))
    found = []
    for name, samples in drawn.items():
        time, ratio = median_interval(samples), paired_ratio(samples, drawn[base])
        outcome = {
            "time_s": time.value,
            "time_s_low": time.low,
            "time_s_high": time.high,
            "samples_s": samples.tolist(),
            "baseline": base,
            "ratio": ratio.value,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
            "peak_bytes": {"naive": 20 * length**2, "sdpa": 1040 * length, "window": 6000 * length}[name],
        }
        found.append(record(name, length, **outcome, **fields))
    return found


def curves(length: int) -> dict[str, float]:
    """window is as fast as sdpa at 1,500 and as naive at 750."""
    return {"naive": 2e-9 * length**2, "sdpa": 1e-9 * length**2, "window": 1.5e-6 * length}


def run(seed: int = 0, **fields: Any) -> list[Record]:
    return [r for n in LENGTHS for r in group(n, curves(n), seed=seed, **fields)]


def by(records: list[Record], variant: str) -> dict[int, Record]:
    return {r.n_k: r for r in records if r.variant == variant}


# -- exponents --------------------------------------------------------------------------------------------------


def test_exponents_stand_beside_what_is_declared() -> None:
    records = run(declared_time_exponent=2.0, declared_memory_exponent=1.0)
    found = {(e.series.of.variant, e.quantity): e for e in exponents(records)}
    one = found["sdpa", "time"]
    logs = [math.log(float(np.median(r.samples_s or []))) for r in by(records, "sdpa").values()]
    assert one.figure.value == pytest.approx(np.polyfit(np.log(LENGTHS), logs, 1)[0])
    assert one.figure.low < 2.0 < one.figure.high
    assert one.tail.value == pytest.approx(np.polyfit(np.log(LENGTHS[-3:]), logs[-3:], 1)[0])
    assert one.tail.case_ids == tuple(by(records, "sdpa")[n].case_id for n in LENGTHS[-3:])
    assert (one.declared, one.figure.basis, one.lengths) == (2.0, "fitted", LENGTHS)
    assert one.figure.case_ids == tuple(r.case_id for r in by(records, "sdpa").values())
    assert found["window", "memory"].figure.value == pytest.approx(1.0)
    assert found["naive", "memory"].figure.value == pytest.approx(2.0)


def test_series_keep_apart_what_must_not_be_joined() -> None:
    """One length of two thread counts and of two machines makes no slope."""
    records = [
        *group(256, curves(256)),
        *group(512, curves(512), threads=1),
        *group(1024, curves(1024), machine="beef"),
        *group(2048, curves(2048), mode="train"),
        *group(4096, curves(4096), n_q=8),
    ]
    assert exponents(records) == []
    assert len(split(records)) == 15


def test_what_is_not_ok_has_no_figure() -> None:
    records = [r if r.n_k != 4096 else r.model_copy(update={"status": "incorrect"}) for r in run()]
    assert all(e.lengths == LENGTHS[:-1] for e in exponents(records))
    assert all(c.found.longest == 2048 for c in crossings(records))


# -- crossovers -------------------------------------------------------------------------------------------------


def test_crossovers_lie_where_the_paired_ratios_pass_one() -> None:
    records = run()
    found = {(c.series.of.variant, c.quantity, c.against): c for c in crossings(records)}
    assert set(found) == {
        *(("window", quantity, against) for quantity in ("time", "memory") for against in ("exact", "naive")),
        ("sdpa", "time", "naive"),
        ("sdpa", "memory", "naive"),
    }
    exact = found["window", "time", "exact"]
    ratios = [by(records, "window")[n].ratio for n in (1024, 2048)]
    share = math.log(ratios[0]) / (math.log(ratios[0]) - math.log(ratios[1]))
    assert exact.found.length == pytest.approx(1024 * 2**share)
    assert exact.found.low < 1500 < exact.found.high
    assert (exact.rivals, exact.basis, exact.beyond) == (("sdpa",), "interpolated", None)
    assert set(exact.case_ids) == {r.case_id for r in records if r.variant in ("window", "sdpa")}
    naive = found["window", "time", "naive"]
    assert naive.found.low < 750 < naive.found.high
    window, plain = by(records, "window")[512], by(records, "naive")[512]
    assert ratio_between(window, plain, by(records, "sdpa")[512]) == paired_ratio(window.samples_s, plain.samples_s)
    assert found["sdpa", "time", "naive"].words == "256 or before"
    assert found["sdpa", "time", "naive"].basis == "measured"
    assert found["window", "memory", "exact"].words == "none up to 4,096"
    assert found["window", "memory", "naive"].found.length == pytest.approx(300)


def test_a_decode_step_is_compared_with_its_state() -> None:
    """A window keeps 100 kB; a cache grows by 1 kB a token, while its step holds less than the window's."""
    records = []
    for n in (64, 256, 1024):
        steps = {"naive": (5000, 1000 * n), "window": (9000, 100_000)}
        records += [
            record(name, n, mode="decode", time_s=1.0, samples_s=[1.0] * 8, baseline="naive", ratio=1.0,
                   peak_bytes=peak, state_bytes=state)
            for name, (peak, state) in steps.items()
        ]  # fmt: skip
    found = next(c for c in crossings(records) if c.quantity == "memory" and c.series.of.variant == "window")
    assert found.found.length is not None
    assert 64 < found.found.length < 256


def test_a_crossover_of_training_is_that_of_its_series() -> None:
    records = run(mode="train")
    (found,) = [c for c in crossings(records) if (c.quantity, c.against) == ("time", "exact")]
    assert found.series.of.mode == "train"
    assert found.found.low < 1500 < found.found.high


def test_a_crossover_ahead_is_extrapolated_and_marked() -> None:
    records = [r for n in LENGTHS for r in group(n, {"sdpa": 1e-9 * n**2, "window": 1.2e-5 * n})]
    (found,) = [c for c in crossings(records) if c.quantity == "time"]
    assert found.found.length is None
    assert found.beyond is not None
    assert found.beyond.basis == "extrapolated"
    assert found.beyond.low < 12_000 < found.beyond.high
    assert found.words.startswith("none up to 4,096; extrapolated 1")


def test_no_crossover_is_promised_where_the_ratio_does_not_fall_or_too_far_ahead() -> None:
    for factor, power in ((2e-9, 2), (1e-3, 1)):
        records = [r for n in LENGTHS for r in group(n, {"sdpa": 1e-9 * n**2, "window": factor * n**power}, noise=1e-4)]
        (found,) = [c for c in crossings(records) if c.quantity == "time"]
        assert found.words == "none up to 4,096"


@pytest.mark.slow
def test_the_interval_of_a_crossover_covers_the_truth_here_and_ahead() -> None:
    held, wide = {"within": 0, "ahead": 0}, []
    for seed in range(200):
        lines = {"within": 1.5e-6, "ahead": 1.2e-5}
        for name, factor in lines.items():
            records = [
                r
                for n in LENGTHS
                for r in group(n, {"sdpa": 1e-9 * n**2, "window": factor * n}, seed=seed + 1000 * (name == "ahead"))
            ]
            (one,) = [c for c in crossings(records) if c.quantity == "time"]
            ends = (one.found.low, one.found.high) if name == "within" else (one.beyond.low, one.beyond.high)  # type: ignore[union-attr]
            held[name] += (ends[0] or 0) <= factor * 1e9 <= (ends[1] or math.inf)
            wide += [ends[1] / ends[0]] if name == "ahead" else []  # type: ignore[operator]
    assert held["within"] / 200 >= 0.93, "errs on the wide side: it draws the ends of both ratios"
    assert held["ahead"] / 200 >= 0.93, "and so does this: it holds several kinds of curves for each of both"
    assert np.median(wide) < 2


RATIOS = {
    "linear over both": (lambda n: 30_000 * n, lambda n: n**2 + 10_000 * n, 20_000),
    "overhead over square": (lambda n: 10**8 + 9000 * n, lambda n: n**2, 15_466),
    "fixed over both": (lambda n: 2 * 10**8, lambda n: n**2 + 3000 * n, 12_721),
    "both over square": (lambda n: 0.9 * n**2 + 2000 * n, lambda n: n**2, 20_000),
    "sorting over square": (lambda n: 1500 * n * math.log(n), lambda n: n**2, 14_358),
}


@pytest.mark.parametrize("name", RATIOS)
def test_a_crossover_ahead_is_not_where_the_last_ratios_point_straight(name: str) -> None:
    """A ratio of sums bends, log over log: a line through the last ones puts these up to 63 % short, or nowhere."""
    mine, rival, truth = RATIOS[name]
    records = [
        record(variant, n, peak_bytes=round(of(n)), time_s=1.0, samples_s=[1.0], baseline="naive", ratio=1.0)
        for n in LENGTHS
        for variant, of in (("window", mine), ("naive", rival))
    ]
    (found,) = [c for c in crossings(records) if c.quantity == "memory" and c.against == "naive"]
    assert found.beyond is not None
    assert found.beyond.value == pytest.approx(truth, rel=5e-3)
    assert 0.997 * found.beyond.low <= truth <= 1.003 * found.beyond.high


def test_rounds_that_were_not_taken_together_are_not_paired() -> None:
    """A part of a group that did not fit into memory: its ratio is to rounds that the baseline's record lacks."""
    window, sdpa, naive = (by(run(), name)[1024] for name in ("window", "sdpa", "naive"))
    later = naive.model_copy(update={"ratio": 2.5})
    assert ratio_between(window, naive, sdpa) == paired_ratio(window.samples_s, naive.samples_s)
    assert ratio_between(window, later, sdpa) == ratio_of_medians(window.samples_s, later.samples_s)
    assert ratio_between(window, naive, None) == ratio_of_medians(window.samples_s, naive.samples_s)


# -- one length -------------------------------------------------------------------------------------------------


def test_an_estimate_says_what_it_rests_on() -> None:
    records = run()
    (sdpa,) = [s for s in split(records) if s.of.variant == "sdpa"]
    here, between, ahead = (estimate(sdpa, "time", n) for n in (1024, 3000, 32768))
    assert here is not None
    assert between is not None
    assert ahead is not None
    own = by(records, "sdpa")
    assert (here.value, here.low, here.high) == (own[1024].time_s, own[1024].time_s_low, own[1024].time_s_high)
    assert (here.basis, here.case_ids) == ("measured", (own[1024].case_id,))
    assert (between.basis, between.case_ids) == ("interpolated", (own[2048].case_id, own[4096].case_id))
    assert between.value == pytest.approx(9e-3, rel=0.15)
    assert (ahead.basis, len(ahead.case_ids)) == ("extrapolated", len(LENGTHS))
    assert ahead.value == pytest.approx(1e-9 * 32768**2, rel=0.3)
    assert estimate(sdpa, "time", 4096 * 17) is None
    memory = estimate(sdpa, "memory", 32768)
    assert memory is not None
    assert memory.value == pytest.approx(1040 * 32768, rel=1e-6)
    assert memory.low == pytest.approx(memory.high, rel=1e-6)
    assert estimate(sdpa, "state", 1024) is None


# -- memory -----------------------------------------------------------------------------------------------------


def test_what_a_call_needs_counts_its_inputs_or_its_state() -> None:
    q, kv = 4 * 1024 * 64 * 4, 2 * 1024 * 64 * 4
    assert input_bytes(record("sdpa", 1024)) == q + 2 * kv
    assert input_bytes(record("sdpa", 1024, mode="train")) == 2 * q + 2 * kv
    assert needed_bytes(record("sdpa", 1024, peak_bytes=1000)) == 1000 + q + 2 * kv
    assert needed_bytes(record("sdpa", 1024, mode="decode", peak_bytes=1000, state_bytes=5)) == 1005
    assert needed_bytes(record("sdpa", 1024, mode="decode", peak_bytes=1000)) is None
    assert needed_bytes(record("sdpa", 1024)) is None
    assert needed_bytes(record("sdpa", 1024, dtype="float4", peak_bytes=1000)) is None


def test_the_longest_length_that_fits_is_between_or_beyond() -> None:
    records = run()
    each = 2 * 4 * 64 * 4  # bytes of q, k and v a token: as many for q as for k and v
    (window,) = [f for f in feasible(records, (6000 + each) * 3000.0) if f.series.of.variant == "window"]
    assert window.length is not None
    assert window.length.value == pytest.approx(3000)
    assert window.length.basis == "interpolated"
    assert window.words == "3,000 (interpolated)"
    found = {f.series.of.variant: f for f in feasible(records, (6000 + each) * 20_000.0)}
    ahead = found["window"].length
    assert ahead is not None
    assert ahead.value == pytest.approx(20_000, rel=2e-3)
    assert (ahead.basis, found["window"].at_least) == ("extrapolated", False)
    naive = found["naive"].length
    assert naive is not None
    needed = 20 * naive.value**2 + each * naive.value
    assert needed == pytest.approx((6000 + each) * 20_000.0, rel=5e-3)
    huge = {f.series.of.variant: f for f in feasible(records, 1e12)}
    assert huge["window"].words == "at least 65,536 (extrapolated)"
    assert {f.words for f in feasible(records, 1000.0)} == {"not even 256"}
    with pytest.raises(ValueError, match="holds nothing"):
        feasible(records, 0)


def test_the_longest_length_between_two_has_the_interval_of_what_bends() -> None:
    """Memory of 64 N² and a linear term is no straight line between measured lengths, whatever the axes."""
    each = 2 * 4 * 64 * 4
    records = [record("naive", n, peak_bytes=64 * n**2 + (20_000 - each) * n) for n in (256, 1024, 4096)]
    truth = 2000
    (found,) = feasible(records, 64.0 * truth**2 + 20_000 * truth)
    assert found.length is not None
    assert found.length.basis == "interpolated"
    assert found.length.low < truth < found.length.high < 1.1 * found.length.low


def test_the_longest_length_beyond_holds_the_truth() -> None:
    each = 2 * 4 * 64 * 4
    records = [record("naive", n, peak_bytes=64 * n**2 + (20_000 - each) * n) for n in (256, 512, 1024, 2048)]
    (found,) = feasible(records, 64.0 * 4072**2 + 20_000 * 4072)
    assert found.length is not None
    assert found.length.low - 2 <= 4072 <= found.length.high + 2
    assert found.length.value == pytest.approx(4072, rel=1e-3)


def test_few_lengths_promise_nothing_beyond() -> None:
    records = [r for r in run() if r.n_k in (256, 512)]
    assert {f.words for f in feasible(records, 1e12)} == {"at least 512 (measured)"}


# -- a whole model ----------------------------------------------------------------------------------------------


def test_the_gain_of_a_whole_model() -> None:
    gain = amdahl(Interval(0.5, 0.4, 0.6), 0.3)
    assert gain.value == pytest.approx(1 / 0.85)
    assert (gain.low, gain.high) == pytest.approx((1 / 0.88, 1 / 0.82))
    assert amdahl(Interval(0.5, 0.4, 0.6), 0.0) == Interval(1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        amdahl(Interval(1, 1, 1), 1.5)


def test_all_of_it_names_records_that_exist() -> None:
    records = run(state_bytes=512)
    known = {r.case_id for r in records}
    ids = [*(e.figure.case_ids for e in exponents(records)), *(c.case_ids for c in crossings(records))]
    assert len(ids) == 6 + 6
    assert all(each and set(each) <= known for each in ids)
    assert exponents([]) == crossings([]) == []
