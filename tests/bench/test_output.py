"""Tables on a terminal: nothing is cut, and what tells nothing takes no room."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from attnbench.bench.output import fitted

HEADER = ("variant", "what is learned", "mastered", "remarks")
ROWS = [
    ("sliding_window(window_size=16)", "what came with each of several keys, at every place", "3", ""),
    ("sdpa", "arXiv:2312.04927", "2", ""),
]


def drawn(width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(fitted(HEADER, ROWS, width), markup=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_is_cut_at_any_width(width: int) -> None:
    lines = drawn(width)
    assert max(map(len, lines)) <= width
    letters = sorted("".join("".join((*HEADER[:3], *(cell for row in ROWS for cell in row))).split()))
    assert sorted("".join("".join(line for line in lines if "─" not in line).split())) == letters


def test_names_and_headings_stay_whole_where_there_is_room() -> None:
    text = "\n".join(drawn(90))
    for words in ("sliding_window(window_size=16)", "mastered", "arXiv:2312.04927"):
        assert words in text


def test_a_column_that_is_empty_is_left_out() -> None:
    assert "remarks" not in "\n".join(drawn(200))
