"""Recall without training: the published table comes out again, and what recalls nothing is said to recall nothing."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import attnbench
from attnbench.bench.recall import (
    DISTRACTORS,
    READS,
    Trial,
    as_fields,
    ask,
    constant_extras,
    draw_trial,
    found,
    probe,
    recall,
)
from attnbench.variants.api import make_extras

TABLE = {
    ("naive", 1.0): (1, 1, 1, 1, 0.74),
    ("retention(gamma=1.0)", 1.0): (1, 1, 0.96, 0.67, 0.72),
    ("delta", 0.5): (1, 0.98, 0.76, 0.41, 1),
    ("delta", 1.0): (1, 0.88, 0.50, 0.25, 1),
    ("gated_delta", 1.0): (0.99, 0.77, 0.40, 0.20, 0.98),
    ("sliding_window(window_size=16)", 1.0): (0.5, 0.25, 0.12, 0.06, 0.5),
}
"""Of the project's catalogue of mechanisms: 32, 64, 128 and 256 pairs, and 32 of which half are rewritten; one draw."""


@pytest.mark.parametrize(("spec", "beta"), TABLE)
def test_the_catalogues_table(spec: str, beta: float) -> None:
    """Within three standard errors of both: ours from trials, theirs those of as many answers as there are pairs."""
    measured = probe(attnbench.get(spec), beta=beta, trials=12)
    assert [one.load for one in measured][-2:] == ["256 pairs", "32 pairs, 16 of them rewritten"]
    for one, due in zip(measured, TABLE[spec, beta], strict=True):
        error = math.hypot(one.deviation, math.sqrt(max(due * (1 - due), 0.01) / one.pairs))
        assert abs(one.accuracy - due) < 3 * error + 0.005, f"{one} beside {due}"


def test_fields_of_a_record() -> None:
    fields = as_fields(probe(attnbench.get("sliding_window(window_size=16)"), loads=[32, 48], trials=2))
    assert list(fields) == ["recall_32", "recall_48", "recall_32_rewritten"]
    assert fields["recall_32"] == fields["recall_32_rewritten"] == 0.5


def test_a_window_recalls_exactly_what_it_sees() -> None:
    for window in (1, 5, 16, 32):
        one = recall(attnbench.get("sliding_window", window_size=window), 32, trials=2)
        assert (one.accuracy, one.deviation) == (window / 32, 0.0)


def test_the_delta_rule_rewrites_and_a_sum_does_not() -> None:
    delta, total = (probe(attnbench.get(spec), loads=[256]) for spec in ("delta", "retention(gamma=1.0)"))
    assert delta[-1].accuracy > total[-1].accuracy + 0.1
    assert delta[0].accuracy < total[0].accuracy - 0.3, "and loses where nothing is rewritten"


def test_write_strength_and_decay_reach_the_variant() -> None:
    assert recall(attnbench.get("delta"), 16, beta=0.0).accuracy == 0.0
    assert recall(attnbench.get("gated_delta"), 32, decay=0.5).accuracy < 0.7
    assert recall(attnbench.get("gla"), 32, decay=1.0).accuracy == 1.0
    assert recall(attnbench.get("ssd"), 32, decay=1e-30).accuracy == pytest.approx(1 / 32, abs=0.03)


@pytest.mark.parametrize("name", attnbench.names())
def test_every_variant_can_be_asked(name: str) -> None:
    attn = attnbench.get(name)
    once, rewritten = probe(attn, loads=[12], rewritten_load=6, trials=2, head_dim=32)
    assert 0 <= once.accuracy <= 1
    assert (once.reads, rewritten.reads, rewritten.rewritten) == (24, 12, 3)
    if attn.kind == "exact":
        assert once.accuracy == 1.0
    trial = draw_trial(12, 0, 32, torch.Generator().manual_seed(0))
    assert ask(attn, trial).isfinite().all()


