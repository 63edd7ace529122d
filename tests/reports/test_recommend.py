"""Recommendations: every variant once, every figure as the records say, no rank that the intervals do not show."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from attnbench.bench.cli import main
from attnbench.results.record import Record
from attnbench.results.task_record import TASK_IDENTITY, TaskRecord, task_id
from attnbench.results.tasks import TaskFolder

from . import synthetic

RECALL = {"linear_elu": 0.04, "performer": 0.6}


def with_recall(records: list[Record]) -> list[Record]:
    return [r.model_copy(update={"recall_64": RECALL.get(r.variant, 1.0)}) for r in records]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(tmp_path_factory.mktemp("runs") / "one", with_recall(synthetic.sweep()))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def ask(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["recommend", *map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def by_variant(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["variant"]: one for one in answer["variants"]}


def case(folder: Path, variant: str, length: int, **fields: Any) -> dict[str, Any]:
    wanted = {"variant": variant, "n_k": length, "mode": "forward", "causal": True, "inputs": "gaussian"} | fields
    (found,) = [r for r in lines_of(folder) if all(r[k] == v for k, v in wanted.items())]
    return found


# -- figures ----------------------------------------------------------------------------------------------------


def test_every_variant_is_named_exactly_once_whatever_is_asked(folder: Path) -> None:
    there = sorted({r["variant"] for r in lines_of(folder)})
    for more in ([], ["--mode", "train"], ["--mode", "decode"], ["--kinds", "own"], ["--max-memory", "1KiB"]):
        answer = ask(folder, "--seq-len", 4096, *more)
        assert sorted(one["variant"] for one in answer["variants"]) == there
        for one in answer["variants"]:
            assert one["reasons"], one
            assert (one["tier"] is not None) == (one["outcome"] == "kept")
            assert (one["command"] is not None) == (one["outcome"] == "unknown")


def test_measured_figures_are_those_of_the_records(folder: Path) -> None:
    answer = ask(folder, "--seq-len", 4096, "--attention-share", 0.3)
    assert answer["baseline"] == 'sdpa(backend="auto")'
    for one in answer["variants"]:
        if one["outcome"] != "kept":
            continue
        own = case(folder, one["variant"], 4096)
        time, memory = one["time"], one["memory"]
        assert time["case_ids"] == [own["case_id"]]
        assert time["basis"] == memory["basis"] == "measured"
        assert (time["value"], time["low"], time["high"]) == (own["time_s"], own["time_s_low"], own["time_s_high"])
        assert memory["value"] == own["peak_bytes"] + 3 * 4 * 4096 * 64 * 4
        assert [one["ratio"][k] for k in ("value", "low", "high")] == pytest.approx(
            [own["ratio"], own["ratio_low"], own["ratio_high"]]
        )
        assert one["gain"]["value"] == pytest.approx(1 / (0.7 + 0.3 * own["ratio"]))
        assert one["gain"]["low"] == pytest.approx(1 / (0.7 + 0.3 * own["ratio_high"]))
        assert one["params"] == own["params"]


def test_figures_beyond_the_lengths_are_marked_and_near_what_the_records_grow_to(folder: Path) -> None:
    answer = by_variant(ask(folder, "--seq-len", 65536))
    for name, power in (("sdpa", 2), ("block_local", 1)):
        one = answer[name]
        assert {one[figure]["basis"] for figure in ("time", "memory", "ratio")} == {"extrapolated"}
        last = case(folder, name, 8192)
        assert one["time"]["value"] == pytest.approx(last["time_s"] * 8**power, rel=0.1)
        assert one["time"]["low"] < one["time"]["value"] < one["time"]["high"]
        assert len(one["time"]["case_ids"]) == 6
        assert one["remarks"][0] == "extrapolated from 6 lengths, 256 to 8,192"
    between = by_variant(ask(folder, "--seq-len", 3000))["sdpa"]["time"]
    assert between["basis"] == "interpolated"
    assert case(folder, "sdpa", 2048)["time_s"] < between["value"] < case(folder, "sdpa", 4096)["time_s"]


def test_layers_and_batch_multiply_what_they_multiply(folder: Path, tmp_path: Path) -> None:
    once, more = (
        by_variant(ask(folder, "--seq-len", 1024, "--mode", mode, *options))["sdpa"]["memory"]["value"]
        for mode, options in (("forward", []), ("forward", ["--layers", 12, "--batch", 4]))
    )
    assert more == 4 * once
    once, more = (
        by_variant(ask(folder, "--seq-len", 1024, "--mode", "train", *options))["sdpa"]["memory"]["value"]
        for options in ([], ["--layers", 12])
    )
    assert more == 12 * once
    decode = [
        synthetic.timed(
            *("sdpa", n, 1e-6 * n), baseline="sdpa", base_s=1e-6 * n, mode="decode", n_q=1, state_bytes=2048 * n
        )
        for n in (1024, 2048, 4096)
    ]
    run = synthetic.write(tmp_path / "decode", decode)
    found = by_variant(ask(run, "--seq-len", 4096, "--mode", "decode", "--layers", 12, "--batch", 2))["sdpa"]
    assert found["memory"]["value"] == 2 * (12 * 2048 * 4096 + 4096 * 1000)


# -- reasons ----------------------------------------------------------------------------------------------------


def test_what_is_rejected_says_why(folder: Path) -> None:
    answer = by_variant(ask(folder, "--seq-len", 8192, "--max-memory", "256MiB", "--min-recall", 0.9))
    assert answer["naive"]["reasons"] == ["it needs 2.09 GiB (measured), more than 256 MiB"]
    assert answer["linear_elu"]["reasons"][0].startswith("it recalls 4.0 % (2.20–7.16 %), less than 90 %")
    assert answer["xformers"]["reasons"][0].startswith("it cannot run so: xformers: device=cpu")
    assert answer["nystrom"]["outcome"] == "rejected"
    assert answer["sdpa"]["outcome"] == "kept"
    assert "it recalls 100 %" in answer["sdpa"]["reasons"][1]
    needed = case(folder, "sdpa", 8192)["peak_bytes"] + 3 * 4 * 8192 * 64 * 4
    for budget, outcome in ((needed, "kept"), (needed - 1, "rejected")):
        assert by_variant(ask(folder, "--seq-len", 8192, "--max-memory", f"{budget}B"))["sdpa"]["outcome"] == outcome
    train = by_variant(ask(folder, "--seq-len", 4096, "--mode", "train"))
    assert train["naive"]["reasons"][0].startswith("it ended as oom at 4,096 tokens")
    assert train["performer"]["reasons"][0].startswith("it ended as timeout at 2,048 tokens")


def test_an_incorrect_variant_is_never_recommended(folder: Path, tmp_path: Path) -> None:
    """At length 256 it is incorrect in training, and fast and correct at 4,096."""
    for mode in ("train", "forward"):
        assert case(folder, "block_local", 4096, mode=mode)["status"] == "ok"
        one = by_variant(ask(folder, "--seq-len", 4096, "--mode", mode))["block_local"]
        assert one["outcome"] == "rejected"
        assert one["reasons"][0].startswith(
            "its implementation is incorrect, train at 256 tokens in float32: dk differs"
        )
    records = [r.model_copy(update={"dtype": "float16"} if r.status == "incorrect" else {}) for r in synthetic.sweep()]
    other = by_variant(ask(synthetic.write(tmp_path / "run", records), "--seq-len", 4096))["block_local"]
    assert other["outcome"] == "kept"
    assert "its implementation is incorrect in another dtype" in other["remarks"]


def test_distance_from_softmax_counts_on_the_inputs_asked_for(folder: Path) -> None:
    answer = by_variant(ask(folder, "--seq-len", 4096, "--max-error", 0.95))
    real = case(folder, "performer", 512, inputs="captured", causal=False)["fidelity_error"]
    assert answer["performer"]["fidelity"]["value"] == real
    assert answer["performer"]["outcome"] == "kept"
    assert "captured input, non-causal, 512 tokens" in answer["performer"]["fidelity"]["source"]
    assert answer["linear_elu"]["reasons"] == [
        "it is an operator of its own: a distance from softmax attention means nothing for it"
    ]
    assert answer["sdpa"]["reasons"] == ["it is softmax attention"]
    answer = by_variant(ask(folder, "--seq-len", 4096, "--max-error", 0.3))
    assert answer["performer"]["reasons"][0].startswith("its output is 9")
    drawn = by_variant(ask(folder, "--seq-len", 4096, "--max-error", 0.3, "--inputs", "gaussian"))
    assert drawn["sink_window"]["outcome"] == "rejected"
    short = by_variant(ask(folder, "--seq-len", 512, "--max-error", 0.3, "--inputs", "gaussian"))
    assert short["sink_window"]["outcome"] == "kept", "at 512 tokens its window of as many leaves nothing out"


def test_what_leaves_out_nothing_of_a_short_text_is_not_said_to_lose_nothing_of_a_long_one(folder: Path) -> None:
    """A window of 512 keys is softmax attention at 512 tokens, and far from it at 4,096."""
    one = by_variant(ask(folder, "--seq-len", 4096, "--max-error", 0.01))["sink_window"]
    assert (one["outcome"], one["lacks"], one["command"]) == ("unknown", None, None)
    assert "what leaves out little or nothing there may leave out much at 4,096" in one["reasons"][0]
    assert "--inputs captured:FILE" in one["reasons"][0]
    assert by_variant(ask(folder, "--seq-len", 512, "--max-error", 0.01))["sink_window"]["outcome"] == "kept"
    unasked = by_variant(ask(folder, "--seq-len", 4096))["sink_window"]
    assert unasked["outcome"] == "kept"
    assert any("at 4,096 tokens was not measured" in remark for remark in unasked["remarks"])


def test_what_keeps_most_of_a_short_text_says_nothing_of_a_long_one(tmp_path: Path) -> None:
    def kept(keys: float) -> dict[str, Any]:
        records = [
            r.model_copy(update={"fidelity_error": 0.06, "fidelity_keys": keys}) if r.fidelity_error is not None else r
            for r in with_recall(synthetic.sweep())
        ]
        folder = synthetic.write(tmp_path / f"{keys}", records)
        return by_variant(ask(folder, "--seq-len", 4096, "--max-error", 0.2))["sink_window"]

    assert kept(64.0)["outcome"] == "kept"
    most = kept(500.0)
    assert most["outcome"] == "unknown"
    assert most["reasons"][0].startswith("at 512 tokens it keeps 500 keys a query")


def test_what_cannot_run_on_captured_input_is_not_told_to_be_run_on_it(tmp_path: Path) -> None:
    def without(**fields: Any) -> dict[str, Any]:
        records = [
            r.model_copy(update=fields) if (r.variant, r.inputs) == ("sink_window", "captured") else r
            for r in synthetic.sweep()
        ]
        folder = synthetic.write(tmp_path / str(len(fields)), records)
        return by_variant(ask(folder, "--seq-len", 512, "--max-error", 0.2))["sink_window"]

    measurable = without(fidelity_error=None)
    assert (measurable["outcome"], measurable["lacks"]) == ("unknown", "fidelity")
    assert "--inputs captured" in measurable["command"]
    figures = dict.fromkeys(("time_s", "samples_s", "ratio", "peak_bytes", "fidelity_error"))
    refused = without(status="unsupported", reasons=["has a causal form only"], **figures)
    assert (refused["outcome"], refused["command"]) == ("unknown", None)
    assert "cannot be on those at hand (has a causal form only)" in refused["reasons"][0]


def test_a_variant_is_not_recommended_beyond_the_length_that_it_takes(tmp_path: Path) -> None:
    records = [
        r.model_copy(update={"params": {**r.params, "max_len": 12000}}) if r.variant == "performer" else r
        for r in synthetic.sweep()
    ]
    folder = synthetic.write(tmp_path / "run", records)
    for length, outcome in ((12000, "kept"), (12001, "rejected")):
        one = by_variant(ask(folder, "--seq-len", length))["performer"]
        assert (one["variant"], one["outcome"]) == ("performer", outcome)
    assert one["reasons"] == ["it takes at most 12,000 tokens, its max_len: set that to what is wanted, and measure it"]


def test_recall_that_was_asked_over_few_tokens_says_so(folder: Path) -> None:
    def told(length: int) -> bool:
        one = by_variant(ask(folder, "--seq-len", length, "--min-recall", 0.9))["sink_window"]
        assert one["outcome"] == "kept"
        return any("was asked over 64 tokens" in remark for remark in one["remarks"])

    assert told(4096)
    assert not told(64 * 2 // 2)


def test_scratch_memory_past_a_limit_is_told(tmp_path: Path) -> None:
    """torch's allocator sees the peak, and the resident high-water mark what kernels took past it."""
    grown = [
        r.model_copy(update={"peak_rss_bytes": (r.peak_bytes or 0) * (10 if r.variant == "linear_elu" else 1)})
        for r in synthetic.sweep()
    ]
    folder = synthetic.write(tmp_path / "run", grown)
    memory = by_variant(ask(folder, "--seq-len", 4096))["linear_elu"]["memory"]["value"]

    def told(factor: float) -> set[str]:
        answer = by_variant(ask(folder, "--seq-len", 4096, "--max-memory", f"{factor * memory:.0f}B"))
        scratch = {n for n, one in answer.items() if any("scratch is in it" in remark for remark in one["remarks"])}
        assert answer["linear_elu"]["outcome"] == "kept"
        return scratch

    assert told(1.01) == {"linear_elu"}
    assert told(10.1) == set()


