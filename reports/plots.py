"""`attnbench plot KIND RUN…`: from the records of runs to a figure for papers. The kinds are listed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import plots_accuracy, plots_derived, plots_over_length
from .choice import Choice, settings_of
from .errors import ReportsError
from .load import load_runs
from .paper import WIDTHS, Drawing, most, save
from .pattern import check_format
from .settings import Setting


@dataclass(frozen=True)
class Plotted:
    """What was written."""

    path: Path
    panels: int
    caption: str
    """What a reader must be told below the figure."""


def plot(kind: str, runs: Sequence[str | Path], out: Path, width: str = "two", choice: Choice | None = None) -> Plotted:
    """Draws one kind of figure to a .pdf, .svg or .png. Raises ReportsError where there is nothing to draw."""
    if kind not in KINDS:
        raise ReportsError(f"there is no plot {kind!r}; choose from {', '.join(KINDS)}")
    if width not in WIDTHS:
        raise ReportsError(f"--width is {' or '.join(WIDTHS)}, not {width!r}")
    check_format(out)
    of = KINDS[kind]
    choice = choice or Choice()
    drawings = of.make(settings_of(load_runs(runs), choice))
    if not drawings:
        raise ReportsError(f"there is nothing to draw: {of.needs}")
    path = save(drawings, out, of.title, width)
    return Plotted(path, min(len(drawings), 6), f"{of.title}. {of.caption}{most(len(drawings))}")


@dataclass(frozen=True)
class Kind:
    """One kind of figure."""

    title: str
    caption: str
    needs: str
    """What the runs would have to hold."""
    make: Callable[[Sequence[Setting]], list[Drawing]]


BARS = "Bars are 95 % intervals."
NO_TIMES = "no record of these runs that was chosen has a time"
KINDS = {
    "time": Kind("Time of one call", f"Medians. {BARS}", NO_TIMES, plots_over_length.time),
    "memory": Kind(
        "Peak memory of one call, above its inputs",
        "",
        "no record that was chosen has a peak of memory",
        plots_over_length.memory,
    ),
    "throughput": Kind("Tokens per second", BARS, NO_TIMES, plots_over_length.tokens),
    "ratio": Kind(
        "Time over that of the fastest exact variant",
        f"Paired round by round. {BARS}",
        "no record has a ratio",
        plots_over_length.ratios,
    ),
    "accuracy": Kind(
        "Distance from softmax attention against time",
        "Filled and joined: the Pareto front. Shaded: exact, or within 0.001 of softmax attention.",
        "no timed record has a fidelity",
        plots_accuracy.accuracy,
    ),
    "budget": Kind(
        "Distance from softmax attention over keys kept",
        "Dashes: softmax over as many nearest keys (light) and over those with the highest scores (dark).",
        "no record keeps some keys and leaves out others",
        plots_accuracy.budget,
    ),
    "scaling": Kind(
        "Exponents of time and memory over length",
        f"Filled: of the three longest lengths; hollow: of all; grey tick: declared. {BARS}",
        "no variant was measured at two lengths",
        plots_derived.scaling,
    ),
    "crossovers": Kind(
        "From which length on a variant takes less",
        "Circles: time; squares: memory. Hollow: extrapolated. Arrows: from the shortest length measured on, or none "
        f"up to the longest. {BARS}",
        "no variant was measured beside an exact one at two lengths",
        plots_derived.crossovers,
    ),
    "roofline": Kind(
        "Needed operations per second, under the machine's measured ceilings",
        "The line: the rate of matrix products, and the bandwidth of copies.",
        "no timed record says what it needs, or its run has measured no ceilings",
        plots_derived.roofline,
    ),
    "decode": Kind(
        "One more token: time of a step and size of state",
        BARS,
        "no record that was chosen is of mode decode",
        plots_over_length.decode,
    ),
    "recall": Kind(
        "Pairs recalled without training",
        "The definition is asked.",
        "no record holds the recall probe",
        plots_accuracy.recall,
    ),
}
