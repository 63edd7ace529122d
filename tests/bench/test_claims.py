"""The registry is complete, and a verdict says what its figures say: planted values on both sides of every edge."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench.claims import NOT_CLAIMS, all_claims, choose
from attnbench.bench.claims.claim import Band, Claim, Context, Estimate, Measured, Target, exact, median_of
from attnbench.bench.claims.performer_gaussian import with_epsilon
from attnbench.bench.claims.speed import efficiency_length
from attnbench.bench.claims.timing import matching, rank_correlation
from attnbench.bench.claims.verdict import judge, overall, quantities, sure
from attnbench.bench.config import from_dict
from attnbench.bench.errors import BenchError
from attnbench.results.claim_record import DIRECTION, FAILS, HOLDS
from attnbench.results.statistics import Interval

CLAIMS = all_claims()

# -- the registry -----------------------------------------------------------------------------------------------


def test_there_are_claims_and_each_file_brings_some() -> None:
    assert len(CLAIMS) >= 8
    folder = Path(all_claims.__code__.co_filename).parent
    files = {path.stem for path in folder.glob("[!_]*.py")} - set(NOT_CLAIMS)
    assert {claim.measure.__module__.rpartition(".")[2] for claim in CLAIMS.values()} == files


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_each_claim_says_where_it_is_from_and_how_it_was_found(claim: Claim) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", claim.name)
    assert re.search(r"arXiv:\d{4}\.\d{5}|issue \d+", claim.source), claim.source
    assert len(claim.here) > 20
    assert claim.cost_s > 0
    for target in claim.targets:
        assert target.obtained
        assert target.within != Band(), f"{target.name} would hold whatever is measured"
        if target.published is None:
            assert (
                "text" in target.obtained
                or "theorem" in target.obtained
                or "section" in target.obtained
                or ("table" in target.obtained)
            ), "a figure without a number says where its words are"
        else:
            assert target.toward is None or target.toward.holds(target.published)


@pytest.mark.parametrize("claim", [one for one in CLAIMS.values() if one.sweep], ids=lambda claim: claim.name)
def test_sweeps_are_configurations(claim: Claim) -> None:
    assert claim.sweep is not None
    config = from_dict(claim.sweep, {}, claim.name)
    assert config.max_rounds > 5, "the interval of five samples is their range"


def test_cheapest_come_first_and_names_choose() -> None:
    costs = [claim.cost_s for claim in choose([])]
    assert costs == sorted(costs)
    assert [claim.name for claim in choose(["sum_capacity", "performer_gaussian"])] == sorted(
        ["sum_capacity", "performer_gaussian"], key=lambda name: (CLAIMS[name].cost_s, name)
    )
    with pytest.raises(BenchError, match="unknown claim 'sum_capcity'; did you mean 'sum_capacity'"):
        choose(["sum_capcity"])


def test_claims_of_users_own(tmp_path: Path) -> None:
    source = Path(__file__).with_name("planted_claims.py")
    assert "planted_right" in all_claims([source])
    (tmp_path / "same.py").write_text(source.read_text())
    with pytest.raises(BenchError, match=r"planted_raises' is in .*planted_claims\.py already"):
        all_claims([source, tmp_path / "same.py"])


BROKEN = [
    ("x = 1", "holds no claim"),
    ("raise RuntimeError('not today')", "raised RuntimeError at import: not today"),
    ("import sys; sys.exit(3)", "raised SystemExit"),
]


@pytest.mark.parametrize(("text", "words"), BROKEN, ids=[words for _, words in BROKEN])
def test_broken_files_of_claims(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(BenchError, match=words):
        all_claims([tmp_path / "mine.py"])


def test_files_of_claims_that_are_none(tmp_path: Path) -> None:
    for wrong in (tmp_path / "nowhere.py", tmp_path, "a\0b.py"):
        with pytest.raises(BenchError, match="does not exist or is not a file"):
            all_claims([wrong])
    (tmp_path / "claims.txt").write_text("")
    with pytest.raises(BenchError, match="must be a Python file"):
        all_claims([tmp_path / "claims.txt"])


def whole(**changes: Any) -> Claim:
    claim = Claim(
        name="planted",
        text="a text",
        source="a source",
        setting="there",
        here="here",
        targets=(target(), target(name="other")),
        measure=lambda context: Measured({}),
        cost_s=1,
    )
    return replace(claim, **changes)


@pytest.mark.parametrize("name", ["text", "source", "setting", "here"])
def test_a_claim_without_a_source_is_refused(name: str) -> None:
    with pytest.raises(BenchError, match=f"needs a {name}"):
        whole(**{name: " "})
    with pytest.raises(BenchError, match="at least one target"):
        whole(targets=())
    with pytest.raises(BenchError, match="the same name"):
        whole(targets=(target(), target()))


# -- verdicts ---------------------------------------------------------------------------------------------------


def target(**changes: Any) -> Target:
    """Published 10, holds from 8 to 12, the direction is above 1."""
    return replace(Target("figure", 10.0, "table 1", Band(8, 12), Band(low=1)), **changes)


JUDGED = [
    (10, 9, 11, HOLDS, True),
    (8, 8, 8, HOLDS, True),
    (12, 7, 13, HOLDS, False),  # its ends would have had the direction only
    (7.99, 7.99, 7.99, DIRECTION, True),
    (12.01, 12.01, 12.01, DIRECTION, True),
    (40, 30, 50, DIRECTION, True),
    (7, 1, 9, DIRECTION, False),
    (7, 0.99, 9, FAILS, False),  # the noise reaches to the other side of 1
    (10, 0.5, 11, FAILS, False),
    (0.5, 0.2, 0.9, FAILS, True),
    (-3, -4, -2, FAILS, True),
]


@pytest.mark.parametrize(("value", "low", "high", "verdict", "certain"), JUDGED)
def test_both_sides_of_each_edge(value: float, low: float, high: float, verdict: Any, certain: bool) -> None:
    measured = Interval(value, low, high)
    assert judge(target(), measured) == verdict
    assert sure(target(), measured, verdict) is certain


def test_without_a_direction_a_value_holds_or_does_not() -> None:
    plain = target(toward=None)
    assert judge(plain, Interval(9, -5, 20)) == HOLDS
    assert not sure(plain, Interval(9, -5, 20), HOLDS)
    assert judge(plain, Interval(7, 6, 7.5)) == FAILS
    assert sure(plain, Interval(7, 6, 7.5), FAILS)
    assert not sure(plain, Interval(7, 6, 8.5), FAILS)


def test_a_claim_is_as_good_as_its_worst_figure() -> None:
    assert overall([HOLDS, HOLDS]) == HOLDS
    assert overall([HOLDS, DIRECTION, HOLDS]) == DIRECTION
    assert overall([DIRECTION, FAILS, HOLDS]) == FAILS


def test_figures_carry_what_was_asked_and_what_came() -> None:
    found = quantities(whole(), Measured({"figure": median_of([9, 10, 11], "draws"), "other": exact(13, "bytes")}))
    first, second = found
    assert (first.value, first.low, first.high, first.difference) == (10, 9, 11, 0)
    assert (first.of, first.samples) == ("median and range of 3 draws", [9, 10, 11])
    assert (first.within_low, first.within_high, first.toward_low, first.toward_high) == (8, 12, 1, None)
    assert (second.verdict, second.difference, second.samples) == (DIRECTION, 3, None)
    (words,) = quantities(whole(targets=(target(published=None),)), Measured({"figure": exact(9, "bytes")}))
    assert words.difference is None


def test_what_was_not_measured_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="did not measure 'other'"):
        quantities(whole(), Measured({"figure": exact(9, "")}))
    lost = Measured({"figure": exact(9, ""), "other": Estimate(Interval(1, 0, float("inf")), "")})
    with pytest.raises(ValueError, match="measured no number for 'other'"):
        quantities(whole(), lost)


def test_bands_that_make_no_sense() -> None:
    with pytest.raises(BenchError, match="must not end before it begins"):
        Band(2, 1)
    with pytest.raises(BenchError, match="must not end before it begins"):
        Band(float("nan"), 1)
    with pytest.raises(BenchError, match="reaches beyond its direction"):
        target(toward=Band(9, 20))


# -- parts of claims --------------------------------------------------------------------------------------------


def test_an_efficiency_length_by_hand() -> None:
    """n² meets 100 n + 200,000 at 500: (n - 500)(n + 400) = 0."""
    lengths = (100, 200, 400, 800)
    vanilla = {n: [float(n * n)] * 3 for n in lengths}
    assert efficiency_length(vanilla, {n: [100.0 * n + 200_000] for n in lengths}) == pytest.approx(500)
    assert efficiency_length(vanilla, {n: [-1e9 + n] for n in lengths}) is None


def test_rank_correlation_and_what_noise_could_turn() -> None:
    published = [5.0, 4.0, 1.0]
    apart = [Interval(x, x - 0.1, x + 0.1) for x in (30.0, 20.0, 3.0)]
    found = rank_correlation(published, apart).interval
    assert (found.value, found.low, found.high) == (1, 1, 1)
    turned = rank_correlation(published, apart[::-1]).interval
    assert (turned.value, turned.low, turned.high) == (-1, -1, -1)
    close = [Interval(30, 10, 40), Interval(20, 10, 40), Interval(3, 2, 4)]
    unsure = rank_correlation(published, close).interval
    assert (unsure.value, unsure.low, unsure.high) == (1, pytest.approx(1 / 3), 1)
    far = rank_correlation(published, [apart[1], apart[0], apart[2]], apart=2).interval
    assert (far.value, far.low, far.high) == (1, 1, 1), "5 and 4 are no order that is asked for"


def test_records_are_matched_by_the_parameters_of_the_spec() -> None:
    from types import SimpleNamespace

    records: Any = [
        SimpleNamespace(variant="performer", params={"num_features": m, "seed": 0}, mode="forward") for m in (64, 266)
    ]
    assert [r.params["num_features"] for r in matching(records, "performer(num_features=266)")] == [266]
    assert len(matching(records, "performer")) == 2
    assert matching(records, "performer", mode="train") == []


def test_the_added_constant_drowns_what_is_small() -> None:
    """Against a form by hand: with features that are all tiny, what is left is the plain mean of the values."""
    import torch

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 6, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    w = torch.randn(32, 8, generator=generator, dtype=torch.float64)
    loud = with_epsilon(10 * q, 10 * k, v, w)
    torch.testing.assert_close(loud, v.mean(dim=2, keepdim=True).expand_as(loud), rtol=1e-3, atol=1e-3)
    quiet = with_epsilon(0.1 * q, 0.1 * k, v, w)
    due = (0.01 * q @ k.mT * 8**-0.5).softmax(dim=-1) @ v
    torch.testing.assert_close(quiet, due, rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["sum_capacity", "delta_rewriting"])
def test_claims_that_theory_is_sure_of_hold(name: str) -> None:
    claim = CLAIMS[name]
    found = quantities(claim, claim.measure(Context()))
    assert overall(one.verdict for one in found) == HOLDS, [(one.name, one.value) for one in found]


def test_the_gap_to_fixed_states_is_that_to_the_best_that_any_could_be() -> None:
    """One fixed state has the better median, the other the better seed: that seed bounds the gap."""
    from attnbench.bench.claims.trained_recall import GAP, WIDTH
    from attnbench.results.task_record import TaskRecord

    values = {"sdpa": (0.98, 0.99), "linear_elu": (0.50, 0.50), "retention": (0.10, 0.80), "delta": (0.6, 0.6)}
    same = {"task": "mqar", "task_params": {}, "params": {}, "backbone": {}, "budget": {}, "dtype": "float32"}
    sizes = dict.fromkeys(("seq_len", "d_model", "layers", "heads", "batch", "threads"), 1) | {"vocab": 64}
    trained = tuple(
        TaskRecord(
            **same,
            **sizes,
            task_id=f"{variant}{seed}",
            variant=variant,
            lr=0.01,
            seed=seed,
            device="cpu",
            status="ok",
            metric="accuracy",
            value=value,
            chance=0.1,
            state_bytes=64,
            machine="m",
            started_at="2026-01-01T00:00:00Z",
            curve=[{"step": 1, "tokens": 1, "wall_s": 1.0, "loss": 1.0, "value": value}],
        )
        for variant, two in values.items()
        for seed, value in enumerate(two)
    )
    gap = WIDTH.measure(Context(trained=trained)).estimates[GAP].interval
    assert gap.value == pytest.approx(0.985 - 0.5)
    assert gap.low == pytest.approx(0.98 - 0.80)
    assert gap.high == pytest.approx(0.99 - 0.50)
