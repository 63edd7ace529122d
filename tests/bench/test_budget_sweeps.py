"""Sweeps over budgets: which cases they stand for, and what `attnbench fidelity` says of them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import attnbench
from attnbench.bench import config
from attnbench.variants.external import External

SWEEP = ("--seq-lens", "64", "--budgets", "8,16")


def test_a_variant_comes_once_for_each_budget(sweep: Callable[..., Any], tmp_path: Path) -> None:
    names = "naive,based,topk,sink_window,sliding_window(window_size=5)"
    records = sweep("--variants", names, "--seq-lens", "64", "--budgets", "4,8,16").records
    found = {(r["variant"], r["budget"], r["budget_unit"], r["params"].get("window_size")) for r in records}
    assert found == {
        ("naive", None, None, None),
        ("based", None, None, None),
        ("topk", 4, "keys", None),
        ("topk", 8, "keys", None),
        ("topk", 16, "keys", None),
        ("sink_window", 8, "keys", 4),
        ("sink_window", 16, "keys", 12),
        ("sliding_window", None, None, 5),  # named with parameters: as it is
    }
    assert len(records) == len(found)
    assert all(r["status"] == "ok" for r in records)
    assert [r["params"]["top_k"] for r in records if r["variant"] == "topk"] == [4, 8, 16]
    (note,) = json.loads((tmp_path / "run" / "run.json").read_text())["notes"]
    assert "no parameters of sink_window come to a budget of 4" in note


def test_both_masks_have_parameters_of_their_own(sweep: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "both.toml"
    file.write_text('variants = ["sliding_window"]\nseq_lens = [64]\nbudgets = [15]\ncausal = [true, false]\n')
    records = sweep(file).records
    assert {(r["causal"], r["params"]["window_size"]) for r in records} == {(True, 15), (False, 8)}
    assert all(13 < r["fidelity_keys"] <= 15 for r in records)


def test_the_preset_names_every_method_that_stands_in_for_softmax() -> None:
    """Kernels of other libraries compute one of these."""
    preset = tomllib.loads(files("attnbench.bench.presets").joinpath("fidelity.toml").read_text("utf-8"))
    named = set(preset["variants"])
    for name in attnbench.names():
        attn = attnbench.get(name)
        if attn.kind == "approximate" and not attn.compiles and not isinstance(attn, External):
            assert name in named or "flash" in name, name


def test_the_table_of_a_sweep_and_of_a_finished_run(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "cores", lambda: 1)  # tensors this small are slower on more
    out = tmp_path / "run"
    options = ("--variants", "sdpa,topk,sliding_window,performer", "--inputs", "gaussian,topics", *SWEEP, "--causal")
    answer = cli("fidelity", *options, "--out", out)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0] == "Relative error, causal, N 64:"
    assert lines[1].split("\t") == ["variant, budget", "of", "keys kept", "gaussian", "topics", "ms on topics"]
    rows = {line.split("\t")[0]: line.split("\t") for line in lines[2:9]}
    assert set(rows) == {f"{name} {b}" for name in ("topk", "sliding_window", "performer") for b in (8, 16)} | {
        "plain mean"
    }
    assert float(rows["topk 16"][3].rstrip("*!")) < float(rows["topk 8"][3].rstrip("*!"))
    assert rows["performer 8"][1] == "features"
    assert cli("fidelity", out).out == answer.out
    assert "topk is the oracle." in answer.out
    cosines, masses = (cli("fidelity", out, "--show", show).out.splitlines() for show in ("cosine", "mass"))
    assert cosines[0].startswith("Cosine between the output and softmax attention's, causal, N 64")
    assert 0 < float(dict(line.split("\t")[:4:3] for line in cosines[2:8])["topk 16"]) < 1
    kept = dict(line.split("\t")[:4:3] for line in masses[2:])
    assert set(kept) == {f"{name} {b}" for name in ("topk", "sliding_window") for b in (8, 16)}, "performer drops none"
    own, window, oracle = (float(part.strip("(); ")) for part in kept["sliding_window 8"].split())
    assert own == window < oracle
    told = json.loads(cli("fidelity", out, "--json").out)
    assert len(told["points"]) == 12
    assert {one["second"] for one in told["rankings"]} == {"topics"}
    figure = tmp_path / "curves.png"
    assert json.loads(cli("plot", "fidelity", out, "--out", figure, "--json").out)["records"] == 12
    assert figure.stat().st_size > 10_000


def test_requests_that_make_no_sense(cli: Callable[..., Any], tmp_path: Path) -> None:
    for options, words in (
        (["--budgets", "0"], "greater than or equal to 1"),
        (["--budgets", "few"], "'few' is not a whole number"),
        ([str(tmp_path)], "is not a run"),
        ([str(tmp_path), "--budgets", "8"], "finished runs hold what they measured"),
        (["--inputs", "gauss"], "did you mean 'gaussian'"),
        (["--show", "errors"], "'errors' is not one of 'error', 'cosine', 'mass'"),
    ):
        answer = cli("fidelity", *options)
        assert answer.code == 2, options
        assert words in answer.err, answer.err
    assert cli("plot", "fidelity", tmp_path).code == 2
