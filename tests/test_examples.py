"""The example package, installed as a user would install it: found by its entry point, checked, listed and measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "attnbench-efficient"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the example installed: nothing is fetched, nothing else changes."""
    tmp = tmp_path_factory.mktemp("example")
    source = shutil.copytree(EXAMPLE, tmp / "source")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, "--target", str(tmp / "site"), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(tmp / "site")}


def attnbench(env: dict[str, str], cwd: Path, *words: str) -> str:
    command = [sys.executable, "-P", "-m", "attnbench.bench.cli", *words]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_an_installed_package_is_found_by_its_entry_point(installed: dict[str, str], tmp_path: Path) -> None:
    listed = json.loads(attnbench(installed, tmp_path, "list", "--json"))
    assert "efficient" in {card["name"] for card in listed["variants"]}
    assert listed["failures"] == {}


@pytest.mark.slow
def test_the_example_passes_the_battery_and_is_measured(installed: dict[str, str], tmp_path: Path) -> None:
    verdicts = json.loads(attnbench(installed, tmp_path, "check", "efficient", "--json"))
    assert {verdict["status"] for verdict in verdicts} == {"holds"}
    words = ["--variants", "sdpa,efficient", "--no-causal", "--seq-lens", "64,100", "--case-time", "0.05s"]
    attnbench(installed, tmp_path, "run", *words, "--out", "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert {(r["variant"], r["n_k"], r["status"]) for r in records} == {
        (variant, n, "ok") for variant in ("efficient", "sdpa") for n in (64, 100)
    }
