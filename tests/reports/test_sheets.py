"""Tables for papers and pull requests: figures as the records have them, and no name that becomes mark-up."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from attnbench.bench.cli import main
from attnbench.reports.sheets import escaped, quoted
from attnbench.reports.words import digits

from . import synthetic

HOSTILE = [
    r"\input{/etc/passwd}",
    "100% & <b>$x_1^2$</b> #1 ~ {a} \"q\" 'p' `c` a--b [x] | y",
    "@someone ![x](http://example.com) **bold** <script>alert(1)</script>",
    "עברית 漢字 ‮ \n new\tline",
    "é µ × — … ‖",
    "=HYPERLINK(1)",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [r for r in synthetic.sweep() if r.n_k in (256, 1024, 8192)]
    return synthetic.write(tmp_path_factory.mktemp("runs") / "one", records)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [r.model_copy(update={"params": {"backend": text}})
               for n in (256, 512) for text in HOSTILE
               for r in [synthetic.timed("flex", n, 1e-3, baseline="flex", base_s=1e-3)]]  # fmt: skip
    from attnbench.results.record import IDENTITY, case_id

    records = [r.model_copy(update={"case_id": case_id({k: getattr(r, k) for k in IDENTITY})}) for r in records]
    return synthetic.write(tmp_path_factory.mktemp("runs") / "hostile", records)


def table(folder: Path, *options: str) -> str:
    done = CliRunner().invoke(main, ["table", str(folder), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_figures_are_those_of_the_records(folder: Path) -> None:
    text = table(folder, "--format", "csv", "--mode", "forward", "--causal")
    rows = {row["variant"]: row for row in csv.DictReader(io.StringIO(text))}
    found = [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]
    own = [r for r in found if (r["mode"], r["causal"], r["n_k"]) == ("forward", True, 8192)]
    assert set(rows) == {r["variant"] for r in own}
    for record in own:
        row = rows[record["variant"]]
        if record["status"] != "ok":
            assert row["Time over sdpa"] == record["status"]
        elif record["variant"] != "sdpa":
            assert row["Time over sdpa"] == digits(record["ratio"])
            assert row["Time over sdpa: detail"] == f"{digits(record['ratio_low'])}–{digits(record['ratio_high'])}"


@pytest.mark.parametrize("kind", ["comparison", "lengths", "exponents", "crossovers"])
@pytest.mark.parametrize("form", ["latex", "markdown", "csv"])
def test_every_kind_in_every_format_has_all_variants(folder: Path, form: str, kind: str) -> None:
    text = table(folder, "--format", form, "--kind", kind, "--mode", "forward", "--causal").replace(r"\_", "_")
    for name in ("naive", "sdpa", "block_local", "performer"):
        assert name in text or (name == "naive" and kind == "crossovers")
    if form == "latex":
        body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
        columns = re.search(r"begin{tabular}{(l r*)}".replace(" ", ""), text)
        assert columns is not None
        for line in body.strip().splitlines():
            assert line.count(" & ") == len(columns[1]) - 1
    if form == "markdown":
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({row.count(" | ") for row in rows}) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_latex_would_run_is_left(text: str) -> None:
    found = escaped(text)
    known = r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|textasciigrave|dots)\{\}"
    found = re.sub(known + r"|\\char\d+\{\}|\$\\(times|Vert|mu)\$|\$-\$|-\{\}|\\[{}$&#%_]", "", found)
    assert not re.search(r"[\\{}$&#%_^~<>|\"`\n]", found), found
    assert all(char <= "~" or "À" <= char <= "ÿ" for char in found)


def test_text_stays_readable() -> None:
    assert escaped("a_b 5 %") == r"a\_b 5 \%"
    assert escaped("1.2–3.4 é") == "1.2--3.4 é"
    assert escaped("א") == "U+05D0"
    assert quoted("<b> @x | *y*") == r"&lt;b&gt; &#64;x \| \*y\*"


def test_hostile_names_stay_in_their_cells(hostile: Path) -> None:
    text = table(hostile, "--format", "markdown", "--kind", "lengths")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(HOSTILE)
    assert "@someone" in text
    outside = re.sub(r"(`+)(.*?)\1", "", text)
    assert "@" not in outside
    assert "<script" not in outside
    found = list(csv.reader(io.StringIO(table(hostile, "--format", "csv", "--kind", "lengths"))))
    assert len(found) == 1 + len(HOSTILE)
    assert not any(cell[:1] in "=+-@" and cell for row in found for cell in row)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX on this machine")
def test_the_tables_compile(folder: Path, hostile: Path, tmp_path: Path) -> None:
    names = []
    for run in (folder, hostile):
        for kind in ("comparison", "lengths"):
            names.append(f"{run.name}-{kind}")
            table(run, "--format", "latex", "--kind", kind, "--out", str(tmp_path / f"{names[-1]}.tex"))
    inputs = "".join(rf"\input{{{name}}}" for name in names)
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-2000:]
    assert (tmp_path / "all.pdf").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--format", "word"], "there is no format 'word'; choose from latex, markdown, csv"),
        (["--kind", "all"], "there is no table 'all'; choose from comparison"),
        (["--mode", "decode"], "there is nothing to put into a table of comparison: no record that was chosen"),
        (["--out", "/nowhere/at/all.tex"], "cannot write /nowhere/at/all.tex"),
    ],
)
def test_a_wrong_request_gets_a_sentence(folder: Path, options: list[str], sentence: str) -> None:
    done = CliRunner().invoke(main, ["table", str(folder), *options])
    assert done.exit_code == 2
    assert sentence in done.output
