"""`attnbench tasks`: runs end in a record for each training, wrong requests in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attnbench.bench.cli import main
from attnbench.bench.errors import ConfigError
from attnbench.bench.tasks import build, from_dict
from attnbench.bench.tasks.config import PRESETS, restored, stored
from attnbench.reports.training import trained
from attnbench.results.store import RunFolder
from attnbench.results.tasks import load_tasks, summarise

TINY = ["--tasks", "mqar(kv_pairs=2,seq_len=16,vocab=16)", "--d-model", "16", "--batch", "4", "--steps", "3"]
ORDERED = ["--jobs", "1", "--seeds", "0", "--lrs", "1e-3"]

Cli = Callable[..., Any]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    def run(*args: object) -> Any:
        return CliRunner().invoke(main, ["tasks", *map(str, args)])

    return run


def test_every_training_has_its_record(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    answer = cli(
        "run", *TINY, "--variants", "sdpa,delta,linformer,flex,gla_fla", "--seeds", "0,1", "--lrs", "1e-3",
        "--out", out, "--json",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["statuses"] == {"ok": 4, "unsupported": 6}
    records = load_tasks(out)
    assert len({record.task_id for record in records}) == len(records) == 10
    for record in records:
        if record.status == "ok":
            assert record.steps == 3
            assert record.curve[0].step == 0
            assert record.curve[-1].step == 3
            assert record.value is not None
            assert record.chance == 0.5
            assert sum(span.answers for span in record.reach) == 2 * 512
        else:
            assert record.reasons
            assert record.value is None
    by_name = {record.variant: record for record in records}
    assert by_name["linformer"].reasons == ["has no causal form"]
    assert "backward" in by_name["flex"].reasons[0]
    assert "cuda" in by_name["gla_fla"].reasons[0]
    assert by_name["delta"].state_bytes == 2 * 2 * 8 * 8 * 4
    again = cli("run", "--resume", "--out", out, "--json")
    assert json.loads(again.stdout)["records"] == 10
    assert len((out / "tasks.jsonl").read_text().splitlines()) == 10
    drawn = CliRunner().invoke(main, ["plot", "tasks", str(out)])
    assert drawn.exit_code == 0, drawn.output
    assert (out / "figures" / "task-mqar.svg").stat().st_size > 1000
    refused = CliRunner().invoke(main, ["plot", "tasks", str(out), "--out", str(tmp_path / "tasks.png")])
    assert refused.exit_code == 2
    assert "tasks.png names a file" in refused.output
    assert not (tmp_path / "tasks.png").exists()


def test_a_longer_length_of_the_held_out_data_is_said(cli: Cli, tmp_path: Path) -> None:
    longer = "mqar(kv_pairs=2,seq_len=16,eval_seq_len=24,vocab=16)"
    answer = cli("run", *TINY, "--tasks", longer, *ORDERED, "--variants", "sdpa", "--out", tmp_path / "run")
    assert "by guessing; length 16, tested at 24, d_model 16;" in answer.output
    assert CliRunner().invoke(main, ["plot", "tasks", str(tmp_path / "run")]).exit_code == 0
    drawn = (tmp_path / "run" / "figures" / "task-mqar.svg").read_text()
    assert "Length 16, validated and tested at 24, d_model 16" in drawn
    (setting,) = trained(load_tasks(tmp_path / "run"), [])
    assert setting.title == "mqar, 16 tokens, tested at 24"


def test_sizes_shrink_with_the_length_unless_they_are_named(cli: Cli, tmp_path: Path) -> None:
    spec = "sliding_window,sliding_window(window_size=3)"
    cli("run", *TINY, *ORDERED, "--variants", spec, "--out", tmp_path / "a")
    assert [record.params["window_size"] for record in load_tasks(tmp_path / "a")] == [4, 3]
    own = ["--variants", "sliding_window", "--sizes", "own", "--seeds", "0", "--lrs", "1e-3"]
    cli("run", *TINY, *own, "--out", tmp_path / "b")
    assert [record.params["window_size"] for record in load_tasks(tmp_path / "b")] == [512]


def test_states_are_matched_where_they_can_be(cli: Cli, tmp_path: Path) -> None:
    """Layers 2, keys and values of 16 numbers a token in float32: 256 bytes a token that is kept."""
    options = [*ORDERED, "--variants", "sliding_window,delta"]
    cli("run", *TINY, *options, "--match-state", "1024", "--out", tmp_path / "run")
    window, delta = load_tasks(tmp_path / "run")
    assert (window.params["window_size"], window.state_bytes) == (4, 1024)
    assert not window.reasons
    assert delta.state_bytes == 1024
    cli("run", *TINY, *options, "--match-state", "4096", "--out", tmp_path / "more")
    window, delta = load_tasks(tmp_path / "more")
    assert window.state_bytes == 4096
    assert delta.state_bytes == 1024
    assert "nothing nearer to 4096" in delta.reasons[0]


def test_states_are_matched_at_the_length_they_are_recorded_at(cli: Cli, tmp_path: Path) -> None:
    """A cache of 1,024 bytes of a training sequence holds more of a test sequence that is longer."""
    longer = "mqar(kv_pairs=2,seq_len=16,eval_seq_len=64,vocab=16)"
    options = ["--variants", "sliding_window", "--seeds", "0", "--lrs", "1e-3", "--match-state", "8192"]
    assert cli("run", *TINY, "--tasks", longer, *options, "--out", tmp_path / "run").exit_code == 0
    (window,) = load_tasks(tmp_path / "run")
    assert (window.params["window_size"], window.state_bytes) == (32, 8192)
    assert not window.reasons


def test_a_crash_is_a_record_and_the_rest_goes_on(cli: Cli, tmp_path: Path) -> None:
    plugin = tmp_path / "dies.py"
    plugin.write_text(
        "import os\nfrom dataclasses import dataclass\nfrom attnbench import register\n"
        "from attnbench.variants.api import Complexity, Supports, Variant\n"
        "@register('dies', family='full', kind='own', supports=Supports(), complexity=Complexity(1, 1, ''),\n"
        "          paper='', formula='')\n@dataclass(frozen=True)\nclass Dies(Variant):\n"
        "    def forward(self, q, k, v, *, causal, scale):\n        os.abort()\n"
    )
    out = tmp_path / "run"
    answer = cli(
        "run", *TINY, "--variants", "dies,sdpa", "--plugin", plugin, "--seeds", "0", "--lrs", "1e-3", "--out", out
    )
    assert answer.exit_code == 0, answer.output
    found = {record.variant: record for record in load_tasks(out)}
    assert found["dies"].status == "crashed"
    assert "SIGABRT" in found["dies"].reasons[0]
    assert found["sdpa"].status == "ok"
    assert "not trained: dies on mqar" in answer.output


def test_a_spent_budget_skips_the_rest_with_the_reason(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--variants", "sdpa", "--seeds", "0", "--lrs", "1e-3", "--time-budget", "0.001s"]
    assert cli("run", *TINY, *options, "--out", out).exit_code == 0
    (record,) = load_tasks(out)
    assert (record.status, record.reasons) == ("skipped", ["the time budget of 0.001 s was used up"])


def test_what_one_learning_rate_mastered_is_not_trained_at_another(tmp_path: Path) -> None:
    from attnbench.bench.tasks import run_tasks

    table = {"name": "mqar", "kv_pairs": 2, "seq_len": 16, "vocab": 16, "d_model": 16, "batch": 4, "steps": 3}
    table |= {"eval_every": 1, "mastery": 1e-9, "skip_after_mastery": True, "lrs": [1e-3, 1e-2], "seeds": [0, 1]}
    folder = run_tasks(from_dict({"task": [{**table, "variants": ["sdpa"]}]}), tmp_path / "run")
    records = load_tasks(folder)
    assert {(record.lr, record.status) for record in records} == {(1e-3, "ok"), (1e-2, "skipped")}
    assert "mastered the task at a learning rate of 0.001" in records[-1].reasons[0]
    (summary,) = summarise(records)
    assert (summary.lr, summary.seeds, summary.mastered) == (1e-3, 2, 2)


def test_text_is_read_from_a_file_that_must_stay_the_same(cli: Cli, tmp_path: Path) -> None:
    text, out = tmp_path / "mine.txt", tmp_path / "run"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 200)
    options = ["--text", text, "--seq-len", "32", "--steps", "2", "--d-model", "16", "--batch", "4", "--seeds", "0"]
    answer = cli("run", "--tasks", "text", *options, "--lrs", "1e-3", "--variants", "sdpa", "--out", out)
    assert answer.exit_code == 0, answer.output
    (record,) = load_tasks(out)
    assert record.metric == "bits_per_byte"
    assert record.chance is None
    assert record.value is not None
    assert 6 < record.value < 9
    assert record.task_params["name"] == str(text)
    assert record.jobs == 1
    text.write_text("something else " * 900)
    from attnbench.bench.tasks.text import corpus

    corpus.cache_clear()
    answer = cli("run", "--resume", "--out", out)
    assert answer.exit_code == 2
    assert "no longer what it was" in answer.stderr


# -- configurations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_whole_and_come_back_from_what_a_run_keeps(preset: str) -> None:
    config = build(preset=preset)
    assert all(setting.planned_steps or setting.train_time for setting in config.task)
    assert restored(json.loads(json.dumps(stored(config))), "run.json") == config


def test_options_stand_over_tables_over_the_top_over_defaults() -> None:
    document = {"steps": 5, "batch": 6, "task": [{"name": "parity", "batch": 7}, {"name": "mqar"}]}
    parity, mqar = from_dict(document).task
    assert (parity.batch, mqar.batch, parity.vocab, parity.seq_len) == (7, 6, 2, 40)
    assert [setting.batch for setting in from_dict(document, {"batch": 8}).task] == [8, 8]
    (chosen,) = from_dict(document, {"tasks": ["mqar(kv_pairs=3,seq_len=20)"], "tokens": 100}).task
    assert (chosen.seq_len, chosen.tokens, chosen.steps) == (20, 100, None)
    assert chosen.task.params() == {"kv_pairs": 3, "power_a": 0.01, "noise": False}


REQUESTS = [
    (["--tasks", "mqr"], ["unknown task 'mqr'", "did you mean 'mqar'"]),
    (["--tasks", "mqar("], ["'mqar('", "write it as name"]),
    (["--tasks", "mqar(kv_pair=4)"], ["unknown key 'kv_pair'", "did you mean 'kv_pairs'"]),
    (["--tasks", "mqar(kv_pairs='a')"], ["kv_pairs = 'a'", "integer"]),
    (["--tasks", "mqar(kv_pairs=40)"], ["mqar needs an even seq_len", "160 for 40"]),
    (["--tasks", "text(vocab=100)"], ["its vocab is 256"]),
    (["--preset", "smok"], ["unknown preset 'smok'", "did you mean 'smoke'"]),
    (["--variants", "sdpaa"], ["unknown variant 'sdpaa'", "did you mean 'sdpa'"]),
    (["--heads", "3"], ["heads must divide d_model"]),
    (["--heads", "two"], ["'two' is not a whole number"]),
    (["--lrs", "fast"], ["--lrs", "'fast' is not a number"]),
    (["--lrs", "0"], ["lrs = 0.0", "greater than 0"]),
    (["--seeds", "-1"], ["seeds = -1"]),
    (["--train-time", "soon"], ["'soon' is not a time"]),
    (["--device", "tpu"], ["unknown device 'tpu'"]),
    (["--sizes", "big"], ["sizes = 'big'"]),
    (["--text", "x.txt"], ["--text is read by the task text"]),
    (["--tasks", "text", "--text", "/nowhere.txt"], ["cannot read the text /nowhere.txt"]),
    (["--plugin", "/nowhere.py"], ["plugin /nowhere.py does not exist"]),
    (["--resume"], ["--resume needs --out"]),
    (["/nowhere.toml"], ["no configuration file /nowhere.toml"]),
]


@pytest.mark.parametrize(("arguments", "words"), REQUESTS, ids=[" ".join(arguments) for arguments, _ in REQUESTS])
def test_a_wrong_request_is_one_sentence(arguments: list[str], words: list[str], cli: Cli, tmp_path: Path) -> None:
    out = [] if "--resume" in arguments else ["--out", tmp_path / "run"]
    answer = cli("run", *arguments, *out)
    assert answer.exit_code == 2, answer.output
    assert isinstance(answer.exception, SystemExit)
    last = answer.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    for word in words:
        assert word in last, last
    assert not (tmp_path / "run").exists()


def test_a_sweep_is_no_run_of_tasks(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", *TINY, "--variants", "linformer", "--out", tmp_path / "tasks").exit_code == 0
    (tmp_path / "run.json").write_text((tmp_path / "tasks" / "run.json").read_text())
    (tmp_path / RunFolder.file).write_text("")
    answer = cli("run", "--resume", "--out", tmp_path)
    assert answer.exit_code == 2
    assert "has no tasks.jsonl" in answer.stderr
    assert not (tmp_path / "tasks.jsonl").exists()
    assert cli("run", *TINY, "--out", tmp_path).exit_code == 2


def test_a_cosine_needs_to_know_its_end() -> None:
    with pytest.raises(ConfigError, match="a cosine schedule needs steps or tokens"):
        from_dict({"task": [{"name": "mqar", "train_time": 5}]})
    assert from_dict({"task": [{"name": "mqar"}]}, {"train_time": 5}).task[0].schedule == "constant"


def test_tasks_are_listed(cli: Cli) -> None:
    rows = json.loads(cli("list", "--json").stdout)
    assert [row["name"] for row in rows] == ["mqar", "induction", "selective_copy", "parity", "needle", "text"]
    assert rows[0]["parameters"]["kv_pairs"] == 8
    assert "smoke" in rows[0]["presets"]
