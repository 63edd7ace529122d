"""The parts of the page beside the records: the store's columns, cards of methods, trained tasks, fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attnbench.reports import cards, data, growth, training
from attnbench.reports.errors import ReportsError
from attnbench.reports.load import load_runs
from attnbench.reports.report import write
from attnbench.reports.settings import split
from attnbench.results.store import RunFolder

from . import synthetic


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static figures take seconds, and are tested elsewhere."""
    monkeypatch.setattr("attnbench.reports.report.save_figures", lambda *_: [])


def unpacked(column: dict[str, Any], count: int) -> list[Any]:
    """As the page's script reads a column."""
    if "values" in column:
        return list(column["values"])
    if "at" in column:
        return [None if place < 0 else column["different"][place] for place in column["at"]]
    return [column["all"]] * count


@pytest.mark.parametrize(
    "values", [[1, 1, 1], [None, None], ["a", "b"] * 9 + [None], [0.25, 0.5, None], ["x" * 40, "y"]]
)
def test_columns_come_out_as_they_went_in(values: list[Any]) -> None:
    assert unpacked(data.packed(values), len(values)) == values


def test_the_store_holds_every_field_of_every_record(tmp_path: Path) -> None:
    records = [*synthetic.sweep(), synthetic.record("sdpa", 99, newer_field="kept", status="oom", reasons=["a", "b"])]
    loaded = load_runs([synthetic.write(tmp_path / "run", records)])
    settings = split(loaded)
    store = data.store(loaded, settings, growth.fits(settings), [])
    columns = {name: unpacked(column, store["count"]) for name, column in store["columns"].items()}
    rows = {case: place for place, case in enumerate(columns["case_id"])}
    assert len(rows) == len(records) == store["count"]
    for record in records:
        row = {name: values[rows[record.case_id]] for name, values in columns.items()}
        for name in ("variant", "status", "n_k", "peak_bytes", "kind"):
            assert row[name] == getattr(record, name)
        for name in ("time_s", "ratio_low", "fidelity_error", "ceiling_share"):
            whole = getattr(record, name)
            assert row[name] == (whole if whole is None else pytest.approx(whole, rel=1e-5))
        assert row["reasons"] == ("\n".join(record.reasons) or None)
    assert columns["newer_field"][rows[records[-1].case_id]] == "kept"


def test_fits_name_their_records(tmp_path: Path) -> None:
    settings = split(load_runs([synthetic.write(tmp_path / "run", synthetic.sweep())]))
    found = growth.fits(settings)
    assert {fit.what for fit in found} == {"time", "memory", *growth.CROSSINGS.values()}
    for fit in found:
        assert fit.mine
        assert all(entry in fit.setting.entries for entry in fit.evidence)
        if fit.what == "memory":
            assert (fit.low, fit.high) == (None, None)
    slopes = {fit.label: fit.value for fit in found if fit.what == "memory" and fit.setting is settings[0]}
    assert slopes["naive"] == pytest.approx(2, abs=0.01)
    assert slopes["linear_elu"] == pytest.approx(1, abs=0.01)


CARD = {
    "name": "performer",
    "family": "linear",
    "kind": "approximate",
    "about": "Sums <b>of</b> features.",
    "paper": "Choromanski et al. 2020",
    "formula": "phi(q) phi(k)ᵀ v",
    "complexity": {"time": 1, "text": "O(N m d) time"},
    "params": {"num_features": 256},
    "params_about": {"num_features": "m: random features."},
    "supports": {"modes": ["causal", "decode"], "dtypes": ["float32"], "devices": ["cpu"]},
    "reduces_to": "softmax attention in expectation",
}


def test_cards_of_the_run_are_on_the_page(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep()[:20])
    RunFolder(run).write_cards([CARD])
    page = write([run]).html.read_text(encoding="utf-8")
    part = page[page.index('<section id="methods">') :]
    for text in (
        "Choromanski et al. 2020",
        "phi(q) phi(k)ᵀ v",
        "O(N m d) time",
        "num_features=256: m: random features.",
    ):
        assert text in part
    assert "causal, decode; float32; cpu" in part
    assert "Sums &lt;b&gt;of&lt;/b&gt; features." in part
    assert "kept no cards" not in part


def test_a_run_without_cards_says_so(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "old", synthetic.sweep()[:20])
    assert "1 run (old) kept no cards" in write([run]).html.read_text(encoding="utf-8")


def test_torn_and_foreign_cards_are_passed_over(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep()[:20])
    (run / "cards.json").write_text(
        '[{"name": 1}, "x", {"name": "odd", "params": [], "supports": 3}]', encoding="utf-8"
    )
    (only,) = cards.cards(load_runs([run]))
    assert (only.name, only.colour, only.facts) == ("odd", "other", ())
    (run / "cards.json").write_text("[{", encoding="utf-8")
    report = write([run])
    assert any("cards.json cannot be read" in warning for warning in report.warnings)


def test_trained_tasks_are_summed_up_and_drawn(tmp_path: Path) -> None:
    tasks = [synthetic.task("sdpa", seed=seed, top=top) for seed, top in enumerate((0.9, 0.95, 0.99))]
    tasks += [synthetic.task("performer", lr=lr, top=top) for lr, top in ((1e-3, 0.3), (1e-2, 0.5))]
    tasks.append(synthetic.task("nystrom", status="unsupported", reasons=["no causal form"], value=None, curve=[]))
    sweep = synthetic.write(tmp_path / "sweep", synthetic.sweep()[:30])
    report = write([synthetic.write_tasks(tmp_path / "tasks", tasks), sweep], tmp_path / "report")
    page = report.html.read_text(encoding="utf-8")
    part = page[page.index("Trained: recall, 256 tokens") :]
    assert part.index("95 %") < part.index("50 %") < part.index("no causal form")
    assert "0.900–0.990 over 3 seeds" in part
    (setting,) = training.trained(tasks, [])
    first = training.as_data([setting])[0]["trained"][0]
    assert (first["label"], first["value"], first["low"], first["high"]) == ("sdpa", 0.95, 0.9, 0.99)
    assert first["curve"][-1][1] == pytest.approx(0.95 * 1000 / 1009)
    assert setting.trained[1].summary.lr == 1e-2
    assert "| performer | 50 %" in report.markdown.read_text(encoding="utf-8")


def test_recall_without_training_is_a_table_with_a_row_for_each_variant(tmp_path: Path) -> None:
    records = synthetic.budgets()
    report = write([synthetic.write(tmp_path / "sweep", records)])
    text = report.markdown.read_text(encoding="utf-8")
    part = text[text.index("## Recall without training") :].partition("\n## ")[0]
    rows = [line.split(" | ") for line in part.splitlines() if "%" in line]
    assert [[cell.strip(" |") for cell in row[2:]] for row in rows] == [
        ["100 %", "100 %"],
        ["100 %", "50 %"],
        ["50 %", "25 %"],
        ["25 %", "12 %"],
    ]
    assert "32 pairs | 64 pairs |" in part, "loads that nobody was asked have no column"
    assert "128 pairs" not in part
    silent = [record.model_copy(update={"recall_32": None, "recall_64": None}) for record in records]
    other = write([synthetic.write(tmp_path / "silent", silent)])
    assert "Recall without training" not in other.markdown.read_text(encoding="utf-8")


def test_tasks_alone_are_no_report(tmp_path: Path) -> None:
    with pytest.raises(ReportsError, match="trained tasks only; name the run of a sweep beside them"):
        write([synthetic.write_tasks(tmp_path / "tasks", [synthetic.task("sdpa")])])
