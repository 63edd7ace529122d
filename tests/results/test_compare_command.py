"""`attnbench compare` of two runs: its table, its exit status, and its formats."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from attnbench.bench.cli import Sentences
from attnbench.bench.cli_compare import compare as command
from attnbench.results.record import Record

from .two_runs import Write, record, records


def invoke(*arguments: object) -> Result:
    group: click.Group = Sentences(commands={"compare": command})
    return CliRunner().invoke(group, ["compare", *map(str, arguments)])


@pytest.fixture
def two(write: Write) -> tuple[Path, Path]:
    changes = {("gla", 512): {"slower": 1.5}, ("topk", 512): {"status": "oom", "samples_s": None, "reasons": ["a|b"]}}
    return write("base", records(0)), write("head", records(1, changes=changes))


def test_the_table_has_what_changed_and_the_summary(two: tuple[Path, Path]) -> None:
    answer = invoke(*two)
    assert answer.exit_code == 1
    first, header, *changed, reach, summary = answer.stdout.splitlines()
    assert "all forward, causal, batch 1" in first
    assert header.split("\t")[:3] == ["change", "variant", "tokens"]
    assert [row.split("\t")[:3] for row in changed] == [["oom", "topk", "512"], ["slower", "gla", "512"]]
    assert re.fullmatch(r"95 % intervals of 11 times reach \d+\.\d% from HEAD / BASE in the median, .*", reach)
    assert "1.5" in changed[1].split("\t")[7]
    assert "2 worse, 0 better" in summary


def test_nothing_worse_is_exit_status_0_and_two_lines(write: Write) -> None:
    answer = invoke(write("base", records(0)), write("head", records(1)))
    assert answer.exit_code == 0
    assert len(answer.stdout.splitlines()) == 3


def test_all_shows_what_is_the_same_and_what_is_alone(write: Write) -> None:
    answer = invoke(write("base", records(0)), write("head", records(1)[:6], cases=6), "--all")
    assert sum(line.startswith("same\t") for line in answer.stdout.splitlines()) == 31
    assert sum(line.startswith("only in BASE\t") for line in answer.stdout.splitlines()) == 6


def test_markdown_is_a_table_whose_cells_cannot_break_it(two: tuple[Path, Path]) -> None:
    lines = [line for line in invoke(*two, "--markdown").stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert all(line.replace("\\|", "").count("|") == lines[0].count("|") for line in lines)
    assert "a\\|b" in lines[2]


def test_json_has_everything_a_machine_wants(two: tuple[Path, Path]) -> None:
    answer = invoke(*two, "--json")
    told = json.loads(answer.stdout)
    assert told["worse"] is True
    assert [finding["word"] for finding in told["findings"]] == ["oom", "slower"]
    assert told["findings"][1]["ratio"]["low"] < 1.5 < told["findings"][1]["ratio"]["high"]
    assert told["comparisons"] == 58
    assert len(json.loads(invoke(*two, "--json", "--all").stdout)["findings"]) == 58


def test_what_stands_out_of_its_group_is_told_beside(write: Write) -> None:
    two = write("base", records(0)), write("head", records(1, changes={("gla", 512): {"slower": 1.08}}))
    (found,) = json.loads(invoke(*two, "--json").stdout)["findings"]
    assert found["to_group"]["low"] < 1.08 < found["to_group"]["high"]
    assert re.search(r"1\.0\d\d \(\d\.\d+–\d\.\d+\) to its group", invoke(*two).stdout)


def test_json_has_no_infinity(write: Write) -> None:
    sides = [[r.model_copy(update={"fidelity_error": x}) for r in records(0)] for x in (1e-300, 1e99)]
    answer = invoke(write("base", sides[0]), write("head", sides[1]), "--json")
    told = json.loads(answer.stdout, parse_constant=pytest.fail)
    assert told["worse"] is True
    assert told["findings"][0]["ratio"] is None


def test_ctrl_c_is_no_regression(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("attnbench.results.compare.read", interrupted)
    answer = invoke(*two)
    assert (answer.exit_code, answer.stderr) == (130, "stopped\n")


def test_variants_of_several_parameters_are_told_apart(write: Write) -> None:
    def made(seed: int, slower: float) -> list[Record]:
        rng = np.random.default_rng(seed)
        return [
            record(
                "topk",
                512,
                params={"top_k": k, "scale": 1},
                samples_s=(x * rng.lognormal(0, 0.01, 20)).tolist(),
                rounds_per_process=[5] * 4,
            )
            for k, x in ((8, 1.0), (16, slower))
        ]

    answer = invoke(write("base", made(0, 1.0), cases=2), write("head", made(1, 1.3), cases=2))
    assert "topk(top_k=16)" in answer.stdout
    assert "top_k=8" not in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "nowhere"], "has no run.json"),
        (["--threshold", "none"], "is not a percentage"),
        (["--threshold", "0"], "is not a percentage"),
        (["--seq-lens", "512"], "is for --git"),
        (["--git", "--relative"], "take turns"),
        (["--relative"], "too few"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_exit_status_2(write: Write, arguments: list[str], words: str) -> None:
    two = [] if "nothing" in arguments else [write("a", records(0)[:2], cases=2), write("b", records(1)[:2], cases=2)]
    answer = invoke(*two, *arguments)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_two_runs_that_are_broken_alike_are_no_regression(two: tuple[Path, Path]) -> None:
    for run in two:
        path = run / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"inputs": {"captured": 3}}))
    answer = invoke(*two)
    assert answer.exit_code == 2
    assert "is broken: inputs.captured" in answer.stderr
