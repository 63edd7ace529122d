"""The commands that are about variants: `list`, `show`, `check` and `new`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import echo_json, echo_table, json_option, plugin_option

if TYPE_CHECKING:
    from .contract.verdicts import Verdict

FAILED = 1


@click.command("list")
@plugin_option
@json_option
def list_command(plugins: tuple[str, ...], as_json: bool) -> None:
    """All variants: family, kind, what they support, what they cost."""
    from .cards import card, load

    names, failures = load(plugins)
    for where, why in failures.items():
        click.echo(f"warning: {where} could not be loaded: {why}", err=True)
    cards = [card(name) for name in names]
    if as_json:
        echo_json({"variants": cards, "failures": failures})
        return
    echo_table(
        ("variant", "family", "kind", "supports", "complexity", "paper"),
        [
            (c["name"], c["family"], c["kind"], ", ".join(c["supports"]["modes"]), c["complexity"]["text"], c["paper"])
            for c in cards
        ],
    )


@click.command()
@click.argument("name")
@plugin_option
@json_option
def show(name: str, plugins: tuple[str, ...], as_json: bool) -> None:
    """The card of one variant: paper, formula, complexity, parameters, what it supports and reduces to."""
    from .cards import card, lines, load, small_pattern

    load(plugins)
    found = card(name) | {"pattern": small_pattern(name)}
    if as_json:
        echo_json(found)
    else:
        click.echo("\n".join(lines(found)))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE.py…")
@click.option("--only", default="", metavar="TEXT", help="Only the checks whose name contains this, e.g. identity.")
@click.option("--scaling", "with_scaling", is_flag=True, help="Count work and memory at 1k to 32k instead.")
@plugin_option
@json_option
def check(names: tuple[str, ...], only: str, with_scaling: bool, plugins: tuple[str, ...], as_json: bool) -> None:
    """Hold variants to the contract: what holds, what fails, by how much, on which smallest case.

    NAME is a variant, with parameters if you like; FILE.py is checked as a plugin; all stands for everything. Sizes
    that are not given are made small, so that short sequences meet every boundary. Exit status 1 if something fails.
    """
    # the profiler, which counts memory, says a line at each use unless this is set before torch is imported
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    specs = _specs(names, plugins)
    if with_scaling:
        _scaling(specs, as_json)
        return
    from .contract.verdicts import FAILS

    brief = len(specs) > 1 and not only
    verdicts = _judge(specs, only, quiet=as_json, brief=brief)
    if not verdicts:
        raise click.UsageError(f"no check of {', '.join(specs)} has {only!r} in its name; leave out --only to see all")
    failed = [verdict for verdict in verdicts if verdict.status == FAILS]
    if as_json:
        from dataclasses import asdict

        echo_json([asdict(verdict) for verdict in verdicts])
    else:
        _explain(verdicts, failed)
    if failed:
        sys.exit(FAILED)


def _specs(names: tuple[str, ...], plugins: tuple[str, ...]) -> list[str]:
    """The variants meant: those that a file brings, everything for `all`, a name as it is."""
    from ..variants import registry

    for plugin in plugins:
        registry.load_plugin(plugin)
    specs: list[str] = []
    for name in names:
        if name == "all":
            specs += registry.names()
        elif name.endswith(".py") or os.sep in name:
            specs += registry.load_plugin(name)
        else:
            specs.append(name)
    return specs


def _judge(specs: list[str], only: str, *, quiet: bool, brief: bool) -> list[Verdict]:
    """Lines come as they are found, so that an interrupt loses none: one a check, or with `brief` one a variant."""
    import torch

    from .contract.verdicts import judge, small, untouched_sizes

    attns = [small(spec) for spec in specs]
    for attn, spec in zip(attns, specs, strict=True):
        if left := untouched_sizes(attn, spec):
            click.echo(
                f"note: {attn.name} is checked at {', '.join(left)}, which short sequences do not reach; check it at "
                f"smaller values too: '{attn.name}({left[0].split(' ')[0]}=…)', with --plugin for a file",
                err=True,
            )
    torch.set_num_threads(1)  # small tensors are slower on many
    verdicts: list[Verdict] = []
    if not quiet:
        click.echo(f"{'variant' if brief else 'check':<44} {'':<16} {'worst':>8} {'s':>6}")
    for attn in attns:
        if only and len(attns) > 1 and not quiet:
            click.echo(f"{attn.name}:")
        own = []
        for verdict in judge(attn, only):
            own.append(verdict)
            if not (quiet or brief):
                click.echo(f"{verdict.check:<44} {verdict.status:<16} {verdict.figure:>8} {verdict.seconds:6.1f}")
        if brief and not quiet:
            click.echo(_summary(attn.name, own))
        verdicts += own
    return verdicts


def _summary(name: str, own: list[Verdict]) -> str:
    from .contract.verdicts import ABSENT, FAILS

    failed = [verdict.check for verdict in own if verdict.status == FAILS]
    why = next((verdict.problem for verdict in own if verdict.status == ABSENT), "")
    status = f"FAILS {len(failed)}" if failed else "cannot run here" if why else "holds"
    told = f"{', '.join(failed)}" if failed else why.split(";")[0]
    return f"{name:<44} {status:<16} {len(own):>8} {sum(v.seconds for v in own):6.1f} {told}".rstrip()


EXPLAINED = 4
"""Failures of one variant that are told in full: one mistake fails many checks."""


def _explain(verdicts: list[Verdict], failed: list[Verdict]) -> None:
    from .contract.verdicts import HOLDS

    told: dict[str, int] = {}
    for verdict in failed:
        told[verdict.variant] = told.get(verdict.variant, 0) + 1
        if told[verdict.variant] > EXPLAINED:
            continue
        click.echo(f"\n{verdict.variant} fails: {verdict.check}\n  asked: {verdict.meaning}")
        click.echo(f"  found: {verdict.problem}")
        if verdict.pairs:
            click.echo(f"  pairs: {verdict.pairs}")
        click.echo(f"  smallest case: {verdict.case}")
    for name, count in told.items():
        if count > EXPLAINED:
            click.echo(
                f"\n{count - EXPLAINED} more checks of {name} fail, perhaps for the same reason; --only names one."
            )
    holding = sum(verdict.status == HOLDS for verdict in verdicts)
    absent = len(verdicts) - holding - len(failed)
    more = f", {absent} cannot run here" if absent else ""
    click.echo(f"\n{holding} checks hold, {len(failed)} fail{more}.")


def _scaling(specs: list[str], as_json: bool) -> None:
    """Rows come as they are measured: quadratic methods take a minute at 32k."""
    from dataclasses import asdict

    from ..variants.api import get
    from .contract.scaling import LENGTHS, Scaling, scaling

    attns = [get(spec) for spec in specs]
    if as_json:
        found = [(attn.spec, scaling(attn)) for attn in attns]
        echo_json([asdict(s) if isinstance(s, Scaling) else {"variant": spec, "reasons": s} for spec, s in found])
        return
    short = " ".join(f"{n // 1024}k" for n in LENGTHS)
    click.echo(
        f"Exponents of N, fitted over {short}: of work and of memory, each beside a constant. "
        "Sizes 128, one head of 64, float32. Work is declared by flops_needed at these lengths, by the card in the end."
    )
    line = "{:<26} {:>6} {:>8} {:>10} {:>7} {:>8}   {}"
    click.echo(line.format("variant", "work", "declared", "in the end", "memory", "declared", "MFLOP; peak MiB"))
    for attn in attns:
        s = scaling(attn)
        if not isinstance(s, Scaling):
            click.echo(f"{attn.name:<26} {s[0]}")
            continue
        work = "" if s.time_exponent is None else f"{s.time_exponent:.2f}"
        figures = " ".join(f"{x / 1e6:.3g}" for x in s.flops or ()), " ".join(f"{x / 2**20:.3g}" for x in s.peak_bytes)
        click.echo(
            line.format(
                s.variant,
                work or "hidden",
                f"{s.needed_exponent:.2f}",
                f"{s.declared_time:g}",
                f"{s.memory_exponent:.2f}",
                f"{s.declared_memory:g}",
                "; ".join(figures),
            )
        )


@click.command()
@click.argument("name")
@click.option("--family", required=True, metavar="F", help="full, sparse, linear or chunked: what it begins as.")
@click.option("--in-tree", is_flag=True, help="Write into attnbench's own variants/ folder, not here.")
@click.option("--out", metavar="FILE.py", help="Where the file goes; NAME.py here by default.")
def new(name: str, family: str, in_tree: bool, out: str | None) -> None:
    """Write the file of a new variant: it runs, it is correct, and it says what to change."""
    from .new import write

    path, spec = write(name, family, Path(out) if out else None, in_tree=in_tree)
    at = "" if in_tree else f" --plugin {path}"
    click.echo(f"{path} is a working {family} variant. Make it yours, then:")
    click.echo(f"  attnbench check {name if in_tree else path}")
    click.echo(f"  attnbench plot pattern {name}{at}")
    click.echo(f"  attnbench show {name}{at}")
    click.echo(f"  attnbench run --variants sdpa,{spec}{at} --seq-lens 1024,4096 --report")
