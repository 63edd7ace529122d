"""Attention matrices: those of the definition, on the input that was asked for, at sizes that show something."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import attnbench
from attnbench.bench.errors import BenchError
from attnbench.bench.pattern import HEADS, LONGEST, View, look, open_source, pattern, shaded, small
from attnbench.results.pattern import Pattern
from attnbench.variants.api import Complexity, Extra, Supports, Variant, VariantError

from .test_bad_input import refused
from .test_captured import HEADS as CAPTURED_HEADS
from .test_captured import N, make_info, make_tensors


def one(spec: str, **view: Any) -> Pattern:
    (found,) = look([spec], View(**view)).patterns
    return found


def captured(folder: Path, **changes: Any) -> str:
    path = folder / "capture.safetensors"
    save_file(make_tensors(), path, metadata=make_info(**changes).to_metadata())
    return f"captured:{path}"


# -- the matrix -------------------------------------------------------------------------------------------------


def test_softmax_attention_by_hand() -> None:
    source = open_source(View(seq_len=20, seed=3))
    scores = source.q[0, 2] @ source.k[0, 2].T / 8
    expected = scores.masked_fill(torch.ones(20, 20).triu(1).bool(), float("-inf")).softmax(dim=-1)
    found = one("naive", seq_len=20, seed=3, head=2)
    np.testing.assert_allclose(found.matrix, expected.numpy(), atol=1e-12)
    assert (found.causal, found.sparse, found.signed) == (True, False, False)
    full = one("naive", seq_len=20, seed=3, head=2, causal=False)
    np.testing.assert_allclose(full.matrix, scores.softmax(dim=-1).numpy(), atol=1e-12)


def test_masks_by_hand() -> None:
    i, j = np.indices((64, 64))
    for spec, mask in (
        ("sliding_window(window_size=5)", (i - j >= 0) & (i - j < 5)),
        ("sink_window(num_sinks=2, window_size=5)", (j <= i) & ((i - j < 5) | (j < 2))),
        ("block_local(chunk_size=12)", (j <= i) & (i // 12 == j // 12)),
    ):
        found = one(spec)
        assert found.spec == attnbench.get(spec).spec
        assert found.sparse
        np.testing.assert_array_equal(found.seen, mask)


def test_an_operator_with_signs_by_hand() -> None:
    """A plain recurrence, S += k v', written as the matrix that it never forms."""
    source = open_source(View(seq_len=30))
    scores = (source.q[0, 1] @ source.k[0, 1].T).tril()
    found = pattern(Sum(), source, View(seq_len=30, head=1))
    np.testing.assert_allclose(found.matrix, scores.numpy(), atol=1e-10)
    assert found.signed


@pytest.mark.parametrize("seq_len", [1, 2, 23, 64])
def test_every_variant_has_one(seq_len: int) -> None:
    sheet = look(["all"], View(seq_len=seq_len))
    assert sheet.left_out == {}
    assert [found.spec.partition("(")[0] for found in sheet.patterns] == attnbench.names()
    for found in sheet.patterns:
        assert found.matrix.shape == (seq_len, seq_len)
        assert np.isfinite(found.matrix).all(), found.spec
        if found.causal:
            assert not found.seen[np.triu_indices(seq_len, 1)].any(), found.spec


@dataclass(frozen=True)
class Sum(Variant):
    """S += k v', o = q S, as a recurrence without any weights."""

    def definition(self, q, k, v, *, causal=False, scale=None, rows=None, dtype=torch.float64, **extras):
        return torch.einsum("bhnd,bhnde->bhne", q, torch.einsum("bhnd,bhne->bhnde", k, v).cumsum(dim=2))


@dataclass(frozen=True)
class Squared(Sum):
    """Of v what is not linear."""

    def definition(self, q, k, v, **options):
        return super().definition(q, k, v**2)


Sum.name, Sum.family, Sum.kind, Sum.supports = "sum", "linear", "own", Supports()
Sum.complexity = Complexity(time=1, memory=1, text="")
Sum.paper = Sum.formula = Sum.reduces_to = ""


def test_what_has_no_matrix_is_refused() -> None:
    view = View(seq_len=8)
    with pytest.raises(BenchError, match="not linear in v"):
        pattern(Squared(), open_source(view), view)


def test_a_gate_for_each_channel_of_v_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Extra("gate", ("B", "H", "N", "Dv"), "", torch.sigmoid)
    monkeypatch.setattr(Sum, "extras", (gate,))
    with pytest.raises(BenchError, match="gate makes one for each channel"):
        pattern(Sum(), open_source(View(seq_len=8)), View(seq_len=8))


def test_the_sides() -> None:
    assert not one("nystrom").causal
    assert not one("naive", causal=False).causal
    with pytest.raises(VariantError, match="no causal form"):
        one("nystrom", causal=True)
    left_out = look(["all"], View(seq_len=8, causal=True)).left_out
    assert "no causal form" in left_out["nystrom"]
    assert all("causal" in why for why in left_out.values())


# -- sizes ------------------------------------------------------------------------------------------------------


