"""The command line: composes variants, bench, results and reports. Each command imports what it needs when it runs."""

from __future__ import annotations

import errno
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from .cli_accuracy import dropin, fidelity, recall
from .cli_compare import compare
from .cli_doctor import doctor
from .cli_plot import plot
from .cli_recommend import recommend
from .cli_reproduce import reproduce
from .cli_table import table
from .cli_tasks import tasks
from .cli_variants import check, list_command, new, show
from .output import command_line, echo_json, folder_to_resume, json_option, plugin_option, whole_number
from .stopping import INTERRUPTED, stopped_as_by_ctrl_c

if TYPE_CHECKING:
    from .progress import Watching
    from .sweep import Done

INCORRECT = 1


class Refusal(click.ClickException):
    """A wrong request: its sentence on stderr, exit status 2."""

    exit_code = 2


class Sentences(click.Group):
    """A group whose commands answer a wrong request with one sentence and exit status 2, and no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:  # click's own exit status would be 1, which is a regression's in compare
            click.echo("stopped", err=True)
            raise SystemExit(INTERRUPTED) from None
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO) and error.filename is None:
                raise Refusal(f"the answer could not be written: {error.strerror}") from None
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                raise Refusal(f"{str(error.filename)[:40]}… is too long for the name of a file") from None
            if not _is_refusal(error):
                raise
            raise Refusal(str(error)) from None


def _is_refusal(error: Exception) -> bool:
    """Our own errors, by the module that defines them: to import all of them here would cost every start."""
    home = __package__.rpartition(".")[0]
    return any(
        cls.__module__.startswith(f"{home}.") and cls.__module__.endswith(".errors") for cls in type(error).__mro__
    )


@click.group(cls=Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="attnbench")
def main() -> None:
    """Which attention mechanism to use at your length, on your machine, and what it costs in accuracy.

    Run a sweep (run), read the comparison (report), look at what there is (list, show), bring your own model's
    inputs (capture) or your own variant (new, check).
    """


COMMANDS = (
    *(list_command, show, check, new, compare, doctor),
    *(recall, fidelity, dropin, tasks, reproduce),
    *(plot, recommend, table),
)
for command in COMMANDS:
    main.add_command(command)


# -- run --------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("config", required=False, metavar="[CONFIG.toml]")
@click.option("--preset", metavar="NAME", help="quick, standard, long or fidelity.")
@click.option("--variants", metavar="A,B(x=1)", help="Names with parameters, or all.")
@click.option("--seq-lens", metavar="N,…", help="Sequence lengths.")
@click.option("--query-lens", metavar="N,…", help="Queries; as many as keys by default.")
@click.option(
    "--batch-spec",
    "batch_specs",
    metavar="SPEC,…",
    help="Mixed batches in place of --seq-lens: 2q2k_32q1s1k is 2 prompts of 2k and 32 decode steps at 1k.",
)
@click.option("--budgets", metavar="N,…", help="Keys a query: each variant at parameters that come to as many.")
@click.option("--modes", metavar="M,…", help="forward, train (forward and backward), decode (one token).")
@click.option("--compiled/--eager", default=None, help="Measure what torch.compile makes of each variant.")
@click.option("--causal/--no-causal", default=None, help="Only causal, or only non-causal, attention.")
@click.option("--dtypes", metavar="T,…", help="float32, bfloat16, float16, float64.")
@click.option("--devices", metavar="D,…", help="cpu, cuda.")
@click.option("--threads", metavar="N,…", help="CPU threads.")
@click.option(
    "--inputs", metavar="I,…", help="gaussian, gaussian:2, structured, local, topics, needle, captured, captured:FILE."
)
@click.option("--batch", metavar="N", help="Batch size.")
@click.option("--shape", metavar="NAME", help="Heads and head dimension of a model, e.g. llama-3-8b; list shows all.")
@click.option("--heads", metavar="N", help="Query heads.")
@click.option("--kv-heads", metavar="N", help="Key/value heads; they divide the query heads.")
@click.option("--head-dim", metavar="N", help="Head dimension.")
@click.option("--seed", metavar="N", help="Seed of inputs.")
@click.option("--time-budget", metavar="TIME", help="For the whole run, e.g. 120s or 5m: the rest is skipped.")
@click.option("--case-time", metavar="TIME", help="For the samples of one case.")
@click.option("--turn-time", metavar="TIME", help="Of timed calls in one turn: 15ms unless given.")
@click.option(
    "--processes", metavar="N", help="At least so many take a case's samples, one after the other: 3 unless given."
)
@click.option(
    "--passes",
    metavar="N",
    help="Go so often through all cases, with a share of their rounds each time: once if not given.",
)
@click.option(
    "--patience",
    metavar="SHARE",
    help="Of the run's time, for rounds in which none use the cache, and to bring cores together: 0.2, or a preset's.",
)
@click.option(
    "--allocator",
    type=click.Choice(["keep", "system"]),
    help="Whether a process on a CPU keeps the memory that it frees, or returns it as the C library sees fit.",
)
@click.option("--timeout", metavar="TIME", help="For any one step of a case; beyond, it is killed and recorded so.")
@plugin_option
@click.option("--out", metavar="DIR", help="Folder of the results; runs/<date and time> by default.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out that was stopped or killed.")
@click.option("--report", "with_report", is_flag=True, help="Write the report too, and print its answer.")
@json_option
@stopped_as_by_ctrl_c()
def run(
    config: str | None,
    preset: str | None,
    out: str | None,
    resume: bool,
    with_report: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a sweep: a preset or a CONFIG.toml with options over it, or the options alone.

    With neither, options such as --variants or --seq-lens describe the whole sweep, and what they leave out has the
    defaults of a file: forward, causal, float32 on the CPU, gaussian input, 4 heads of 64, length 1024. With nothing at
    all, the preset quick is run.
    """
    from .config import DEFAULT_PRESET, build
    from .progress import Quiet, Terminal
    from .sweep import Interrupted, execute
    from .sweep import resume as go_on

    if options["shape"] == "list":
        _echo_shapes(as_json)
        return
    watching: Watching = Terminal() if sys.stderr.isatty() else Quiet()
    asked = {key: value for key, value in options.items() if value not in (None, ())}
    try:
        if resume:
            folder = folder_to_resume(out, bool(config or preset or asked))
            done, named = go_on(folder, watching=watching), set()
        else:
            if config is None and preset is None and not GRID_OPTIONS & asked.keys():
                preset = DEFAULT_PRESET
            built = build(config, preset, _typed(asked))
            named = built.named
            done = execute(built, out, command=command_line(), watching=watching)
    except Interrupted as interrupted:
        click.echo(str(interrupted), err=True)
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        again = f"go on with: attnbench run --resume --out {out}" if resume else "give the command again"
        click.echo(f"stopped while it was planned, before a case was measured; {again}", err=True)
        sys.exit(INTERRUPTED)
    _conclude(done, named, with_report, as_json)


