"""`attnbench reproduce`: every claim ends in a record, whatever becomes of it, and a wrong request in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnbench.bench.reproduce import reproduce, resume
from attnbench.reports.claims import as_markdown, number, rows
from attnbench.results.claims import ClaimFolder, load_claims
from attnbench.results.errors import ResultsError

from .test_bad_input import refused

PLANTED = str(Path(__file__).with_name("planted_claims.py"))
NAMES = [
    "planted_raises",
    "planted_dies",
    "planted_lacks",
    "planted_untestable",
    "planted_right",
    "planted_direction",
    "planted_wrong",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reproduce(NAMES, tmp_path_factory.mktemp("claims") / "run", files=[PLANTED]).folder


def test_each_claim_has_a_record_with_its_verdict_and_cost(done: Path) -> None:
    records = load_claims(done)
    assert [record.name for record in records] == NAMES, "cheapest first"
    assert [(record.status, record.verdict) for record in records] == [
        ("crashed", None),
        ("crashed", None),
        ("crashed", None),
        ("untestable", "not testable here"),
        ("ok", "holds"),
        ("ok", "holds in direction only"),
        ("ok", "does not hold"),
    ]
    assert all(record.wall_s > 0 for record in records)
    run = ClaimFolder(done).run()
    assert run.finished_at is not None
    assert run.cases == len(records)
    assert {record.machine for record in records} == {run.machine.fingerprint}


def test_what_went_wrong_is_told(done: Path) -> None:
    raises, dies, lacks, untestable, right, *_ = load_claims(done)
    assert "RuntimeError: not today" in raises.reasons[0]
    assert "planted_claims.py" in raises.reasons[0]
    assert "exit status 7" in dies.reasons[0]
    assert "farewell" in dies.reasons[0]
    assert "planted_lacks did not measure 'figure'" in lacks.reasons[0]
    assert untestable.reasons == ["this machine has no quantum processor"]
    assert right.reasons == ["gave 11"]


def test_a_sweep_is_measured_once_and_its_cost_is_shared(tmp_path: Path) -> None:
    first, second = reproduce(["planted_swept", "planted_swept_too"], tmp_path / "run", files=[PLANTED]).records
    assert (first.verdict, second.verdict) == ("holds", "holds"), (first.reasons, second.reasons)
    assert first.runs == second.runs
    assert first.shared_s == 0.0
    assert second.shared_s > 0.0
    assert second.wall_s < first.wall_s
    (sweep,) = (tmp_path / "run" / "runs").iterdir()
    assert len((sweep / "results.jsonl").read_text().splitlines()) == 1


def test_a_stopped_run_goes_on_with_what_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    whole = reproduce(["planted_right", "planted_swept", "planted_wrong"], folder, files=[PLANTED]).records
    lines = (folder / "claims.jsonl").read_text().splitlines(keepends=True)
    (folder / "claims.jsonl").write_text(lines[0] + lines[1][:-20])  # killed while it wrote
    again = resume(folder).records
    assert [record.name for record in again] == [record.name for record in whole]
    assert [record.verdict for record in load_claims(folder)] == ["holds", "does not hold", "holds"]
    assert again[0] == whole[0], "what was measured stays"
    assert again[2].shared_s > 0, "and so does the sweep"


def test_what_is_not_begun_in_time_is_skipped(tmp_path: Path) -> None:
    records = reproduce(["planted_right"], tmp_path / "run", files=[PLANTED], time_budget=1e-9).records
    assert [(record.status, record.verdict) for record in records] == [("skipped", None)]
    assert "time budget" in records[0].reasons[0]


def test_a_claim_that_takes_too_long(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(PLANTED).parent)!r})\n"
        "import time\nfrom planted_claims import planted\n"
        "SLOW = planted('planted_slow', lambda context: time.sleep(60), 1)\n"
    )
    (record,) = reproduce(["planted_slow"], tmp_path / "run", files=[str(tmp_path / "slow.py")], timeout=0.5).records
    assert record.status == "timeout"
    assert record.wall_s < 30


def test_the_latest_record_of_a_claim_counts(done: Path, tmp_path: Path) -> None:
    record = load_claims(done)[4]
    run = ClaimFolder(done).run()
    folder = ClaimFolder.create(tmp_path / "run", run)
    later = record.model_copy(update={"started_at": "2999-01-01T00:00:00+00:00", "wall_s": 9.0})
    folder.append([record, later])
    folder.close()
    assert [one.wall_s for one in load_claims(tmp_path / "run", done) if one.name == record.name] == [9.0]


# -- the command ------------------------------------------------------------------------------------------------


def test_the_command_tells_and_exits_with_0(cli: Callable[..., Any], tmp_path: Path) -> None:
    answer = cli(
        "reproduce", "planted_wrong", "planted_right", "planted_raises", "--claims", PLANTED,
        "--out", tmp_path / "run", "--markdown", tmp_path / "claims.md",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "planted_wrong\tdoes not hold\tfigure\t10 ×\t0.5 ×\t-9.5 ×" in answer.out
    assert "3 claims: 1 × crashed, 1 × holds, 1 × does not hold" in answer.out
    page = (tmp_path / "claims.md").read_text()
    assert "| planted_right | holds | figure | 10 × | 11 × | +1 × |" in page
    assert "holds from 8 to 12 ×, the direction from 1 ×" in page
    assert "<b>" not in page, "what claims say is text"


def test_the_command_for_machines(cli: Callable[..., Any], tmp_path: Path) -> None:
    answer = cli("reproduce", "planted_right", "--claims", PLANTED, "--out", tmp_path / "run", "--json")
    told = json.loads(answer.out)
    assert told["records"][0]["quantities"][0]["value"] == 11
    assert told["folder"] == str(tmp_path / "run")


def test_claims_are_listed_without_measuring(cli: Callable[..., Any]) -> None:
    listed = json.loads(cli("reproduce", "--list", "--json").out)
    assert len(listed) >= 8
    assert all(one["source"] and one["setting"] and one["targets"] for one in listed)
    assert "performer_gaussian" in cli("reproduce", "--list", "performer_gaussian").out


REQUESTS = [
    (["performer_gausian"], ["unknown claim 'performer_gausian'", "did you mean 'performer_gaussian'"]),
    (["--claims", "nowhere.py"], ["nowhere.py", "does not exist"]),
    (["--time-budget", "soon"], ["--time-budget", "'soon' is not a time"]),
    (["--time-budget", "0s"], ["--time-budget", "above 0"]),
    (["--timeout", "1d"], ["--timeout", "not a time"]),
    (["--resume"], ["--resume needs --out"]),
    (["--resume", "--out", "nowhere"], ["nowhere is not a run", "attnbench reproduce"]),
    (["sum_capacity", "--resume", "--out", "nowhere"], ["--resume takes the claims"]),
    (["sum_capacity", "--out", "/proc/nowhere/run"], ["cannot write"]),
]


@pytest.mark.parametrize(("args", "words"), REQUESTS, ids=[" ".join(args) for args, _ in REQUESTS])
def test_wrong_requests(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(cli("reproduce", *args), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_used(cli: Callable[..., Any], done: Path, tmp_path: Path) -> None:
    refused(cli("reproduce", "sum_capacity", "--out", done), "holds another run already")
    (tmp_path / "run.json").write_text((done / "run.json").read_text().replace("planted_right", "planted_gone"))
    (tmp_path / "claims.jsonl").write_text("")
    refused(cli("reproduce", "--resume", "--out", tmp_path), "planted_gone", "does not exist any more")
    (tmp_path / "claims.jsonl").unlink()
    with pytest.raises(ResultsError, match=r"no claims\.jsonl"):
        load_claims(tmp_path)


def test_a_table_that_cannot_be_written(cli: Callable[..., Any], tmp_path: Path) -> None:
    args = ["planted_right", "--claims", PLANTED, "--out", tmp_path / "run", "--markdown", tmp_path / "no" / "x.md"]
    refused(cli("reproduce", *args), "cannot write", "--markdown")
    assert len(load_claims(tmp_path / "run")) == 1, "what was measured is kept"


# -- the table --------------------------------------------------------------------------------------------------


def test_rows_of_the_table(done: Path) -> None:
    raises, *_, direction, _wrong = load_claims(done)
    assert rows(raises)[0][:2] == ("planted_raises", "crashed")
    assert "not today" in rows(raises)[0][2]
    assert rows(direction)[0][1:6] == ("holds in direction only", "figure", "10 ×", "30 ×", "+20 ×")
    percentage = direction.quantities[0].model_copy(update={"unit": " %"})
    (row,) = rows(direction.model_copy(update={"quantities": [percentage]}))
    assert row[3:6] == ("10 %", "30 %", "+20 points"), "20 % more would be 12"
    unsure = direction.quantities[0].model_copy(update={"low": 11.0, "sure": False, "published": None})
    (row,) = rows(direction.model_copy(update={"quantities": [unsure], "shared_s": 12.4}))
    assert row[3:5] == ("in words", "30 × (11 to 30), not surely")
    assert row[6].endswith("s + 12 s shared")


def test_what_a_file_holds_stays_text(done: Path) -> None:
    record = load_claims(done)[4].model_copy(update={"reasons": ["a | b\n\n# <script>"]})
    page = as_markdown([record])
    assert "<script>" not in page
    assert "\n# <" not in page
    assert "a \\| b" in page


@pytest.mark.parametrize(
    ("value", "due"),
    [(0, "0"), (1.2e-15, "1e-15"), (0.0314, "0.0314"), (-0.5, "-0.5"), (73.28, "73.3"), (4460, "4,460")],
)
def test_numbers(value: float, due: str) -> None:
    assert number(value) == due