def test_sizes_that_are_not_given_are_made_small() -> None:
    def spec(text: str, seq_len: int = 64, as_is: bool = False) -> str:
        return small(text, View(seq_len=seq_len, as_is=as_is)).spec

    assert spec("sliding_window") == "sliding_window(window_size=16)"
    assert spec("sliding_window", 24) == "sliding_window(window_size=8)"
    assert spec("sliding_window", 512) == "sliding_window(window_size=128)"
    assert spec("sliding_window", 2048) == "sliding_window"  # none larger than its default
    assert spec("sliding_window", 1) == "sliding_window(window_size=1)"
    assert spec("sliding_window(window_size=300)") == "sliding_window(window_size=300)"
    assert spec("sliding_window", as_is=True) == "sliding_window"
    assert spec("performer") == "performer"  # features are not counted along the sequence
    assert spec("chunked_exact") == "chunked_exact"  # its chunks change nothing that could be seen


def test_sizes_that_do_not_go_with_the_given_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = type(attnbench.get("sink_window"))

    def multiple(self: Any) -> None:
        if self.window_size != cls.window_size and self.window_size % self.num_sinks:
            raise VariantError("window_size must be a multiple of num_sinks")

    monkeypatch.setattr(cls, "__post_init__", multiple)
    assert small("sink_window(num_sinks=2)", View()).spec == "sink_window(num_sinks=2, window_size=16)"
    assert small("sink_window(num_sinks=3)", View()).spec == "sink_window(num_sinks=3)"


# -- inputs -----------------------------------------------------------------------------------------------------


def test_captured_inputs(tmp_path: Path) -> None:
    inputs = captured(tmp_path)  # layers 1 and 3, 4 heads over 2 of keys
    tensors = make_tensors()
    for layer, place in ((None, 0), (1, 0), (3, 1)):
        found = one("naive", inputs=inputs, seq_len=7, layer=layer, head=3)
        q, k = tensors["q"][place, 0, 3, :7].double(), tensors["k"][place, 0, 1, :7].double()
        scores = (q @ k.T / 8**0.5).masked_fill(torch.ones(7, 7).triu(1).bool(), float("-inf"))
        np.testing.assert_allclose(found.matrix, scores.softmax(dim=-1).numpy(), atol=1e-12)
        assert found.words == tuple(f"w0t{i}" for i in range(7))
        assert found.notes == ()
        assert f"layer {layer or 1}" in found.inputs
        assert found.heads == CAPTURED_HEADS
    assert "causally" in one("naive", inputs=inputs, seq_len=7, causal=False).notes[0]


def test_captured_inputs_are_looked_at_as_their_model_does(tmp_path: Path) -> None:
    inputs = captured(tmp_path, causal=False)
    found = one("naive", inputs=inputs, seq_len=N)
    assert (found.causal, found.notes) == (False, ())
    assert "both ways" in one("naive", inputs=inputs, seq_len=N, causal=True).notes[0]


def test_words_as_people_write_them(tmp_path: Path) -> None:
    tokens = ("Ġthe", "▁cat", "Ċ", "##s", "[SEP]", "Ġ", "a b", "x", "y", "z")
    inputs = captured(tmp_path, tokens=(tokens,) * 3)
    assert one("naive", inputs=inputs, seq_len=7).words == ("the", "cat", "⏎", "##s", "[SEP]", "·", "a b")


@pytest.mark.slow
def test_the_packaged_model(tmp_path: Path, cli: Callable[..., Any]) -> None:
    pytest.importorskip("transformers")
    found = one("naive", inputs="captured", seq_len=16, layer=2, head=11)
    assert (found.causal, found.heads, len(found.words or ())) == (False, 12, 16)
    out = tmp_path / "a.png"
    refused(cli("plot", "pattern", "naive", "--inputs", "captured", "--seq-len", 513, "--out", out), "512")
    refused(cli("plot", "pattern", "naive", "--inputs", "captured", "--layer", 6, "--out", out), "layer 6")


# -- the command ------------------------------------------------------------------------------------------------


