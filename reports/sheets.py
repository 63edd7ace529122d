"""`attnbench table`: tables for papers and pull requests, one a setting, as LaTeX, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..results.derived import crossings, exponents
from .choice import Choice, settings_of
from .errors import ReportsError
from .load import load_runs
from .settings import Setting, identity_of
from .tables import Table, by_length, comparison
from .words import DASH, NONE, digits, interval

FORMATS = ("latex", "markdown", "csv")


@dataclass(frozen=True)
class Sheet:
    """One table in plain text: a cell is what stands in it, and what stands small beside it."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """A variant, and its cells."""


def tables(kind: str, runs: Sequence[str | Path], form: str, choice: Choice | None = None) -> str:
    """The tables of one kind as text. Raises ReportsError where there is nothing to show."""
    if kind not in KINDS:
        raise ReportsError(f"there is no table {kind!r}; choose from {', '.join(KINDS)}")
    if form not in FORMATS:
        raise ReportsError(f"there is no format {form!r}; choose from {', '.join(FORMATS)}")
    settings = settings_of(load_runs(runs), choice or Choice())
    sheets = [sheet for setting in settings if (sheet := KINDS[kind](setting)) is not None]
    if not sheets:
        raise ReportsError(f"there is nothing to put into a table of {kind}: {NEEDS[kind]}")
    return {"latex": latex, "markdown": markdown, "csv": plain_csv}[form](sheets)


# -- what is shown --------------------------------------------------------------------------------------------------


def _from_table(setting: Setting, table: Table | None) -> Sheet | None:
    if table is None:
        return None
    rows = tuple((row.entry.label, tuple((cell.text, cell.small) for cell in row.cells)) for row in table.rows)
    return Sheet(f"{setting.title}; {setting.detail}", table.caption, table.columns, rows)


def _exponents(setting: Setting) -> Sheet | None:
    labels = {identity_of(entry.record): entry.label for entry in setting.entries}
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for one in exponents(entry.record for entry in setting.entries):
        row = found.setdefault(labels[identity_of(one.series.of)], {})
        # bytes do not vary, and rounding is no interval
        spread = interval(one.tail.low, one.tail.high) if one.quantity == "time" else ""
        row[one.quantity] = (digits(round(one.tail.value, 3)), spread)
        row[f"declared {one.quantity}"] = (NONE if one.declared is None else f"{one.declared:g}", "")
    columns = ("time", "declared time", "memory", "declared memory")
    rows = tuple((label, tuple(row.get(name, (NONE, "")) for name in columns)) for label, row in found.items())
    caption = "Exponents of length, of the three longest lengths; small: 95 % intervals"
    return Sheet(f"{setting.title}; {setting.detail}", caption, columns, rows) if rows else None


def _crossovers(setting: Setting) -> Sheet | None:
    labels = {identity_of(entry.record): entry.label for entry in setting.entries}
    ids = {entry.record.case_id for entry in setting.entries}
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for one in crossings(setting.run.records):
        if one.series.of.case_id in ids and one.found.longest > one.found.shortest:
            row = found.setdefault(labels[identity_of(one.series.of)], {})
            row[f"{one.quantity}, {one.against}"] = (one.words, "")
    columns = tuple(f"{quantity}, {against}" for against in ("exact", "naive") for quantity in ("time", "memory"))
    rows = tuple((label, tuple(row.get(name, (NONE, "")) for name in columns)) for label, row in found.items())
    caption = "Length from which on less is taken than by the fastest exact variant, and than by naive"
    return Sheet(f"{setting.title}; {setting.detail}", caption, columns, rows) if rows else None


KINDS: dict[str, Callable[[Setting], Sheet | None]] = {
    "comparison": lambda setting: _from_table(setting, comparison(setting)),
    "lengths": lambda setting: _from_table(setting, by_length(setting)),
    "exponents": _exponents,
    "crossovers": _crossovers,
}
NEEDS = {
    "comparison": "no record that was chosen has a time",
    "lengths": "no variant was timed at two lengths",
    "exponents": "no variant was measured at two lengths",
    "crossovers": "no variant was measured beside an exact one at two lengths",
}


# -- LaTeX ----------------------------------------------------------------------------------------------------------

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "`": r"\textasciigrave{}",
    "'": r"\char39{}",
    "-": r"-{}",
    DASH: "--",
    NONE: "---",
    "×": r"$\times$",
    "‖": r"$\Vert$",
    "−": "$-$",
    "µ": r"$\mu$",
    "…": r"\dots{}",
}
"""Every character that means something to LaTeX, or that its usual fonts lack."""
BREAK = r" \\ "
LEFT_OUT = ("Error / allowed", "Memory over")
"""Columns that papers and pull requests do without."""


def latex(sheets: Sequence[Sheet]) -> str:
    """booktabs tables, to be input where a document has \\usepackage{booktabs}."""
    found = ["% attnbench table; needs \\usepackage{booktabs}"]
    for sheet in map(_short, sheets):
        columns = " & ".join(["Variant", *map(_latex_head, sheet.columns)])
        body = [
            " & ".join([_latex_name(label), *(_latex_cell(*cell) for cell in cells)]) + r" \\"
            for label, cells in sheet.rows
        ]
        found += [
            "",
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escaped(sheet.title)}. {escaped(sheet.caption)}.}}",
            rf"\begin{{tabular}}{{l{'r' * len(sheet.columns)}}}",
            r"\toprule",
            rf"{columns} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
        ]
    return "\n".join(found) + "\n"


def _short(sheet: Sheet) -> Sheet:
    """Without the columns that a page has no room for; CSV has all."""
    kept = [i for i, column in enumerate(sheet.columns) if not column.startswith(LEFT_OUT)]
    rows = tuple((label, tuple(cells[i] for i in kept)) for label, cells in sheet.rows)
    return Sheet(sheet.title, sheet.caption, tuple(sheet.columns[i] for i in kept), rows)


def _latex_name(label: str) -> str:
    """Parameters below the name."""
    name, bracket, rest = label.partition("(")
    lines = [name, *([bracket + rest] if rest else [])]
    grouped = [rf"{{\texttt{{{escaped(line)}}}}}" for line in lines]
    return rf"\shortstack[l]{{{BREAK.join(grouped)}}}" if len(grouped) > 1 else grouped[0]


def _latex_head(text: str) -> str:
    return _stacked(escaped(line) for line in _wrapped(text, 12))


def _latex_cell(text: str, small: str) -> str:
    """What stands small stands below, so that a column is no wider than its figures."""
    below = [rf"\scriptsize {escaped(line)}" for line in _wrapped(small, 18)]
    return _stacked([*(escaped(line) for line in _wrapped(text, 18)), *below])


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _stacked(lines: Iterable[str]) -> str:
    """One above the other, each in a group of its own. A bracket at a line's start would be an option of the break."""
    grouped = [f"{{{line}}}" for line in lines]
    return rf"\shortstack[r]{{{BREAK.join(grouped)}}}" if len(grouped) > 1 else "".join(grouped)


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is. A letter that pdfLaTeX's usual fonts lack becomes its code point, U+05D0."""
    return "".join(LATEX.get(char) or _letter(char) for char in re.sub(r"\s+", " ", text))