def test_who_chooses_by_an_unsteady_run_is_told(tmp_path: Path) -> None:
    shaky = [r.model_copy(update={"time_s_high": 1.5 * r.time_s}) if r.time_s else r for r in synthetic.sweep()]
    notes = ask(synthetic.write(tmp_path / "run", shaky), "--seq-len", 4096)["notes"]
    assert any("the machine was busy or unsteady" in note for note in notes)
    assert not any(
        "unsteady" in n for n in ask(synthetic.write(tmp_path / "b", synthetic.sweep()), "--seq-len", 4096)["notes"]
    )


def test_a_probe_without_a_miss_does_not_claim_that_there_never_is_one(folder: Path) -> None:
    """Of 256 right answers the chance of a miss may still be 1.2 % (exactly: 1 - 0.025^(1/256) = 1.4 %)."""
    recall = by_variant(ask(folder, "--seq-len", 1024, "--min-recall", 0.99))["sdpa"]["recall"]
    assert (recall["value"], recall["high"]) == (1.0, 1.0)
    assert 1 - recall["low"] == pytest.approx(1 - 0.025 ** (1 / 256), abs=2e-3)


def test_a_trained_model_counts_before_the_probe(folder: Path, tmp_path: Path) -> None:
    records = []
    for seed, value in enumerate((0.91, 0.95, 0.97)):
        who: dict[str, Any] = dict.fromkeys(TASK_IDENTITY, 1) | {
            "task": "mqar",
            "task_params": {"kv_pairs": 64},
            "variant": "performer",
            "lr": 1e-3,
            "seed": seed,
            "params": synthetic.VARIANTS["performer"][2],
            "seq_len": 256,
            "vocab": 8192,
            "d_model": 64,
            "backbone": {},
            "budget": {},
            "dtype": "float32",
            "device": "cpu",
        }
        outcome = {"status": "ok", "metric": "accuracy", "value": value, "chance": 0.0, "kind": "approximate"}
        when = {"machine": "f00d" * 4, "started_at": "2026-11-22T12:00:00+00:00"}
        curve = [{"step": 9, "tokens": 9, "wall_s": 1.0, "loss": 0.1, "value": value}]
        records.append(TaskRecord.model_validate({"task_id": task_id(who), **who, **outcome, **when, "curve": curve}))
    tasks = TaskFolder.create(tmp_path / "tasks", synthetic.run(3))
    tasks.append(records)
    tasks.close()
    question = ("--seq-len", 4096, "--min-recall", 0.9)
    assert by_variant(ask(folder, *question))["performer"]["outcome"] == "rejected"
    one = by_variant(ask(folder, tmp_path / "tasks", *question))["performer"]
    assert one["outcome"] == "kept"
    assert [one["recall"][k] for k in ("value", "low", "high")] == [0.95, 0.91, 0.97]
    assert one["recall"]["source"].startswith("trained MQAR with 64 pairs in 256 tokens, width 64, 3 seeds")
    assert one["recall"]["ids"] == [record.task_id for record in records]


