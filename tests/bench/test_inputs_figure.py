"""Drawn inputs beside captured ones, as a figure: what is shown is what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from attnbench.bench.distributions.look import look
from attnbench.bench.distributions.statistics import statistics_of
from attnbench.bench.errors import BenchError
from attnbench.reports.distributions import pooled, save_inputs
from attnbench.reports.errors import ReportsError
from attnbench.results.distributions import Look, Sheet, Statistics

from .test_captured import HEADS, KV_HEADS, D, N, make_info, make_tensors
from .test_distributions import matrix


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "capture.safetensors"
    save_file(make_tensors(), path, metadata=make_info().to_metadata())
    return path


def test_drawn_and_captured_are_looked_at_alike(capture: Path) -> None:
    sheet = look(capture=capture, head=3)
    assert [found.name for found in sheet.looks if found.captured] == ["captured, layer 1", "captured, layer 3"]
    assert len(sheet.captured_heads) == 2 * HEADS
    assert (sheet.seq_len, sheet.head_dim, sheet.causal) == (N, D, True)
    stored = make_tensors()
    due = matrix(stored["q"][1, :1], stored["k"][1, :1], True)[0, 3]
    np.testing.assert_allclose(sheet.looks[-1].matrix, due.numpy(), atol=1e-12)
    group = HEADS // KV_HEADS
    by_hand = statistics_of(stored["q"][1, :1, 3:4], stored["k"][1, :1, 3 // group : 3 // group + 1], causal=True)
    assert sheet.captured_heads[-1] == by_hand
    for found in sheet.looks:
        np.testing.assert_allclose(found.matrix.sum(axis=1), 1)
        assert not np.triu(found.matrix, 1).any()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"head": 4}, "no head 4"),
        ({"seq_len": 11}, "hold 10 tokens"),
        ({"seq_len": 1}, "from 2 to 2048"),
        ({"seed": -1}, "seed must be"),
        ({"names": ["nothing"]}, "unknown inputs 'nothing'"),
    ],
)
def test_a_wrong_figure_is_refused(capture: Path, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        look(capture=capture, **wrong)


def test_the_figure_is_drawn_and_always_the_same(capture: Path, tmp_path: Path) -> None:
    sheet = look(capture=capture)
    first, again = (save_inputs(sheet, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == again
    text = first.decode()
    assert "captured, layer 1" in text
    assert "instead of 0.2 with 10 keys" in text, "what was missed stands in the caption"
    assert save_inputs(sheet, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ReportsError, match=r"must end with \.png"):
        save_inputs(sheet, tmp_path / "a.jpg")


def test_a_bright_cell_survives_pooling() -> None:
    matrix = np.zeros((1000, 1000))
    matrix[777, 333] = 1.0
    small = pooled(matrix, 128)
    assert small.shape == (125, 125)
    assert small.sum() == 1.0
    assert small[777 // 8, 333 // 8] == 1.0


def test_one_input_alone_can_be_drawn(tmp_path: Path) -> None:
    statistics = Statistics(3.0, 0.1, 1.0, 0.9, 1.0, 4.0, None, 5)
    sheet = Sheet((Look("gaussian", np.full((4, 4), 0.25), statistics),), (statistics,), "a model", False, 0, 8, 0)
    assert save_inputs(sheet, tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")
