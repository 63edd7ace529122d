"""The three sentences say what the records say, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attnbench.reports.answer import Sentence, answers, faster_from, headline
from attnbench.reports.load import load_runs
from attnbench.reports.settings import Setting, split
from attnbench.results.record import Record

from . import synthetic


def read(path: Path, records: list[Record], **fields: object) -> list[Setting]:
    return split(load_runs([synthetic.write(path / "run", records, **fields)]))


def said(path: Path, records: list[Record]) -> list[Sentence]:
    return answers(read(path, records))


def numbers(text: str) -> list[str]:
    return re.findall(r"\d[\d,]*\.?\d*", text)


def test_sentences_recomputed_from_the_records_alone(tmp_path: Path) -> None:
    records = synthetic.sweep()
    exact, beyond, memory = said(tmp_path, records)
    ok = [r for r in records if r.status == "ok" and r.n_k == 8192]
    assert ok
    assert {r.mode for r in ok} == {"forward"}
    fastest = min((r for r in ok if r.kind == "exact"), key=lambda r: r.time_s or 0)
    naive = next(r for r in ok if r.variant == "naive")
    assert f"the fastest exact variant is {fastest.variant}, {1e3 * fastest.time_s:.3g} ms" in exact.text
    assert f"naive with {naive.ratio:.3g} times its time" in exact.text
    assert f"{naive.ratio_low:.3g}–{naive.ratio_high:.3g}" in exact.text
    assert fastest.case_id in {e.record.case_id for e in exact.evidence}
    assert naive.case_id in {e.record.case_id for e in exact.evidence}

    best = min((r for r in ok if r.kind != "exact"), key=lambda r: r.ratio or 0)
    params = ", ".join(f"{key}={value}" for key, value in best.params.items())
    assert f"is {best.variant} ({params}), {1 / best.ratio:.3g} times as fast as {fastest.variant}" in beyond.text
    assert f"{1 / best.ratio_high:.3g}–{1 / best.ratio_low:.3g}" in beyond.text
    same = [r for r in records if r.variant == best.variant and r.group_id in {g.group_id for g in records}]
    line = [r for r in same if r.mode == "forward" and r.causal and r.inputs == "gaussian" and r.status == "ok"]
    slower = [r.n_k for r in line if r.ratio_high >= 1]
    assert f"from {min(r.n_k for r in line if r.n_k > max(slower)):,} tokens on" in beyond.text

    least = min((r for r in ok if r.kind == "exact"), key=lambda r: r.peak_bytes or 0)
    assert f"smallest peak is {least.variant}, {least.peak_bytes / 2**20:.3g}" in memory.text
    assert f"{naive.peak_bytes / least.peak_bytes:.3g} times as much" in memory.text


def test_the_setting_is_told_in_full(tmp_path: Path) -> None:
    text = said(tmp_path, synthetic.sweep())[0].text
    for part in ("forward", "causal", "float32", "cpu", "2 threads", "4 heads of 64", "batch 1", "gaussian input"):
        assert part in text.lower()


def test_approximate_variant_comes_with_its_cost_on_captured_input(tmp_path: Path) -> None:
    base = {"baseline": "sdpa", "base_s": 0.1}
    wide = synthetic.CAPTURED | {"causal": False}
    close = {"fidelity_error": 0.25, "fidelity_error_uniform": 0.5}
    records = [
        synthetic.timed("sdpa", 4096, 0.1, **base),
        synthetic.timed("block_local", 4096, 0.02, **base, fidelity_error=2.2),
        synthetic.timed("sdpa", 512, 0.1, **base, **wide),
        synthetic.timed("block_local", 512, 0.2, **base, **wide, **close),
    ]
    text = said(tmp_path, records)[1].text
    assert "5.00 times as fast as sdpa" in text
    assert "25 % away from softmax attention's" in text
    assert "plain mean of the values is 50 %" in text
    assert "not measured at 4,096" in text
    assert "220" not in text  # what drawn input says is no headline


def test_fidelity_of_drawn_input_makes_no_headline(tmp_path: Path) -> None:
    base = {"baseline": "sdpa", "base_s": 0.1}
    records = [
        synthetic.timed("sdpa", 4096, 0.1, **base),
        synthetic.timed("block_local", 4096, 0.02, **base, fidelity_error=0.31),
    ]
    text = said(tmp_path, records)[1].text
    assert "gaussian input only" in text
    assert "31" not in numbers(text)


def test_a_window_that_covers_all_is_not_called_free(tmp_path: Path) -> None:
    base = {"baseline": "sdpa", "base_s": 0.1}
    wide = synthetic.CAPTURED | {"causal": False}
    records = [
        synthetic.timed("sdpa", 4096, 0.1, **base),
        synthetic.timed("sliding_window", 4096, 0.02, **base),
        synthetic.timed("sliding_window", 512, 0.2, **base, **wide, fidelity_error=1e-7),
    ]
    assert "too short to tell" in said(tmp_path, records)[1].text


def test_no_difference_is_called_no_difference(tmp_path: Path) -> None:
    base = {"baseline": "sdpa", "base_s": 0.1}
    records = [synthetic.timed("sdpa", 1024, 0.1, **base), synthetic.timed("flex", 1024, 0.101, **base)]
    assert "no clear difference" in said(tmp_path, records)[0].text


def test_when_nothing_inexact_is_faster_it_is_said(tmp_path: Path) -> None:
    base = {"baseline": "sdpa", "base_s": 0.1}
    records = [
        synthetic.timed(name, length, time, **base)
        for length in (512, 1024)
        for name, time in (("sdpa", 0.1), ("block_local", 0.3))
    ]
    text = said(tmp_path, records)[1].text
    assert "3.00 times sdpa's time" in text
    assert "does not pay" in text
    assert "as fast" not in text


def test_one_length_says_nothing_of_a_crossing(tmp_path: Path) -> None:
    base = {"baseline": "sdpa", "base_s": 0.1}
    records = [synthetic.timed("sdpa", 1024, 0.1, **base), synthetic.timed("block_local", 1024, 0.05, **base)]
    exact, beyond, _ = said(tmp_path, records)
    assert "the only length measured" in exact.text
    assert "where it starts to pay is not known" in beyond.text


def test_crossing_wants_the_whole_interval_below_one_from_there_on(tmp_path: Path) -> None:
    ratios = {256: 0.5, 512: 1.5, 1024: 0.99, 2048: 0.9, 4096: 0.4}  # 0.99 with 2 % on both sides is no difference
    records = []
    for length, ratio in ratios.items():
        records.append(synthetic.timed("sdpa", length, 0.1, baseline="sdpa", base_s=0.1))
        records.append(synthetic.timed("block_local", length, ratio * 0.1, baseline="sdpa", base_s=0.1))
    (setting,) = read(tmp_path, records)
    entry = next(entry for entry in setting.entries if entry.label == "block_local")
    assert faster_from(entry, setting) == 2048


def test_without_an_exact_variant_no_ratio_is_claimed(tmp_path: Path) -> None:
    records = [synthetic.record("linear_elu", 1024, time_s=0.01, time_s_low=0.01, time_s_high=0.01, peak_bytes=10)]
    exact, beyond, _ = said(tmp_path, records)
    assert "none was asked for" in exact.text
    assert "no exact variant was timed beside it" in beyond.text
    assert "times" not in exact.text + beyond.text


def test_train_only(tmp_path: Path) -> None:
    records = [synthetic.timed("sdpa", 1024, 0.1, baseline="sdpa", base_s=0.1, mode="train")]
    exact, beyond, _ = said(tmp_path, records)
    assert exact.text.startswith("Train, causal")
    assert "none was asked for" in beyond.text


def test_nothing_timed_is_one_plain_sentence(tmp_path: Path) -> None:
    records = [synthetic.record("xformers", 1024, status="unsupported", reasons=["CUDA only"])]
    (only,) = said(tmp_path, records)
    assert only.text.startswith("Nothing can be recommended: of 1 record none has a time (xformers unsupported)")


def test_a_time_in_a_failed_record_is_never_told(tmp_path: Path) -> None:
    base = {"baseline": "naive", "base_s": 0.1}
    records = [
        synthetic.timed("naive", 1024, 0.1, **base),
        synthetic.timed("sdpa", 1024, 0.001, **base, status="incorrect"),
        synthetic.timed("block_local", 1024, 0.0001, **base, status="crashed"),
    ]
    exact, beyond, memory = said(tmp_path, records)
    assert "fastest exact variant is naive" in exact.text
    assert "block_local crashed" in beyond.text
    assert "no variant needs less" in memory.text


def test_paying_only_at_the_last_length_promises_nothing_beyond(tmp_path: Path) -> None:
    records = [
        synthetic.timed(name, length, time, baseline="sdpa", base_s=0.1)
        for length, fast in ((512, 0.2), (1024, 0.05))
        for name, time in (("sdpa", 0.1), ("block_local", fast))
    ]
    text = said(tmp_path, records)[1].text
    assert "2.00 times as fast as sdpa" in text
    assert "at no shorter length clearly faster" in text
    assert "tokens on" not in text


def test_longer_lengths_that_failed_are_named(tmp_path: Path) -> None:
    records = [
        synthetic.timed("sdpa", 1024, 0.1, baseline="sdpa", base_s=0.1),
        synthetic.record("sdpa", 2048, status="timeout", reasons=["took longer"]),
    ]
    assert "at 2,048 no exact variant has a time (sdpa timeout)" in said(tmp_path, records)[0].text


def test_headline_is_the_longest_then_forward_then_causal(tmp_path: Path) -> None:
    base = {"baseline": "sdpa", "base_s": 0.1}
    records = [
        synthetic.timed("sdpa", 2048, 0.1, **base, mode="train"),
        synthetic.timed("sdpa", 2048, 0.1, **base, causal=False),
        synthetic.timed("sdpa", 2048, 0.1, **base),
        synthetic.timed("sdpa", 1024, 0.1, **base, dtype="bfloat16"),
    ]
    chosen = headline(read(tmp_path, records))
    assert chosen is not None
    assert (chosen.of.mode, chosen.of.causal, chosen.of.dtype) == ("forward", True, "float32")


@pytest.mark.parametrize("seed", range(3))
def test_ratios_are_never_made_across_groups(tmp_path: Path, seed: int) -> None:
    """Every 'times as fast' of the sentences is the inverse of a ratio that some record holds."""
    records = synthetic.sweep(seed)
    text = " ".join(sentence.text for sentence in said(tmp_path, records))
    held = {f"{1 / r.ratio:.3g}" for r in records if r.ratio} | {f"{r.ratio:.3g}" for r in records if r.ratio}
    claimed = re.findall(r"([\d.]+) times (?:as fast|its time|\w+'s time)", text)
    assert claimed
    assert {f"{float(value):.3g}" for value in claimed} <= held
