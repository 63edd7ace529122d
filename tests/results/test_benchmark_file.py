"""A file of pytest-benchmark's stands in for a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import attnbench
from attnbench.results.benchmark_file import opened
from attnbench.results.compare import compare, read
from attnbench.results.errors import ResultsError, ResultsWarning

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make bench` saves of two quick cases."""
    path = tmp_path_factory.mktemp("bench") / "saved.json"
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests/benchmarks", "-q", "-p", "no:cacheprovider"),
            *("--benchmark-min-rounds=8", "--benchmark-max-time=0.05"),
            *("-k", "naive-forward-512", f"--benchmark-json={path}"),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if "XDIST" not in name},  # with it, nothing is timed
        check=True,
        capture_output=True,
    )
    return path


def test_it_is_loaded_with_samples_and_the_machine(saved: Path) -> None:
    (row,) = attnbench.load(saved).to_dict("records")
    assert (row["variant"], row["mode"], row["n_k"], row["status"]) == ("naive", "forward", 512, "ok")
    assert len(row["samples_s"]) >= 6
    assert row["time_s_low"] <= row["time_s"] <= row["time_s_high"]
    assert row["flops_needed"] > 0
    run = opened(saved).run()
    assert run.machine.fingerprint == row["machine"]
    assert run.config == {"allocator": "keep"}
    assert run.attnbench_version == attnbench.__version__


def test_two_are_compared(saved: Path, tmp_path: Path) -> None:
    slower = json.loads(saved.read_text())
    for benchmark in slower["benchmarks"]:
        benchmark["stats"]["data"] = [1000 * seconds for seconds in benchmark["stats"]["data"]]
        benchmark["stats"]["median"] *= 1000
    (tmp_path / "slower.json").write_text(json.dumps(slower))
    found = compare(read(saved), read(tmp_path / "slower.json"))
    assert found.worse
    assert not compare(read(saved), read(saved)).worse


def test_without_samples_its_quartiles_are_named_as_such(saved: Path, tmp_path: Path) -> None:
    document = json.loads(saved.read_text())
    for benchmark in document["benchmarks"]:
        del benchmark["stats"]["data"]
    (tmp_path / "bare.json").write_text(json.dumps(document))
    (record,) = opened(tmp_path / "bare.json").records()
    assert record.samples_s is None
    assert "quartiles" in record.reasons[0]


def test_a_foreign_benchmark_is_warned_of_and_skipped(saved: Path, tmp_path: Path) -> None:
    document = json.loads(saved.read_text())
    document["benchmarks"].append({"fullname": "tests/other.py::test_sort", "extra_info": {}, "stats": {}})
    (tmp_path / "mixed.json").write_text(json.dumps(document))
    with pytest.warns(ResultsWarning, match="test_sort"):
        assert len(list(opened(tmp_path / "mixed.json").records())) == 1


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("stats", {"median": 0}, "stats.median"),
        ("stats", {"median": 0.0, "data": []}, "stats.median"),
        ("stats", {"median": float("nan")}, "stats.median"),
        ("stats", {"data": [10**400]}, "stats.data.0"),
        ("stats", {"data": [1.0, float("inf")]}, "stats.data.1"),
        ("stats", {"data": [-1.0]}, "stats.data.0"),
        ("stats", {"data": ["1.0"]}, "stats.data.0"),
        ("stats", {"data": None}, "stats.data"),
        ("stats", {"iterations": 0}, "stats.iterations"),
        ("ours", {"batch": 10**400}, "batch"),
        ("ours", {"batch": 0}, "batch"),
        ("ours", {"n_q": None}, "n_q"),
        ("ours", {"params": {"scale": [float("nan")]}}, "params"),
    ],
)
def test_figures_that_nothing_can_measure_cost_their_own_benchmark_only(
    saved: Path, tmp_path: Path, part: str, change: dict[str, object], words: str
) -> None:
    document = json.loads(saved.read_text())
    strange = json.loads(json.dumps(document["benchmarks"][0]))
    (strange["stats"] if part == "stats" else strange["extra_info"]["attnbench"]).update(change)
    document["benchmarks"].append(strange)
    (tmp_path / "strange.json").write_text(json.dumps(document))
    with pytest.warns(ResultsWarning, match=rf"test_variant.* skipped: (extra_info\.attnbench\.)?{words}") as caught:
        assert len(list(opened(tmp_path / "strange.json").records())) == 1
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no JSON", "is not JSON"),
        ("[" * 200_000, r"is not JSON \(recursion limit"),
        ("1" * 5000, "is not JSON"),
        ("[]", "was not written by pytest-benchmark"),
        ('{"machine_info": {}, "benchmarks": [], "datetime": "now"}', "not of attnbench's own benchmarks"),
        ('{"machine_info": {}, "benchmarks": {}, "datetime": "now"}', "was not written by pytest-benchmark"),
        (
            '{"machine_info": {"attnbench": {}}, "benchmarks": [], "datetime": "now"}',
            "broken: .*run `make bench` again",
        ),
    ],
)
def test_a_file_that_is_none_gives_a_sentence(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ResultsError, match=words) as caught:
        attnbench.load(path)
    assert "\n" not in str(caught.value)
