"""What a person sees on a terminal while a sweep or trainings run: counts of what is done, and what is under way."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from attnbench.bench import progress
from attnbench.bench.tasks import progress as trainings


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=160, color_system=None)
    monkeypatch.setattr("rich.console.Console", lambda **options: console)
    return file


def record(status: str) -> Any:
    return SimpleNamespace(status=status)


def test_a_sweep_shows_its_counts_and_the_step_that_is_running(screen: io.StringIO) -> None:
    plan: Any = SimpleNamespace(cases=[None] * 7)
    with progress.Terminal().measuring(plan, finished=3) as watcher:
        watcher.group("forward causal [N 64]", 4)
        watcher.done(record("ok"))
        watcher.done(record("oom"))
        watcher.done(record("ok"))
        watcher.step("checking sdpa")
    text = screen.getvalue()
    assert "6/7" in text
    assert "2 ok, 1 oom" in text
    assert "forward causal [N 64]: checking sdpa" in text


def test_trainings_show_their_counts_and_those_under_way(screen: io.StringIO) -> None:
    with trainings.Terminal().training(5, finished=0) as watcher:
        watcher.begin("mqar, sdpa")
        watcher.begin("parity, delta")
        watcher.begin("needle, gla")
        watcher.end("mqar, sdpa")
        watcher.done(record("diverged"))
    last = [line for line in screen.getvalue().splitlines() if "1/5" in line][-1]
    assert "1 diverged" in last
    assert "parity, delta; needle, gla" in last
    assert "mqar" not in last
