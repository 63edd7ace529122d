"""Records on disk: written whole, read back whole, and nothing lost to a crash but the line it tore."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from attnbench.results.dropin_record import append_dropins
from attnbench.results.errors import ResultsError, ResultsWarning
from attnbench.results.frame import load, plain_columns
from attnbench.results.record import Record
from attnbench.results.run import Machine, Run
from attnbench.results.store import RunFolder

from .identified import identified


def make_run(**changes: object) -> Run:
    machine = Machine(
        fingerprint="f", cpu="c", cores=2, memory_bytes=1, system="s", python="3.11", libraries={"torch": "2.13.0"}
    )
    return Run(
        **{
            "attnbench_version": "0.1.0",
            "command": "attnbench run",
            "config": {},
            "started_at": "2026-01-01T00:00:00+00:00",
            "cases": 2,
            "machine": machine,
            **changes,
        }
    )


def make_record(**changes: Any) -> Record:
    return Record(**identified("naive", 64, **changes))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", make_run())


def test_records_come_back_as_they_went(folder: RunFolder) -> None:
    records = [
        make_record(time_s=1.5, samples_s=[1.0, 2.0]),
        make_record(variant="sdpa", status="oom", reasons=["é\n"]),
    ]
    folder.append(records[:1])
    folder.append(records[1:])
    assert list(folder.records()) == records
    assert folder.run() == make_run()


def test_a_torn_line_is_reported_and_skipped(folder: RunFolder) -> None:
    folder.append([make_record(), make_record(variant="sdpa")])
    path = folder.path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(ResultsWarning, match="line 2 skipped"):
        assert [record.variant for record in folder.records()] == ["naive"]


def test_reopening_ends_a_torn_line_so_that_the_next_record_stands_alone(folder: RunFolder) -> None:
    folder.append([make_record()])
    folder.close()
    path = folder.path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    again, _ = RunFolder.reopen(folder.path)
    again.append([make_record(variant="sdpa")])
    with pytest.warns(ResultsWarning, match="line 1 skipped"):
        assert [record.variant for record in again.records()] == ["sdpa"]


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe\n", b"[]\n", b"null\n", b'{"case_id": 3}\n', b'{"__class__": "os.system"}\n', b"NaN\n"],
)
def test_foreign_lines_are_skipped_with_a_warning(folder: RunFolder, line: bytes) -> None:
    folder.append([make_record()])
    with (folder.path / "results.jsonl").open("ab") as file:
        file.write(line)
    with pytest.warns(ResultsWarning, match="line 2"):
        assert len(list(folder.records())) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"time_s": -1.0, "samples_s": [1.0]},
        {"time_s": 1.0, "samples_s": [1.0, 0.0]},
        {"time_s": 5e-324},
        {"time_s": 1e308},
        {"ratio": 0.0},
        {"peak_bytes": -5},
        {"peak_bytes": 10**400},
        {"n_k": 10**30},
        {"recall_64": 7.0},
        {"fidelity_error": 1e308},
    ],
    ids=str,
)
def test_numbers_that_nothing_can_measure_are_a_foreign_line(folder: RunFolder, change: dict[str, object]) -> None:
    """A report divides by times and takes logarithms of bytes: such a line must not come so far."""
    folder.append([make_record()])
    strange = json.loads(make_record(n_k=128, n_q=128).model_dump_json()) | change
    with (folder.path / "results.jsonl").open("a") as file:
        file.write(json.dumps(strange) + "\n")
    with pytest.warns(ResultsWarning, match=f"line 2 skipped: {next(iter(change))}|line 2 skipped: samples_s"):
        assert list(folder.records()) == [make_record()]


def test_a_run_of_a_number_of_cases_that_no_run_has_is_broken(folder: RunFolder) -> None:
    path = folder.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cases": 10**400}))
    with pytest.raises(ResultsError, match="is broken: cases"):
        folder.run()


@pytest.mark.parametrize("origin", [{"a": 3}, {"a": [1, 2]}, {"a": None}, []], ids=str)
def test_a_run_whose_inputs_do_not_say_where_they_came_from_is_broken(folder: RunFolder, origin: object) -> None:
    path = folder.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"inputs": origin}))
    with pytest.raises(ResultsError, match=r"run\.json is broken: inputs.*restore it or leave this run out"):
        folder.run()


def test_a_line_separator_inside_a_string_does_not_tear_a_record(folder: RunFolder) -> None:
    record = make_record(reasons=["a\u2028b\x85c\x0bd"])
    folder.append([record])
    assert list(folder.records()) == [record]


def test_schema_is_strict_but_keeps_what_a_newer_one_added(folder: RunFolder) -> None:
    with pytest.raises(ValidationError):
        make_record(status="fine")
    with pytest.raises(ValidationError):
        make_record(time_s=float("nan"))
    with pytest.raises(ValidationError):
        make_record(batch="1")
    folder.append([make_record(joules=3.5)])
    assert json.loads((folder.path / "results.jsonl").read_text())["joules"] == 3.5
    assert load(folder.path)["joules"].tolist() == [3.5]


@pytest.mark.parametrize(
    ("of_run", "of_records"), [(2, 2), (2, 1), (1, 2)], ids=["both", "run.json alone", "records alone"]
)
def test_a_folder_of_a_newer_schema_is_read_and_warned_of_once(tmp_path: Path, of_run: int, of_records: int) -> None:
    folder = RunFolder.create(tmp_path / "new", make_run(schema_version=of_run))
    folder.append([make_record(), *(make_record(n_q=n, n_k=n, schema_version=of_records) for n in (128, 256))])
    with pytest.warns(ResultsWarning, match=r"written by a newer attnbench \(schema 2; this one knows 1\)") as caught:
        assert len(load(folder.path)) == 3
    assert len(caught) == 1


def test_identity_decides_the_case_and_the_group() -> None:
    one, other = make_record(), make_record(params={"window_size": 3})
    assert one.case_id != other.case_id
    assert one.group_id == other.group_id
    assert make_record(seed=1).group_id != one.group_id
    assert make_record(time_s=3.0).case_id == one.case_id


def test_two_runs_cannot_share_a_folder(folder: RunFolder) -> None:
    for take in (RunFolder.reopen, lambda path: RunFolder.create(path, make_run())):
        with pytest.raises(ResultsError, match="another run"):
            take(folder.path)
    folder.close()
    with pytest.raises(ResultsError, match="holds another run"):
        RunFolder.create(folder.path, make_run())
    RunFolder.reopen(folder.path)[0].close()


def test_a_folder_claimed_by_a_run_that_died_at_once_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").touch()
    RunFolder.create(tmp_path, make_run()).close()
    assert RunFolder(tmp_path).run() == make_run()


def test_missing_and_broken_runs_are_named(tmp_path: Path, folder: RunFolder) -> None:
    with pytest.raises(ResultsError, match=r"has no run\.json"):
        load(tmp_path)
    (folder.path / "run.json").write_text("{")
    with pytest.raises(ResultsError, match="is broken"):
        load(folder.path)
    with pytest.raises(ResultsError, match="at least one"):
        load()


@contextlib.contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """A real limit of the system: a write beyond it fails halfway, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_halfway_leaves_what_was_there_and_says_how_to_go_on(folder: RunFolder) -> None:
    folder.append([make_record()])
    path = folder.path / "results.jsonl"
    before = path.read_bytes()
    more = [make_record(variant="sdpa"), make_record(variant="linear_elu")]
    with (
        no_file_longer_than(len(before) * 2 + 100),  # the first of the two would fit
        pytest.raises(ResultsError, match=r"File too large; the records before are kept.*--resume --out"),
    ):
        folder.append(more)
    assert path.read_bytes() == before
    folder.append(more)
    assert [record.variant for record in folder.records()] == ["naive", "sdpa", "linear_elu"]


