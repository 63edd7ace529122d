"""The bar that a person sees while records are made: how many there are, of which status, and what is under way."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 24
"""Characters of the bar itself."""


class Bar:
    """Shown on a console from entry to exit, and gone after."""

    def __init__(self, console: Console, total: int, finished: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            BarColumn(bar_width=WIDTH),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[counts]}"),
            TextColumn("{task.description}"),
        )
        self.progress = Progress(*columns, console=console, transient=True)
        self.task = self.progress.add_task("", total=total, completed=finished, counts="")
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """What is under way, in place of what was."""
        from rich.markup import escape

        self.progress.update(self.task, description=escape(text))

    def count(self, status: str) -> None:
        """One more record."""
        self.counts[status] += 1
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        self.progress.update(self.task, advance=1, counts=counts)
