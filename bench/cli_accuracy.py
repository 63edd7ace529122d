"""The commands that measure accuracy without training: `recall`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .output import echo_json, echo_table, json_option, plugin_option, whole_number

if TYPE_CHECKING:
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


def busy(text: str) -> AbstractContextManager[Any]:
    """Says on a terminal what is going on."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.markup import escape

    return Console(stderr=True).status(escape(text))
