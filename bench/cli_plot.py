"""The commands `plot …`: patterns and inputs, and figures for papers from the records of runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .cli_accuracy import records_of
from .output import echo_json, json_option, plugin_option, whole_number

FIGURES = {
    "time": "Time of a call over length.",
    "memory": "Peak memory over length.",
    "throughput": "Tokens per second over length.",
    "ratio": "Time over that of the fastest exact variant, over length.",
    "accuracy": "Distance from softmax attention against time, with the Pareto front.",
    "budget": "Distance from softmax attention over the keys that a query keeps.",
    "scaling": "Exponents of time and memory beside those declared.",
    "crossovers": "From which length on a variant takes less than exact ones, and than naive.",
    "roofline": "Operations per second under the machine's measured ceilings.",
    "decode": "Time of a decode step and size of its state, over length.",
    "recall": "What is recalled of written pairs, without training.",
}


@click.group()
def plot() -> None:
    """Draw which tokens are attended to (pattern, inputs), or the records of runs, for a paper (all others)."""


@plot.command("pattern")
@click.argument("names", metavar="NAME[,NAME…]")
@click.option("--seq-len", metavar="N", default="64", show_default=True, help="Tokens.")
@click.option(
    "--inputs", metavar="I", default="gaussian", show_default=True, help="As for run: structured, captured, …."
)
@click.option("--head", metavar="I", default="0", show_default=True, help="Which head, counted from 0.")
@click.option("--layer", metavar="I", help="Which layer of captured inputs; the first by default.")
@click.option(
    "--causal/--no-causal", default=None, help="By default causal, or as captured inputs were, if the variant can."
)
@click.option("--seed", metavar="N", default="0", show_default=True, help="Seed of inputs and of drawn extras.")
@click.option("--as-is", is_flag=True, help="Keep default sizes, even if nothing is left out at this length.")
@plugin_option
@click.option("--out", metavar="FILE", help="A .png, .svg or .pdf; NAME-pattern.png or patterns.png by default.")
@json_option
def plot_pattern(
    names: str,
    seq_len: str,
    inputs: str,
    head: str,
    layer: str | None,
    causal: bool | None,
    seed: str,
    as_is: bool,
    plugins: tuple[str, ...],
    out: str | None,
    as_json: bool,
) -> None:
    """Draw the attention matrix of a variant on real or generated input, and the mask of a sparse one.

    NAME is a variant, with parameters if you like; several, with commas between them, or all, give a sheet with a panel
    each. Any variant that is linear in v has such a matrix, recurrences too: it is what its definition gives for v = I.
    Sizes that NAME does not give (windows, blocks, …) are made small, so that short inputs show structure; the title
    says which. Captured inputs have their words on the axes.
    """
    from ..reports.pattern import check_format, save_pattern, save_sheet
    from ..variants.registry import split_specs
    from .cards import load
    from .pattern import View, look

    view = View(
        seq_len=whole_number("seq_len", seq_len),
        inputs=inputs,
        causal=causal,
        head=whole_number("head", head),
        layer=None if layer is None else whole_number("layer", layer),
        seed=whole_number("seed", seed),
        as_is=as_is,
    )
    if out is not None:
        check_format(Path(out))  # before anything takes time
    load(plugins)
    specs = split_specs(names)
    sheet = look(specs, view)
    for name, why in sheet.left_out.items():
        click.echo(f"left out: {why if why.startswith(name) else f'{name}: {why}'}", err=True)
    if len(specs) == 1 and specs != ["all"]:
        (one,) = sheet.patterns
        path = save_pattern(one, Path(out or f"{one.spec.partition('(')[0]}-pattern.png"))
    else:
        path = save_sheet(sheet.patterns, sheet.left_out, Path(out or "patterns.png"), merge="all" in specs)
    if as_json:
        drawn = [{"spec": p.spec, "causal": p.causal, "pairs_seen": int(p.seen.sum())} for p in sheet.patterns]
        echo_json({"file": str(path), "patterns": drawn, "left_out": sheet.left_out})
    else:
        click.echo(f"{path}: {', '.join(p.spec for p in sheet.patterns)}")


@plot.command("inputs")
@click.argument("names", metavar="[NAME,…]", default="")
@click.option("--seq-len", metavar="N", help="Tokens; all that the capture has by default.")
@click.option("--capture", metavar="FILE", help="A capture to stand beside; the packaged model's by default.")
@click.option("--head", metavar="I", default="0", show_default=True, help="Which head is shown, counted from 0.")
@click.option("--seed", metavar="N", default="0", show_default=True, help="Seed of what is drawn.")
@click.option("--out", metavar="FILE", default="inputs.png", show_default=True, help="A .png, .svg or .pdf.")
@json_option
def plot_inputs(
    names: str, seq_len: str | None, capture: str | None, head: str, seed: str, out: str, as_json: bool
) -> None:
    """Draw what attention on each kind of input looks like, and its statistics beside those of a real model.

    NAME is an input that run takes, such as gaussian:2 or topics; by default all are drawn.
    """
    from ..reports.distributions import save_inputs
    from ..reports.pattern import check_format
    from .distributions.look import SHOWN, look

    check_format(Path(out))  # before anything takes time
    sheet = look(
        [name.strip() for name in names.split(",")] if names else SHOWN,
        seq_len=None if seq_len is None else whole_number("seq_len", seq_len),
        capture=None if capture is None else Path(capture),
        head=whole_number("head", head),
        seed=whole_number("seed", seed),
    )
    path = save_inputs(sheet, Path(out))
    if as_json:
        found = [{"name": one.name, **asdict(one.statistics), "missed": one.missed} for one in sheet.looks]
        echo_json({"file": str(path), "inputs": found})
    else:
        click.echo(f"{path}: {', '.join(one.name for one in sheet.looks)}")


# -- accuracy ---------------------------------------------------------------------------------------------------


@plot.command("fidelity")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--out", metavar="FILE", default="fidelity.png", show_default=True, help="A .png, .svg or .pdf.")
@json_option
def plot_fidelity(runs: tuple[str, ...], out: str, as_json: bool) -> None:
    """Draw error against budget of the approximate variants of RUN…, on each kind of input."""
    from ..reports.accuracy import save_fidelity
    from ..results.fidelity import points

    found = points(records_of(runs))
    _echo_figure(save_fidelity(found, Path(out)), len(found), as_json)


@plot.command("dropin")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--out", metavar="FILE", default="dropin.png", show_default=True, help="A .png, .svg or .pdf.")
@json_option
def plot_dropin(runs: tuple[str, ...], out: str, as_json: bool) -> None:
    """Draw what a real model loses with each variant of RUN… in place of its attention, beside the nulls."""
    from ..reports.accuracy import save_dropin
    from ..results.dropin_record import load_dropins

    found = load_dropins(*runs)
    _echo_figure(save_dropin(found, Path(out)), len(found), as_json)


def _echo_figure(path: Path, records: int, as_json: bool) -> None:
    if as_json:
        echo_json({"file": str(path), "records": records})
    else:
        click.echo(f"{path}: {records} records")


@plot.command("tasks")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--out", metavar="DIR", help="Folder of the figures; RUN/figures by default.")
@json_option
def plot_tasks(runs: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Draw trained tasks: curves, values over what decoding keeps, and accuracy by distance. Needs no torch."""
    from ..reports.pattern import FORMATS
    from ..reports.task_figures import save_task_figures
    from ..results.tasks import load_tasks

    if out is not None and Path(out).suffix.lower() in FORMATS:
        raise click.BadParameter(
            f"{out} names a file, and a figure is drawn for each task, as SVG and as PNG; name a folder",
            param_hint="--out",
        )
    paths = save_task_figures(load_tasks(*runs), Path(out) if out else Path(runs[0]) / "figures")
    if as_json:
        echo_json({"files": [str(path) for path in paths]})
        return
    for path in paths:
        click.echo(str(path))


