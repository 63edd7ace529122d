"""What a person sees while a sweep runs: what is running, what is done, what is left. Nothing where nobody looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from ..results.record import Record

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
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[counts]}"),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("", total=len(plan.cases), completed=finished, counts="")
            yield _Bar(lambda **changes: progress.update(task, **changes), escape)


class _Bar:
    def __init__(self, update: Any, escape: Any) -> None:
        self.update, self.escape = update, escape
        self.counts: Counter[str] = Counter()
        self.setting = ""

    def group(self, setting: str, cases: int) -> None:
        self.setting = setting

    def step(self, text: str) -> None:
        self.update(description=self.escape(f"{self.setting}: {text}" if self.setting else text))

    def done(self, record: Record) -> None:
        self.counts[record.status] += 1
        self.update(advance=1, counts=", ".join(f"{count} {status}" for status, count in self.counts.items()))
