"""The command `doctor`: what this machine can measure, and what disturbs it; or where the time of runs went."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import echo_json, echo_table, json_option, whole_number
from .stopping import INTERRUPTED, stopped_as_by_ctrl_c

if TYPE_CHECKING:
    from ..results.cost import Cost
    from ..results.resolution import Resolution
    from .doctor import Diagnosis

MARKS = {"fine": "ok", "perhaps": "perhaps", "disturbs": "DISTURBS", "unreadable": "-"}
FEWEST = 5
"""Comparisons of code with itself: of fewer, all without an alarm leave a true rate of more than half."""


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN…]")
@click.option("--pairs", metavar="N", help="Comparisons of code with itself, and of each planted share; 10 by default.")
@click.option("--pair-time", metavar="TIME", help="For one comparison, its processes' start included; 5s by default.")
@click.option("--plant", metavar="PERCENT,…", help="Slow-downs to plant, whole percents; 3% by default.")
@click.option("--dtype", metavar="T", help="float32 by default.")
@click.option("--threads", metavar="N", help="CPU threads of what is compared; 1 by default.")
@click.option("--seed", metavar="N", help="Of inputs and of the order of turns.")
@click.option("--out", metavar="FILE", help="Keep each comparison's samples there, and go on from what it holds.")
@json_option
@stopped_as_by_ctrl_c()
def doctor(runs: tuple[str, ...], as_json: bool, **options: str | None) -> None:
    """What this machine can measure: ceilings, noise, false alarms, the smallest difference it resolves, disturbances.

    Code is compared with itself, and with itself and more work planted, as `compare --git` compares revisions: by six
    pairs of fresh processes that take turns. From the same samples come the false alarms and the differences found at
    each threshold, and the threshold to use here. With RUN, it says instead where the wall time of those runs went.
    """
    asked = {name: value for name, value in options.items() if value is not None}
    if runs:
        if asked:
            raise click.UsageError(
                f"--{next(iter(asked)).replace('_', '-')} examines the machine; leave it out beside RUN"
            )
        _costs(runs, as_json)
        return
    from .doctor import Request, Stopped, examine

    request = Request(**_typed(asked))
    try:
        found = examine(request, tell=lambda text: click.echo(text, err=True))
    except Stopped as stopped:
        click.echo(str(stopped), err=True)
        sys.exit(INTERRUPTED)
    if as_json:
        echo_json(_plain(found))
    else:
        _tell(found)


def _typed(asked: dict[str, Any]) -> dict[str, Any]:
    """Text of the command line as the values of a request. Raises BenchError for what makes no sense."""
    from .case import DTYPES
    from .config import parse_seconds
    from .errors import ConfigError

    typed: dict[str, Any] = {
        name: whole_number(name, asked[name]) for name in ("pairs", "threads", "seed") if name in asked
    }
    if "pair_time" in asked:
        try:
            typed["pair_time_s"] = float(parse_seconds(asked["pair_time"]))  # type: ignore[arg-type]
        except ValueError as error:
            raise ConfigError(f"pair_time: {error}") from None
    if "plant" in asked:
        typed["plants"] = tuple(_percent(part) for part in asked["plant"].split(","))
    if "dtype" in asked:
        from ..variants.errors import suggest

        if asked["dtype"] not in DTYPES:
            raise ConfigError(f"unknown dtype {asked['dtype']!r}; {suggest(asked['dtype'], DTYPES)}")
        typed["dtype"] = asked["dtype"]
    if "out" in asked:
        typed["out"] = Path(asked["out"])
    return typed


def _percent(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*", text)
    if not match:
        raise click.BadParameter(f"{text!r} is not a percentage; write 3%,5%", param_hint="--plant")
    return float(match[1]) / 100


# -- for people -------------------------------------------------------------------------------------------------


def _tell(found: Diagnosis) -> None:
    machine, result, request = found.machine, found.found, found.request
    click.echo(f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB\n")
    click.echo("Ceilings")
    echo_table(
        ("dtype", "threads", "matrix product", "copy"),
        [
            (
                c.dtype,
                str(c.threads),
                f"{c.matmul_flops_per_s / 1e9:.4g} GFLOP/s",
                f"{c.copy_bytes_per_s / 1e9:.3g} GB/s",
            )
            for c in found.ceilings
        ],
    )
    click.echo(
        f"\nComparisons of {request.pair_time_s:g} s: {request.dtype}, {_count(request.threads, 'thread')}, "
        f"{result.rounds:g} rounds in {result.pairs} pairs of processes"
    )
    click.echo(f"noise: {result.noise:.1%} from round to round, {result.processes:.1%} from pair to pair of processes")
    for share, ratio in result.planted.items():
        what = f"{share:.0%} planted" if share else "the same code"
        click.echo(f"{what}: {ratio.value:.4f} times as long in the median ({ratio.low:.4f}–{ratio.high:.4f})")
    shares = [share for share in result.planted if share]
    echo_table(
        ("threshold", "false alarms", "of joined pairs", *(f"{share:.0%} found" for share in shares), "resolves"),
        [
            (
                _percents(row.threshold),
                f"{row.alarms.called} of {row.alarms.of}",
                f"{row.alarms_joined:.1%}",
                *(f"{row.found[share].called} of {row.found[share].of}" for share in shares),
                "nothing tried" if row.resolved is None else _percents(row.resolved),
            )
            for row in result.table
        ],
    )
    click.echo(_advice(result, request.threads))
    click.echo("\nWhat disturbs")
    echo_table(
        ("", "what", "found", "advice"),
        [(MARKS[sign.verdict], sign.name, sign.found, sign.advice) for sign in found.signs],
    )


def _advice(result: Resolution, threads: int) -> str:
    """Which threshold to take here, and what it finds, in words."""
    best = result.best
    if best is None:
        fewer = ", or give fewer --threads" if threads > 1 else ""
        longer = ", or give a longer --pair-time" if result.error_of_pair > result.processes / 2 else ""
        return (
            "At no threshold up to 15 % were false alarms as rare as 1 %: comparisons of this length say nothing here "
            f"now. Look at what disturbs{fewer}{longer}"
        )
    low, high = best.alarms.interval
    if best.alarms.of < FEWEST:
        return (
            f"No threshold is advised by {_count(best.alarms.of, 'comparison')} of the same code, which leave a true "
            f"rate of alarms of up to {high:.0%}: ask for --pairs {FEWEST} or more"
        )
    size = "no difference that was tried is" if best.resolved is None else f"{_percents(best.resolved)} more time is"
    least = _percents(best.threshold)
    return (
        f"Use --threshold {least} here. Of the same code {best.alarms.called} of {best.alarms.of} comparisons raised "
        f"an alarm: a true rate of {low:.1%} to {high:.1%} with 95 % confidence, {best.alarms_joined:.1%} where their "
        f"pairs of processes are joined anew. There, {size} found 80 times of 100 in a comparison of one case; where "
        "more are compared, p is corrected for their number. For revisions: attnbench compare --git BASE HEAD "
        f"--threshold {least} --threads {threads}"
    )


def _percents(share: float) -> str:
    return f"{100 * share:g}%"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


# -- for machines -----------------------------------------------------------------------------------------------


def _plain(found: Diagnosis) -> dict[str, Any]:
    from dataclasses import asdict

    result, best = found.found, found.found.best
    return {
        "machine": found.machine.model_dump(),
        "ceilings": [ceilings.model_dump() for ceilings in found.ceilings],
        "dtype": found.request.dtype,
        "threads": found.request.threads,
        "pair_time_s": found.request.pair_time_s,
        "comparisons": len(found.trials),
        "pairs_of_processes": result.pairs,
        "rounds": result.rounds,
        "noise": result.noise,
        "noise_of_processes": result.processes,
        "ratios": [{"planted": share, **asdict(ratio)} for share, ratio in result.planted.items()],
        "thresholds": [
            {
                "threshold": row.threshold,
                "false_alarms": row.alarms.called,
                "of": row.alarms.of,
                "false_alarms_interval": row.alarms.interval,
                "false_alarms_joined": row.alarms_joined,
                "found": [
                    {"planted": share, "called": rate.called, "of": rate.of, "interval": rate.interval}
                    for share, rate in row.found.items()
                ],
                "resolved": row.resolved,
            }
            for row in result.table
        ],
        "threshold": None if best is None else best.threshold,
        "resolved": None if best is None else best.resolved,
        "advice": _advice(result, found.request.threads),
        "signs": [asdict(sign) for sign in found.signs],
    }


# -- runs -------------------------------------------------------------------------------------------------------


def _costs(runs: tuple[str, ...], as_json: bool) -> None:
    from ..results.cost import cost_of

    costs = [cost_of(run) for run in runs]
    if as_json:
        echo_json([_plain_cost(cost) for cost in costs])
        return
    for cost in costs:
        click.echo(cost.sentence)
        echo_table(
            ("wall time", "share", "what"), [(f"{s:.1f} s", f"{s / cost.total_s:.1%}", what) for s, what in cost.parts]
        )


def _plain_cost(cost: Cost) -> dict[str, Any]:
    from dataclasses import asdict

    shares = {name: getattr(cost, name) for name in ("untimed_share", "unmeasured_share", "harness_share")}
    return {**asdict(cost), **shares}
