"""Attention matrices as figures: one variant with its mask, or a sheet of many. By matplotlib, without torch."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..results.pattern import Pattern
from .errors import ReportsError
from .figures import RC
from .palette import FAMILIES, LIGHT, family_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""What can be written, with the metadata that would make two files of the same pattern differ."""
WORDS_UP_TO = 128
"""Tokens whose words are still readable on an axis."""
SIDE, WORD = 4.2, 0.1
"""Of the one figure's panels: inches at least, and inches a word."""
CELL = 1.8
"""Of a sheet's panels, in inches."""
TICKS = (0.01, 0.1, 0.3, 0.6, 1.0)
"""Shares of a row's largest weight that the scale names."""
TITLE = "What each query attends to"
MASK_NOTE = "White: no weight at all."
SCALE_NOTE = "Colour: weight over the largest of its row, on a square-root scale"
SIGN_NOTE = "blue positive, red negative"


def save_pattern(pattern: Pattern, path: Path) -> Path:
    """One variant: its weights, and before them its mask where it has one. Raises ReportsError."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    n = len(pattern.matrix)
    worded = pattern.words is not None and n <= WORDS_UP_TO
    side = max(SIDE, WORD * n) if worded else SIDE
    left = 0.25 + (0.062 * max(map(len, pattern.words or ("",))) if worded else 0.35)
    panels = ("mask", "weights") if pattern.sparse else ("weights",)
    lines = _caption(pattern, worded, 18 * (left + len(panels) * side))
    below = left + 0.25 if worded else 0.55
    gap, right, bottom = 0.35, 1.0, below + 0.1 + 0.16 * len(lines)
    width = left + len(panels) * side + (len(panels) - 1) * gap + right
    title = textwrap.wrap(pattern.spec, int(9 * width))
    height = 0.5 + 0.2 * len(title) + side + bottom
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width, height))
        figure.text(0.15 / width, 1 - 0.15 / height, "\n".join(title), **_bold(12, pattern), va="top")
        for place, kind in enumerate(panels):
            x = left + place * (side + gap)
            axes = figure.add_axes((x / width, bottom / height, side / width, side / height))
            image = _mask(axes, pattern) if kind == "mask" else _weights(axes, pattern)
            text = f"mask: {_share(pattern)}" if kind == "mask" else "weights"
            axes.set_title(text, fontsize=9, loc="left")
            _axis_labels(axes, pattern, worded, first=place == 0)
        scale = figure.add_axes(((width - right + 0.15) / width, bottom / height, 0.14 / width, side / height))
        _scale(figure, image, scale, pattern.signed)
        figure.text(0.15 / width, 0.1 / height, "\n".join(lines), fontsize=7.5, color="#555555", va="bottom")
        return write_figure(figure, path, pattern.spec)


def save_sheet(patterns: Sequence[Pattern], left_out: dict[str, str], path: Path, *, merge: bool) -> Path:
    """A panel a variant; with `merge`, variants with the very same matrix share one. Raises ReportsError."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    groups = _merged(patterns) if merge else [[pattern] for pattern in patterns]
    columns = min(len(groups), max(3, math.ceil(math.sqrt(1.4 * len(groups)))))
    rows = [groups[start : start + columns] for start in range(0, len(groups), columns)]
    mixed = len({pattern.causal for pattern in patterns}) > 1
    heads = [[_head(group, mixed) for group in row] for row in rows]
    tops = [0.12 + max(0.15 * len(names) + 0.12 * len(rest) for names, rest in row) for row in heads]
    cell, left, under = CELL + 0.32, 0.35, 0.22
    width = max(left + columns * cell + 0.1, 4.5)  # the title's own, at least
    caption = _sheet_caption(patterns, left_out, mixed, 17 * width)
    head, foot = 0.5, 0.2 + 0.15 * len(caption)
    height = head + sum(tops) + len(rows) * (CELL + under) + foot
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width, height))
        figure.text(0.15 / width, 1 - 0.16 / height, TITLE, fontsize=13, fontweight="bold", va="top")
        families = [name for name in FAMILIES if any(family_of(pattern.family) == name for pattern in patterns)]
        for place, family in enumerate(reversed(families)):
            x = (width - 0.15 - 0.65 * place) / width
            figure.text(x, 1 - 0.2 / height, family, fontsize=8.5, color=LIGHT[family], va="top", ha="right")
        y = height - head
        for row, top, texts in zip(rows, tops, heads, strict=True):
            y -= top + CELL
            for place, (group, (names, rest)) in enumerate(zip(row, texts, strict=True)):
                x = left + place * cell
                axes = figure.add_axes((x / width, y / height, CELL / width, CELL / height))
                _weights(axes, group[0])
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_xlabel("key", fontsize=6.5, labelpad=2)
                axes.set_ylabel("query", fontsize=6.5, labelpad=2)
                detail = y + CELL + 0.05
                above = detail + 0.12 * len(rest)
                figure.text(x / width, above / height, "\n".join(names), **_bold(8, group[0]), va="bottom")
                figure.text(x / width, detail / height, "\n".join(rest), fontsize=6.2, color="#555555", va="bottom")
            y -= under
        figure.text(0.15 / width, 0.1 / height, "\n".join(caption), fontsize=7.5, color="#555555", va="bottom")
        return write_figure(figure, path, TITLE)


# -- parts ------------------------------------------------------------------------------------------------------


