"""The runs that come with the package: whole, correct, and with no folder of the machine that made them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from attnbench.bench.cli import main
from attnbench.results.reference import reference_runs
from attnbench.results.store import RunFolder

PUBLISHED = reference_runs()


def test_there_is_one() -> None:
    assert PUBLISHED


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_every_case_has_one_record_and_none_failed(path: Path) -> None:
    folder = RunFolder(path)
    run, records = folder.run(), list(folder.records())
    assert run.finished_at is not None
    assert len({record.case_id for record in records}) == len(records) == run.cases
    statuses = Counter(record.status for record in records)
    assert set(statuses) <= {"ok", "unsupported"}, statuses
    assert statuses["ok"] > statuses["unsupported"]
    assert {record.machine for record in records} == {run.machine.fingerprint}


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_it_names_no_folder_of_the_machine_that_made_it(path: Path) -> None:
    for file in path.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|usr|var|mnt|Users)/[\w./-]*", text), file.name
    assert json.loads((path / "run.json").read_text(encoding="utf-8"))["notes"] == []


def test_it_answers_where_no_run_is_named() -> None:
    done = CliRunner().invoke(main, ["recommend", "--seq-len", "4096"])
    assert done.exit_code == 0, done.output
    assert "no run was named" in done.output
    assert RunFolder(PUBLISHED[0]).run().machine.cpu in done.output
