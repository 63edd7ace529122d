"""How commands write their answers: tables for people, tab-separated or JSON for machines."""

from __future__ import annotations

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

    table = Table(*header, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    Console().print(table, markup=False)


def whole_number(key: str, text: str) -> int:
    """Raises click.BadParameter that names the option."""
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a whole number", param_hint=f"--{key.replace('_', '-')}") from None
