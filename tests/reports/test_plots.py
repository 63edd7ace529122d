"""Axes, label places and the Pareto front: the geometry beneath both kinds of plot."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest

from attnbench.reports.labels import beside, spread
from attnbench.reports.load import load_runs
from attnbench.reports.series import FidelityAxis, distance, log_ticks, milliseconds, panels, pareto, tradeoffs
from attnbench.reports.settings import split

from . import synthetic


def test_pareto_front_by_hand() -> None:
    # time, distance: the first is fastest, the second a compromise, the third exact; the others lose to one of them
    points = [(1.0, 0.9), (2.0, 0.3), (5.0, 0.0), (2.5, 0.3), (6.0, 0.0), (1.0, 0.95), (5.0, 0.4)]
    assert pareto(points) == [True, True, True, False, False, False, False]


def test_equal_points_are_both_on_the_front() -> None:
    assert pareto([(1.0, 1.0), (1.0, 1.0)]) == [True, True]


def test_tradeoff_counts_rounding_as_no_distance(tmp_path: Path) -> None:
    base = {"baseline": "sdpa", "base_s": 0.1}
    records = [
        synthetic.timed("sdpa", 512, 0.1, **base),
        synthetic.timed("sliding_window", 512, 0.05, **base, fidelity_error=3e-7),
        synthetic.timed("block_local", 512, 0.02, **base, fidelity_error=0.5),
        synthetic.timed("linear_elu", 512, 0.01, **base),
    ]
    (setting,) = split(load_runs([synthetic.write(tmp_path / "run", records)]))
    found = {each.entry.label: each.best for each in tradeoffs(setting)}
    # sliding_window is softmax attention here and faster than sdpa; an operator of its own has no place in the plot
    assert found == {"sdpa": False, "sliding_window": True, "block_local": True}


def test_records_that_failed_are_in_no_line(tmp_path: Path) -> None:
    records = [
        synthetic.timed("sdpa", 512, 0.1, baseline="sdpa", base_s=0.1),
        synthetic.timed("naive", 512, 0.2, baseline="sdpa", base_s=0.1, status="incorrect", fidelity_error=0.5),
    ]
    settings = split(load_runs([synthetic.write(tmp_path / "run", records)]))
    assert [line.label for panel in panels(settings, milliseconds) for line in panel.lines] == ["sdpa"]
    assert panels(settings, distance) == []


@pytest.mark.parametrize("seed", range(20))
def test_labels_keep_their_distance_and_their_order(seed: int) -> None:
    rng = random.Random(seed)
    wanted = [rng.random() ** 3 for _ in range(rng.randint(1, 14))]
    places = spread(wanted, 0.06, 0.0, 1.0)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    ranked = [places[i] for i in order]
    assert all(b - a >= 0.06 - 1e-9 for a, b in itertools.pairwise(ranked))
    assert min(places) >= -1e-9
    assert max(places) <= 1 + 1e-9


def test_labels_with_room_stay_where_they_are() -> None:
    assert spread([0.1, 0.9, 0.5], 0.1, 0.0, 1.0) == [0.1, 0.9, 0.5]
    assert spread([0.5, 0.5], 0.1, 0.0, 1.0) == pytest.approx([0.45, 0.55])
    assert spread([], 0.1, 0.0, 1.0) == []
    # too many for the room: the gap gives way
    assert spread([0.5] * 11, 0.5, 0.0, 1.0) == pytest.approx([i / 10 for i in range(11)])


def test_scatter_labels_do_not_overlap() -> None:
    points = [(10.0, 50.0), (14.0, 50.0), (20.0, 50.0), (60.0, 50.0), (62.0, 20.0)]
    widths = [30.0] * 5
    boxes = []
    for (x, y), width, place in zip(points, widths, beside(points, widths, 8.0, (0, 0, 140, 100)), strict=True):
        left = x + place.dx - {"left": 0, "center": width / 2, "right": width}[place.align]
        boxes.append((left, y + place.dy - 4, left + width, y + place.dy + 4))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) + 1e-9 or min(a[3], b[3]) <= max(a[1], b[1]) + 1e-9


def test_no_distance_has_a_place_of_its_own_below_the_axis() -> None:
    axis = FidelityAxis.of([0.05, 4.7, 1e-7])
    assert axis.position(0.0) == axis.position(1e-7) == axis.lane
    assert axis.bottom < axis.lane < axis.floor < math.log10(0.05)
    assert axis.position(4.7) == math.log10(4.7) < axis.top
    assert all(axis.bottom < place < axis.top for place, _ in axis.ticks)


def test_ticks_are_round_and_within() -> None:
    assert log_ticks(0.9, 110) == [1, 2, 5, 10, 20, 50, 100]
    assert log_ticks(0.5, 5000) == [1, 10, 100, 1000]
    assert log_ticks(0.2, 300, 2) == [0.25, 1, 4, 16, 64, 256]
    assert log_ticks(0.55, 1.2) == pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0]), "one number would tell no distance"
    assert log_ticks(3, 9, 2) == [4, 8]
