"""What a record says of the machine while its case took turns."""

from __future__ import annotations

import pytest

from attnbench.bench.turn import _moved


@pytest.mark.parametrize(
    ("handovers_us", "told"),
    [
        ([3.5, 3.6, 3.4, 3.5, 5.0, 5.1, 4.9, 5.0], True),
        ([5.0, 5.1, 4.9, 5.0, 5.0, 3.5, 3.6, 3.4, 3.5], True),
        ([3.5, 3.6, 9.9, 3.5, 3.6, 3.7, 3.5, 9.9], False),  # two that were interrupted
        ([3.5, 3.6, 3.4, 5.0, 5.1, 4.9], False),  # too few to tell
        ([], False),
    ],
)
def test_a_machine_that_changed_in_the_middle_is_told_of(handovers_us: list[float], told: bool) -> None:
    notes = _moved([us * 1e-6 for us in handovers_us])
    assert bool(notes) is told
    if told:
        assert f"took {handovers_us[0]:.1f} µs in the first half" in notes[0]
