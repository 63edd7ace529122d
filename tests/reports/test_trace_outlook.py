"""Every figure of what follows from the records, and of what stands beside them, made again from the JSONL alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from attnbench.reports.report import write

from . import synthetic, synthetic_beside
from .test_trace import Fields, Tables, read, reads

pytestmark = pytest.mark.usefixtures("no_figures")
Row = list[tuple[str, list[str]]]
Check = Callable[[str, list[str], list[Fields], int], bool]
"""Whether a cell is right: the head of its column, its texts, its variant's records by length, the table's place."""
GIB = 2.0**30


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static figures take seconds, and hold no figure of this test."""
    monkeypatch.setattr("attnbench.reports.report.save_figures", lambda *_: [])


def tables(page: str, start: str) -> list[tuple[str, list[Row]]]:
    """The tables whose captions start so, heads first."""
    return [(caption, rows) for caption, rows in Tables(page).found if caption.startswith(start)]


def settings(records: dict[str, Fields], cases: set[str]) -> dict[tuple[str, str], list[Fields]]:
    """By variant and parameters, the good records of the one setting that some cases are of, shortest first."""
    one = records[next(iter(cases))]
    shared = ("mode", "causal", "inputs", "dtype", "threads", "batch", "heads", "head_dim")
    mine = [r for r in records.values() if all(r[name] == one[name] for name in shared) and r["status"] == "ok"]
    found: dict[tuple[str, str], list[Fields]] = {}
    for record in sorted(mine, key=lambda r: r["n_k"]):
        found.setdefault((record["variant"], json.dumps(record["params"])), []).append(record)
    return found


def wrong_cells(page: str, records: dict[str, Fields], start: str, check: Check) -> tuple[list[str], int]:
    """Cells of some tables that the records do not give, and how many were looked at."""
    wrong, seen = [], 0
    for place, (_, rows) in enumerate(tables(page, start)):
        heads = [" ".join(texts) for _, texts in rows[0]]
        cases = {link.removeprefix("#record=1-") for row in rows for link, _ in row if link}
        series = settings(records, cases)
        for row in rows[1:]:
            links = [link.removeprefix("#record=1-") for link, _ in row if link]
            of = records[links[0]]
            mine = series[of["variant"], json.dumps(of["params"])]
            for head, (link, texts) in zip(heads[1:], row[1:], strict=True):
                if not link:
                    wrong += [] if texts == ["—"] else [f"no record behind {texts}"]
                    continue
                seen += 1
                if not check(head, texts, mine, place):
                    wrong.append(f"{of['variant']}, {head}: {texts}")
    return wrong, seen


# -- a whole model ---------------------------------------------------------------------------------------------------


def gain_is_right(head: str, texts: list[str], mine: list[Fields], place: int) -> bool:
    share = float(head.removeprefix("Attention ").removesuffix(" %")) / 100
    of = mine[-1]
    value, low, high = (1 / (1 - share + share * of[name]) for name in ("ratio", "ratio_high", "ratio_low"))
    return reads(texts[0], value) and reads(texts[1], low, high)


# -- memory ----------------------------------------------------------------------------------------------------------


def needed(record: Fields) -> float:
    """Bytes of float32 inputs, the gradient that comes in, and the peak; decoding, the state and the peak."""
    if record["mode"] == "decode":
        return float(record["peak_bytes"] + record["state_bytes"])
    each = record["batch"] * record["head_dim"] * 4
    queries, keys = each * record["heads"] * record["n_q"], each * record["kv_heads"] * record["n_k"]
    return float(record["peak_bytes"] + queries * (2 if record["mode"] == "train" else 1) + 2 * keys)


def curve(lengths: Sequence[int], values: Sequence[float]) -> Callable[[float], float]:
    """The nearest in relative distance of a + b·N^p, by trying every power, and of sums of N or N log N and N²."""
    from scipy.optimize import nnls

    x, y = np.array(lengths) / lengths[-1], np.array(values)
    kinds: list[list[Callable[[Any], Any]]] = [
        [np.ones_like, lambda share, p=p: share**p] for p in np.arange(0.02, 3.2001, 0.02)
    ]
    squares: list[Callable[[Any], Any]] = [np.ones_like, lambda share: share**2]
    kinds += [[*squares, lambda share: share], [*squares, lambda share: share * np.log1p(share * lengths[-1])]]
    best: tuple[float, Any, list[Callable[[Any], Any]]] | None = None
    for terms in kinds:
        factors, miss = nnls(np.stack([term(x) / y for term in terms], axis=1), np.ones(len(y)))
        if best is None or miss < best[0]:
            best = miss, factors, terms
    assert best is not None
    _, found, chosen = best
    return lambda n: float(sum(f * term(np.array(n / lengths[-1])) for f, term in zip(found, chosen, strict=True)))


