"""What earlier passes took is kept: a run that is stopped between two goes on from there."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnbench.results.statistics import paired_ratio

from .conftest import read_records

TWO = ("--variants", "sdpa,naive,raises", "--seq-lens", "64,128", "--passes", "2", "--processes", "1")


@pytest.fixture
def asked(before_asking: Callable[..., None]) -> Counter[str]:
    """How often each step was asked for; Ctrl-C as the third process goes on with a case."""
    steps: Counter[str] = Counter()

    def count(turn: Any, step: str, may_wait: bool) -> None:
        steps[step] += 1
        if steps["set_up_again"] == 3:
            raise KeyboardInterrupt

    before_asking(count)
    return steps


@pytest.fixture
def stopped(sweep: Callable[..., Any], asked: Counter[str], tmp_path: Path) -> Path:
    """A run in whose second pass one length was finished and one was not."""
    plugin = shutil.copy(Path(__file__).parent / "planted.py", tmp_path)
    answer = sweep("--plugin", plugin, *TWO)
    assert answer.code == 130
    assert "stopped: 4 of 6 cases are kept" in answer.err
    assert "and 2 in the middle of their passes; go on with" in answer.err
    asked.clear()
    return tmp_path / "run"


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "passes.jsonl").read_text().splitlines() if line]


def test_it_goes_on_where_it_was_stopped(stopped: Path, cli: Callable[..., Any], asked: Counter[str]) -> None:
    first, second = lines(stopped)
    assert [case["fields"]["calls_per_sample"] > 0 for case in [*first["cases"], *second["cases"]]] == [True] * 4
    assert cli("run", "--resume", "--out", stopped).code == 0
    assert (asked["set_up"], asked["weigh"], asked["set_up_again"], asked["sample"]) == (0, 0, 2, 8)
    records = {record["case_id"]: record for record in read_records(stopped)}
    assert len(records) == len(read_records(stopped)) == 6
    for kept in second["cases"]:
        record = records[kept["case_id"]]
        assert record["samples_s"][:4] == kept["samples"]
        assert (len(record["samples_s"]), record["processes"], record["status"]) == (8, 2, "ok")
        assert record["started_at"] == kept["started_at"]
    base, other = sorted((records[kept["case_id"]] for kept in second["cases"]), key=lambda r: float(r["ratio"] != 1))
    assert base["baseline"] == other["baseline"] == base["variant"]
    assert paired_ratio(other["samples_s"], base["samples_s"]).value == pytest.approx(other["ratio"])
    assert not (stopped / "passes.jsonl").exists()


def torn(text: str) -> str:
    return text[:-40]


def garbage(text: str) -> str:
    first, _ = text.splitlines()
    return f"{first}\n\0\xff{{\n[]\n"


def elsewhere(text: str) -> str:
    return text.replace('"conditions":"', '"conditions":"another machine, ')


@pytest.mark.parametrize("change", [torn, garbage, elsewhere])
def test_what_is_broken_or_from_elsewhere_is_measured_anew(
    stopped: Path, cli: Callable[..., Any], asked: Counter[str], change: Callable[[str], str]
) -> None:
    path = stopped / "passes.jsonl"
    path.write_text(change(path.read_text()), encoding="latin-1")
    asked["set_up_again"] = 9  # no further interruption
    assert cli("run", "--resume", "--out", stopped).code == 0
    assert (asked["set_up"], asked["weigh"], asked["set_up_again"], asked["sample"]) == (2, 2, 11, 16)
    records = read_records(stopped)
    assert Counter(record["status"] for record in records) == {"ok": 4, "crashed": 2}
    assert len({record["case_id"] for record in records}) == 6


def test_one_that_ended_in_a_later_pass_is_left_out(
    stopped: Path, cli: Callable[..., Any], asked: Counter[str]
) -> None:
    *_, second = lines(stopped)
    records = read_records(stopped)
    lost = next(record for record in records if record["status"] == "crashed" and record["n_k"] == 64)
    with (stopped / "results.jsonl").open("a") as file:
        file.write(json.dumps(lost | {"case_id": second["cases"][0]["case_id"]}) + "\n")
    assert cli("run", "--resume", "--out", stopped).code == 0
    assert (asked["set_up"], asked["set_up_again"]) == (0, 1)
    assert len(read_records(stopped)) == 6
    assert read_records(stopped)[-1]["samples_s"][:4] in [case["samples"] for case in second["cases"]]


def test_what_was_spent_before_counts_in_what_is_left_out_after(stopped: Path) -> None:
    """A run that is killed has its times as of what was kept last."""
    spent = json.loads((stopped / "run.json").read_text())["spent_s"]
    taken = [each for group in lines(stopped) for case in group["cases"] for each in case["taken"]]
    assert spent["measured"] > sum(each["timed_s"] for each in taken) > 0


def test_a_plugin_that_changed_begins_anew(stopped: Path, cli: Callable[..., Any], asked: Counter[str]) -> None:
    plugin = stopped.parent / "planted.py"
    plugin.write_text(plugin.read_text() + "\n# changed\n")
    asked["set_up_again"] = 9
    assert cli("run", "--resume", "--out", stopped).code == 0
    assert asked["set_up"] == 2


def test_nothing_is_kept_of_a_run_of_one_pass(
    stopped: Path, sweep: Callable[..., Any], asked: Counter[str], tmp_path: Path
) -> None:
    for file in ("run.json", "results.jsonl"):
        (stopped / file).unlink()
    asked["set_up_again"] = 9
    assert sweep("--variants", "sdpa", "--seq-lens", "64", "--out", stopped).code == 0
    assert not (stopped / "passes.jsonl").exists()
