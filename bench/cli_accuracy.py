"""The commands that measure accuracy without training: `recall`, `fidelity` and `dropin`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import command_line, echo_json, echo_table, json_option, plugin_option, whole_number
from .stopping import INTERRUPTED, stopped_as_by_ctrl_c

if TYPE_CHECKING:
    from ..results.dropin_record import DropinRecord
    from ..results.record import Record
    from .fidelity_table import Shown
    from .recall import Recall


@click.command()
@click.argument("variants", default="all", metavar="[A,B(x=1)]")
@click.option("--loads", metavar="N,…", help="Pairs that are written; 32,64,128,256 by default.")
@click.option("--rewritten-load", metavar="N", help="Pairs of which half are written again; 32 by default, 0: none.")
@click.option("--beta", type=click.FloatRange(0, 2), help="Write strength, where a variant has one; 1 by default.")
@click.option("--decay", type=click.FloatRange(0, 1), help="What a token leaves of a gated state; 0.99 by default.")
@click.option("--head-dim", metavar="N", help="Dimensions of keys and values; 64 by default.")
@click.option("--trials", metavar="N", help="Draws for each load; 8 by default.")
@click.option("--seed", metavar="N", help="Seed of the draws; 0 by default.")
@plugin_option
@json_option
def recall(variants: str, plugins: tuple[str, ...], as_json: bool, loads: str | None, **options: Any) -> None:
    """Recall without training: the share of random keys that bring back their values, write-once and rewritten.

    What is asked is the definition of each variant, so that kernels need no device. Parameters matter: a window that is
    longer than the load sees all of it. Chance is less than a thousandth.
    """
    from ..variants.api import get
    from ..variants.registry import names, split_specs
    from .cards import load
    from .recall import probe

    chosen: dict[str, Any] = {}
    for key, value in options.items():
        if value is not None:
            chosen[key] = whole_number(key, value) if isinstance(value, str) else value
    if loads is not None:
        chosen["loads"] = [whole_number("loads", part) for part in loads.split(",")]
    load(plugins)
    attns = [get(one) for spec in split_specs(variants) for one in (names() if spec == "all" else [spec])]
    found: dict[str, list[Recall]] = {}
    for attn in attns:
        with busy(f"recall of {attn.name}"):
            found[attn.spec] = probe(attn, **chosen)
    if as_json:
        echo_json([{"variant": spec, "recall": [asdict(one) for one in ones]} for spec, ones in found.items()])
        return
    if not found:
        raise click.UsageError("name at least one variant, or leave VARIANTS out for all")
    header = ("variant", *(one.load for one in next(iter(found.values()))))
    echo_table(header, [(spec, *(f"{one.accuracy:.2f}" for one in ones)) for spec, ones in found.items()])
    widest = max(one.deviation for ones in found.values() for one in ones)
    click.echo(f"Shares of answers that are right; their standard errors are at most {widest:.2f}.", err=True)


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN…]")
@click.option("--variants", metavar="A,B(x=1)", help="Names with parameters; all approximate methods by default.")
@click.option("--inputs", metavar="I,…", help="As for run; every kind, and the packaged model's, by default.")
@click.option("--seq-lens", metavar="N,…", help="Sequence lengths; 512 by default.")
@click.option("--budgets", metavar="N,…", help="Keys, landmarks or features a query; 32,64,128,256 by default.")
@click.option("--causal/--no-causal", default=None, help="Only causal, or only non-causal; both by default.")
@click.option("--seed", metavar="N", help="Seed of inputs.")
@plugin_option
@click.option(
    "--show",
    type=click.Choice(["error", "cosine", "mass"]),
    default="error",
    show_default=True,
    help="What the table is of: relative error, cosine, or, where keys are kept, the mass of softmax on them.",
)
@click.option("--out", metavar="DIR", help="Folder of the results; runs/<date and time> by default.")
@json_option
@stopped_as_by_ctrl_c()
def fidelity(runs: tuple[str, ...], show: Shown, out: str | None, as_json: bool, **options: Any) -> None:
    """Sweep approximate variants over budgets: error against softmax attention, and cost, on each kind of input.

    It is `run --preset fidelity` with these options over it, and a table. With RUN… nothing is measured: the table is
    of finished runs. Draw the curves by `attnbench plot fidelity RUN`.
    """
    from ..results.fidelity import agreements, points
    from .fidelity_table import echo

    given = {key: value for key, value in options.items() if value not in (None, ())}
    if runs:
        if given or out:
            raise click.UsageError("finished runs hold what they measured; leave out all options but --show and --json")
    else:
        runs = (_sweep_fidelity(given, out),)
    found = points(records_of(runs))
    if not found:
        raise click.UsageError(f"no record of {', '.join(runs)} has a fidelity: name approximate variants")
    ranked = agreements(found)
    if as_json:
        echo_json({"points": [asdict(one) for one in found], "rankings": [asdict(one) for one in ranked]})
        return
    try:
        echo(found, ranked, show)
    finally:  # what was measured stays, whatever can be shown of it
        click.echo(f"Results: {', '.join(runs)}", err=True)
    click.echo(f"Draw them: {shlex.join(['attnbench', 'plot', 'fidelity', *runs])}", err=True)


def _sweep_fidelity(given: dict[str, Any], out: str | None) -> str:
    """Runs the preset; the folder of its results."""
    from .config import build
    from .progress import Quiet, Terminal
    from .sweep import Interrupted, execute

    for key in ("seq_lens", "budgets"):
        if key in given:
            given[key] = [whole_number(key, part) for part in given[key].split(",")]
    if "seed" in given:
        given["seed"] = whole_number("seed", given["seed"])
    if "plugins" in given:
        given["plugins"] = list(given["plugins"])
    watching = Terminal() if sys.stderr.isatty() else Quiet()
    try:
        done = execute(build(None, "fidelity", given), out, command=command_line(), watching=watching)
    except Interrupted as interrupted:
        click.echo(str(interrupted), err=True)
        sys.exit(INTERRUPTED)
    for note in done.notes:
        click.echo(f"warning: {note}", err=True)
    for record in done.records:
        if record.status not in ("ok", "unsupported"):
            click.echo(f"{record.status}: {record.variant} on {record.inputs}: {record.reasons[0]}", err=True)
    return str(done.folder)


def records_of(runs: tuple[str, ...]) -> Iterator[Record]:
    from ..results.store import RunFolder

    for run in runs:
        folder = RunFolder(run)
        folder.run()
        yield from folder.records()


@click.command()
@click.option("--variants", default="all", metavar="A,B(x=1)", help="Names with parameters, or all.")
@click.option("--model", metavar="PATH", help="Folder of a transformers model; the packaged MiniLM by default.")
@click.option("--text", metavar="FILE", help="Text in UTF-8; CPython's own language topics by default.")
@click.option("--seq-len", metavar="N", help="Tokens a window; 512, or what the model reaches, by default.")
@click.option("--windows", metavar="N", help="Pieces of the text, spread over it; 32 by default.")
@click.option("--budgets", metavar="N,…", help="Keys a query, for variants without parameters; 64,128 by default.")
@click.option("--timeout", metavar="TIME", help="For one variant over all windows; 10m by default.")
@plugin_option
@click.option("--out", metavar="DIR", help="Folder of the results; runs/<date and time> by default.")
@click.option("--resume", is_flag=True, help="With the same options: measure what has no record in --out yet.")
@json_option
@stopped_as_by_ctrl_c()
def dropin(
    variants: str,
    model: str | None,
    text: str | None,
    seq_len: str | None,
    windows: str | None,
    budgets: str | None,
    timeout: str | None,
    plugins: tuple[str, ...],
    out: str | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Put variants in the place of a real model's attention and see what it loses, untrained for them.

    Of an encoder, the embeddings of pieces of the text are compared with the original's, and how they rank each other;
    of a causal language model, its perplexity. A variant named without parameters that declares a budget is measured at
    each of --budgets. Beside each figure: the same with plain means of values, and with a window of as many keys.
    """
    from ..variants.registry import split_specs
    from .config import parse_seconds
    from .dropin import Request
    from .dropin import dropin as measure
    from .sweep import new_folder

    given: dict[str, Any] = {}
    for key, value in (("seq_len", seq_len), ("windows", windows)):
        if value is not None:
            given[key] = whole_number(key, value)
    if budgets is not None:
        given["budgets"] = [whole_number("budgets", part) for part in budgets.split(",")]
    if timeout is not None:
        try:
            given["timeout_s"] = parse_seconds(timeout)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--timeout") from None
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder to go on with")
    request = Request(variants=split_specs(variants), model=model, text=text, plugins=plugins, **given)
    folder = Path(out) if out is not None else new_folder()
    with busy("drop-in accuracy") as status:
        tell = (lambda words: None) if status is None else status.update
        try:
            done = measure(request, folder, command=command_line(), resume=resume, tell=tell)
        except KeyboardInterrupt:
            click.echo(
                f"stopped: what was measured is kept in {folder}; go on with the same command and --resume", err=True
            )
            sys.exit(INTERRUPTED)
    if as_json:
        echo_json([record.model_dump() for record in done.records])
        return
    told = [record for record in done.records if record.status == "ok"]
    if told:
        _tell_dropins(told)
    for record in done.records:
        if record.status != "ok":
            click.echo(f"not measured: {record.spec}: {record.reasons[0]}", err=True)
    click.echo(f"Results: {folder}", err=True)
    if told:
        click.echo(f"Draw them: {shlex.join(['attnbench', 'plot', 'dropin', str(folder)])}", err=True)


def _tell_dropins(records: list[DropinRecord]) -> None:
    """A row for each variant, best first; the null of a window of as many keys in brackets."""
    from ..reports.dropins import COLUMNS, budget, ranked, words

    first = records[0]
    figures = {key: name for key, name in COLUMNS[first.metric].items() if getattr(first, key) is not None}
    rows = [
        (r.spec, budget(r), *(f"{words(getattr(r, key))} ({words(getattr(r, f'{key}_window'))})" for key in figures))
        for r in ranked(records)
    ]
    echo_table(("variant", "a query looks at", *(f"{w} (window)" for w in figures.values())), rows)
    nulls = ", ".join(f"{words(getattr(first, f'{key}_uniform'))} {name}" for key, name in figures.items())
    original = "" if first.perplexity_original is None else f" The original's: {words(first.perplexity_original)}."
    click.echo(
        f"{first.model} over {first.windows} windows of {first.seq_len} tokens of {first.text}. In brackets: a window "
        f"of as many keys. Plain means of values in place of attention give: {nulls}.{original}"
    )


def busy(text: str) -> AbstractContextManager[Any]:
    """Says on a terminal what is going on."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.markup import escape

    return Console(stderr=True).status(escape(text))
