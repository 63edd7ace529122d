"""The command `compare`: what became faster, slower, bigger or wrong from one run, or one revision, to another."""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from .output import echo_json, echo_table, json_option
from .stopping import INTERRUPTED, stopped_as_by_ctrl_c

if TYPE_CHECKING:
    from ..results.compare import Comparison
    from ..results.statistics import Interval

REGRESSED = 1
GIT_OPTIONS = {
    "variants": ("A,B(x=1)", "With --git: names with parameters, or all."),
    "seq_lens": ("N,…", "With --git: sequence lengths; 1024 by default."),
    "modes": ("M,…", "With --git: forward, train; forward by default."),
    "dtypes": ("T,…", "With --git: float32 by default."),
    "devices": ("D,…", "With --git: cpu, cuda; cpu by default."),
    "threads": ("N,…", "With --git: CPU threads; all cores by default."),
    "batch": ("N", "With --git: batch size."),
    "heads": ("N", "With --git: query heads."),
    "kv_heads": ("N", "With --git: key/value heads."),
    "head_dim": ("N", "With --git: head dimension."),
    "timeout": ("TIME", "With --git: for any one step of a case."),
    "allocator": ("keep|system", "With --git: as in run."),
    "case_time": (
        "TIME",
        "With --git: for the samples of one case in each revision, 6s by default; twelve fresh processes come on top.",
    ),
    "rounds": (
        "N",
        "With --git: rounds of each case, 18 at least, in place of --case-time; rounded up to a multiple of 6.",
    ),
}


def _git_options(command: Any) -> Any:
    for name, (metavar, words) in reversed(GIT_OPTIONS.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, metavar=metavar, help=words)(command)
    return click.option("--causal/--no-causal", default=None, help="With --git: causal by default.")(command)


@click.command()
@click.argument("base", metavar="BASE")
@click.argument("head", metavar="HEAD")
@click.option(
    "--threshold", default="3%", show_default=True, metavar="PERCENT", help="Smallest change of time to call."
)
@click.option("--relative", is_flag=True, help="Judge what differs from the change that all cases have in common.")
@click.option("--unlike", is_flag=True, help="Compare runs of unlike machines, versions, threads or allocators too.")
@click.option("--all", "everything", is_flag=True, help="Show what did not change too.")
@click.option("--markdown", is_flag=True, help="Write the table as Markdown.")
@click.option(
    "--git", is_flag=True, help="BASE and HEAD are revisions of attnbench's own repository: measure both now."
)
@_git_options
@json_option
@stopped_as_by_ctrl_c()
def compare(
    base: str,
    head: str,
    threshold: str,
    relative: bool,
    unlike: bool,
    everything: bool,
    markdown: bool,
    git: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """What became faster, slower, bigger or wrong from run BASE to run HEAD. Exit status 1 if something is worse.

    A time is called only where the effect reaches the threshold and a test, corrected for the number of comparisons,
    finds the two apart; `perhaps` is what would count if it were the only case, or if nothing else had been unlike.
    Two runs did not take turns. So they are judged by their processes, against how far runs and groups of cases are
    known to differ, or by what stands out of the others of its group; a case that one process measured, by
    Mann–Whitney over its rounds and by how far such cases lie apart. Where neighbours used the shared cache otherwise,
    rounds are weighed so that both runs have as many of each kind, and a change that is no larger than what
    instruments read otherwise is called `perhaps`. Where all of HEAD was slower or faster, that is said, and taken off
    only with --relative. With --git, both revisions are checked out and measured in turns, so that whatever slows the
    machine slows both, in six pairs of processes, whose ratios a t-test compares with 1: that finds smaller changes.
    """
    from ..results import compare as comparing

    asked = {name: value for name, value in options.items() if value is not None}
    least = _share(threshold)
    if git:
        if relative or unlike:
            raise click.UsageError("--relative and --unlike are for finished runs: with --git both sides take turns")
        from .revisions import measure

        try:
            sides = measure(base, head, asked, tell=lambda text: click.echo(text, err=True))
        except KeyboardInterrupt:
            click.echo("stopped: the revisions were not compared", err=True)
            sys.exit(INTERRUPTED)
        found = comparing.compare(*sides, threshold=least, paired=True)
    else:
        if asked:
            first = next(iter(asked)).replace("_", "-")
            raise click.UsageError(f"--{first} is for --git; two finished runs hold what they measured")
        sides = comparing.read(base), comparing.read(head)
        found = comparing.compare(*sides, threshold=least, relative=relative, unlike=unlike)
    if as_json:
        echo_json(_plain(found, everything))
    else:
        _tell(found, everything, markdown)
    if found.worse:
        sys.exit(REGRESSED)


def _share(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*", text)
    if not match or not 0 < float(match[1]) < 1000:
        raise click.BadParameter(f"{text!r} is not a percentage above 0; write 3%", param_hint="--threshold")
    return float(match[1]) / 100


def _plain(found: Comparison, everything: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from ..results.record import IDENTITY

    def interval(ratio: Interval | None) -> dict[str, float | None] | None:
        """Null for an end that few processes leave open: JSON has no infinity."""
        return None if ratio is None else {k: v if math.isfinite(v) else None for k, v in asdict(ratio).items()}

    def case(record: Any) -> dict[str, Any]:
        return {"case_id": record.case_id, **{name: getattr(record, name) for name in IDENTITY}}

    return {
        "base": found.base,
        "head": found.head,
        "worse": found.worse,
        "summary": found.summary,
        "notes": found.notes,
        "threshold": found.threshold,
        "relative": found.relative,
        "shift": interval(found.shift),
        "ratios": None if found.ratios is None else vars(found.ratios) | {"worst_case": case(found.ratios.worst_case)},
        "comparisons": len(found.findings),
        "findings": [
            case(f.case)
            | {"measure": f.measure, "verdict": f.verdict, "word": f.word, "base": f.base, "head": f.head}
            | {"ratio": interval(f.ratio), "to_group": interval(f.to_group), "p": f.p, "why": f.why}
            for f in found.findings
            if everything or f.verdict != "same"
        ],
        "only_base": [case(record) for record in found.only_base],
        "only_head": [case(record) for record in found.only_head],
    }


def _tell(found: Comparison, everything: bool, markdown: bool) -> None:
    from .comparison_table import HEADER, rows, setting

    shown = rows(found, everything)
    click.echo(f"BASE {found.base}, HEAD {found.head}{setting(found)}")
    for note in found.notes:
        click.echo(f"note: {note}", err=not markdown)
    if shown and markdown:
        click.echo("\n".join(["", *_markdown(HEADER), *(line for row in shown for line in _markdown(row)[:1]), ""]))
    elif shown:
        echo_table(HEADER, shown)
    for line in (found.ratios, found.reach):
        if line is not None:
            click.echo(line)
    click.echo(found.summary)


def _markdown(cells: tuple[str, ...]) -> list[str]:
    """A row of a Markdown table, and the rule that goes below a header."""
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return [f"| {' | '.join(escaped)} |", "|" + " --- |" * len(cells)]
