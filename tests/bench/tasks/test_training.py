"""Training: the same backbone for all, nothing leaks, and what the literature predicts at a small size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attnbench
from attnbench.bench.errors import ConfigError
from attnbench.bench.tasks.backbone import Backbone, ShortConvolution, state_bytes
from attnbench.bench.tasks.batch import IGNORE, Batch
from attnbench.bench.tasks.catalogue import TASKS
from attnbench.bench.tasks.config import Setting, from_dict
from attnbench.bench.tasks.mqar import Mqar
from attnbench.bench.tasks.training import Training, by_distance

SMALL = {"d_model": 16, "heads": 2, "steps": 4, "eval_every": 2, "eval_examples": 16, "batch": 8}
NOWHERE = Path("/nonexistent/checkpoint")


def setting(task: str = "mqar(kv_pairs=4,seq_len=32)", **options: Any) -> Setting:
    return from_dict({}, {"tasks": [task], **SMALL, **options}).task[0]


def trained(variant: str, chosen: Setting, lr: float = 3e-3, seed: int = 0) -> dict[str, Any]:
    torch.set_num_threads(1)
    return Training(attnbench.get(variant), chosen, lr, seed).run(NOWHERE, 1e9)


def test_all_variants_start_from_the_same_weights() -> None:
    """Also in the second block, after the first one's variant has drawn its own."""
    chosen = setting(mlp_ratio=2, positions="learned")
    models = [Backbone(attnbench.get(name), chosen, 7).state_dict() for name in ("sdpa", "kda", "nsa")]
    for name, x in models[0].items():
        assert all(torch.equal(x, other[name]) for other in models[1:]), name
    assert not torch.equal(models[0]["blocks.0.conv.weight"], models[0]["blocks.1.conv.weight"])
    other = Backbone(attnbench.get("sdpa"), chosen, 8).state_dict()
    assert not torch.equal(other["embed.weight"], models[0]["embed.weight"])


def test_exact_variants_learn_the_very_same() -> None:
    chosen = setting()
    curves = [[point.value for point in trained(name, chosen)["curve"]] for name in ("naive", "sdpa")]
    assert curves[0] == pytest.approx(curves[1], abs=0.02)
    losses = [trained(name, chosen)["curve"][-1].loss for name in ("naive", "sdpa", "chunked_exact")]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_the_convolution_is_torchs_and_sees_nothing_ahead() -> None:
    conv = ShortConvolution(5, 3)
    x = torch.randn(2, 9, 5)
    weight = conv.weight.flip(0).t().unsqueeze(1)  # (d, 1, size), the newest last
    expected = x + torch.nn.functional.conv1d(x.mT, weight, padding=2, groups=5)[..., :9].mT
    torch.testing.assert_close(conv(x), expected)
    assert conv(x[:, :1]).shape == (2, 1, 5)


@pytest.mark.parametrize("variant", ["sdpa", "gated_delta", "sliding_window"])
def test_the_backbone_sees_nothing_ahead(variant: str) -> None:
    model = Backbone(attnbench.get(variant), setting(mlp_ratio=2, positions="learned"), 0)
    tokens = torch.randint(64, (2, 32))
    changed = tokens.clone()
    changed[:, 20:] = torch.randint(64, (2, 12))
    torch.testing.assert_close(model(tokens)[:, :20], model(changed)[:, :20])
    due = torch.zeros(2, 32, dtype=torch.bool)
    due[:, ::3] = True
    torch.testing.assert_close(model(tokens, due), model(tokens)[due])


@pytest.mark.parametrize("name", [name for name in TASKS if name != "text"])
def test_an_untrained_model_does_not_beat_chance(name: str) -> None:
    chosen = setting(name, eval_examples=128, mastery=None)
    for seed in range(2):
        value, _ = Training(attnbench.get("sdpa"), chosen, 1e-3, seed).evaluate("test")
        assert value is not None
        assert value < chosen.task.chance(chosen.vocab) + 0.1  # type: ignore[operator]


def test_an_untrained_model_needs_eight_bits_a_byte() -> None:
    value, _ = Training(attnbench.get("sdpa"), setting("text", seq_len=64), 1e-3, 0).evaluate("validation")
    assert value == pytest.approx(8.0, abs=0.3)


class Leaking(Mqar):
    """Planted: the value stands at the query itself."""

    def draw(self, *args: Any) -> Batch:
        batch = super().draw(*args)
        return replace(batch, inputs=np.where(batch.targets == IGNORE, batch.inputs, batch.targets))


