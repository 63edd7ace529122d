"""What a person sees while tasks are trained: what is in training, what is done. Nothing where nobody looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from ...results.task_record import TaskRecord


class Watcher(Protocol):
    """Whoever shows the progress."""

    def begin(self, label: str) -> None: ...
    def end(self, label: str) -> None: ...
    def done(self, record: TaskRecord) -> None: ...


class Watching(Protocol):
    """Shows a run."""

    def training(self, count: int, finished: int) -> AbstractContextManager[Watcher]: ...


class Quiet:
    """Shows nothing: for scripts, pipes and tests."""

    def training(self, count: int, finished: int) -> AbstractContextManager[Watcher]:
        return nullcontext(self)

    def begin(self, label: str) -> None: ...

    def end(self, label: str) -> None: ...

    def done(self, record: TaskRecord) -> None: ...


class Terminal:
    """A bar with the counts so far and what is in training."""

    @contextmanager
    def training(self, count: int, finished: int) -> Iterator[Watcher]:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[counts]}"),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=count, completed=finished, counts="")
            yield _Bar(lambda **changes: progress.update(task, **changes), escape)


class _Bar:
    def __init__(self, update: Any, escape: Any) -> None:
        self.update, self.escape = update, escape
        self.counts: Counter[str] = Counter()
        self.labels: list[str] = []

    def begin(self, label: str) -> None:
        self.labels.append(label)
        self._show()

    def end(self, label: str) -> None:
        self.labels.remove(label)
        self._show()

    def done(self, record: TaskRecord) -> None:
        self.counts[record.status] += 1
        self.update(advance=1, counts=", ".join(f"{count} {status}" for status, count in self.counts.items()))

    def _show(self) -> None:
        self.update(description=self.escape("; ".join(self.labels)))
