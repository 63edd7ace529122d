"""Runs the command line in this process, so that all tests share one fork server, and one measurement of ceilings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attnbench.bench import placement, roofline, rounds, turn
from attnbench.bench import sweep as sweeping
from attnbench.bench.asking import Asking
from attnbench.bench.cli import main
from attnbench.bench.plan import ask
from attnbench.bench.turn import Turn
from attnbench.results.run import Ceilings

FAST = ["--case-time", "0.02s", "--threads", "1", "--heads", "2", "--head-dim", "16"]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str
    error: BaseException | None

    @property
    def records(self) -> list[dict[str, Any]]:
        return read_records(Path(json.loads(self.out)["folder"]))


def read_records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


MEASURED: dict[tuple[Any, ...], Ceilings] = {}
"""The machine's ceilings, by device, dtype and threads."""


@pytest.fixture(autouse=True)
def ceilings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures the ceilings of a setting at the first sweep that asks for them: it takes a second, and tells the same
    at the next."""

    def once(function: Any, *args: Any, **options: Any) -> Any:
        if function is not roofline.measure:
            return ask(function, *args, **options)
        if args not in MEASURED:
            MEASURED[args] = ask(function, *args, **options)
        return MEASURED[args]

    monkeypatch.setattr(sweeping, "ask", once)


@pytest.fixture(autouse=True)
def conditions_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test's outcome depends on where the cores lie, or on who else uses their cache."""
    monkeypatch.setattr(placement, "matters", lambda: False)
    for module in (rounds, turn):
        monkeypatch.setattr(module, "EVICTION", float("inf"))


@pytest.fixture
def ceilings_anew() -> None:
    """For a test of where the time goes: the next sweep measures them."""
    MEASURED.clear()


@pytest.fixture
def cli() -> Callable[..., Answer]:
    def run(*args: object) -> Answer:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        return Answer(result.exit_code, result.stdout, result.stderr, result.exception)

    return run


@pytest.fixture
def sweep(cli: Callable[..., Answer], tmp_path: Path) -> Callable[..., Answer]:
    """`attnbench run` with small, quick cases into a fresh folder."""

    def run(*args: object) -> Answer:
        return cli("run", *FAST, "--out", tmp_path / "run", "--json", *args)

    return run


@pytest.fixture
def before_asking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Turn, str, bool], None]], None]:
    """Has something called before each step that is asked of a case's process: with the case's turn, the name of the
    step, and whether it may wait for memory."""

    def before(see: Callable[[Turn, str, bool], None]) -> None:
        ask = Asking.__call__

        def asking(self: Asking, turn: Turn, function: Any, *args: Any, may_wait: bool = False) -> Any:
            see(turn, function.__name__, may_wait)
            return ask(self, turn, function, *args, may_wait=may_wait)

        monkeypatch.setattr(Asking, "__call__", asking)

    return before
