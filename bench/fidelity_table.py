"""What `attnbench fidelity` prints: a table for each mask and length, and how far the order depends on the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import click

from ..results.fidelity import Agreement, Point
from .output import echo_table

Shown = Literal["error", "cosine", "mass"]
TITLES: dict[Shown, str] = {
    "error": "Relative error",
    "cosine": "Cosine between the output and softmax attention's",
    "mass": "Mass of softmax attention on the keys that are kept (on as many nearest; on as many of highest scores)",
}
MARKS = {
    "*": "* worse than a window of as many keys",
    "!": "! worse than the plain mean of the values",
}
ROUNDING = 1e-5
"""Relative errors below this are none."""
SWAPS = 3
"""Pairs that change places, told for each ranking."""


def echo(found: Sequence[Point], ranked: Sequence[Agreement], show: Shown = "error") -> None:
    """Prints the tables, what their marks mean, and of errors the rankings. Raises click.UsageError for no figure."""
    told = [point for point in found if _value(point, show) is not None]
    if not told:
        raise click.UsageError(f"no record has a figure for --show {show}: none of its variants keeps some keys only")
    marks: set[str] = set()
    for causal, length in dict.fromkeys((point.causal, point.seq_len) for point in told):
        here = [point for point in told if (point.causal, point.seq_len) == (causal, length)]
        click.echo(f"{TITLES[show]}, {'causal' if causal else 'non-causal'}, N {length}:")
        marks |= _echo_one(here, show)
    notes = [words for mark, words in MARKS.items() if mark in marks]
    if show != "mass" and any(point.variant == "topk" for point in told):
        notes.append("topk is the oracle")
    if notes:
        click.echo(f"{'; '.join(notes)}.")
    if show == "error":
        _echo_rankings(ranked)


def _echo_one(here: Sequence[Point], show: Shown) -> set[str]:
    """One table: what does best on the last kind of input first, and the null below. Returns the marks in it."""
    columns = list(dict.fromkeys(point.inputs for point in here))
    last = columns[-1]
    cells = {(point.variant, str(point.params), point.inputs): point for point in here}
    # where all queries were compared, the mean of their keys is none of a sample
    fullest = sorted(here, key=lambda p: p.rows)
    rows = {(p.budget or 0, p.variant, str(p.params)): p for p in fullest}
    table = []
    for (budget, variant, params), one in rows.items():
        across = [cells.get((variant, params, name)) for name in columns]
        at_last = cells.get((variant, params, last), one)
        time = "—" if at_last.time_s is None else f"{1e3 * at_last.time_s:.2f}"
        keys = "—" if one.keys is None else f"{one.keys:.0f}"
        row = (one.label, one.unit or "—", keys, *(_cell(point, show) for point in across), time)
        value = _value(at_last, show) or 0.0
        table.append((budget, value if show == "error" else -value, row))
    table.sort(key=lambda entry: entry[:2])
    rest = [row for _, _, row in table]
    marks = {mark for row in rest for cell in row for mark in MARKS if cell.endswith(mark)}
    if show == "error":
        means = [next((p.error_uniform for p in here if p.inputs == name), None) for name in columns]
        rest.append(("plain mean", "—", "—", *("—" if mean is None else f"{mean:.2f}" for mean in means), "—"))
    echo_table(("variant, budget", "of", "keys kept", *columns, f"ms on {last}"), rest)
    return marks


def _value(point: Point, show: Shown) -> float | None:
    return {"error": point.error, "cosine": point.cosine, "mass": point.mass}[show]


def _cell(point: Point | None, show: Shown) -> str:
    if point is None:
        return "—"
    if show == "cosine":
        return "—" if point.cosine is None else f"{point.cosine:.3f}"
    if show == "mass":
        if point.mass is None or point.mass_window is None or point.mass_oracle is None:
            return "—"
        return f"{point.mass:.2f} ({point.mass_window:.2f}; {point.mass_oracle:.2f})"
    window, mean = point.error_window, point.error_uniform
    # what is a window itself, or keeps every key, differs from one by rounding
    worse = window is not None and point.error > max(1.01 * window, ROUNDING)
    hopeless = mean is not None and point.error > mean
    return f"{point.error:.2f}{'!' if hopeless else '*' if worse else ''}"


def _echo_rankings(ranked: Sequence[Agreement]) -> None:
    """How the order on Gaussian input is that on captured input, and the plainest pairs that change places."""
    for order in ranked:
        if order.second.partition(":")[0] != "captured":
            continue
        setting = f"{'causal' if order.causal else 'non-causal'}, budget {order.budget}"
        click.echo(
            f"Order of {order.variants} variants on {order.first} and on {order.second}, {setting}: "
            f"Kendall's τ {order.tau:.2f}, {len(order.swaps)} pairs change places"
        )
        for swap in order.swaps[:SWAPS]:
            click.echo(
                f"  {swap.better} before {swap.worse} on {order.first} ({swap.first[0]:.2f}, {swap.first[1]:.2f}), "
                f"behind it on {order.second} ({swap.second[0]:.2f}, {swap.second[1]:.2f})"
            )
