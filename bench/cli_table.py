"""The command `table`: tables of runs for papers and pull requests."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--format", "form", default="markdown", show_default=True, metavar="F", help="latex, markdown or csv.")
@click.option(
    "--kind",
    default="comparison",
    show_default=True,
    metavar="K",
    help="comparison: at the longest length; lengths: at all; exponents; crossovers.",
)
@click.option("--variants", metavar="A,B", help="Only these, by name.")
@click.option("--mode", metavar="M", help="Only forward, train or decode.")
@click.option("--dtype", metavar="T", help="Only this one.")
@click.option("--causal/--no-causal", default=None, help="Only with the mask, or without.")
@click.option("--inputs", metavar="I", help="Only on these inputs.")
@click.option("--out", metavar="FILE", help="Where it goes; printed by default.")
def table(
    runs: tuple[str, ...],
    form: str,
    kind: str,
    variants: str | None,
    mode: str | None,
    dtype: str | None,
    causal: bool | None,
    inputs: str | None,
    out: str | None,
) -> None:
    """Tables of the records of RUNs, one a setting: LaTeX with booktabs, Markdown for pull requests, CSV."""
    from ..reports.choice import Choice
    from ..reports.sheets import tables, write

    names = tuple(name.strip() for name in (variants or "").split(",") if name.strip())
    text = tables(kind, runs, form, Choice(mode, names, dtype, causal, inputs))
    if out is None:
        click.echo(text, nl=False)
        return
    write(text, Path(out))
    click.echo(out)