# -- figures of runs --------------------------------------------------------------------------------------------


def _figure(kind: str, words: str) -> click.Command:
    """The command that draws one kind of figure."""

    def draw(runs: tuple[str, ...], out: str | None, width: str, as_json: bool, **chosen: Any) -> None:
        from ..reports.choice import Choice
        from ..reports.plots import plot

        names = tuple(name.strip() for name in (chosen.pop("variants") or "").split(",") if name.strip())
        file = Path(out or f"{kind}.pdf")
        drawn = plot(kind, runs, file, width, Choice(variants=names, **chosen))
        if as_json:
            echo_json({"file": str(drawn.path), "panels": drawn.panels, "caption": drawn.caption})
        else:
            click.echo(f"{drawn.path}: {drawn.caption}")

    options = (
        click.argument("runs", nargs=-1, required=True, metavar="RUN…"),
        click.option("--out", metavar="FILE", help=f"A .pdf, .svg or .png; {kind}.pdf by default."),
        click.option("--width", default="two", show_default=True, metavar="one|two", help="Columns of a paper."),
        click.option("--variants", metavar="A,B", help="Only these, by name."),
        click.option("--mode", metavar="M", help="Only forward, train or decode."),
        click.option("--dtype", metavar="T", help="Only this one."),
        click.option("--causal/--no-causal", default=None, help="Only with the mask, or without."),
        click.option("--inputs", metavar="I", help="Only on these inputs."),
        json_option,
    )
    for option in reversed(options):
        draw = option(draw)
    return click.command(kind, help=words, short_help=words)(draw)


for _kind, _words in FIGURES.items():
    plot.add_command(_figure(_kind, _words))
