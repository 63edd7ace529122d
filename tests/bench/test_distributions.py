"""Distributions of inputs: they reach the statistics that they name, say where they do not, and are always the same."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attnbench.bench.distributions import FITTED, NAMES, draw, fit, is_drawn, sigma_of
from attnbench.bench.distributions.realise import RECIPES, Drawn, realise
from attnbench.bench.distributions.shape import Shape
from attnbench.bench.distributions.statistics import statistics_of
from attnbench.bench.errors import ConfigError

MODULE = sys.modules["attnbench.bench.distributions.realise"]


def shape(n: int = 1024, **changes: Any) -> Shape:
    sizes = {"batch": 1, "heads": 4, "kv_heads": 4, "n_q": n, "n_k": n, "head_dim": 64, "causal": True, "seed": 0}
    return Shape(**(sizes | changes))


def matrix(q: torch.Tensor, k: torch.Tensor, causal: bool) -> torch.Tensor:
    """Softmax attention in float64, all of it: (B, H, Nq, Nk)."""
    n_q, n_k = q.shape[2], k.shape[2]
    scores = q.double() @ k.double().repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT / math.sqrt(q.shape[3])
    if causal:
        scores = scores.masked_fill(torch.ones(n_q, n_k).triu(1 + n_k - n_q).bool(), -math.inf)
    return scores.softmax(dim=-1)


# -- targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", FITTED)
def test_targets_are_reached(name: str, causal: bool) -> None:
    """Measured here, on every row and by the whole matrix, and not by what made them."""
    drawn = draw(name, shape(causal=causal, heads=6, kv_heads=3))
    realised = drawn.realised
    assert realised.missed == ()
    p = matrix(drawn.q, drawn.k, causal)
    if causal:
        p = p[:, :, 512:]
    i, j = torch.arange(1024)[-p.shape[2] :, None], torch.arange(1024)[None]
    assert drawn.planted is None or drawn.planted.queries.shape == (1, 6, 1024)
    real = {
        "mass_first": p[..., 0].mean(),
        "mass_local": (p * ((i - j).abs() < 64)).sum(-1).mean(),
        "effective_keys": (-(p * p.clamp(min=1e-300).log()).sum(-1).mean()).exp(),
    }
    if drawn.planted is not None:
        keys = drawn.planted.keys.repeat_interleave(2, dim=1)[:, :, None]
        real["mass_planted"] = (p * (drawn.planted.queries[:, :, -p.shape[2] :, None] == keys)).sum(-1).mean()
    for target, value in realised.targets.items():
        assert fit.miss(target, float(real[target]), value) < 1, f"{target} is {float(real[target])}, not {value}"


def test_the_targets_are_those_of_the_catalogue() -> None:
    targets = draw("structured", shape()).realised.targets
    assert targets == {"mass_first": 0.3, "mass_local": 0.2, "mass_planted": 0.3, "effective_keys": 25.0}
    assert draw("needle", shape()).realised.targets == {"mass_planted": 0.5}


@pytest.mark.parametrize("name", FITTED)
def test_targets_are_reached_at_length(name: str) -> None:
    realised = draw(name, shape(16384, heads=2, kv_heads=1)).realised
    assert realised.missed == ()


def test_fields_of_a_record() -> None:
    fields = draw("structured", shape(64)).realised.as_fields()
    assert fields["inputs_mass_first"] == pytest.approx(0.3, abs=0.02)
    assert set(fields["inputs_strengths"]) == {"sink", "hitters", "positions", "content"}
    assert "mass_local" in fields["inputs_missed"][0]
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


def test_strengths_grow_with_length() -> None:
    """The very reason why they are fitted: a fixed strength loses its mass among more keys."""
    short, long = (draw("structured", shape(n)).realised.strengths for n in (512, 4096))
    assert long["sink"] > short["sink"] + 1.5
    assert long["positions"] > short["positions"] + 1


def test_what_cannot_be_reached_is_said() -> None:
    realised = draw("structured", shape(64)).realised
    assert [sentence.split()[0] for sentence in realised.missed] == ["mass_local"]
    assert "with 64 keys" in realised.missed[0]
    assert realised.reached.mass_first == pytest.approx(0.3, abs=0.02), "the others still hold"
    assert realised.reached.mass_planted == pytest.approx(0.3, abs=0.02)
    narrow = draw("local", shape(4096, head_dim=8)).realised
    assert any("mass_local" in sentence and "head dimension 8" in sentence for sentence in narrow.missed)


@pytest.mark.parametrize(("part", "target"), [("sink", "mass_first"), ("content", "effective_keys")])
def test_a_wrong_strength_is_noticed(part: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = dict(draw("structured", shape()).realised.strengths)
    monkeypatch.setattr(MODULE, "_strengths", {})
    monkeypatch.setattr(MODULE, "fit", lambda *_: right | {part: right[part] + 1.0})
    missed = realise("structured", shape()).realised.missed
    assert any(sentence.startswith(target) for sentence in missed)


def test_slopes_are_those_of_the_statistics() -> None:
    recipe = RECIPES["structured"](shape(300, heads=2, kv_heads=1), torch.Generator().manual_seed(0))
    sample = fit.Sample(recipe.parts, shape(300, heads=2, kv_heads=1), recipe.planted)
    at, names = np.array([4.0, 2.0, 3.0, 1.0]), list(recipe.targets)
    _, slopes = sample.look(at, names)
    for part in range(4):
        step = np.eye(4)[part] * 0.02
        numeric = (sample.look(at + step, names)[0] - sample.look(at - step, names)[0]) / 0.04
        np.testing.assert_allclose(slopes[:, part], numeric, rtol=0.02, atol=1e-4)


# -- what is drawn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "changes",
    [
        {"n_q": 1, "n_k": 1},
        {"n_q": 2, "n_k": 2, "causal": False},
        {"n_q": 16, "n_k": 16, "head_dim": 8},
        {"n_q": 127, "n_k": 127, "batch": 2, "heads": 6, "kv_heads": 2, "head_dim": 33},
        {"n_q": 5, "n_k": 90},
        {"n_q": 90, "n_k": 40, "causal": False},
        {"n_q": 90, "n_k": 40},
    ],
)
def test_every_shape(name: str, changes: dict[str, Any]) -> None:
    wanted = shape(**changes)
    drawn = draw(name, wanted)
    assert drawn.q.shape == (wanted.batch, wanted.heads, wanted.n_q, wanted.head_dim)
    assert drawn.k.shape == drawn.v.shape == (wanted.batch, wanted.kv_heads, wanted.n_k, wanted.head_dim)
    for x in (drawn.q, drawn.k, drawn.v):
        assert x.dtype == torch.float32
        assert x.isfinite().all()
        assert x.is_contiguous()
    if wanted.n_k > 2:
        assert drawn.q.std() > 0.05, "no strength is nothing"
    assert all(math.isfinite(x) for x in drawn.realised.strengths.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_and_another_does_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = draw(name, shape(256))
    monkeypatch.setattr(MODULE, "_strengths", {})
    again, other = draw(name, shape(256)), draw(name, shape(256, seed=1))
    assert same(first, again)
    assert first.realised == again.realised
    assert not torch.equal(first.k, other.k)


def same(a: Drawn, b: Drawn) -> bool:
    return all(torch.equal(x, y) for x, y in ((a.q, b.q), (a.k, b.k), (a.v, b.v)))


def test_another_process_with_other_threads_draws_the_same(tmp_path: Path) -> None:
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from attnbench.bench.distributions import draw\n"
        "from attnbench.bench.distributions.shape import Shape\n"
        "made = draw('structured', Shape(1, 4, 2, 700, 700, 64, True, 5))\n"
        "torch.save([made.q, made.k, made.v], sys.argv[1])"
    )
    path = tmp_path / "drawn.pt"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    here = draw("structured", shape(700, kv_heads=2, seed=5))
    for mine, theirs in zip((here.q, here.k, here.v), torch.load(path, weights_only=True), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", FITTED)
def test_other_dtypes_have_the_same_statistics(name: str, dtype: torch.dtype) -> None:
    drawn = draw(name, shape())
    reached = statistics_of(drawn.q.to(dtype), drawn.k.to(dtype), causal=True, planted=drawn.planted)
    for target, value in drawn.realised.targets.items():
        assert fit.miss(target, getattr(reached, target), value) < 1


def test_gaussian_is_what_it_was() -> None:
    """Independent numbers in the order q, k, v: runs of before stay comparable."""
    generator = torch.Generator().manual_seed(3)
    due = [torch.randn(2, heads, 50, 16, generator=generator) for heads in (4, 2, 2)]
    drawn = draw("gaussian", shape(50, batch=2, kv_heads=2, head_dim=16, seed=3))
    louder = draw("gaussian:2", shape(50, batch=2, kv_heads=2, head_dim=16, seed=3))
    for mine, wanted in zip((drawn.q, drawn.k, drawn.v), due, strict=True):
        assert torch.equal(mine, wanted)
    assert torch.equal(louder.q, 2 * due[0])
    assert torch.equal(louder.k, due[1])
    assert (drawn.realised.strengths, drawn.realised.missed) == ({}, ())


def test_the_sink_gives_nothing() -> None:
    drawn = draw("structured", shape(256))
    assert drawn.v[:, :, 0].abs().max() < 0.1
    assert drawn.v[:, :, 1:].std() == pytest.approx(1, abs=0.05)


def test_no_channel_is_set_apart() -> None:
    """A part that had a channel to itself would be an outlier among the channels' largest values."""
    for name in FITTED:
        drawn = draw(name, shape(512))
        loudest = drawn.k.abs().amax(dim=2)  # (B, Hkv, D)
        assert (loudest.amax(dim=-1) < 4 * loudest.median(dim=-1).values).all(), name


def test_no_matrix_of_all_pairs_is_formed() -> None:
    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else [out]:
                if isinstance(x, torch.Tensor):
                    self.elements = max(self.elements, x.numel())
            return out

    with Largest() as largest:
        draw("structured", shape(12000, heads=2, kv_heads=1, head_dim=16, seed=9))
    assert 0 < largest.elements < 12000**2 / 4


# -- names ------------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert all(is_drawn(name) for name in NAMES)
    assert [sigma_of(name) for name in ("gaussian", "gaussian:3", "gaussian:0.5")] == [1.0, 3.0, 0.5]
    for wrong in (
        "gaussian:",
        "gaussian:0",
        "gaussian:-1",
        "gaussian:x",
        "gaussian:inf",
        "gaussian:101",
        "captured",
        "",
        "Local",
    ):
        assert not is_drawn(wrong)
    with pytest.raises(ConfigError, match=r"unknown inputs 'topic'; did you mean .*topics"):
        draw("topic", shape())
    with pytest.raises(ConfigError, match="head dimension of at least 8"):
        draw("needle", shape(head_dim=4))


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from attnbench.bench.distributions import is_drawn, reason_against;"
        "assert is_drawn('topics') and reason_against('topics', 4); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