def test_a_folder_that_is_removed_while_it_is_written_to_is_said_to_be_gone(folder: RunFolder) -> None:
    folder.append([make_record()])
    shutil.rmtree(folder.path)
    for write in (
        lambda: folder.append([make_record()]),
        lambda: folder.write_run(make_run()),
        lambda: append_dropins(folder.path, []),
    ):
        with pytest.raises(ResultsError, match=r"No such file or directory; .* gone.*begin anew") as caught:
            write()
        assert "kept" not in str(caught.value)


def test_run_json_that_cannot_be_replaced_stays_as_it_was(folder: RunFolder) -> None:
    before = (folder.path / "run.json").read_bytes()
    with no_file_longer_than(10), pytest.raises(ResultsError, match=r"run\.json: File too large.*--resume"):
        folder.write_run(make_run(notes=["new"]))
    assert (folder.path / "run.json").read_bytes() == before
    assert sorted(path.name for path in folder.path.iterdir()) == ["results.jsonl", "run.json"]
    folder.write_run(make_run(notes=["new"]))
    assert folder.run().notes == ["new"]


def test_a_run_that_cannot_begin_lets_go_of_its_folder(tmp_path: Path) -> None:
    with no_file_longer_than(10), pytest.raises(ResultsError, match="make room or choose another --out"):
        RunFolder.create(tmp_path / "run", make_run())
    RunFolder.create(tmp_path / "run", make_run()).close()


def test_a_block_of_nulls_after_a_power_failure_costs_one_line(folder: RunFolder) -> None:
    folder.append([make_record()])
    folder.close()
    with (folder.path / "results.jsonl").open("ab") as file:
        file.write(b"\0" * 4096)
    again, _ = RunFolder.reopen(folder.path)
    again.append([make_record(variant="sdpa")])
    with pytest.warns(ResultsWarning, match="line 2 skipped"):
        assert [record.variant for record in again.records()] == ["naive", "sdpa"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="is a file"):
        RunFolder.create(tmp_path / "file", make_run())


def test_the_frame_has_a_row_a_record_and_plain_columns_for_export(folder: RunFolder) -> None:
    folder.append([make_record(samples_s=[1.0]), make_record(variant="sdpa", params={"backend": "math"})])
    frame = load(folder.path, folder.path)
    assert frame["variant"].tolist() == ["naive", "sdpa", "naive", "sdpa"]
    assert frame["run"].nunique() == 1
    plain = plain_columns(frame)
    assert json.loads(plain["params"][1]) == {"backend": "math"}
    assert frame["params"][1] == {"backend": "math"}


def test_an_empty_run_is_an_empty_frame(folder: RunFolder) -> None:
    frame = load(folder.path)
    assert len(frame) == 0
    assert "variant" in frame.columns
