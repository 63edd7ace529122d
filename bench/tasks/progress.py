"""What a person sees while tasks are trained: what is in training, what is done. Nothing where nobody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from ...results.task_record import TaskRecord
from ..progress_bar import Bar


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

        with Bar(Console(stderr=True), count, finished) as bar:
            yield _Trainings(bar)


class _Trainings:
    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.labels: list[str] = []

    def begin(self, label: str) -> None:
        self.labels.append(label)
        self._show()

    def end(self, label: str) -> None:
        self.labels.remove(label)
        self._show()

    def done(self, record: TaskRecord) -> None:
        self.bar.count(record.status)

    def _show(self) -> None:
        self.bar.say("; ".join(self.labels))