def test_constants_take_the_place_of_drawn_extras() -> None:
    q = k = v = torch.randn(2, 1, 20, 16)
    for name in attnbench.names():
        attn = attnbench.get(name)
        drawn, used = make_extras(attn, q, k, v), constant_extras(attn, q, k, v, beta=0.7, decay=0.9)
        assert {label: x.shape for label, x in drawn.items()} == {label: x.shape for label, x in used.items()}
        if "beta" in used:
            assert (used["beta"] == 0.7).all()
        if "log_decay" in used:
            torch.testing.assert_close(used["log_decay"].exp(), torch.full_like(used["log_decay"], 0.9))


def test_answers_are_judged() -> None:
    trial = draw_trial(20, 10, 64, torch.Generator().manual_seed(0))
    right = trial.values[trial.due]
    assert found(right, trial).all()
    assert found(1e-3 * right, trial).all(), "size says nothing"
    assert not found(-right, trial).any()
    assert not found(torch.zeros_like(right), trial).any(), "a tie is no answer"
    assert not found(torch.full_like(right, math.nan), trial).any()
    old = trial.values[trial.asked]
    assert found(old, trial).tolist() == (trial.asked >= 10).tolist(), "of a rewritten key the old value is wrong"
    assert not found(trial.distractors[:20], trial).any()


def test_trials() -> None:
    trial = draw_trial(50, 20, 16, torch.Generator().manual_seed(1))
    assert trial.keys.shape == trial.values.shape == (70, 16)
    assert trial.distractors.shape == (DISTRACTORS, 16)
    assert len(trial.asked.unique()) == READS
    assert torch.equal(trial.keys[trial.asked], trial.keys[trial.due])
    for vectors in (trial.keys, trial.values, trial.distractors):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)))


def test_softmax_by_hand() -> None:
    trial = draw_trial(40, 0, 64, torch.Generator().manual_seed(2))
    due = torch.softmax(8 * trial.keys[trial.asked] @ trial.keys.T, dim=-1) @ trial.values
    torch.testing.assert_close(ask(attnbench.get("naive"), trial), due, rtol=1e-4, atol=1e-5)


def test_linear_attention_by_hand() -> None:
    trial = draw_trial(40, 0, 64, torch.Generator().manual_seed(2))
    due = 8 * trial.keys[trial.asked] @ trial.keys.T @ trial.values
    torch.testing.assert_close(ask(attnbench.get("retention(gamma=1.0)"), trial), due, rtol=1e-4, atol=1e-5)


def test_an_order_that_is_lost_is_noticed() -> None:
    """Planted: values one place on. A probe that did not see it would measure nothing."""
    trial = draw_trial(32, 0, 64, torch.Generator().manual_seed(0))
    wrong = Trial(trial.keys, trial.values.roll(1, dims=0), trial.distractors, trial.asked, trial.due)
    out = ask(attnbench.get("naive"), wrong)
    assert found(out, wrong).all()
    assert not found(out, trial).any()


def test_a_seed_gives_the_same_and_another_does_not() -> None:
    attn = attnbench.get("delta")
    assert recall(attn, 128, seed=3) == recall(attn, 128, seed=3)
    assert recall(attn, 128, seed=3) != recall(attn, 128, seed=4)


@pytest.mark.parametrize(
    ("pairs", "rewritten", "trials", "words"),
    [
        (0, 0, 8, "recall needs at least one pair that is written, not 0"),
        (4, 5, 8, "of 4 pairs, 0 to 4 can be written again, not 5"),
        (4, -1, 8, "of 4 pairs, 0 to 4 can be written again, not -1"),
        (4, 0, 1, "recall needs at least two trials"),
    ],
)
def test_counts_that_make_no_sense(pairs: int, rewritten: int, trials: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recall(attnbench.get("naive"), pairs, rewritten, trials=trials)


def test_chance() -> None:
    """Answers that have nothing to do with the question are right as often as by chance."""
    trial = draw_trial(32, 0, 64, torch.Generator().manual_seed(0))
    guesses = F.normalize(torch.randn(20000, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    many = Trial(trial.keys, trial.values, trial.distractors, trial.asked.repeat(625), trial.due.repeat(625))
    assert found(guesses, many).double().mean() < 0.004
