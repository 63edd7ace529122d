"""Records as CSV and Parquet, and figures in words."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from attnbench.reports import words
from attnbench.reports.errors import ReportsError
from attnbench.reports.export import to_csv, to_parquet
from attnbench.results.frame import load

from . import synthetic


@pytest.mark.parametrize(("save", "read"), [(to_csv, pd.read_csv), (to_parquet, pd.read_parquet)])
def test_all_records_come_back(tmp_path: Path, save, read) -> None:  # type: ignore[no-untyped-def]
    records = synthetic.sweep()
    frame = load(synthetic.write(tmp_path / "run", records))
    save(frame, tmp_path / "table")
    back = read(tmp_path / "table")
    assert list(back["case_id"]) == [record.case_id for record in records]
    first = next(i for i, record in enumerate(records) if record.status == "ok")
    assert json.loads(back["params"][first]) == records[first].params
    assert json.loads(back["samples_s"][first]) == pytest.approx(records[first].samples_s)
    assert back["time_s"][first] == pytest.approx(records[first].time_s)
    weighed = [(got, record.peak_bytes) for got, record in zip(back["peak_bytes"], records, strict=True)]
    assert all((pd.isna(got) and want is None) or got == want for got, want in weighed)


def test_bytes_are_whole_numbers_in_csv(tmp_path: Path) -> None:
    records = [synthetic.record("sdpa", 256, peak_bytes=1234567), synthetic.record("naive", 256, status="oom")]
    to_csv(load(synthetic.write(tmp_path / "run", records)), tmp_path / "t.csv")
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    assert ",1234567," in text
    assert "1234567.0" not in text


@pytest.mark.parametrize("save", [to_csv, to_parquet])
def test_unwritable_file_is_one_sentence(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    frame = load(synthetic.write(tmp_path / "run", synthetic.sweep()[:3]))
    with pytest.raises(ReportsError, match=r"cannot write .*; choose another file"):
        save(frame, tmp_path / "nowhere" / "table")


def test_figures_in_words() -> None:
    numbers = {9.996: "10.0", 0.1234: "0.123", 123.4: "123", 1234.5: "1,230", 0.00123: "0.00123", 0: "0"}
    assert {x: words.digits(x) for x in numbers} == numbers
    times = {4.1e-4: "410 µs", 0.0412: "41.2 ms", 3.2: "3.20 s", 0.9999: "1.00 s", None: "—"}
    assert {x: words.seconds(x) for x in times} == times
    assert [words.size(x) for x in (12, 1536, 3 << 20, 5 << 30)] == ["12 B", "1.50 KiB", "3.00 MiB", "5.00 GiB"]
    assert [words.tick(x) for x in (256, 1000, 1024, 32768, 1 << 20)] == ["256", "1,000", "1k", "32k", "1M"]
    assert words.lengths([256, 512]) == "256, 512"
    assert words.lengths([256, 512, 1024, 2048]) == "256–2,048 (4 lengths)"
    assert words.seconds_interval(0.0409, 0.0416) == "40.9–41.6 ms"
    assert words.percents(0.8984375, 0.9) == ("89.8 %", "90.0 %")
    assert words.percents(0.28, 0.9) == ("28 %", "90 %")
    assert words.percents(0.20001, 0.2) == ("20.001 %", "20.000 %")
    assert [words.percent(x) for x in (0.0001, 0.0123, 0.31, 4.7)] == ["less than 0.1 %", "1.2 %", "31 %", "470 %"]