def _weights(axes: Axes, pattern: Pattern) -> Any:
    """Square roots of shares, with the sign: what is not seen stays white, what is seen is never quite so."""
    from matplotlib.colors import LinearSegmentedColormap

    blue = ["#dbe7f3", "#8fb8dc", "#3f83bd", "#0b4a8a", "#052448"]
    red = ["#f3ddd9", "#e3a497", "#cc5f4d", "#9c2019", "#560a0b"]
    colours = [*reversed(red), "#ece9ee", *blue] if pattern.signed else blue
    shares = pattern.shares
    shown = np.sign(shares) * np.sqrt(np.abs(shares))
    return axes.imshow(
        np.ma.masked_array(shown, mask=~pattern.seen),
        cmap=LinearSegmentedColormap.from_list("weights", colours),
        vmin=-1.0 if pattern.signed else 0.0,
        vmax=1.0,
        interpolation="nearest",
    )


def _mask(axes: Axes, pattern: Pattern) -> Any:
    from matplotlib.colors import ListedColormap

    colours = ListedColormap(["#ffffff", LIGHT[family_of(pattern.family)]])
    return axes.imshow(pattern.seen, cmap=colours, vmin=0, vmax=1, interpolation="nearest")


def _axis_labels(axes: Axes, pattern: Pattern, worded: bool, *, first: bool) -> None:
    axes.set_xlabel("key", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    if worded and pattern.words is not None:
        places = range(len(pattern.words))
        axes.set_xticks(places, pattern.words, rotation=90, fontsize=6)
        axes.set_yticks(places, pattern.words if first else [], fontsize=6) if first else axes.set_yticks([])
        axes.tick_params(length=1.5, pad=1.5)
    else:
        axes.tick_params(labelsize=7.5)
        axes.tick_params(labelleft=first)
    if first:
        axes.set_ylabel("query", fontsize=9)


def _scale(figure: Figure, image: Any, axes: Axes, signed: bool) -> None:
    values = [*(-tick for tick in reversed(TICKS)), 0.0, *TICKS] if signed else [0.0, *TICKS]
    bar = figure.colorbar(image, cax=axes)
    bar.set_ticks([math.copysign(math.sqrt(abs(v)), v) for v in values], labels=[f"{v:g}" for v in values])
    bar.ax.tick_params(labelsize=7)
    bar.set_label("weight over the row's largest", fontsize=7.5)


def _share(pattern: Pattern) -> str:
    n = len(pattern.matrix)
    seen, pairs = int(pattern.seen.sum()), n * (n + 1) // 2 if pattern.causal else n * n
    return f"{seen:,} of {pairs:,} pairs seen ({seen / pairs:.0%})"


def _bold(size: float, pattern: Pattern) -> dict[str, Any]:
    return {"fontsize": size, "fontweight": "bold", "color": LIGHT[family_of(pattern.family)]}


# -- words ------------------------------------------------------------------------------------------------------


def _caption(pattern: Pattern, worded: bool, width: float) -> list[str]:
    n = len(pattern.matrix)
    parts = [_input(pattern), f"{SCALE_NOTE}{f', {SIGN_NOTE}' if pattern.signed else ''}. {MASK_NOTE}", *pattern.notes]
    if pattern.words is not None and not worded:
        parts.append(f"Words are written up to {WORDS_UP_TO} tokens, and here are {n}.")
    return textwrap.wrap(" ".join(parts), int(width))


def _sheet_caption(patterns: Sequence[Pattern], left_out: dict[str, str], mixed: bool, width: float) -> list[str]:
    signed = f", {SIGN_NOTE}" if any(pattern.signed for pattern in patterns) else ""
    text = f"{_input(patterns[0], mixed)} {SCALE_NOTE}{signed}. {MASK_NOTE}"
    notes = dict.fromkeys(note for pattern in patterns for note in pattern.notes)
    lines = textwrap.wrap(" ".join([text, *notes]), int(width))
    for name, why in left_out.items():
        lines += textwrap.wrap(f"Left out: {why if why.startswith(name) else f'{name}: {why}'}.", int(width))
    return lines


def _input(pattern: Pattern, mixed: bool = False) -> str:
    side = "" if mixed else f"{'causal' if pattern.causal else 'non-causal'}, "
    tokens = f"{len(pattern.matrix)} tokens"
    text = f"{side}{tokens} of {pattern.inputs}, head {pattern.head} of {pattern.heads} (from 0)."
    return text[0].upper() + text[1:]


def _merged(patterns: Sequence[Pattern]) -> list[list[Pattern]]:
    groups: list[list[Pattern]] = []
    for pattern in patterns:
        for group in groups:
            if group[0].causal == pattern.causal and np.array_equal(group[0].matrix, pattern.matrix):
                group.append(pattern)
                break
        else:
            groups.append([pattern])
    return groups


def _head(group: Sequence[Pattern], mixed: bool) -> tuple[list[str], list[str]]:
    """Lines of names, and below them of parameters, as wide as a panel."""
    names = textwrap.wrap(", ".join(pattern.spec.partition("(")[0] for pattern in group), 26)
    params = dict.fromkeys(pattern.spec.partition("(")[2].removesuffix(")") for pattern in group)
    side = [] if not mixed or group[0].causal else ["non-causal"]
    return names, textwrap.wrap("; ".join([*side, *filter(None, params)]), 38)


def write_figure(figure: Figure, path: Path, title: str) -> Path:
    """Raises ReportsError for a format that is not known and for a place that cannot be written."""
    check_format(path)
    metadata = {"Title": title, **FORMATS[path.suffix.lower()]}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # a word in a script that the font lacks
            figure.savefig(path, metadata=metadata, facecolor="white")
    except OSError as error:
        raise ReportsError(f"cannot write {path}: {error.strerror or error}; choose another --out") from None
    return path


def check_format(path: Path) -> None:
    """Raises ReportsError unless the file's ending names a format that can be written."""
    if path.suffix.lower() not in FORMATS:
        raise ReportsError(f"{path} must end with {', '.join(FORMATS)}, which say what is written")