def between(lengths: Sequence[int], values: Sequence[float], budget: float) -> tuple[float, float]:
    """Where memory comes to the budget: on a monotone cubic through the logarithms near it, and straight."""
    from scipy.interpolate import PchipInterpolator

    after = next(i for i, value in enumerate(values) if value > budget)
    part = math.log(budget / values[after - 1]) / math.log(values[after] / values[after - 1])
    straight = lengths[after - 1] * (lengths[after] / lengths[after - 1]) ** part
    near = slice(max(0, after - 2), after + 2)
    if len(lengths[near]) < 3:
        return straight, straight
    fine = np.linspace(math.log(lengths[after - 1]), math.log(lengths[after]), 20_001)
    found = PchipInterpolator(np.log(lengths[near]), np.log(values[near]))(fine)
    return float(np.exp(np.interp(math.log(budget), found, fine))), straight


def length_is_right(head: str, texts: list[str], mine: list[Fields], place: int) -> bool:
    amount, unit = head.split(",")[0].split()
    budget = float(amount) * {"MiB": 2.0**20, "GiB": GIB}[unit]
    lengths, values = [r["n_k"] for r in mine], [needed(r) for r in mine]
    figure = float(re.sub(r"[^\d.]", "", texts[0]))
    if texts[0].startswith("not even"):
        return values[0] > budget and figure == lengths[0]
    if "interpolated" in texts[1]:
        bent, straight = between(lengths, values, budget)
        ends = sorted((bent, straight))
        shown = [float(end.replace(",", "")) for end in re.findall(r"\d[\d,]*", texts[1])] or ends
        return np.allclose([figure, *shown], [bent, *ends], rtol=6e-3)
    if texts[0].startswith("at least"):
        farthest = lengths[-1] * (16 if len(lengths) >= 3 else 1)
        whole = values[-1] if len(lengths) < 3 else curve(lengths, values)(farthest)
        return figure == farthest and whole <= budget * 1.001
    spread = [float(end.replace(",", "")) for end in re.findall(r"\d[\d,]*", texts[1])]
    return (
        texts[0].startswith("≈ ")
        and max(values) <= budget
        and math.isclose(curve(lengths, values)(figure), budget, rel_tol=0.02)
        and (not spread or spread[0] <= figure <= spread[1])
    )


# -- crossovers ------------------------------------------------------------------------------------------------------


