"""What a record says of the machine while its case took turns."""

from __future__ import annotations

from typing import Any, cast

import pytest

from attnbench.bench.turn import Turn, _moved


def test_a_baseline_begins_the_next_part_of_its_group_anew() -> None:
    fields: dict[str, Any] = {"planned": None, "started_at": "now", "child": object(), "fields": {"error": 0.0}}
    turn = Turn(**cast(Any, fields), samples=[1.0, 2.0], sampling_s=3.0, wall_s=9.0)
    turn.renewed()
    turn.samples.append(4.0)
    turn.sampling_s += 4.5
    assert turn.of_this_process == (1, 4.5)
    again = turn.anew()
    assert (again.samples, again.of_this_process, again.processes, again.recorded) == ([], (0, 0.0), 1, True)
    assert (again.child, again.fields, again.wall_s) == (turn.child, turn.fields, 9.0)
    assert turn.samples == [1.0, 2.0, 4.0]


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
        assert f"became {'slower' if handovers_us[-1] > handovers_us[0] else 'faster'} in the middle" in notes[0]
