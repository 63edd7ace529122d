"""Every figure of the page's sentences and tables, made again from results.jsonl alone: nothing of attnbench helps."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from attnbench.reports.report import write

from . import synthetic

Fields = dict[str, Any]
UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "%": 0.01, "": 1.0}
FIGURE = re.compile(r"((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]\d+)?) ?(µs|ms|s|B|KiB|MiB|GiB|%)?(?![\w])")


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static figures take seconds, and hold no figure of this test."""
    monkeypatch.setattr("attnbench.reports.report.save_figures", lambda *_: [])


class Tables(HTMLParser):
    """The tables with a caption: the caption, then rows of cells, a cell its link and its texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[list[tuple[str, list[str]]]]]] = []
        self.inside: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside.append(tag)
        if tag == "caption":
            self.found.append(("", []))
        elif tag == "tr" and self.found:
            self.found[-1][1].append([])
        elif tag in ("th", "td") and self.found and self.found[-1][1]:
            self.found[-1][1][-1].append(("", []))
        elif tag == "a" and ("td" in self.inside) and self.found and self.found[-1][1]:
            row = self.found[-1][1][-1]
            row[-1] = (dict(attrs).get("href") or "", row[-1][1])

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "caption" in self.inside:
            self.found[-1] = (self.found[-1][0] + data, self.found[-1][1])
        elif ("td" in self.inside or "th" in self.inside) and data.strip() and self.found and self.found[-1][1]:
            self.found[-1][1][-1][-1][1].append(data.strip())


def read(run: Path) -> dict[str, Fields]:
    lines = (run / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["case_id"]: record for record in map(json.loads, lines)}


def reads(text: str, *values: float | None) -> bool:
    """Whether the figures of a text are these, to three digits, in the text's own units, in this order."""
    found = [(float(number.replace(",", "")), unit) for number, unit in FIGURE.findall(text)]
    wanted = [value for value in values if value is not None]
    unit = found[-1][1] if found else ""
    if len(found) != len(wanted):
        return False
    return all(
        math.isclose(number, value / UNITS[own or unit], rel_tol=0.0051, abs_tol=0.51 if (own or unit) == "%" else 0.0)
        for (number, own), value in zip(found, wanted, strict=True)
    )


def wrong_cells(page: str, records: dict[str, Fields]) -> tuple[list[str], int]:
    """Cells of the comparison tables that the records do not give, and how many were looked at."""
    wrong, seen = [], 0
    for caption, rows in Tables(page).found:
        overview = caption.startswith("At ")
        if not overview and not caption.startswith("Every length"):
            continue
        for row in rows:
            for place, (link, texts) in enumerate(row):
                if not link.startswith("#record="):
                    continue
                record = records.get(link.removeprefix("#record=1-"))
                if record is None:
                    wrong.append(f"no record for {link}")
                    continue
                seen += 1
                if record["status"] != "ok":
                    checks = [texts == [record["status"]]]
                elif overview:
                    rest = [cell[1] for cell in row[place + 1 :]]
                    naive = [r for r in records.values() if alike(r, record) and r["variant"] == "naive"]
                    checks = [
                        reads(texts[0], record["ratio"]),
                        "the baseline" in texts[1] or reads(texts[1], record["ratio_low"], record["ratio_high"]),
                        reads(rest[0][0], record["time_s"]),
                        reads(rest[0][1], record["time_s_low"], record["time_s_high"]),
                        reads(rest[1][0], record["peak_bytes"]),
                        rest[2] == ["—"] or reads(rest[2][0], record["peak_bytes"] / naive[0]["peak_bytes"]),
                        same_error(rest[3][0], record),
                        record["kind"] != "approximate" or distance(rest[4], record),
                        share(rest[5][0], record["ceiling_share"]),
                    ]
                else:
                    checks = [
                        reads(texts[0], record["ratio"]),
                        "the baseline" in texts[1] or reads(texts[1], record["ratio_low"], record["ratio_high"]),
                        reads(texts[2].split(",", 1)[0], record["time_s"]),
                        reads(texts[2].split(",", 1)[1], record["peak_bytes"]),
                    ]
                wrong += [f"{record['variant']} at {record['n_k']}: {row}"] if not all(checks) else []
    return wrong, seen