def _echo_shapes(as_json: bool) -> None:
    from .model_shapes import model_shapes

    if as_json:
        echo_json([asdict(shape) for shape in model_shapes().values()])
        return
    for shape in model_shapes().values():
        numbers = f"{shape.heads:>4} heads {shape.kv_heads:>4} key/value heads of {shape.head_dim:>3}"
        click.echo(f"{shape.name:<16}{numbers}   {shape.source}")


GRID_OPTIONS = frozenset(
    (
        *("variants", "seq_lens", "modes", "causal", "dtypes", "devices", "threads", "inputs"),
        *(
            "query_lens",
            "budgets",
            "batch_specs",
            "compiled",
            "shape",
            "batch",
            "heads",
            "kv_heads",
            "head_dim",
            "seed",
        ),
    )
)
"""Options that describe a sweep: with any of them, and neither file nor preset, they are the whole of it."""

LISTS = ("seq_lens", "query_lens", "budgets", "threads")
NUMBERS = frozenset((*LISTS, "batch", "heads", "kv_heads", "head_dim", "seed", "processes", "passes"))


def _typed(options: dict[str, Any]) -> dict[str, Any]:
    """Text of the command line as the values that a file would hold."""
    typed: dict[str, Any] = {}
    for key, value in options.items():
        if key == "plugins":
            typed[key] = list(value)
        elif key in NUMBERS:
            parts = [whole_number(key, part) for part in value.split(",")]
            typed[key] = parts if key in LISTS else _one(key, parts)
        else:
            typed[key] = value
    return typed


def _one(key: str, parts: list[int]) -> int:
    if len(parts) != 1:
        raise click.BadParameter("takes one number", param_hint=f"--{key.replace('_', '-')}")
    return parts[0]