def test_one_variant(cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = cli("plot", "pattern", "sliding_window", "--seq-len", 32)
    assert answer.code == 0, answer.err
    assert answer.out.strip() == "sliding_window-pattern.png: sliding_window(window_size=8)"
    assert (tmp_path / "sliding_window-pattern.png").read_bytes().startswith(b"\x89PNG")


def test_several_variants(cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "sheet.svg"
    names = "naive,sliding_window(window_size=3),nystrom"
    answer = cli("plot", "pattern", names, "--seq-len", 16, "--out", out, "--json")
    told = json.loads(answer.out)
    assert told["file"] == str(out)
    assert [drawn["spec"] for drawn in told["patterns"]] == [
        "naive", "sliding_window(window_size=3)", "nystrom(num_landmarks=4)"
    ]  # fmt: skip
    assert [drawn["pairs_seen"] for drawn in told["patterns"]] == [136, 45, 256]
    assert "<svg" in out.read_text()


def test_all_variants(cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "sheet.pdf"
    answer = cli("plot", "pattern", "all,sliding_window(window_size=3)", "--causal", "--seq-len", 16, "--out", out)
    assert answer.code == 0, answer.err
    assert "left out: nystrom" in answer.err
    assert answer.out.count("sliding_window(window_size=3)") == 1
    assert " sliding_window," not in answer.out
    assert out.read_bytes().startswith(b"%PDF")


WRONG = [
    (["slidng_window"], ["unknown variant 'slidng_window'", "did you mean 'sliding_window'"]),
    (["naive,slidng_window"], ["unknown variant 'slidng_window'"]),
    (["sliding_window(window=3)"], ["no parameter 'window'"]),
    (["sliding_window("], ["write it as name"]),
    ([","], ["name a variant"]),
    (["naive", "--seq-len", "0"], [f"from 1 to {LONGEST} tokens, not 0"]),
    (["naive", "--seq-len", "1000000"], [f"from 1 to {LONGEST} tokens"]),
    (["naive", "--seq-len", "many"], ["--seq-len", "not a whole number"]),
    (["naive", "--head", str(HEADS)], [f"no head {HEADS}", f"have {HEADS}, counted from 0"]),
    (["naive", "--head", "-1"], ["no head -1"]),
    (["naive", "--layer", "0"], ["gaussian inputs have no layers"]),
    (["naive", "--inputs", "gausian"], ["unknown inputs 'gausian'", "did you mean 'gaussian'"]),
    (["naive", "--inputs", "captured:/nowhere.safetensors"], ["/nowhere.safetensors", "does not exist"]),
    (["nystrom", "--causal"], ["nystrom", "no causal form"]),
    (["naive", "--plugin", "nowhere.py"], ["nowhere.py", "does not exist"]),
    (["naive", "--seed", "x"], ["--seed", "not a whole number"]),
]


@pytest.mark.parametrize(("args", "words"), WRONG, ids=[" ".join(args) for args, _ in WRONG])
def test_wrong_requests(cli: Callable[..., Any], tmp_path: Path, args: list[str], words: list[str]) -> None:
    out = tmp_path / "a.png"
    refused(cli("plot", "pattern", *args, "--out", out), *words)
    assert not out.exists()


@pytest.mark.parametrize("out", ["/proc/nowhere/a.png", "there/is/no/such/folder/a.svg", "x" * 300 + ".png"])
def test_places_that_cannot_be_written(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(cli("plot", "pattern", "naive", "--seq-len", 4, "--out", out), "cannot write", "--out")
    refused(cli("plot", "pattern", "naive,sdpa", "--seq-len", 4, "--out", out), "cannot write", "--out")


@pytest.mark.parametrize("out", ["a.jpg", "a", "a.png.txt", "folder/"])
def test_formats_that_cannot_be_written(cli: Callable[..., Any], out: str) -> None:
    refused(cli("plot", "pattern", "naive", "--out", out), ".png, .svg, .pdf")


def test_captures_that_do_not_fit(cli: Callable[..., Any], tmp_path: Path) -> None:
    inputs, out = captured(tmp_path), tmp_path / "a.png"
    for args, word in (
        (["--seq-len", N + 1], f"hold {N} tokens"),
        (["--layer", 2], "no layer 2; their layers are 1, 3"),
    ):
        refused(cli("plot", "pattern", "naive", "--inputs", inputs, "--seq-len", N, *args, "--out", out), word)


def test_help_imports_nothing_heavy() -> None:
    for args in (["plot", "--help"], ["plot", "pattern", "--help"]):
        code = (
            "import sys\ntry:\n    from attnbench.bench.cli import main; main(sys.argv[1:])\nexcept SystemExit: pass\n"
            "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True)


# -- on the card ------------------------------------------------------------------------------------------------


def test_the_pattern_on_a_card(cli: Callable[..., Any]) -> None:
    answer = cli("show", "sliding_window(window_size=2)")
    rows = answer.out.splitlines()[-24:]
    for i, row in enumerate(rows):
        cells = row[12:]
        assert cells[: max(0, 2 * (i - 1))].strip() == "", row
        assert len(cells.strip()) == 2 * min(i + 1, 2), row
        assert "██" in cells
    assert "sliding_window(window_size=2), causal, 24 queries" in answer.out
    told = json.loads(cli("show", "nystrom", "--json").out)["pattern"]
    assert len(told["rows"]) == 24
    assert "non-causal" in told["about"]


def test_a_card_without_a_pattern_says_why(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such thing here")

    monkeypatch.setattr(type(attnbench.get("sliding_window")), "weights", broken)
    answer = cli("show", "sliding_window")
    assert answer.code == 0
    assert "pattern     not drawn: sliding_window raises RuntimeError: no such thing here" in answer.out
    assert "on this CPU" in answer.out


def test_shades() -> None:
    matrix = np.array([[1.0, 0.0, 0.0], [0.0004, 0.1, 0.4], [-1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    found = Pattern("x", "full", matrix, False, "", 0, 1)
    assert shaded(found) == ["██", "░░▓▓██", "--▓▓", ""]