def _letter(char: str) -> str:
    if " " <= char <= "~" or "À" <= char <= "ÿ":
        return LATEX.get(char, char)
    return f"U+{ord(char):04X}"


# -- Markdown and CSV -----------------------------------------------------------------------------------------------


def markdown(sheets: Sequence[Sheet]) -> str:
    """For a pull request: a heading and a table each."""
    found = []
    for sheet in map(_short, sheets):
        head = ["Variant", *map(quoted, sheet.columns)]
        lines = [f"**{quoted(sheet.title)}.** {quoted(sheet.caption)}.", ""]
        lines += [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * len(sheet.columns)]
        for label, cells in sheet.rows:
            texts = [quoted(text) + (f" <sub>{quoted(small)}</sub>" if small else "") for text, small in cells]
            lines.append(f"| {' | '.join([_code(label), *texts])} |")
        found.append("\n".join(lines))
    return "\n\n".join(found) + "\n"


def quoted(text: str) -> str:
    """Text that Markdown shows as it is: no tag, no mark-up, no cell of its own, and nobody is mentioned."""
    text = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]|~#!])", r"\\\1", text)
    return text.replace("@", "&#64;")


def _code(label: str) -> str:
    """A name as code, where nothing but a bar and a backtick means anything."""
    text = re.sub(r"\s+", " ", label).replace("|", "\\|")
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"`{text}`"


def plain_csv(sheets: Sequence[Sheet]) -> str:
    """One table for all settings; text that a spreadsheet would take for a formula has an apostrophe before it."""
    columns = list(dict.fromkeys(column for sheet in sheets for column in sheet.columns))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["setting", "variant", *(name for column in columns for name in (column, f"{column}: detail"))])
    for sheet in sheets:
        for label, cells in sheet.rows:
            by_column = dict(zip(sheet.columns, cells, strict=True))
            values = [value for column in columns for value in by_column.get(column, ("", ""))]
            writer.writerow([_harmless(value) for value in (sheet.title, label, *values)])
    return file.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def write(text: str, path: Path) -> None:
    """Raises ReportsError where the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportsError(f"cannot write {path}: {error.strerror or error}; choose another --out") from None
