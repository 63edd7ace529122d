"""Every wrong request gets one sentence that names the mistake, exit status 2 and no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import FAST


def refused(answer: Any, *words: str) -> None:
    assert answer.code == 2, (answer.code, answer.out, answer.err, answer.error)
    assert isinstance(answer.error, SystemExit)
    assert "Traceback" not in answer.err
    last = answer.err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    for word in words:
        assert word in last, f"{word!r} is not in {last!r}"


REQUESTS = [
    (["--variants", "sliding_windw"], ["unknown variant 'sliding_windw'", "did you mean 'sliding_window'"]),
    (["--variants", "sliding_window(window=3)"], ["no parameter 'window'", "did you mean 'window_size'"]),
    (["--variants", "sliding_window(window_size='a')"], ["window_size must be of type int"]),
    (["--variants", "sliding_window(window_size=0)"], ["window_size", "at least 1"]),
    (["--variants", "sliding_window(window_size=os.getpid())"], ["plain value"]),
    (["--variants", "sliding_window("], ["write it as name"]),
    (["--dtypes", "float23"], ["unknown dtype 'float23'", "did you mean 'float32'"]),
    (["--modes", "forwards"], ["unknown mode 'forwards'", "did you mean 'forward'"]),
    (["--devices", "tpu"], ["unknown device 'tpu'"]),
    (["--inputs", "gausian"], ["unknown inputs 'gausian'", "did you mean 'gaussian'"]),
    (["--inputs", "captured:/nowhere.safetensors"], ["/nowhere.safetensors"]),
    (["--preset", "quik"], ["unknown preset 'quik'", "did you mean 'quick'"]),
    (["--seq-lens", "0"], ["seq_lens", "greater than or equal to 1"]),
    (["--seq-lens", "-5"], ["seq_lens", "greater than or equal to 1"]),
    (["--seq-lens", "1k"], ["--seq-lens", "not a whole number"]),
    (["--batch", "0"], ["batch", "greater than or equal to 1"]),
    (["--heads", "-1"], ["heads", "greater than or equal to 1"]),
    (["--head-dim", "0"], ["head_dim", "greater than or equal to 1"]),
    (["--threads", "0"], ["threads", "greater than or equal to 1"]),
    (["--heads", "4", "--kv-heads", "3"], ["3 does not divide 4"]),
    (["--heads", "2,4"], ["--heads", "takes one number"]),
    (["--seed", "-1"], ["seed"]),
    (["--time-budget", "soon"], ["'soon' is not a time", "90s"]),
    (["--case-time", "0s"], ["case_time"]),
    (["--plugin", "nowhere.py"], ["nowhere.py", "does not exist"]),
    (["--resume"], ["--resume takes the configuration of the run itself"]),
    (["missing.toml"], ["no configuration file missing.toml"]),
    (["missing.toml", "--preset", "quick"], ["not both"]),
]


@pytest.mark.parametrize(("args", "words"), REQUESTS, ids=[" ".join(args) for args, _ in REQUESTS])
def test_wrong_requests(cli: Callable[..., Any], tmp_path: Path, args: list[str], words: list[str]) -> None:
    out = tmp_path / "run"
    small = ["--seq-lens", "16"] if "--seq-lens" not in args and "missing.toml" not in args else []
    refused(cli("run", *small, *args, "--out", out), *words)
    assert not out.exists()


FILES = [
    ("seq_lens = [16", ["is not TOML"]),
    ("seq_len = [16]", ["unknown key 'seq_len'", "did you mean 'seq_lens'"]),
    ("[[sweep]]\nprecision = 0.1", ["[[sweep]]", "unknown key 'precision'"]),
    ("sweep = 3", ["[[sweep]]"]),
    ("seq_lens = ['16']", ["seq_lens", "valid integer"]),
    ("causal = ['yes']", ["causal", "valid boolean"]),
    ("precision = 2.0", ["precision", "less than 1"]),
    ("max_rounds = 3", ["max_rounds", "3 < 8"]),
    ("min_rounds = 1", ["min_rounds", "greater than or equal to 5"]),
    ("timeout = inf", ["timeout"]),
    ("timeout = 1e9", ["timeout", "less than or equal"]),
    ("seed = 1000000000000000000000000000000", ["seed"]),
    ("threads = [1099511627776]", ["threads", "4096"]),
    ("devices = ['cpu:5']", ["unknown device 'cpu:5'"]),
    ('plugins = ["a\\u0000b.py"]', ["does not exist"]),
    ("seq_lens = []", ["seq_lens", "at least 1"]),
    ("heads = 4\nkv_heads = 3", ["3 does not divide 4"]),
]


@pytest.mark.parametrize(("text", "words"), FILES, ids=[text.splitlines()[0] for text, _ in FILES])
def test_wrong_files(cli: Callable[..., Any], tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "c.toml").write_text(text)
    refused(cli("run", tmp_path / "c.toml", "--out", tmp_path / "run"), *words)


def test_a_file_that_is_no_text(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe\x00")
    refused(cli("run", tmp_path / "c.toml"), "cannot read")
    refused(cli("run", tmp_path), "cannot read")


def test_a_plugin_that_raises_at_import(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("raise RuntimeError('not today')")
    for command in (["run", "--seq-lens", "16", "--out", tmp_path / "run"], ["list"], ["show", "naive"]):
        refused(cli(*command, "--plugin", tmp_path / "p.py"), "p.py raised RuntimeError at import: not today")
    (tmp_path / "q.py").write_text("import sys; sys.exit(3)")
    refused(cli("list", "--plugin", tmp_path / "q.py"), "q.py raised SystemExit")
    (tmp_path / "r.py").write_text("x = 1")
    refused(cli("list", "--plugin", tmp_path / "r.py"), "registers no variant")


def test_a_plugin_with_parameters_that_are_no_data(cli: Callable[..., Any], tmp_path: Path) -> None:
    source = (Path(__file__).parent / "planted.py").read_text().split("# faults that")[0]
    (tmp_path / "p.py").write_text(
        source.replace(
            "class MissingScale(SoftmaxAttention):", "class MissingScale(SoftmaxAttention):\n    t: tuple = (1, 2)\n"
        )
    )
    refused(cli("list", "--plugin", tmp_path / "p.py"), "t must be a whole or finite number", "(1, 2)")
    args = ["run", "--variants", "nystrom(num_landmarks=1e999)", "--seq-lens", "16", "--out", tmp_path / "run"]
    refused(cli(*args), "num_landmarks", "inf")


def test_plugins_whose_names_differ_in_punctuation_only(cli: Callable[..., Any], tmp_path: Path) -> None:
    source = (Path(__file__).parent / "planted.py").read_text().split("# faults that")[0]
    (tmp_path / "p-a.py").write_text(source.replace('@planted("', '@planted("one_') + '\nprint("hello at import")\n')
    (tmp_path / "p_a.py").write_text(source.replace('@planted("', '@planted("two_'))
    answer = cli("list", "--json", "--plugin", tmp_path / "p-a.py", "--plugin", tmp_path / "p_a.py")
    names = {card["name"] for card in json.loads(answer.out)["variants"]}  # what a plugin prints is not in it
    assert {"one_missing_scale", "two_missing_scale"} <= names


def test_a_name_that_is_too_long(cli: Callable[..., Any], tmp_path: Path) -> None:
    refused(
        cli("run", *FAST, "--variants", "naive", "--seq-lens", "16", "--out", tmp_path / ("x" * 300)), "cannot write"
    )


def test_a_run_whose_configuration_was_changed(cli: Callable[..., Any], tmp_path: Path) -> None:
    assert cli("run", *FAST, "--variants", "naive", "--seq-lens", "16", "--out", tmp_path / "run").code == 0
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": {"nonsense": 1}}))
    refused(cli("run", "--resume", "--out", tmp_path / "run"), "run.json", "nonsense")


def test_show_of_what_does_not_exist(cli: Callable[..., Any]) -> None:
    refused(cli("show", "nystrm"), "unknown variant 'nystrm'", "did you mean 'nystrom'")


def test_a_folder_that_holds_another_run_is_kept_as_it_is(cli: Callable[..., Any], tmp_path: Path) -> None:
    args = ["run", *FAST, "--variants", "naive", "--seq-lens", "16", "--out", tmp_path / "run"]
    assert cli(*args).code == 0
    before = (tmp_path / "run" / "results.jsonl").read_bytes()
    refused(cli(*args), "holds another run", "--out")
    assert (tmp_path / "run" / "results.jsonl").read_bytes() == before


def test_a_folder_that_cannot_be_written(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(
        cli("run", *FAST, "--variants", "naive", "--seq-lens", "16", "--out", tmp_path / "file" / "run"), "cannot write"
    )
    refused(cli("run", *FAST, "--variants", "naive", "--seq-lens", "16", "--out", tmp_path / "file"), "is a file")
    # a pseudo file system refuses even root
    refused(cli("run", *FAST, "--variants", "naive", "--seq-lens", "16", "--out", "/proc/nowhere/run"), "cannot write")


@pytest.mark.parametrize("command", ["report", "run"])
def test_what_is_no_run(cli: Callable[..., Any], tmp_path: Path, command: str) -> None:
    args = ["report"] if command == "report" else ["run", "--resume", "--out"]
    refused(cli(*args, tmp_path / "nowhere"), "nowhere is not a run", "attnbench run")
    (tmp_path / "run.json").write_text("{")
    refused(cli(*args, tmp_path), "run.json is broken")


@pytest.mark.parametrize("args", [("report",), ("recommend", "--seq-len", "64")])
def test_a_name_that_no_file_can_have(cli: Callable[..., Any], args: tuple[str, ...]) -> None:
    refused(cli(*args, "a" * 5000), "aaaa… is too long for the name of a file")


def test_a_result_file_that_cannot_be_read(cli: Callable[..., Any], tmp_path: Path) -> None:
    assert cli("run", *FAST, "--variants", "naive", "--seq-lens", "16", "--out", tmp_path / "run").code == 0
    (tmp_path / "run" / "results.jsonl").unlink()
    (tmp_path / "run" / "results.jsonl").mkdir()
    refused(cli("report", tmp_path / "run"), "cannot read", "results.jsonl")


def test_a_half_written_result_file_is_reported_and_the_rest_is_read(cli: Callable[..., Any], tmp_path: Path) -> None:
    assert cli("run", *FAST, "--variants", "naive", "--seq-lens", "16,32", "--out", tmp_path / "run").code == 0
    path = tmp_path / "run" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    answer = cli("report", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert "line 2 skipped" in answer.err


def test_export_to_a_place_that_cannot_be_written(cli: Callable[..., Any], tmp_path: Path) -> None:
    assert cli("run", *FAST, "--variants", "naive", "--seq-lens", "16", "--out", tmp_path / "run").code == 0
    refused(cli("report", tmp_path / "run", "--csv", "/proc/nowhere/x.csv"), "/proc/nowhere/x.csv")
    assert cli("report", tmp_path / "run", "--csv", tmp_path / "x.csv", "--parquet", tmp_path / "x.parquet").code == 0
    import pandas as pd

    assert len(pd.read_csv(tmp_path / "x.csv")) == len(pd.read_parquet(tmp_path / "x.parquet")) == 1


def test_a_model_that_does_not_exist(cli: Callable[..., Any], tmp_path: Path) -> None:
    refused(cli("capture", "--model", tmp_path / "nowhere", "--out", tmp_path / "c.safetensors"), "nowhere")
    assert not (tmp_path / "c.safetensors").exists()