def _conclude(done: Done, named: set[str], with_report: bool, as_json: bool) -> None:
    """What a person or a machine is told at the end; exits with 1 where a variant asked for by name is incorrect."""
    from collections import Counter

    counts = Counter(record.status for record in done.records)
    wrong = [record for record in done.records if record.status == "incorrect"]
    told: dict[str, Any] = {"folder": str(done.folder), "records": len(done.records), "statuses": dict(counts)}
    if not as_json:
        for note in done.notes:
            click.echo(f"warning: {note}", err=True)
        for record in wrong:
            click.echo(
                f"incorrect: {record.variant} at {record.requests or f'length {record.n_k}'}, {record.mode}: "
                f"{record.reasons[0]}",
                err=True,
            )
        told_counts = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        click.echo(f"{len(done.records)} cases: {told_counts}. Results: {done.folder}")
        if not counts["ok"]:
            for reason in dict.fromkeys(record.reasons[0] for record in done.records if record.reasons):
                click.echo(f"not measured: {reason}")
        elif not with_report:
            click.echo(f"Compare them: attnbench report {done.folder}")
    if with_report:
        from ..reports.report import write

        report = write([done.folder])
        if not as_json:
            for warning in report.warnings:
                click.echo(f"warning: {warning}", err=True)
        told |= {"report": str(report.html), "sentences": report.sentences}
        if not as_json:
            _echo_report(report)
    if as_json:
        echo_json(told)
    if any(record.variant in named for record in wrong):
        sys.exit(INCORRECT)


# -- report -----------------------------------------------------------------------------------------------------


@main.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--out", metavar="DIR", help="Folder of the report; RUN/report by default.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write all records as CSV too.")
@click.option("--parquet", "parquet_file", metavar="FILE", help="Write all records as Parquet too.")
@json_option
def report(
    runs: tuple[str, ...], out: str | None, csv_file: str | None, parquet_file: str | None, as_json: bool
) -> None:
    """Compare the records of runs: report.html (one file, opens offline), report.md, figures. Needs no torch."""
    from ..reports import export
    from ..reports.report import write

    written = write(runs, Path(out) if out else None)
    if csv_file or parquet_file:
        from ..results.frame import load

        frame = load(*written.sweeps)
        if csv_file:
            export.to_csv(frame, Path(csv_file))
        if parquet_file:
            export.to_parquet(frame, Path(parquet_file))
    if as_json:
        echo_json({"report": str(written.html), "markdown": str(written.markdown), "sentences": written.sentences})
        return
    for warning in written.warnings:
        click.echo(f"warning: {warning}", err=True)
    _echo_report(written)


# -- capture ----------------------------------------------------------------------------------------------------


@main.command()
@click.option("--model", metavar="PATH", help="Folder of a transformers model; the packaged MiniLM by default.")
@click.option("--text", metavar="FILE", help="Text in UTF-8; CPython's own language topics by default.")
@click.option("--out", required=True, metavar="FILE.safetensors", help="Where q, k and v go.")
@click.option("--layers", metavar="I,…", help="Attention layers, counted from 0; all by default.")
@click.option("--seq-len", metavar="N", help="Tokens a window; 512, or what the model reaches, by default.")
@click.option("--windows", metavar="N", default="1", show_default=True, help="Consecutive pieces of the text.")
@json_option
def capture(
    model: str | None, text: str | None, out: str, layers: str | None, seq_len: str | None, windows: str, as_json: bool
) -> None:
    """Capture q, k and v of a real transformer over real text, for --inputs captured:FILE."""
    from . import capture as capturing

    chosen = [whole_number("layers", part) for part in layers.split(",")] if layers is not None else None
    length = whole_number("seq_len", seq_len) if seq_len is not None else None
    count = whole_number("windows", windows)
    info = capturing.capture(model, text, out, layers=chosen, seq_len=length, windows=count)
    if as_json:
        echo_json({key: value for key, value in asdict(info).items() if key != "tokens"})
        return
    click.echo(
        f"{out}: {len(info.layers)} layers × {info.windows} windows × {info.heads} heads × {info.seq_len} tokens × "
        f"{info.head_dim}, of {info.model} over {info.text}. Use it with: attnbench run --inputs captured:{out} "
        f"--seq-lens {info.seq_len} --{'' if info.causal else 'no-'}causal"
    )


# -- output -----------------------------------------------------------------------------------------------------


def _echo_report(report: Any) -> None:
    for sentence in report.sentences:
        click.echo(sentence)
    click.echo(f"Report: {report.html}")


if __name__ == "__main__":
    main()
