"""The command `reproduce`: published claims, measured anew, each with a verdict and its cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .output import command_line, echo_json, echo_table, json_option
from .stopping import INTERRUPTED, stopped_as_by_ctrl_c

if TYPE_CHECKING:
    from ..results.claim_record import ClaimRecord
    from .progress import Watching
    from .tasks.progress import Watching as TaskWatching


@click.command()
@click.argument("names", nargs=-1, metavar="[CLAIM…]")
@click.option("--list", "listing", is_flag=True, help="Show the claims with their sources, and measure nothing.")
@click.option("--claims", "files", multiple=True, metavar="FILE.py", help="A file of claims of your own; repeatable.")
@click.option("--out", metavar="DIR", help="Folder of the records; runs/<date and time> by default.")
@click.option("--resume", "going_on", is_flag=True, help="Go on with the claims in --out that have no record yet.")
@click.option("--time-budget", metavar="TIME", help="Claims not begun by then, e.g. 5m, are skipped.")
@click.option("--timeout", metavar="TIME", help="For a claim's own function, without its runs; 10m by default.")
@click.option("--markdown", metavar="FILE", help="Write the table as Markdown too.")
@json_option
@stopped_as_by_ctrl_c()
def reproduce(
    names: tuple[str, ...],
    listing: bool,
    files: tuple[str, ...],
    out: str | None,
    going_on: bool,
    time_budget: str | None,
    timeout: str | None,
    markdown: str | None,
    as_json: bool,
) -> None:
    """Measure published claims anew: all, or those named, cheapest first. Each gets a verdict, and its cost.

    A claim that does not hold here is a result, not a failure: the exit status is 0. What of its setting differs from
    the source's is in the record, and in the Markdown.
    """
    from .claims import choose

    chosen = choose(names, files)
    if listing:
        _list(chosen, as_json)
        return
    from . import reproduce as reproducing
    from .sweep import new_folder

    watcher = _Teller(as_json)
    try:
        if going_on:
            if out is None:
                raise click.UsageError("--resume needs --out, the folder of the claims to go on with")
            if names or files or time_budget or timeout:
                raise click.UsageError("--resume takes the claims and limits of the folder itself; leave out the rest")
            done = reproducing.resume(out, watcher=watcher)
        else:
            done = reproducing.reproduce(
                names,
                out or new_folder(),
                files=files,
                time_budget=_seconds("time-budget", time_budget),
                timeout=_seconds("timeout", timeout) or reproducing.TIMEOUT_S,
                command=command_line(),
                watcher=watcher,
            )
    except reproducing.Interrupted as interrupted:
        click.echo(str(interrupted), err=True)
        sys.exit(INTERRUPTED)
    from ..reports.claims import HEADER, as_markdown, rows, summary

    if markdown:
        _write(markdown, as_markdown(done.records))
    if as_json:
        records = [record.model_dump(mode="json") for record in done.records]
        echo_json({"folder": str(done.folder), "records": records})
        return
    echo_table(HEADER, [row for record in done.records for row in rows(record)])
    click.echo(summary(done.records))
    click.echo(f"Records: {done.folder}")


def _list(chosen: Sequence[Any], as_json: bool) -> None:
    if as_json:
        echo_json(
            [
                {
                    "name": claim.name,
                    "text": claim.text,
                    "source": claim.source,
                    "setting": claim.setting,
                    "here": claim.here,
                    "cost_s": claim.cost_s,
                    "targets": [
                        {"name": target.name, "published": target.published, "obtained": target.obtained}
                        for target in claim.targets
                    ],
                }
                for claim in chosen
            ]
        )
        return
    echo_table(
        ("claim", "about", "text", "source"),
        [(claim.name, f"{claim.cost_s:g} s", claim.text, claim.source) for claim in chosen],
    )


class _Teller:
    """Tells of each claim as it is done; shows on a terminal which is running."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    @contextmanager
    def claim(self, name: str, number: int, of: int) -> Iterator[None]:
        if not sys.stderr.isatty():
            yield
            return
        click.echo(f"{number} of {of}: {name} …", err=True)
        yield

    def done(self, record: ClaimRecord) -> None:
        if not self.quiet:
            click.echo(f"{record.name}: {record.verdict or record.status}, {record.wall_s:.1f} s", err=True)

    def sweeping(self) -> Watching:
        from .progress import Quiet, Terminal

        return Terminal() if sys.stderr.isatty() else Quiet()

    def training(self) -> TaskWatching:
        from .tasks.progress import Quiet, Terminal

        return Terminal() if sys.stderr.isatty() else Quiet()


def _seconds(option: str, text: str | None) -> float | None:
    from .config import parse_seconds

    if text is None:
        return None
    try:
        seconds = float(str(parse_seconds(text)))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=f"--{option}") from None
    if seconds <= 0:
        raise click.BadParameter("the time must be above 0", param_hint=f"--{option}")
    return seconds


def _write(path: str, text: str) -> None:
    from pathlib import Path

    from .errors import BenchError

    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}; choose another file for --markdown") from None
