"""Accuracy without training as figures: error against budget on each kind of input, and what a real model loses.

By matplotlib, without torch.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..results.dropin_record import DropinRecord
from ..results.fidelity import Point
from .errors import ReportsError
from .figures import RC
from .palette import FAMILIES, Style, family_of
from .pattern import write_figure
from .series import log_range, log_ticks
from .words import count

PANEL_WIDTH, PANEL_HEIGHT, GAP, HEAD, LEGEND = 2.3, 2.5, 0.45, 0.75, 1.75
"""In inches."""
NULL = "#999999"
FIDELITY = "What approximations lose, against how much they look at"
DROPIN = "What a real model loses with a variant in place of its attention"
LOW, HIGH = 1e-2, 4.0
"""Errors between which a panel is drawn at most: below, nobody tells the difference; above, all are useless."""
WORDS = {
    "embedding_cosine": "cosine between the original's embedding and the changed model's",
    "ranking_agreement": "Kendall's τ between how the two rank the other windows",
    "perplexity": "perplexity",
    "next_token_agreement": "share of places where the likeliest next token stays",
}


def save_fidelity(found: Sequence[Point], path: Path) -> Path:
    """A row for each mask and length, a column for each kind of input: error over budget. Raises ReportsError."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not found:
        raise ReportsError("none of these runs has a record with a fidelity; `attnbench fidelity` measures some")
    inputs = list(dict.fromkeys(point.inputs for point in found))
    settings = list(dict.fromkeys((point.causal, point.seq_len) for point in found))
    styles = _styles({point.variant: point.family for point in found})
    drawn_at = [_clipped(e) for point in found for e in (point.error, point.error_uniform) if e is not None]
    heights = log_range(drawn_at)  # one for all panels, so that they can be compared
    width = 0.7 + len(inputs) * (PANEL_WIDTH + GAP) + LEGEND
    height = HEAD + len(settings) * (PANEL_HEIGHT + 0.75) + 0.45
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width, height))
        figure.text(0.12 / width, 1 - 0.15 / height, FIDELITY, fontsize=13, fontweight="bold", va="top")
        drawn: dict[str, Any] = {}
        for row, (causal, seq_len) in enumerate(settings):
            for column, name in enumerate(inputs):
                x = 0.7 + column * (PANEL_WIDTH + GAP)
                y = height - HEAD - row * (PANEL_HEIGHT + 0.75) - PANEL_HEIGHT
                axes = figure.add_axes((x / width, y / height, PANEL_WIDTH / width, PANEL_HEIGHT / height))
                here = [p for p in found if (p.causal, p.seq_len, p.inputs) == (causal, seq_len, name)]
                drawn |= _curves(axes, here, styles, heights)
                mask = "causal" if causal else "non-causal"
                axes.set_title(f"{name}, {mask}, N {count(seq_len)}", fontsize=9, loc="left")
                if column == 0:
                    axes.set_ylabel("relative error of the output")
        figure.legend(
            drawn.values(),
            drawn.keys(),
            loc="upper right",
            fontsize=7.5,
            frameon=False,
            bbox_to_anchor=(1, 1 - 0.4 / height),
        )
        note = _fidelity_note(found)
        figure.text(
            0.12 / width, 0.1 / height, "\n".join(textwrap.wrap(note, int(17 * width))), fontsize=7.5, va="bottom"
        )
        return write_figure(figure, path, FIDELITY)


def _fidelity_note(found: Sequence[Point]) -> str:
    """What the figure's axes, lines and ends mean: of what is in it only."""
    note = ["Budget: keys that a query sees, landmarks or features."]
    if any(point.budget is None for point in found):
        note.append("Variants without one are dotted lines across.")
    if any(point.error_uniform is not None for point in found):
        note.append("Grey: the plain mean of all values that a query may see, which an approximation should beat.")
    roles = {"topk": "the oracle", "sliding_window": "the null of as many keys"}
    present = {point.variant for point in found}
    if told := [f"{name} is {role}" for name, role in roles.items() if name in present]:
        note.append(f"{', '.join(told)}.")
    if any(_clipped(point.error) != point.error for point in found):
        note.append(f"Errors below {LOW:g} or above {HIGH:g} are drawn there.")
    return " ".join(note)


