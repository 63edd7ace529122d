"""What commands share: options, and how they write their answers: for people as tables, for machines as TSV or JSON."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for machines.")


def plugin_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--plugin", "plugins", multiple=True, metavar="FILE.py", help="A file that registers variants; may be repeated."
    )(command)


def echo_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that fits a terminal; tab-separated and uncut elsewhere, for cut and grep."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name, overflow="fold")  # a name that is cut cannot be copied
    for row in rows:
        table.add_row(*row)
    Console().print(table, markup=False)


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
