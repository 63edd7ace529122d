"""Drawn attention matrices: what is seen is coloured, what is not stays white, and every variant has its panel."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from attnbench.reports import pattern as drawing
from attnbench.reports.errors import ReportsError
from attnbench.reports.pattern import save_pattern, save_sheet
from attnbench.results.pattern import Pattern


def make(matrix: Any, spec: str = "some(size=3)", **fields: Any) -> Pattern:
    values = {"family": "sparse", "causal": False, "inputs": "made-up inputs", "head": 1, "heads": 4} | fields
    return Pattern(spec=spec, matrix=np.asarray(matrix, dtype=float), **values)


BAND = np.tril(np.ones((12, 12))) * np.triu(np.ones((12, 12)), -2)
SIGNED = np.array([[1.0, -0.5], [1e-6, -2.0]])


def texts(path: Path) -> str:
    """matplotlib writes each text as a comment before its outlines."""
    return "\n".join(re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"), flags=re.DOTALL))


# -- what a pattern says of itself --------------------------------------------------------------------------------


def test_sparse_is_seeing_less_than_causality_allows() -> None:
    assert make(BAND, causal=True).sparse
    assert not make(np.tril(np.ones((5, 5))), causal=True).sparse
    assert make(np.tril(np.ones((5, 5)))).sparse
    assert not make(np.full((5, 5), 1e-300)).sparse


def test_rounding_is_no_sign() -> None:
    assert make(SIGNED).signed
    assert not make([[1.0, -1e-17]] * 2).signed


def test_shares_are_of_the_row() -> None:
    np.testing.assert_allclose(make([[2.0, -4.0], [0.0, 0.0]]).shares, [[0.5, -1.0], [0.0, 0.0]])


# -- colours ------------------------------------------------------------------------------------------------------


def colours(found: Pattern) -> np.ndarray:
    """Colours of the cells, (N, N, 4)."""
    image = drawing._weights(Figure().add_subplot(), found)
    return np.asarray(image.to_rgba(image.get_array()))


def test_what_is_not_seen_is_left_out_and_the_least_weight_is_not() -> None:
    drawn = colours(make([[1.0, 0.0], [1.0, 1e-12]]))
    assert drawn[0, 1, 3] == 0  # transparent: the page's white
    assert drawn[1, 1, 3] == 1
    assert drawn[1, 1, :3].min() < 0.9
    assert drawn[0, 0, :3].mean() < drawn[1, 1, :3].mean()


def test_signs_have_colours_of_their_own() -> None:
    drawn = colours(make(SIGNED))
    red, _, blue, _ = np.moveaxis(drawn, -1, 0)
    assert blue[0, 0] > red[0, 0]
    assert red[0, 1] > blue[0, 1]
    assert abs(red[1, 0] - blue[1, 0]) < 0.05  # next to nothing is neither
    assert drawn[1, 0, 3] == 1


def test_a_mask_shows_pairs_and_not_weights() -> None:
    image = drawing._mask(Figure().add_subplot(), make([[1.0, 0.0], [1e-30, -3.0]]))
    drawn = np.asarray(image.to_rgba(image.get_array()))
    assert (drawn[0, 0] == drawn[1, 0]).all()
    assert (drawn[0, 0] == drawn[1, 1]).all()
    assert (drawn[0, 1] == 1).all()


# -- figures ------------------------------------------------------------------------------------------------------


def test_a_sparse_variant_has_its_mask_beside_its_weights(tmp_path: Path) -> None:
    path = save_pattern(make(BAND, causal=True, notes=("Take note.",)), tmp_path / "a.svg")
    text = texts(path)
    for words in (
        "some(size=3)",
        "mask: 33 of 78 pairs seen (42%)",
        "weights",
        "query",
        "key",
        "made-up inputs",
        "Take",
    ):
        assert words in text, words
    assert "Causal, 12 tokens of made-up inputs, head 1 of 4" in " ".join(text.split())
    assert "mask:" not in texts(save_pattern(make(np.ones((4, 4))), tmp_path / "b.svg"))


def test_words_stand_on_both_axes(tmp_path: Path) -> None:
    words = tuple(f"w{i}$_&<" for i in range(12))
    text = texts(save_pattern(make(BAND, words=words), tmp_path / "a.svg"))
    assert text.count("w7$") == 3  # once a query, twice a key: of the mask and of the weights
    many = make(np.ones((140, 140)), words=("w",) * 140)
    text = texts(save_pattern(many, tmp_path / "b.svg"))
    assert "here are 140" in " ".join(text.split())


def test_words_that_the_font_lacks_are_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    save_pattern(make(np.ones((2, 2)), words=("注意", "𒀀")), tmp_path / "a.png")
    assert not recwarn.list


def test_every_variant_has_a_panel(tmp_path: Path) -> None:
    patterns = [make(np.tril(np.ones((6, 6)), -i), f"variant_{i}(size={i})", causal=True) for i in range(5)]
    path = save_sheet(patterns, {"other": "other has no causal form"}, tmp_path / "a.svg", merge=True)
    text = texts(path)
    for i in range(5):
        assert f"variant_{i}" in text
        assert f"size={i}" in text
    assert "Left out: other has no causal form." in text
    assert path.read_text().count("<image") == 5


def test_the_same_matrix_is_drawn_once_if_asked(tmp_path: Path) -> None:
    patterns = [make(BAND, "a(x=1)"), make(BAND, "b"), make(2 * BAND, "c"), make(BAND, "d", causal=True)]
    merged = save_sheet(patterns, {}, tmp_path / "a.svg", merge=True)
    assert merged.read_text().count("<image") == 3
    assert "a, b" in texts(merged)
    assert "non-causal; x=1" in texts(merged)
    assert save_sheet(patterns, {}, tmp_path / "b.svg", merge=False).read_text().count("<image") == 4


@pytest.mark.parametrize("count", [1, 2, 7, 45])
def test_nothing_runs_out_of_a_sheet(tmp_path: Path, count: int) -> None:
    spec = "a_rather_long_name_of_a_variant(window_size=16, block_size=8, num_random_blocks=3, num_sinks=4, top_k=16)"
    path = save_sheet([make(BAND, spec)] * count, {"x": "reason " * 40}, tmp_path / "a.png", merge=False)
    pixels = matplotlib.image.imread(path)[..., :3]
    for edge in (pixels[:8], pixels[-8:], pixels[:, :8], pixels[:, -8:]):
        assert (edge == 1).all()


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_the_same_pattern_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    first, second = (save_pattern(make(BAND), tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert first == second
    assert first != save_pattern(make(2 * BAND + np.eye(12)), tmp_path / f"c{suffix}").read_bytes()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ReportsError, match=r"\.png, \.svg, \.pdf"):
        save_pattern(make(BAND), tmp_path / "a.jpg")
    with pytest.raises(ReportsError, match="cannot write"):
        save_pattern(make(BAND), tmp_path / "nowhere" / "a.png")
    with pytest.raises(ReportsError, match="cannot write"):
        save_sheet([make(BAND)], {}, tmp_path / "nowhere" / "a.png", merge=True)


def test_no_torch_is_needed() -> None:
    code = "import sys, attnbench.reports.pattern; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
