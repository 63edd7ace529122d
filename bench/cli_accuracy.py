"""The commands that measure accuracy without training: `recall` and `dropin`."""

from __future__ import annotations

import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .output import echo_json, echo_table, json_option, plugin_option, whole_number

if TYPE_CHECKING:
    from ..results.dropin_record import DropinRecord
    from .recall import Recall

INTERRUPTED = 130


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
@click.option("--variants", default="all", metavar="A,B(x=1)", help="Names with parameters, or all.")
@click.option("--model", metavar="PATH", help="Folder of a transformers model; the packaged MiniLM by default.")
@click.option("--text", metavar="FILE", help="Text in UTF-8; CPython's own language topics by default.")
@click.option("--seq-len", metavar="N", help="Tokens a window; 512, or what the model reaches, by default.")
@click.option("--windows", metavar="N", help="Pieces of the text, spread over it; 32 by default.")
@click.option("--budgets", metavar="N,…", help="Keys a query, for variants without parameters; 64,128 by default.")
@click.option("--timeout", metavar="TIME", help="For one variant over all windows; 10m by default.")
@plugin_option
@click.option("--out", metavar="DIR", help="Folder of the results; runs/<date and time> by default.")
@json_option
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
    as_json: bool,
) -> None:
    """Put variants in the place of a real model's attention and see what it loses, untrained for them.

    Of an encoder, the embeddings of pieces of the text are compared with the original's, and how they rank each other;
    of a causal language model, its perplexity. A variant named without parameters that declares a budget is measured at
    each of --budgets. Beside each figure: the same with plain means of values, and with a window of as many keys.
    """
    from pathlib import Path

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
    request = Request(variants=split_specs(variants), model=model, text=text, plugins=plugins, **given)
    folder = Path(out) if out is not None else new_folder()
    with busy("drop-in accuracy") as status:
        tell = (lambda words: None) if status is None else status.update
        try:
            done = measure(request, folder, command=command_line(), tell=tell)
        except KeyboardInterrupt:
            click.echo(f"stopped: what was measured is kept in {folder}", err=True)
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


COLUMNS = {
    "embedding": {
        "embedding_cosine": "cosine",
        "ranking_agreement": "ranking τ",
        "top1_agreement": "nearest kept",
        "top10_overlap": "ten nearest kept",
    },
    "perplexity": {"perplexity": "perplexity", "next_token_agreement": "next token kept"},
}


def _tell_dropins(records: list[DropinRecord]) -> None:
    """A row for each variant, best first; the null of a window of as many keys in brackets."""
    first = records[0]
    figures = {key: words for key, words in COLUMNS[first.metric].items() if getattr(first, key) is not None}
    leading = next(iter(figures))
    best = sorted(records, key=lambda r: getattr(r, leading), reverse=first.metric == "embedding")

    def words(value: float | None) -> str:
        return "—" if value is None else f"{value:.3f}" if value < 100 else f"{value:,.0f}"

    def keys(record: DropinRecord) -> str:
        if record.keys is not None:
            return f"{record.keys:.0f} keys"
        return "" if record.budget is None else f"{record.budget} {record.budget_unit}"

    rows = [
        (r.spec, keys(r), *(f"{words(getattr(r, key))} ({words(getattr(r, f'{key}_window'))})" for key in figures))
        for r in best
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


def command_line() -> str:
    return shlex.join(["attnbench", *sys.argv[1:]])