def middle(samples: Sequence[float]) -> tuple[float, float, float]:
    """Median and interval: the ends lie between two order statistics, as far as their binomial odds say."""
    x, n = sorted(samples), len(samples)
    odds = [1 - 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n for k in range(n // 2)]
    k = max(i for i, share in enumerate(odds) if share >= 0.95)
    excess = (odds[k] - 0.95) / (odds[k] - odds[k + 1])
    part = (n - k - 1) * excess / (k + 1 + (n - 2 * k - 2) * excess)
    return median(x), x[k] + part * (x[k + 1] - x[k]), x[-1 - k] + part * (x[-2 - k] - x[-1 - k])


def falls(lengths: list[int], ratios: list[float]) -> float | None:
    """The length from which a line through ratios, log over log, stays below 1."""
    if ratios[-1] >= 1:
        return None
    for i in reversed(range(1, len(lengths))):
        if ratios[i - 1] >= 1:
            part = math.log(ratios[i - 1]) / math.log(ratios[i - 1] / ratios[i])
            return float(lengths[i - 1] * (lengths[i] / lengths[i - 1]) ** part)
    return float(lengths[0])


def crossing_is_right(records: dict[str, Fields]) -> Check:
    def check(head: str, texts: list[str], mine: list[Fields], place: int) -> bool:
        ratios: dict[int, tuple[float, float, float]] = {}
        taken: dict[int, tuple[float, float]] = {}
        for record in mine:
            name = "naive" if head.endswith("naive") else record["baseline"]
            group = [r for r in records.values() if r["group_id"] == record["group_id"]]
            rival = next((r for r in group if r["variant"] == name and r["status"] == "ok"), None)
            if rival is None:
                continue
            if head.startswith("Memory"):
                decoding = record["mode"] == "decode"
                both = [r["peak_bytes"] + (r["state_bytes"] if decoding else 0) for r in (record, rival)]
                taken[record["n_k"]] = both[0], both[1]
                ratios[record["n_k"]] = (both[0] / both[1],) * 3
            else:
                each = [a / b for a, b in zip(record["samples_s"], rival["samples_s"], strict=True)]
                taken[record["n_k"]] = median(record["samples_s"]), median(rival["samples_s"])
                ratios[record["n_k"]] = middle(each)
        lengths = sorted(ratios)
        value, low, high = (falls(lengths, [ratios[n][end] for n in lengths]) for end in range(3))
        none, before = f"none up to {lengths[-1]:,}", f"{lengths[0]:,} or before"
        if value is None and texts[0].startswith("≈"):
            own, other = (curve(lengths, [taken[n][i] for n in lengths]) for i in (0, 1))
            ahead = np.geomspace(lengths[-1], 16 * lengths[-1], 4001)
            at = next(n for n in ahead if own(n) < other(n))
            # to three digits, the longest length once more where the curve has crossed there already
            near = math.isclose(float(texts[0][2:].replace(",", "")), at, rel_tol=6e-3)
            return texts[2] == none and near and "extrapolated" in texts[1]
        if value is None:
            return texts[0] == none
        if value <= lengths[0]:
            return texts[0] == before
        ends = [end for end in (low, high) if end is not None and end > lengths[0]]
        small = texts[1].replace(before, "") if len(texts) > 1 else ""
        return reads(texts[0], value) and (not small or reads(small, *ends))

    return check


CHECKS: dict[str, Callable[[dict[str, Fields]], Check]] = {
    "How many times as fast a model": lambda _: gain_is_right,
    "Longest length": lambda _: length_is_right,
    "Length from which on": crossing_is_right,
}


@pytest.mark.parametrize("start", CHECKS)
def test_every_cell_of_what_follows(tmp_path: Path, start: str) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep())
    page = write([run]).html.read_text(encoding="utf-8")
    records = read(run)
    wrong, seen = wrong_cells(page, records, start, CHECKS[start](records))
    assert wrong == []
    assert seen > 60
    # the check can fail: other figures in the records give other cells, but for "at least so long"
    other = {case: {**r, **_moved(r)} for case, r in records.items()}
    assert len(wrong_cells(page, other, start, CHECKS[start](other))[0]) > seen / 4


def _moved(record: Fields) -> Fields:
    if record["status"] != "ok":
        return {}
    much = 1.3 if record["kind"] == "exact" else 0.6
    moved = {name: record[name] * much for name in ("ratio", "ratio_low", "ratio_high")}
    return {**moved, "peak_bytes": record["peak_bytes"] * much, "samples_s": [x * much for x in record["samples_s"]]}


# -- beside the records ----------------------------------------------------------------------------------------------


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def beside(tmp_path: Path) -> tuple[str, list[Any], list[Any]]:
    """The page, the lines of dropin.jsonl and those of claims.jsonl."""
    runs = [
        synthetic.write(tmp_path / "run", synthetic.sweep()[:40]),
        synthetic_beside.write_dropins(tmp_path / "dropin", synthetic_beside.some_dropins()),
        synthetic_beside.write_claims(tmp_path / "claims", synthetic_beside.some_claims()),
    ]
    page = write(runs, tmp_path / "report").html.read_text(encoding="utf-8")
    return page, lines(tmp_path / "dropin" / "dropin.jsonl"), lines(tmp_path / "claims" / "claims.jsonl")


def test_every_figure_of_variants_inside_a_model(beside: tuple[str, list[Any], list[Any]]) -> None:
    page, records, _ = beside
    seen = 0
    fields = {"cosine": "embedding_cosine", "ranking τ": "ranking_agreement", "next token kept": "next_token_agreement"}
    for caption, rows in [*tables(page, "Cosine between"), *tables(page, "Perplexity of")]:
        metric = "embedding" if caption.startswith("Cosine") else "perplexity"
        mine = [r for r in records if r["metric"] == metric]
        assert len(rows) == 1 + len(mine) + (1 if metric == "embedding" else 2)
        heads = [" ".join(texts) for _, texts in rows[0]]
        for row in rows[1:]:
            name = row[0][1][0].partition("(")[0]
            of = next((r for r in mine if r["variant"] == name), mine[0])
            for head, (_, texts) in zip(heads[2:], row[2:], strict=True):
                field = fields.get(head, head)
                if name == "the model as it is":
                    wanted = [of["perplexity_original"]] if field == "perplexity" else [None]
                elif name == "plain mean of the values":
                    wanted = [of[f"{field}_uniform"]]
                elif of["status"] != "ok":
                    assert texts in (["oom", *of["reasons"]], ["—"])
                    continue
                else:
                    worst = [of["embedding_cosine_low"]] if field == "embedding_cosine" else []
                    wanted = [of[field], *worst, of[f"{field}_window"]]
                given: list[float] = [value for value in wanted if value is not None]
                found = [float(x.replace(",", "")) for x in re.findall(r"\d[\d,]*(?:\.\d+)?", " ".join(texts))]
                assert found == pytest.approx(given, abs=0.5 if max(given, default=0) > 99 else 5.01e-4)
                seen += len(found)
    assert seen > 20


def test_every_figure_of_the_claims(beside: tuple[str, list[Any], list[Any]]) -> None:
    page, _, records = beside
    ((_, (head, *rows)),) = tables(page, "5 claims")
    assert len(head) == 7
    quantities = [(record, one) for record in records for one in record["quantities"] or [None]]
    assert len(rows) == len(quantities) == 6
    for row, (record, one) in zip(rows, quantities, strict=True):
        *_, figure, published, measured, difference, _ = ("".join(texts) for _, texts in row)
        text = "".join(each for _, cell in row for each in cell)
        if one is None:
            assert record["reasons"][0] in text
            assert (record["verdict"] or record["status"]) in text
            continue
        assert figure.startswith(one["name"])
        assert one["verdict"] in text
        assert reads(published.removesuffix(one["unit"]), one["published"]) or published == "in words"
        numbers = [float(x) for x in re.findall(r"[\d.]+", measured)]
        assert numbers == pytest.approx([one["value"], one["low"], one["high"]], rel=0.006)
        assert ("not surely" in measured) != one["sure"]
        assert not difference or float(difference.split()[0]) == pytest.approx(one["difference"], rel=0.006)
