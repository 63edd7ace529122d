"""Batches of unlike requests in a report: settings of their own, named by their requests, beside no length."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attnbench.bench import comparison_table
from attnbench.reports.answer import answers, headline
from attnbench.reports.load import load_runs
from attnbench.reports.report import write
from attnbench.reports.settings import split
from attnbench.results.compare import compare
from attnbench.results.conditions import Side
from attnbench.results.record import Record

from . import synthetic

SPEC = "2q1k_8q1s1k"
BATCH: dict[str, Any] = {"requests": SPEC, "n_q": 2056, "n_k": 10240}


def batch(*variants: str, **fields: Any) -> list[Record]:
    return [
        synthetic.timed(name, 10240, 0.1 / number, baseline="sdpa", base_s=0.1, **BATCH, **fields)
        for number, name in enumerate(variants, start=1)
    ]


def test_a_batch_is_a_setting_of_its_own_and_never_the_headline_beside_another(tmp_path: Path) -> None:
    uniform = synthetic.timed("sdpa", 512, 0.1, baseline="sdpa", base_s=0.1)
    run = synthetic.write(tmp_path / "run", [uniform, *batch("sdpa", "sliding_window", "linear_elu")])
    settings = split(load_runs([run]))
    assert [setting.mixed for setting in settings] == [False, True]
    assert headline(settings) is settings[0]
    assert settings[1].title == f"Batch {SPEC}, causal, gaussian input"
    assert "a batch of 2 prefills of 1k and 8 decode steps at 1k" in settings[1].detail
    assert "quer" not in settings[1].detail


def test_the_sentences_of_a_batch_speak_of_no_length(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", batch("sdpa", "sliding_window", "linear_elu"))
    for sentence in answers(split(load_runs([run]))):
        assert f"on the batch {SPEC}" in sentence.text
        assert not re.search(r"10,240|length|tokens", sentence.text), sentence.text


def test_the_report_shows_how_each_variant_ran_it(tmp_path: Path) -> None:
    calls = ["forward 2q1k", "decode 8q1s1k"]
    records = batch("sdpa", "sliding_window", batch_calls=calls)
    records.append(synthetic.record("nystrom", 10240, status="unsupported", reasons=["has no causal form"], **BATCH))
    report = write([synthetic.write(tmp_path / "run", records)])
    for text in (report.html.read_text(), report.markdown.read_text().replace("\\_", "_")):
        assert f"On the batch {SPEC}: ratios to sdpa" in text
        assert ", ".join(calls) in text
        assert f"N = {SPEC}" in text
        assert "10,240 tokens" not in text


def test_a_comparison_names_the_batch_and_no_field_that_is_null(tmp_path: Path) -> None:
    uniform = [synthetic.timed("sdpa", 512, 0.1, baseline="sdpa", base_s=0.1)]
    before, after = uniform + batch("sdpa", peak_bytes=1 << 20), uniform + batch("sdpa", peak_bytes=1 << 22)
    found = compare(Side("before", before), Side("after", after))
    rows = comparison_table.rows(found, everything=True)
    assert ("bigger", "sdpa", f"2,056 of {SPEC}") in {row[:3] for row in rows}
    assert "None" not in comparison_table.setting(found) + str(rows)
