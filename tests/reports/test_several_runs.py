"""One report of three machines' runs: each by its own baseline, what may be compared, and which ranks change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attnbench.reports.load import load_runs
from attnbench.reports.machines import Machines, machines
from attnbench.reports.missing import remarks
from attnbench.reports.report import write
from attnbench.reports.settings import split
from attnbench.results.record import Record

from . import synthetic

LENGTHS = (256, 512)


def measured(times: dict[str, float], **fields: object) -> list[Record]:
    """These variants at two lengths; the first is the baseline."""
    base = next(iter(times))
    return [
        synthetic.timed(name, length, time, baseline=base, base_s=times[base], ceiling_share=0.25, **fields)
        for length in LENGTHS
        for name, time in times.items()
    ]


def three(path: Path) -> list[Path]:
    """One machine at 2 threads and at 1, and another one, where linear_elu falls behind block_local."""
    here, other = "aaaa" * 4, "bbbb" * 4
    two = {"sdpa": 0.1, "linear_elu": 0.05, "block_local": 0.08, "naive": 0.3}
    one = {"sdpa": 0.2, "linear_elu": 0.1, "block_local": 0.1005, "naive": 0.6}
    far = {"flex": 0.01, "linear_elu": 0.009, "block_local": 0.005, "sdpa": 0.02}
    runs = [
        ("two", measured(two, machine=here, threads=2), here, "Example CPU"),
        ("one", measured(one, machine=here, threads=1), here, "Example CPU"),
        ("far", measured(far, machine=other, threads=2), other, "Another CPU"),
    ]
    return [synthetic.write(path / name, found, fingerprint=mark, cpu=cpu) for name, found, mark, cpu in runs]


@pytest.fixture
def found(tmp_path: Path) -> Machines:
    loaded = load_runs(three(tmp_path))
    made = machines(loaded, split(loaded))
    assert made is not None
    return made


def test_what_is_comparable_and_what_is_not(found: Machines) -> None:
    threads, machine = found.notes
    assert "two and one differ in threads 2 and 1" in threads
    assert "two and far differ in cpu Example CPU and Another CPU" in machine
    for note in found.notes:
        assert "Comparable: ratios to each run's own baseline" in note
        assert "Not comparable: times and throughput" in note


def test_each_run_is_held_to_its_own_baseline(found: Machines) -> None:
    (table,) = found.tables
    assert table.runs == ("two, 2 threads", "one, 1 thread", "far, 2 threads")
    assert "two: sdpa, one: sdpa and far: flex" in table.caption
    cells = {row.entry.label: [cell.text for cell in row.cells] for row in table.rows}
    assert cells["linear_elu"] == ["0.500", "0.500", "0.900"]
    assert cells["naive"] == ["3.00", "3.00", "—"]
    assert all("25 % of the ceiling" in cell.more for row in table.rows for cell in row.cells if cell.entry)


def test_ranks_count_among_what_all_have_and_changes_are_told_from_noise(found: Machines) -> None:
    (table,) = found.tables
    change = {row.entry.label: row.change for row in table.rows}
    assert change["linear_elu"] == "1 → 1 → 2, clearly past block_local"
    assert change["block_local"] == "2 → 2 → 1, clearly past linear_elu"
    assert change["sdpa"] == "3 everywhere"
    assert change["naive"] == "not in all"


def test_a_change_within_the_noise_is_called_so(tmp_path: Path) -> None:
    """The two change places, but the intervals of one run hold each other's ratio."""
    runs = [
        synthetic.write(tmp_path / "a", measured({"sdpa": 0.1, "linear_elu": 0.05, "block_local": 0.0505})),
        synthetic.write(tmp_path / "b", measured({"sdpa": 0.1, "linear_elu": 0.08, "block_local": 0.05}, threads=1)),
    ]
    loaded = load_runs(runs)
    made = machines(loaded, split(loaded))
    assert made is not None
    change = {row.entry.label: row.change for row in made.tables[0].rows}
    assert change["linear_elu"] == "1 → 2, within the noise"


def test_one_run_has_no_such_part(tmp_path: Path) -> None:
    loaded = load_runs([synthetic.write(tmp_path / "run", measured({"sdpa": 0.1}))])
    assert machines(loaded, split(loaded)) is None


def test_the_page_has_all_three(tmp_path: Path) -> None:
    report = write(three(tmp_path), tmp_path / "report")
    page = report.html.read_text(encoding="utf-8")
    assert '<section id="machines">' in page
    assert page.count('<details class="setting"') == 3
    assert "clearly past block_local" in page
    assert any("2 unlike machines" in warning for warning in report.warnings)
    assert set(re.findall(r"#record=(\d)-", page)) == {"1", "2", "3"}
    markdown = report.markdown.read_text(encoding="utf-8")
    assert "1 → 1 → 2, clearly past block\\_local" in markdown


def test_tables_in_markdown_are_tables(tmp_path: Path) -> None:
    lines = write(three(tmp_path), tmp_path / "out").markdown.read_text(encoding="utf-8").splitlines()
    rows = [number for number, line in enumerate(lines) if line.startswith("|")]
    heads = [number for number in rows if not lines[number - 1].startswith("|")]
    assert any(lines[number].endswith("| Rank |") for number in heads)
    for number in heads:
        assert re.fullmatch(r"\|(-+:?\|)+", lines[number + 1])
        assert lines[number + 2].startswith("|")


def test_each_remark_stands_once_and_names_the_run(tmp_path: Path) -> None:
    runs = [
        synthetic.write(tmp_path / name, [synthetic.timed("sdpa", 256, 0.1, baseline="sdpa", base_s=0.1, reasons=said)])
        for name, said in (("one", ["warm", "loud"]), ("two", ["loud"]))
    ]
    loaded = load_runs(runs)
    loud, warm = remarks(split(loaded))
    assert (loud.text, warm.text) == ("loud", "warm")
    assert [item.title.rpartition(", ")[2] for item in loud.items] == ["run one", "run two"]
    (only,) = remarks(split(loaded[1:]))
    assert only.items[0].title == only.items[0].setting.title
    text = write(runs, tmp_path / "out").markdown.read_text(encoding="utf-8")
    assert "- loud\n" in text
    assert "- warm\n" in text