def _curves(axes: Any, here: Sequence[Point], styles: dict[str, Style], heights: tuple[float, float]) -> dict[str, Any]:
    """Draws one panel; the handles by label."""
    handles: dict[str, Any] = {}
    budgets = sorted({point.budget for point in here if point.budget is not None})
    span = [budgets[0], budgets[-1]] if len(budgets) > 1 else [(budgets or [64])[0] / 2, (budgets or [64])[0] * 2]
    for variant in sorted({p.variant for p in here}, key=lambda v: (FAMILIES.index(styles[v].family), v)):
        style = styles[variant]
        own = sorted((p for p in here if p.variant == variant), key=lambda p: p.budget or 0)
        sized = [p for p in own if p.budget is not None]
        if sized:
            (handles[variant],) = axes.plot(
                [p.budget for p in sized],
                [_clipped(p.error) for p in sized],
                color=style.colour,
                marker=style.mark.matplotlib,
                ls=(0, style.mark.dash) if style.mark.dash else "-",
                ms=4,
                lw=1.2,
            )
        for p in own:
            if p.budget is None:
                (handles[p.variant],) = axes.plot(
                    span,
                    [_clipped(p.error)] * 2,
                    color=style.colour,
                    ls=":",
                    marker=style.mark.matplotlib,
                    ms=3,
                    lw=1.2,
                )
    mean = next((p.error_uniform for p in here if p.error_uniform is not None), None)
    if mean is not None:
        handles["plain mean"] = axes.axhline(_clipped(mean), color=NULL, lw=2.5, alpha=0.6, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(*heights)
    axes.set_xticks(budgets or span, labels=[f"{b:g}" for b in budgets or span])
    axes.minorticks_off()
    ticks = log_ticks(*heights)
    axes.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.grid(axis="y")
    axes.set_xlabel("budget")
    return handles


def save_dropin(records: Sequence[DropinRecord], path: Path) -> Path:
    """A row for each variant, best first, with both nulls; one panel a figure of the metric. Raises ReportsError."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    told = [record for record in records if record.status == "ok"]
    if not told:
        raise ReportsError("none of these runs measured a variant in a model; `attnbench dropin` does")
    first = told[0]
    one = {(r.weights_sha256, r.text_sha256, r.seq_len, r.windows) for r in told}
    if len(one) > 1:
        raise ReportsError("these runs are of different models, texts or windows; draw each in a figure of its own")
    figures = ["embedding_cosine", "ranking_agreement"]
    if first.metric == "perplexity":
        figures = ["perplexity", "next_token_agreement"]
    figures = [figure for figure in figures if getattr(first, figure) is not None]
    upward = first.metric == "embedding"
    ordered = sorted(told, key=lambda r: getattr(r, figures[0]), reverse=not upward)
    styles = _styles({r.variant: r.family for r in told})
    width = 2.4 + len(figures) * 4.0
    height = 0.8 + 0.2 * len(ordered) + 0.95
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width, height))
        figure.text(0.12 / width, 1 - 0.15 / height, DROPIN, fontsize=13, fontweight="bold", va="top")
        about = f"{first.model} over {first.windows} windows of {count(first.seq_len)} tokens of {first.text}"
        figure.text(
            0.12 / width, 1 - 0.42 / height, "\n".join(textwrap.wrap(about, int(16 * width))), fontsize=8, va="top"
        )
        for column, name in enumerate(figures):
            axes = figure.add_axes(
                ((2.3 + column * 4.0) / width, 0.9 / height, 3.7 / width, 0.2 * len(ordered) / height)
            )
            for place, record in enumerate(ordered):
                colour = styles[record.variant].colour
                value, window = getattr(record, name), getattr(record, f"{name}_window")
                if window is not None:
                    axes.plot([window], [place], "o", ms=5, mfc="white", mec=NULL, mew=1.2, zorder=2)
                if value is not None:
                    axes.plot([value], [place], "o", ms=5, color=colour, zorder=3)
            null = getattr(first, f"{name}_uniform")
            if null is not None:
                axes.axvline(null, color=NULL, lw=2.5, alpha=0.6, zorder=1)
            if name == "perplexity" and first.perplexity_original is not None:
                axes.axvline(first.perplexity_original, color="#333333", lw=1, ls="--", zorder=1)
            if name == "perplexity":
                axes.set_xscale("log")
            axes.set_ylim(-0.7, len(ordered) - 0.3)
            labels = [_label(record) for record in ordered] if column == 0 else [""] * len(ordered)
            axes.set_yticks(range(len(ordered)), labels=labels, fontsize=7.5)
            axes.set_xlabel(WORDS[name], fontsize=8)
            axes.grid(axis="both")
        note = (
            "Filled: the variant. Hollow: a sliding window of as many keys. Grey line: plain means of values in place "
            "of attention." + (" Dashed: the original." if first.metric == "perplexity" else "")
        )
        figure.text(
            0.12 / width, 0.1 / height, "\n".join(textwrap.wrap(note, int(17 * width))), fontsize=7.5, va="bottom"
        )
        return write_figure(figure, path, DROPIN)


def _label(record: DropinRecord) -> str:
    return record.variant if record.budget is None else f"{record.variant} {record.budget}"


def _styles(families: dict[str, str]) -> dict[str, Style]:
    """A style for each variant: its family's colour, and which of the family's it is."""
    counts: dict[str, int] = {}
    styles = {}
    for variant in sorted(families):
        family = family_of(families[variant])
        styles[variant] = Style(family, counts.get(family, 0))
        counts[family] = counts.get(family, 0) + 1
    return styles


def _clipped(error: float) -> float:
    return min(max(error, LOW), HIGH)