def test_a_planted_leak_shows_as_recall_where_none_is_possible() -> None:
    """A window of one token cannot look anything up. With the answer in the input it can, and so the null tells."""
    options: Any = {"steps": 60, "eval_every": 60, "batch": 32}
    honest = setting("mqar(kv_pairs=4,seq_len=32,vocab=16)", **options)
    blind = "sliding_window(window_size=1)"
    assert trained(blind, honest, lr=1e-2)["value"] < 0.45
    leaking = honest.model_copy(update={"task": Leaking(kv_pairs=4)})
    assert trained(blind, leaking, lr=1e-2)["value"] > 0.9


def test_budgets_end_a_training_and_say_so() -> None:
    by_steps = trained("sdpa", setting(steps=3))
    assert (by_steps["steps"], by_steps["stopped_by"]) == (3, "steps")
    assert [point.step for point in by_steps["curve"]] == [0, 2, 3]
    by_tokens = trained("sdpa", setting(tokens=5 * 8 * 32, steps=None))
    assert (by_tokens["steps"], by_tokens["stopped_by"]) == (5, "tokens")
    assert by_tokens["curve"][-1].tokens == 5 * 8 * 32
    by_time = trained("sdpa", setting(train_time=0.05, steps=None, schedule="constant"))
    assert by_time["stopped_by"] == "time"
    assert by_time["curve"][-1].wall_s >= 0.05


def test_mastery_ends_a_training() -> None:
    found = trained("sdpa", setting(steps=50, mastery=1e-9))
    assert (found["stopped_by"], found["mastered"]) == ("mastery", True)
    assert found["steps"] == found["mastered_at"] == found["curve"][-1].step < 50


def test_a_mastery_of_a_whole_file_does_not_end_what_is_measured_in_bits() -> None:
    """An untrained model has 8 bits a byte, which is above every accuracy: it would have mastered the text at once."""
    document = {"mastery": 0.9, "steps": 3, "task": [{"name": "mqar"}, {"name": "text"}]}
    recall, text = from_dict(document).task
    assert (recall.mastery, text.mastery) == (0.9, None)
    with pytest.raises(ConfigError, match="mastery is an accuracy, and text is measured in bits per byte"):
        from_dict({"steps": 3, "task": [{"name": "text", "mastery": 0.9}]})


def test_a_loss_that_is_not_finite_is_called_diverged() -> None:
    training = Training(attnbench.get("sdpa"), setting(), 1e-3, 0)
    with torch.no_grad():
        training.model.norm.weight.fill_(float("nan"))
    found = training.run(NOWHERE, 1e9)
    assert found["status"] == "diverged"
    assert found["value"] is None
    assert "no longer finite" in found["reasons"][0]


def test_learning_rates_rise_and_fall() -> None:
    training = Training(attnbench.get("sdpa"), setting(steps=100, warmup=0.1), 1.0, 0)
    shares = [training.share(index) for index in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == 1.0
    assert shares[:10] == sorted(shares[:10])
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[-1] < 0.01


def test_reach_tells_near_from_far() -> None:
    distances = np.array([1, 2, 3, 4, 7, 8, 15])
    found = by_distance(distances < 4, distances)
    assert [(span.nearest, span.farthest, span.answers, span.accuracy) for span in found] == [
        (1, 1, 1, 1.0),
        (2, 3, 2, 1.0),
        (4, 7, 2, 0.0),
        (8, 15, 2, 0.0),
    ]


def test_state_is_what_decoding_keeps_over_all_layers() -> None:
    chosen = setting(layers=3)
    assert state_bytes(attnbench.get("sdpa"), chosen, 32) == 3 * 2 * 32 * 16 * 4  # keys and values, float32
    assert state_bytes(attnbench.get("delta"), chosen, 32) == 3 * 2 * 8 * 8 * 4
    assert state_bytes(attnbench.get("sliding_window", window_size=8), chosen, 32) == 3 * 2 * 8 * 16 * 4


@pytest.mark.slow
def test_what_the_literature_predicts_of_recall() -> None:
    """Attention and the delta rule look everything up; a window only within its reach (Zoology, arXiv:2312.04927)."""
    options: Any = {"d_model": 64, "steps": 400, "eval_every": 25, "batch": 32, "schedule": "constant"}
    chosen = setting(eval_examples=128, **options)
    for variant in ("sdpa", "delta"):
        found = trained(variant, chosen)
        assert found["mastered"], variant
        assert all(span.accuracy > 0.9 for span in found["reach"])
    window = trained("sliding_window(window_size=4)", chosen)
    assert not window["mastered"]
    assert window["reach"][-1].accuracy < 0.5
