"""Variants inside a model, and published claims, in a report: which folders hold them, and what they must not do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from attnbench.bench.cli import main
from attnbench.reports import dropins
from attnbench.reports.errors import ReportsError
from attnbench.reports.report import write

from . import synthetic, synthetic_beside

HOSTILE = '<img src=x onerror="alert(1)">|`x`'


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static figures take seconds, and are tested elsewhere."""
    monkeypatch.setattr("attnbench.reports.report.save_figures", lambda *_: [])


def folders(path: Path) -> list[Path]:
    return [
        synthetic.write(path / "run", synthetic.sweep()[:40]),
        synthetic_beside.write_dropins(path / "dropin", synthetic_beside.some_dropins()),
        synthetic_beside.write_claims(path / "claims", synthetic_beside.some_claims()),
    ]


def test_both_stand_on_the_page_and_in_markdown(tmp_path: Path) -> None:
    report = write(folders(tmp_path), tmp_path / "report")
    page, markdown = (path.read_text(encoding="utf-8") for path in (report.html, report.markdown))
    for text in (
        "Inside a model: bert, 512 tokens",
        "Inside a model: llama, 512 tokens",
        "Published claims, measured anew",
    ):
        assert text in page
        assert text in markdown
    assert page.index("Inside a model") < page.index('<section id="claims">')
    assert report.warnings == []
    assert report.sweeps == [tmp_path / "run"]
    assert "| slow\\_features | does not hold | speed-up (does not hold) |" in markdown
    assert "| sliding\\_window (window\\_size=512) | 63 keys | 0.951 (worst 0.871, window 0.930) |" in markdown


def test_the_best_comes_first_and_what_failed_last(tmp_path: Path) -> None:
    encoder, language = dropins.dropins(synthetic_beside.some_dropins(), [])
    names = ["naive", "sliding_window", "nystrom", "performer", "plain mean of the values"]
    assert [row.label.partition("(")[0] for row in encoder.rows] == names
    assert encoder.rows[3].cells[1] == ("oom", "memory ran out: 4.8 GiB were asked for")
    names = ["naive", "block_local", "linear_elu", "plain mean of the values", "the model as it is"]
    assert [row.label.partition("(")[0] for row in language.rows] == names
    assert "top1_agreement" not in dict.fromkeys(encoder.columns)
    assert len(encoder.columns) == 3  # what no record holds has no column


def test_where_nothing_could_be_measured_the_reasons_stand(tmp_path: Path) -> None:
    failed = synthetic_beside.dropin("performer", status="unsupported", reasons=["no causal form"])
    (table,) = dropins.dropins([failed], [])
    assert len(table.columns) == 2
    assert table.rows[0].cells == (("64 keys", ""), ("unsupported", "no causal form"))


def test_of_a_measurement_made_twice_the_last_stands(tmp_path: Path) -> None:
    twice = [synthetic_beside.dropin("nystrom", cosine=near) for near in (0.5, 0.7)]
    records, told = dropins.load([synthetic_beside.write_dropins(tmp_path / "dropin", twice)])
    assert [record.embedding_cosine for record in records] == [0.7]
    assert told == []


def test_alone_they_are_no_report(tmp_path: Path) -> None:
    _, inside, claims = folders(tmp_path)
    what = "hold variants inside a model and published claims only; name the run of a sweep beside them"
    with pytest.raises(ReportsError, match=what):
        write([inside, claims])


def test_a_torn_line_is_warned_of(tmp_path: Path) -> None:
    runs = folders(tmp_path)
    for folder, name in zip(runs[1:], ("dropin.jsonl", "claims.jsonl"), strict=True):
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write('{"torn')
    report = write(runs, tmp_path / "report")
    for name in ("dropin.jsonl", "claims.jsonl"):
        assert any(name in warning and "skipped" in warning for warning in report.warnings)


def test_hostile_text_in_them_is_text(tmp_path: Path) -> None:
    inside = synthetic_beside.dropin("nystrom", cosine=0.5, model=HOSTILE, text=HOSTILE, params={"x": HOSTILE})
    failed = synthetic_beside.dropin("performer", status="crashed", reasons=[HOSTILE], model=HOSTILE)
    one = synthetic_beside.quantity(1.0, 1.0, name=HOSTILE, unit=HOSTILE, of=HOSTILE)
    claim = synthetic_beside.claim(HOSTILE, [one], text=HOSTILE, source=HOSTILE, reasons=[HOSTILE], claim_id='"><i>')
    runs = [
        synthetic.write(tmp_path / "run", synthetic.sweep()[:20]),
        synthetic_beside.write_dropins(tmp_path / "dropin", [inside, failed]),
        synthetic_beside.write_claims(tmp_path / "claims", [claim]),
    ]
    report = write(runs, tmp_path / "report")
    page, markdown = (path.read_text(encoding="utf-8") for path in (report.html, report.markdown))
    assert "<img src=x" not in page
    assert "<i>" not in page
    assert page.count("&lt;img src=x onerror=&#34;alert(1)&#34;&gt;|`x`") > 8
    assert "<img" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|") and "onerror" in line]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5, 8}


def test_records_are_exported_of_the_sweep_alone(tmp_path: Path) -> None:
    runs = [str(path) for path in folders(tmp_path)]
    csv = tmp_path / "all.csv"
    result = CliRunner().invoke(main, ["report", *runs, "--out", str(tmp_path / "report"), "--csv", str(csv)])
    assert result.exit_code == 0, result.output
    assert len(csv.read_text(encoding="utf-8").splitlines()) == 41
