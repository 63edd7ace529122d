"""What follows from the records, as a page says it: which memories are asked of, what is marked, what is left out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from attnbench.reports import growth, outlook
from attnbench.reports.load import load_runs
from attnbench.reports.settings import split
from attnbench.reports.tables import Cell, Table
from attnbench.results.record import Record
from attnbench.results.statistics import median_interval, paired_ratio

from . import synthetic

LENGTHS = (256, 512, 1024, 2048)
MIB = 2**20


def made(path: Path, records: list[Record], **fields: object) -> outlook.Outlook:
    """What follows from the first setting of a run with these records."""
    settings = split(load_runs([synthetic.write(path / "run", records, **fields)]))
    (found, *_) = outlook.outlooks(settings, growth.fits(settings))
    return found


def timed(name: str, at: dict[int, float], **fields: object) -> list[Record]:
    """One variant beside sdpa, which takes a second at every length."""
    return [synthetic.timed(name, n, time, baseline="sdpa", base_s=1.0, **fields) for n, time in at.items()]


def cells(table: Table | None, label: str) -> list[Cell]:
    assert table is not None
    (row,) = [row for row in table.rows if row.entry.label == label]
    return list(row.cells)


def test_memories_that_tell_nothing_apart_are_left_out_and_the_machine_has_its_own(tmp_path: Path) -> None:
    small = {"peak_bytes": MIB}
    records = [r for n in LENGTHS for r in timed("sdpa", {n: 1.0}, **small)]
    records += [r for n in LENGTHS for r in timed("naive", {n: 1.0}, peak_bytes=64 * n * n)]
    table = made(tmp_path, records).lengths
    assert table is not None
    # naive takes 64 N² bytes: 2,048 tokens are 256 MiB and the inputs, the fit is followed to 64 GiB at 32,768
    assert table.columns == ("256 MiB", "1.00 GiB", "8.00 GiB, all of this machine", "24.0 GiB")
    assert "into 80.0 GiB all fit as far as a fit is followed" in table.caption
    naive, sdpa = cells(table, "naive"), cells(table, "sdpa")
    assert (naive[0].text, naive[0].small) == ("2,024", "interpolated")  # 256 of 67 to 262 MiB, in logarithms
    assert float(naive[1].text[2:].replace(",", "")) == pytest.approx(4072, rel=0.02)
    assert naive[1].small.startswith("extrapolated")
    assert naive[1].entry is not None
    assert naive[1].entry.length == 2048
    assert {cell.text for cell in sdpa[1:]} == {"at least 32,768"}


def test_too_few_lengths_promise_no_memory(tmp_path: Path) -> None:
    found = made(tmp_path, [*timed("sdpa", {256: 1.0, 512: 1.0}), *timed("naive", {256: 2.0, 512: 2.0})])
    assert found.lengths is None
    assert found.gains is not None


def test_a_variant_that_fits_nowhere_says_so(tmp_path: Path) -> None:
    records = [r for n in LENGTHS for r in timed("sdpa", {n: 1.0}, peak_bytes=2**30 * n)]
    assert [cell.text for cell in cells(made(tmp_path, records).lengths, "sdpa")] == ["not even 256"] * 5


def test_on_a_gpu_the_memory_of_the_host_is_no_budget(tmp_path: Path) -> None:
    records = [r for n in LENGTHS for r in timed("sdpa", {n: 1.0}, peak_bytes=64 * n * n, device="cuda")]
    table = made(tmp_path, records).lengths
    assert table is not None
    assert table.columns == ("256 MiB", "1.00 GiB", "8.00 GiB", "24.0 GiB")


def test_crossovers_against_both_and_what_is_only_foretold(tmp_path: Path) -> None:
    records = timed("sdpa", dict.fromkeys(LENGTHS, 1.0), peak_bytes=100)
    records += timed("naive", dict.fromkeys(LENGTHS, 4.0), peak_bytes=400)
    records += timed("linear_elu", {256: 4.0, 512: 2.0, 1024: 0.5, 2048: 0.25}, peak_bytes=200)
    records += timed(
        "performer", {256: 8.0, 512: 4.0, 1024: 2.0 * 2**0.5, 2048: 2.0}, kind="approximate", peak_bytes=50
    )
    records += timed("block_local", dict.fromkeys(LENGTHS, 9.0), kind="approximate", peak_bytes=800)
    table = made(tmp_path, records).crossings
    assert table is not None
    assert [head.split(",")[0] for head in table.columns] == ["Time", "Memory", "Time", "Memory"]
    elu, performer, block = (cells(table, name) for name in ("linear_elu", "performer", "block_local"))
    assert elu[0].text == "724"  # ratios 2 and 0.5: halfway of the logarithms
    assert (elu[1].text, elu[3].text) == ("none up to 2,048", "256 or before")
    assert performer[0].text == "≈ 8,190"  # 2 at 2,048, falling as the root of length
    assert performer[0].small.startswith("extrapolated, ")
    assert performer[0].more == "none up to 2,048"
    assert performer[1].text == "256 or before"
    assert {cell.text for cell in block} == {"none up to 2,048"}
    sdpa = cells(table, "sdpa")
    assert [cell.text for cell in sdpa] == ["—", "—", "256 or before", "256 or before"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (8190.4, 12345.6, "8,190–12,300"),
        (8190.4, 4.2e11, "8,190 to 1,000,000,000 or more"),
        (8190.4, math.inf, "8,190 to never"),
        (2e9, 4.2e11, "1,000,000,000 or more"),
        (2e9, math.inf, "1,000,000,000 or more"),
    ],
)
def test_no_extrapolated_length_is_beyond_all_use(low: float, high: float, words: str) -> None:
    assert outlook._ends(low, high) == words
    about = outlook._about(high, "extrapolated") if math.isfinite(high) else ""
    assert ("or more" in about) is (1e9 <= high < math.inf)


def test_an_interval_that_holds_no_crossover_is_told(tmp_path: Path) -> None:
    samples = {"sdpa": [1.0] * 12, "linear_elu": [0.9, 1.1] * 5 + [0.99, 0.99]}
    records = []
    for n in (256, 512):
        for name, own in samples.items():
            own = [2.0 * x for x in own] if name == "linear_elu" and n == 256 else own
            time, ratio = median_interval(own), paired_ratio(own, samples["sdpa"])
            ends = {"time_s_low": time.low, "time_s_high": time.high, "ratio_low": ratio.low, "ratio_high": ratio.high}
            fields = {"samples_s": own, "ratio": ratio.value, **ends}
            records += [synthetic.timed(name, n, time.value, baseline="sdpa", base_s=1.0, **fields)]
    cell = cells(made(tmp_path, records).crossings, "linear_elu")[0]
    assert cell.small.startswith("not surely: ")
    assert cell.small.endswith("to none up to 512")


def test_gains_are_bounded_by_the_share(tmp_path: Path) -> None:
    records = timed("sdpa", {512: 1.0}) + timed("linear_elu", {512: 0.5}) + timed("naive", {512: 4.0})
    table = made(tmp_path, records).gains
    assert table is not None
    assert [cell.text for cell in cells(table, "linear_elu")] == ["1.05", "1.18", "1.33", "1.54", "1.82"]
    assert [cell.text for cell in cells(table, "naive")] == ["0.769", "0.526", "0.400", "0.323", "0.270"]
    assert "At most 1.11 at 10 %" in table.caption
    with pytest.raises(ValueError, match="not enough values"):
        cells(table, "sdpa")  # the baseline gains nothing