def alike(one: Fields, other: Fields) -> bool:
    return one["group_id"] == other["group_id"] and one["status"] == "ok"


def same_error(text: str, record: Fields) -> bool:
    error, allowed = (float(part) for part in text.split(" / "))
    return math.isclose(error, record["error"], rel_tol=0.051) and math.isclose(
        allowed, record["error_allowed"], rel_tol=0.051
    )


def share(text: str, value: float) -> bool:
    return "less than 0.1 %" in text if value < 1e-3 else reads(text, value)


def distance(texts: list[str], record: Fields) -> bool:
    if record["fidelity_error"] is None:
        return texts[1] == "not measured"
    return share(texts[0], record["fidelity_error"]) and reads(texts[1], record["fidelity_error_uniform"])


def test_every_cell_of_the_tables(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep())
    page = write([run]).html.read_text(encoding="utf-8")
    wrong, seen = wrong_cells(page, read(run))
    assert wrong == []
    assert seen > 150
    other = {record.case_id: json.loads(record.model_dump_json()) for record in synthetic.sweep(seed=5)}
    assert len(wrong_cells(page, other)[0]) > 100  # the check can fail: other records give other cells


def strays(text: str, evidence: list[Fields]) -> list[str]:
    """The figures of a sentence that its evidence does not give."""
    known = {95.0, 1.0, 0.1}  # the interval's level, and the two bounds that the page defines
    whole: set[float] = set()
    for record in evidence:
        whole |= {float(record[name]) for name in ("n_k", "batch", "heads", "head_dim", "threads")}
        whole |= {float(value) for value in record["params"].values() if isinstance(value, int)}
        known |= {factor * record[name] for name in ("time_s", "time_s_low", "time_s_high") for factor in (1, 1e3, 1e6)}
        known |= {value for name in ("ratio", "ratio_low", "ratio_high") for value in (record[name], 1 / record[name])}
        known |= {record["peak_bytes"] / 1024**power for power in range(4)}
        known |= {100 * (record[name] or 0.0) for name in ("fidelity_error", "fidelity_error_uniform")}
        known |= {other["peak_bytes"] / record["peak_bytes"] for other in evidence}
    known |= crossings(evidence)
    found = []
    for number, unit in FIGURE.findall(re.sub(r"[A-Za-z]\w*\d\b", "", text)):
        value = float(number.replace(",", ""))
        close = any(math.isclose(value, each, rel_tol=0.0051, abs_tol=0.51 if unit == "%" else 0) for each in known)
        if not close and value not in whole:
            found.append(number)
    return found


def crossings(evidence: Iterable[Fields]) -> set[float]:
    """Where each variant's ratio, or an end of its interval, falls below 1 on a straight line of logarithms."""
    found = set()
    lines: dict[str, list[Fields]] = {}
    for record in evidence:
        lines.setdefault(record["variant"], []).append(record)
    for line in lines.values():
        line.sort(key=lambda record: record["n_k"])
        for name in ("ratio", "ratio_low", "ratio_high"):
            for a, b in pairwise(line):
                if a[name] >= 1 > b[name]:
                    part = math.log(a[name]) / math.log(a[name] / b[name])
                    found.add(a["n_k"] * (b["n_k"] / a["n_k"]) ** part)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_of_the_sentences(tmp_path: Path, seed: int) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep(seed))
    report = write([run])
    page, records = report.html.read_text(encoding="utf-8"), read(run)
    parts = re.findall(r'<span class="said">(.*?)</span>(.*?)</li>', page, re.DOTALL)
    parts = [(html.unescape(text), rest) for text, rest in parts]
    assert [text for text, _ in parts] == report.sentences
    for text, rest in parts:
        evidence = [records[case] for case in dict.fromkeys(re.findall(r"#record=1-(\w+)", rest))]
        assert len(evidence) >= 2
        assert strays(text, evidence) == []
        assert strays(text, [{**r, "time_s": 77.7, "ratio": 7.77, "peak_bytes": 777} for r in evidence]) != []