# -- ranks ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_told_apart_shares_a_tier(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drift = 1 + 0.3 * rng.random(20)
    records = []
    samples = {name: s * drift * rng.lognormal(0, 0.02, 20) for name, s in
               {"sdpa": 1.0, "flex": 1.003, "chunked_exact": 1.1, "naive": 1.102}.items()}  # fmt: skip
    from attnbench.results.statistics import median_interval, paired_ratio

    for name, drawn in samples.items():
        time, ratio = median_interval(drawn), paired_ratio(drawn, samples["sdpa"])
        figures = {"time_s": time.value, "time_s_low": time.low, "time_s_high": time.high, "samples_s": drawn.tolist()}
        ratios = {"ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high, "baseline": "sdpa"}
        records.append(synthetic.record(name, 1024, **figures, **ratios))
    run = synthetic.write(tmp_path / "run", records)
    answer = ask(run, "--seq-len", 1024)
    assert {one["variant"]: one["tier"] for one in answer["variants"]} == {
        "sdpa": 1,
        "flex": 1,
        "chunked_exact": 2,
        "naive": 2,
    }, "the drift of 30 % that rounds share hides nothing"
    done = CliRunner().invoke(main, ["recommend", str(run), "--seq-len", "1024"])
    assert done.output.count("no clear difference") == 2


def test_estimates_are_told_apart_by_both_their_intervals(folder: Path) -> None:
    kept = [one for one in ask(folder, "--seq-len", 65536)["variants"] if one["outcome"] == "kept"]
    assert [one["time"]["value"] for one in kept] == sorted(one["time"]["value"] for one in kept)
    leader = kept[0]
    for one in kept[1:]:
        x, y = one["time"], leader["time"]
        down = math.hypot(math.log(x["value"] / x["low"]), math.log(y["high"] / y["value"]))
        clearly = math.log(x["value"] / y["value"]) > down
        assert (one["tier"] > leader["tier"]) == clearly
        leader = one if clearly else leader


# -- not enough evidence ----------------------------------------------------------------------------------------


def test_what_is_missing_comes_with_a_command_that_is_understood(folder: Path) -> None:
    answer = ask(folder, "--seq-len", 8192 * 17)
    one = by_variant(answer)["sliding_window"]
    assert one["outcome"] == "unknown"
    (reason,) = one["reasons"]
    assert reason.startswith("no time at 139,264 tokens: it was timed at 6 lengths up to 8,192, and a fit needs 3")
    words = shlex.split(one["command"])
    assert words[:4] == ["attnbench", "run", "--variants", "sliding_window(window_size=512),sdpa"]
    options = dict(zip(words[4:-1:2], words[5:-1:2], strict=True))
    assert options["--seq-lens"] == "139264"
    assert (options["--heads"], options["--threads"], options["--dtypes"]) == ("4", "2", "float32")
    assert words[-1] == "--causal"
    (together,) = answer["commands"]
    assert "sliding_window(window_size=512)" in together
    assert "nystrom" not in together, "it has no causal form"


def test_the_command_makes_a_record_that_answers(folder: Path) -> None:
    """The case that it names is the one that the question is about."""
    from attnbench.bench.config import build

    words = shlex.split(by_variant(ask(folder, "--seq-len", 8192 * 17))["flex"]["command"])
    options = dict(zip(words[2:-1:2], words[3:-1:2], strict=True))
    numbers = ("seq-lens", "threads", "batch", "heads", "kv-heads", "head-dim")
    typed = {
        name[2:].replace("-", "_"): int(value) if name[2:] in numbers else value for name, value in options.items()
    }
    (sweep,) = build(options={**typed, "causal": True}).sweep
    assert sweep.variants == ["flex(block_size=128)", "sdpa"]
    assert (sweep.seq_lens, sweep.modes, sweep.heads, sweep.causal) == ([139264], ["forward"], 4, [True])


def test_missing_recall_and_fidelity_are_asked_for(tmp_path: Path) -> None:
    records = [r.model_copy(update={"fidelity_error": None}) for r in synthetic.sweep() if r.inputs == "gaussian"]
    run = synthetic.write(tmp_path / "run", records)
    one = by_variant(ask(run, "--seq-len", 1024, "--min-recall", 0.5))["sdpa"]
    assert (one["outcome"], one["lacks"]) == ("unknown", "recall")
    assert shlex.split(one["command"])[:2] == ["attnbench", "run"]
    one = by_variant(ask(run, "--seq-len", 1024, "--max-error", 0.5))["performer"]
    assert (one["outcome"], one["lacks"]) == ("unknown", "fidelity")
    assert "--inputs captured --no-causal" in one["command"]


# -- several runs, published runs -------------------------------------------------------------------------------


def test_runs_of_one_machine_add_up_and_are_not_paired(tmp_path: Path) -> None:
    records = synthetic.sweep()
    first = synthetic.write(tmp_path / "a", [r for r in records if r.variant != "block_local"])
    second = synthetic.write(tmp_path / "b", [r for r in synthetic.sweep(1) if r.variant == "block_local"])
    one = by_variant(ask(first, second, "--seq-len", 4096))["block_local"]
    x, y = case(second, "block_local", 4096), case(first, "sdpa", 4096)
    assert one["ratio"]["value"] == pytest.approx(x["time_s"] / y["time_s"])
    assert one["ratio"]["value"] != pytest.approx(x["ratio"])


def test_published_runs_answer_where_none_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attnbench.reports import recommend
    from attnbench.results.reference import reference_runs

    assert reference_runs(tmp_path / "nothing") == []
    home = tmp_path / "reference"
    home.mkdir()
    (home / "published").symlink_to(folder)
    (home / "no-run").mkdir()
    assert reference_runs(home) == [home / "published"]
    monkeypatch.setattr(recommend, "reference_runs", lambda: reference_runs(home))
    answer = ask("--seq-len", 4096)
    assert answer["notes"][0].startswith("no run was named: all figures are of published runs")
    assert "Example CPU" in answer["sources"][0]
    monkeypatch.setattr(recommend, "reference_runs", list)
    done = CliRunner().invoke(main, ["recommend", "--seq-len", "4096"])
    assert done.exit_code == 2
    assert "measure here first: attnbench run --preset quick" in done.output


# -- wrong questions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--seq-len", "0"], "--seq-len must be at least 1, not 0"),
        (["--seq-len", "many"], "'many' is not a whole number"),
        (["--seq-len", "64", "--mode", "decod"], "unknown mode 'decod'; did you mean decode?"),
        (["--seq-len", "64", "--mode", "decode", "--no-causal"], "decoding is causal"),
        (["--seq-len", "64", "--max-memory", "8"], "'8' is not an amount of memory; write it with its unit, as 8GiB"),
        (["--seq-len", "64", "--max-memory", "0GiB"], "'0GiB' is not an amount of memory"),
        (["--seq-len", "64", "--min-recall", "90"], "--min-recall is a share between 0 and 1, not 90"),
        (["--seq-len", "64", "--min-recall", "nan"], "--min-recall is a share between 0 and 1"),
        (["--seq-len", "64", "--max-error", "x"], "'x' is not a number"),
        (["--seq-len", "64", "--max-error", "-1"], "--max-error must not be negative"),
        (["--seq-len", "64", "--max-error", "inf"], "--max-error must not be negative, and finite"),
        (["--seq-len", "64", "--max-memory", "9" * 400 + "GiB"], "is not an amount of memory"),
        (["--seq-len", str(10**400)], "--seq-len must be at most 9223372036854775807"),
        (["--seq-len", "64", "--recall-load", "60"], "--recall-load is one of 32, 64, 128, 256, not 60"),
        (["--seq-len", "64", "--kinds", "exakt"], "unknown kind 'exakt'; did you mean exact?"),
        (["--seq-len", "64", "--kinds", ","], "--kinds names none"),
        (["--seq-len", "64", "--dtype", "float8"], "unknown dtype 'float8'"),
        (["--seq-len", "64", "--layers", "0"], "--layers must be at least 1"),
        (["--seq-len", "64", "--threads", "0"], "--threads must be at least 1"),
        (["--seq-len", "64", "--attention-share", "1.5"], "--attention-share is a share"),
        ([], "Missing option '--seq-len'"),
    ],
)
def test_a_wrong_question_gets_a_sentence(folder: Path, options: list[str], sentence: str) -> None:
    done = CliRunner().invoke(main, ["recommend", str(folder), *options])
    assert done.exit_code == 2
    assert sentence in done.output


def test_a_folder_that_is_no_run_gets_a_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["recommend", str(tmp_path), "--seq-len", "64"])
    assert done.exit_code == 2
    assert "is not a run" in done.output
    TaskFolder.create(tmp_path / "tasks", synthetic.run(0)).close()
    done = CliRunner().invoke(main, ["recommend", str(tmp_path / "tasks"), "--seq-len", "64"])
    assert done.exit_code == 2
    assert "only trained tasks" in done.output
