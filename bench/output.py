"""What commands share: options, and how they write their answers: for people as tables, for machines as TSV or JSON."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

EDGES = 3
"""Columns of the terminal that a table's rules and margins take, for each of its columns."""

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for machines.")


def plugin_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--plugin", "plugins", multiple=True, metavar="FILE.py", help="A file that registers variants; may be repeated."
    )(command)


def echo_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that fits a terminal; tab-separated and as it is elsewhere, for cut and grep."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            click.echo("\t".join(row))
        return
    from rich.console import Console

    console = Console()
    console.print(fitted(header, rows, console.width), markup=False)


def fitted(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """The table for a terminal of `width` columns: without what is empty in every row; folded, so that nothing is cut.

    Words of the header and the names in the first column stay whole where there is room for that.
    """
    from rich import box
    from rich.table import Table

    told = [column for column in range(len(header)) if not rows or any(row[column] for row in rows)]
    least = [_longest_word([header[column]]) for column in told]
    least[0] = max(least[0], min(_longest_word([row[told[0]] for row in rows]), width // 3))
    if sum(least) + EDGES * (len(told) + 1) > width:
        least = [1] * len(told)
    table = Table(box=box.SIMPLE_HEAD)
    for column, room in zip(told, least, strict=True):
        table.add_column(header[column], overflow="fold", min_width=room)
    for row in rows:
        table.add_row(*(row[column] for column in told))
    return table


def _longest_word(texts: Sequence[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=1)


def whole_number(key: str, text: str) -> int:
    """Raises click.BadParameter that names the option."""
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a whole number", param_hint=f"--{key.replace('_', '-')}") from None


def command_line() -> str:
    """What was typed, as a shell would take it again."""
    return shlex.join(["attnbench", *sys.argv[1:]])


def folder_to_resume(out: str | None, others: bool) -> str:
    """The folder whose run --resume goes on with. Raises click.UsageError without one, and beside `others`: a
    configuration or options, which such a run has already."""
    if out is None:
        raise click.UsageError("--resume needs --out, the folder of the run to go on with")
    if others:
        raise click.UsageError("--resume takes the configuration of the run itself; leave out all but --out")
    return out
