"""What a person sees while a sweep runs: what is running, what is done, what is left. Nothing where nobody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from ..results.record import Record
from .progress_bar import Bar

if TYPE_CHECKING:
    from .plan import Plan
    from .scheduler import Watcher


class Watching(Protocol):
    """Shows the two parts of a run."""

    def planning(self) -> AbstractContextManager[Any]: ...
    def measuring(self, plan: Plan, finished: int) -> AbstractContextManager[Watcher]: ...


class Quiet:
    """Shows nothing: for scripts, pipes and tests."""

    def planning(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def measuring(self, plan: Plan, finished: int) -> AbstractContextManager[Watcher]:
        return nullcontext(self)

    def group(self, setting: str, cases: int) -> None: ...

    def step(self, text: str) -> None: ...

    def done(self, record: Record) -> None: ...


class Terminal:
    """A bar with the counts so far, the setting and the step that is running."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    def planning(self) -> AbstractContextManager[Any]:
        return self.console.status("planning: finding variants, capturing input")

    @contextmanager
    def measuring(self, plan: Plan, finished: int) -> Iterator[Watcher]:
        with Bar(self.console, len(plan.cases), finished) as bar:
            yield _Cases(bar)


class _Cases:
    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.setting = ""

    def group(self, setting: str, cases: int) -> None:
        self.setting = setting

    def step(self, text: str) -> None:
        self.bar.say(f"{self.setting}: {text}" if self.setting else text)

    def done(self, record: Record) -> None:
        self.bar.count(record.status)
