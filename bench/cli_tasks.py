"""The commands about trained tasks: `tasks run` and `tasks list`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import command_line, echo_json, echo_table, folder_to_resume, json_option, plugin_option, whole_number
from .stopping import INTERRUPTED, stopped_as_by_ctrl_c

if TYPE_CHECKING:
    from ..results.tasks import TaskSummary
    from .tasks.progress import Watching

NUMBERS = ("seq_len", "batch", "d_model", "layers", "heads", "steps", "tokens", "match_state", "jobs", "threads")


@click.group()
def tasks() -> None:
    """Train a small model with each variant: recall, copying, parity, language modelling (run, list)."""


@tasks.command("list")
@json_option
def list_tasks(as_json: bool) -> None:
    """The tasks that there are, and the presets."""
    from .tasks.catalogue import TASKS
    from .tasks.config import PRESETS, build

    presets = {preset: dict.fromkeys(s.task.name for s in build(preset=preset).task) for preset in PRESETS}
    rows: list[dict[str, Any]] = []
    for name, cls in TASKS.items():
        own = {key: field.default for key, field in cls.model_fields.items()}
        found = [preset for preset, names in presets.items() if name in names]
        rows.append({"name": name, "about": cls.about, "metric": cls.metric, "parameters": own, "source": cls.source})
        rows[-1]["presets"] = found
    if as_json:
        echo_json(rows)
        return
    echo_table(
        ("task", "what is learned", "metric", "parameters", "presets", "source"),
        [
            (
                row["name"],
                row["about"],
                row["metric"],
                ", ".join(f"{key}={value}" for key, value in row["parameters"].items()),
                ", ".join(row["presets"]),
                row["source"],
            )
            for row in rows
        ],
    )


@tasks.command("run")
@click.argument("config", required=False, metavar="[CONFIG.toml]")
@click.option(
    "--preset",
    metavar="NAME",
    help="smoke (minutes on two cores), standard (hours) or paper (days on a GPU); smoke by default.",
)
@click.option("--tasks", metavar="T,…", help="Names, with parameters or settings: mqar(kv_pairs=4,seq_len=32).")
@click.option("--variants", metavar="A,B(x=1)", help="Names with parameters, or all.")
@click.option("--sizes", metavar="HOW", help="scaled: windows, chunks, … shrink with the length; or own.")
@click.option("--match-state", metavar="BYTES", help="Choose sizes so that decoding keeps so much of a sequence.")
@click.option("--seq-len", metavar="N", help="Tokens of a sequence.")
@click.option("--d-model", metavar="N", help="Width of the model.")
@click.option("--layers", metavar="N", help="Blocks of the model.")
@click.option("--heads", metavar="N", help="Heads of each attention.")
@click.option("--lrs", metavar="X,…", help="Learning rates, e.g. 1e-3,3e-3: each variant is shown at its best.")
@click.option("--seeds", metavar="N,…", help="Seeds of weights and training data; the held-out data stay.")
@click.option("--batch", metavar="N", help="Sequences of a step.")
@click.option("--steps", metavar="N", help="Most steps of a training.")
@click.option("--tokens", metavar="N", help="Most tokens of a training.")
@click.option("--train-time", metavar="TIME", help="Most time of a training, evaluations not counted, e.g. 20s.")
@click.option("--time-budget", metavar="TIME", help="For the whole run, e.g. 10m: the rest is skipped.")
@click.option("--timeout", metavar="TIME", help="For one training with everything: beyond, it is killed and recorded.")
@click.option("--jobs", metavar="N", help="Trainings at a time; as many as cores by default.")
@click.option("--threads", metavar="N", help="CPU threads of each training.")
@click.option("--device", metavar="D", help="cpu or cuda.")
@click.option("--text", metavar="FILE", help="What the task text reads; the standard library's sources by default.")
@plugin_option
@click.option("--out", metavar="DIR", help="Folder of the results; runs/<date and time> by default.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out that was stopped or killed.")
@json_option
@stopped_as_by_ctrl_c()
def run_command(
    config: str | None, preset: str | None, out: str | None, resume: bool, as_json: bool, **options: Any
) -> None:
    """Train variants on tasks: a preset or a CONFIG.toml, with options over it.

    The same small model for all; each variant is shown at its best learning rate, with the spread over seeds. A task
    that the preset lacks has settings of its own. A kill loses nothing: --resume goes on along the same curve.
    """
    from .tasks.config import build
    from .tasks.progress import Quiet, Terminal
    from .tasks.run import Stopped, resume_tasks, run_tasks

    watching: Watching = Terminal() if sys.stderr.isatty() else Quiet()
    asked = {key: value for key, value in options.items() if value not in (None, ())}
    try:
        if resume:
            folder = resume_tasks(folder_to_resume(out, bool(config or preset or asked)), watching=watching)
        else:
            folder = run_tasks(build(config, preset, _typed(asked)), out, command=command_line(), watching=watching)
    except Stopped as stopped:
        click.echo(str(stopped), err=True)
        sys.exit(INTERRUPTED)
    _conclude(folder, as_json)


def _typed(options: dict[str, Any]) -> dict[str, Any]:
    """Text of the command line as the values that a file would hold."""
    typed = dict(options)
    for key in NUMBERS:
        if key in typed:
            typed[key] = whole_number(key, typed[key])
    if "seeds" in typed:
        typed["seeds"] = [whole_number("seeds", part) for part in typed["seeds"].split(",")]
    if "lrs" in typed:
        typed["lrs"] = [_rate(part) for part in typed["lrs"].split(",")]
    if "plugins" in typed:
        typed["plugins"] = list(typed["plugins"])
    return typed


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number", param_hint="--lrs") from None


def _conclude(folder: Path, as_json: bool) -> None:
    """A table for each task and setting, best first; then what has no value, and why."""
    from collections import Counter

    from ..results.tasks import load_tasks, ranked, summarise

    records = load_tasks(folder)
    counts = Counter(record.status for record in records)
    summaries = ranked(summarise(records))
    if as_json:
        rows = [{key: value for key, value in vars(summary).items() if key != "records"} for summary in summaries]
        echo_json({"folder": str(folder), "records": len(records), "statuses": dict(counts), "summaries": rows})
        return
    settings = dict.fromkeys(summary.setting for summary in summaries)
    for setting in settings:
        _echo_setting([summary for summary in summaries if summary.setting == setting])
    for summary in summaries:
        if summary.median is None:
            click.echo(f"not trained: {summary.spec} on {summary.task}: {'; '.join(summary.reasons)}")
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    click.echo(f"{len(records)} trainings: {told}. Results: {folder}")
    if any(summary.median is not None for summary in summaries):
        click.echo(f"Draw them: attnbench plot tasks {folder}")


def _echo_setting(summaries: list[TaskSummary]) -> None:
    trained = [summary for summary in summaries if summary.median is not None]
    if not trained:
        return
    first = trained[0]
    chance = "" if first.chance is None else f", {first.chance:.3f} by guessing"
    longer = "" if first.held_out_len == first.seq_len else f", tested at {first.held_out_len}"
    click.echo(
        f"\n{first.task}: {first.metric.replace('_', ' ')} on the test set{chance}; length {first.seq_len}"
        f"{longer}, d_model {first.d_model}; median and range over seeds at the best learning rate"
    )
    echo_table(
        ("variant", "lr", "median", "range", "seeds", "mastered", "at step", "state bytes", "s", "remarks"),
        [
            (
                summary.spec,
                f"{summary.lr:g}",
                f"{summary.median:.3f}",
                f"{summary.low:.3f} … {summary.high:.3f}",
                str(summary.seeds),
                str(summary.mastered) if first.metric == "accuracy" else "",
                "" if summary.mastered_at is None else f"{summary.mastered_at:g}",
                "" if summary.state_bytes is None else str(summary.state_bytes),
                "" if summary.wall_s is None else f"{summary.wall_s:.1f}",
                "; ".join(summary.reasons),
            )
            for summary in trained
        ],
    )
