"""`attnbench new` writes what `attnbench check` accepts; `check` names what is wrong and where."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attnbench.variants.registry import FOLDERS

from .conftest import Answer


def attnbench(cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a plugin stays registered, and is none of the other tests' business."""
    command = [sys.executable, "-P", "-m", "attnbench.bench.cli", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("family", FOLDERS)
def test_a_new_variant_passes_every_check_as_it_is(family: str, tmp_path: Path) -> None:
    made = attnbench(tmp_path, "new", f"mine_{family}", "--family", family)
    assert made.returncode == 0, made.stderr
    path = tmp_path / f"mine_{family}.py"
    assert "TODO" in path.read_text()
    assert "$" not in path.read_text()
    checked = attnbench(tmp_path, "check", path.name, "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    verdicts = json.loads(checked.stdout)
    assert len(verdicts) > 15
    assert {verdict["status"] for verdict in verdicts} == {"holds"}


@pytest.mark.slow
def test_a_new_variant_is_shown_run_and_reported_by_the_commands_it_is_told(tmp_path: Path) -> None:
    made = attnbench(tmp_path, "new", "mine", "--family", "sparse")
    for line in made.stdout.splitlines()[1:]:
        words = line.strip().removeprefix("attnbench ").replace("1024,4096", "64,100").split()
        done = attnbench(tmp_path, *words)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    (page,) = tmp_path.glob("runs/*/report/report.html")
    assert "mine" in page.read_text()


def test_a_failure_comes_with_what_was_asked_how_far_off_and_the_smallest_case(tmp_path: Path) -> None:
    attnbench(tmp_path, "new", "mine", "--family", "sparse")
    path = tmp_path / "mine.py"
    wrong = path.read_text().replace("scale=scale, rows=rows) @ v", "scale=0.9 * scale, rows=rows) @ v")
    path.write_text(wrong)
    done = attnbench(tmp_path, "check", "mine.py", "--only", "forward in float64", "--json")
    assert done.returncode == 1
    (verdict,) = json.loads(done.stdout)
    assert verdict["status"] == "FAILS"
    assert "error" in verdict["problem"]
    assert "allowed" in verdict["problem"]
    assert "N=2," in verdict["case"], "one key alone has the weight 1 at any scale; with two, the scale shows"
    assert "B=1, H=1" in verdict["case"]


def test_whatever_a_variant_raises_is_a_failed_check_and_no_traceback(tmp_path: Path) -> None:
    attnbench(tmp_path, "new", "mine", "--family", "chunked")
    path = tmp_path / "mine.py"
    path.write_text(
        path.read_text().replace("        parts = []\n", "        parts = []\n        print(1 / (n - 1))\n")
    )
    done = attnbench(tmp_path, "check", "mine.py", "--only", "forward in float32")
    assert done.returncode == 1
    assert "raises ZeroDivisionError" in done.stdout
    assert "mine.py, line" in done.stdout
    assert "N=1" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_check_takes_names_with_parameters_and_a_part_of_the_battery(cli: Callable[..., Answer]) -> None:
    answer = cli("check", "sliding_window(window_size=5)", "--only", "identity", "--json")
    assert answer.code == 0
    (verdict,) = json.loads(answer.out)
    assert verdict["measured"] < 1e-12
    assert verdict["cases"] == 2


def test_check_says_which_sizes_it_could_not_make_small(tmp_path: Path) -> None:
    attnbench(tmp_path, "new", "mine", "--family", "sparse")
    path = tmp_path / "mine.py"
    path.write_text(path.read_text().replace("window_size", "reach"))
    assert "reach = 64" in attnbench(tmp_path, "check", "mine.py", "--only", "batch").stderr
    assert "reach" not in attnbench(tmp_path, "check", "mine(reach=5)", "--plugin", path, "--only", "batch").stderr


def test_scaling_counts_what_is_declared(cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    from attnbench.bench.contract import scaling

    monkeypatch.setattr(scaling.scaling, "__defaults__", ((512, 1024, 2048, 4096, 8192),))
    (found,) = json.loads(cli("check", "sliding_window", "--scaling", "--json").out)
    assert abs(scaling.exponent_beside_a_constant(found["flops"]) - 1) < 0.15
    assert abs(scaling.exponent_beside_a_constant(found["peak_bytes"]) - 1) < 0.15


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["check", "sdpaa"], "unknown variant 'sdpaa'; did you mean 'sdpa'?"),
        (["check", "missing.py"], "missing.py does not exist"),
        (["check", "sdpa", "--only", "nonsense"], "no check of sdpa has 'nonsense' in its name"),
        (["check", "sliding_window(window_size=0)"], "window_size must be a whole number of at least 1"),
        (["new", "Mine", "--family", "sparse"], "write it in lower_snake_case"),
        (["new", "class", "--family", "sparse"], "write it in lower_snake_case"),
        (["new", "mine", "--family", "sparce"], "unknown family 'sparce'; did you mean 'sparse'?"),
        (["new", "sdpa", "--family", "full"], "there is a variant 'sdpa' already"),
        (["new", "mine", "--family", "full", "--out", "/nowhere/mine.py"], "cannot write /nowhere/mine.py"),
        (["new", "mine", "--family", "full", "--out", "mine.txt"], "must end in .py"),
        (["new", "mine", "--family", "full", "--out", "mine.py", "--in-tree"], "leave out --out"),
    ],
)
def test_a_wrong_request_is_one_sentence(cli: Callable[..., Answer], words: list[str], sentence: str) -> None:
    answer = cli(*words)
    assert answer.code == 2
    assert sentence in answer.err.replace("\n", " ")
    assert "Traceback" not in answer.err


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious")
    done = attnbench(tmp_path, "new", "mine", "--family", "full")
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert (tmp_path / "mine.py").read_text() == "precious"
