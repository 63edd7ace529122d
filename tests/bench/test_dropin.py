"""Drop-in accuracy: the figures are those of the changed model, and every variant asked for has its record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from attnbench.bench.dropin_model import compare
from attnbench.results.dropin_record import DROPINS, load_dropins
from attnbench.results.errors import ResultsError

from .test_capture import TEXT, bert, llama, save_model, save_tokenizer

transformers = pytest.importorskip("transformers")

SMALL = ("--seq-len", "30", "--windows", "5", "--budgets", "6")

PLUGIN = """
from dataclasses import dataclass

import os
from attnbench.variants.api import Complexity, Supports, register
from attnbench.variants.full.naive import Naive


def planted(name):
    return register(name, family="full", kind="exact", supports=Supports(), complexity=Complexity(2, 2, "O(N²)"),
                    paper="none", formula="none")


@planted("dies_in_a_model")
@dataclass(frozen=True)
class Dies(Naive):
    def forward(self, q, k, v, *, causal, scale):
        os._exit(3)


@planted("raises_in_a_model")
@dataclass(frozen=True)
class Raises(Naive):
    def forward(self, q, k, v, *, causal, scale):
        raise RuntimeError("not today")


@planted("gives_nan_in_a_model")
@dataclass(frozen=True)
class GivesNan(Naive):
    def forward(self, q, k, v, *, causal, scale):
        return super().forward(q, k, v, causal=causal, scale=scale) * float("nan")
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("bert"), bert(), special=True)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(llama())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.mul_(8.0)
    model.save_pretrained(folder)
    save_tokenizer(folder, special=False)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def measured(cli: Callable[..., Any], tmp_path: Path, text: Path) -> Callable[..., list[dict[str, Any]]]:
    def run(model: Path, *args: object) -> list[dict[str, Any]]:
        out = tmp_path / "run"
        answer = cli("dropin", "--model", model, "--text", text, *SMALL, "--out", out, "--json", *args)
        assert answer.code == 0, answer.err
        records: list[dict[str, Any]] = json.loads(answer.out)
        assert [record.model_dump() for record in load_dropins(out)] == records
        assert json.loads((out / "run.json").read_text())["cases"] == len(records)
        return records

    return run


def test_perplexities_are_those_of_the_model(language_model: Path, measured: Callable[..., Any], text: Path) -> None:
    records = {r["variant"]: r for r in measured(language_model, "--variants", "naive,topk,sliding_window,linformer")}
    model = transformers.AutoModelForCausalLM.from_pretrained(language_model, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(language_model)
    tokens = tokenizer(TEXT)["input_ids"]
    starts = [(len(tokens) - 30) // 4 * window for window in range(5)]  # spread over the text
    windows = torch.tensor([tokens[start : start + 30] for start in starts])
    i, j = torch.arange(30)[:, None], torch.arange(30)
    near = torch.zeros(1, 1, 30, 30).masked_fill((i - j >= 6) | (j > i), torch.finfo(torch.float32).min)
    with torch.no_grad():
        due = [
            math.exp(F.cross_entropy(model(windows, attention_mask=mask).logits[:, :-1].mT, windows[:, 1:]))
            for mask in (None, near.expand(5, 1, 30, 30))
        ]
    assert records["naive"]["perplexity"] == pytest.approx(due[0], rel=1e-3)
    assert all(
        r["perplexity_original"] == pytest.approx(due[0], rel=1e-3) for r in records.values() if "ok" in r["status"]
    )
    assert records["naive"]["next_token_agreement"] == 1.0
    window = records["sliding_window"]
    assert window["params"]["window_size"] == window["budget"] == 6
    assert window["perplexity"] == pytest.approx(due[1], rel=1e-3)
    assert 0 < window["next_token_agreement"] < 1
    assert 5 < window["keys"] < 6, "the first queries see fewer"
    assert window["perplexity_window"] == pytest.approx(window["perplexity"]), "a window is its own null"
    top = records["topk"]
    assert top["params"]["top_k"] == 6
    assert top["window_keys"] == round(top["keys"])
    assert top["perplexity_window"] != top["perplexity"]
    assert top["perplexity_uniform"] > 1
    assert top["metric"] == "perplexity"
    assert top["causal"] is True
    assert top["embedding_cosine"] is None
    assert records["linformer"]["status"] == "unsupported"
    assert "no causal form" in records["linformer"]["reasons"][0]


def test_embeddings_of_an_encoder(encoder: Path, measured: Callable[..., Any]) -> None:
    names = "naive,sliding_window,performer,delta,moba,topk(top_k=30)"
    records = {r["variant"]: r for r in measured(encoder, "--variants", names)}
    exact = records["naive"]
    assert exact["embedding_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert exact["ranking_agreement"] == exact["top1_agreement"] == 1.0
    assert exact["perplexity"] is None
    assert exact["causal"] is False
    assert exact["embedding_cosine_uniform"] < 0.999
    assert records["topk"]["embedding_cosine"] == pytest.approx(1.0, abs=1e-6), "named with parameters: as it is"
    assert records["topk"]["budget"] is None
    assert records["topk"]["keys"] == 30
    window = records["sliding_window"]
    assert window["params"]["window_size"] == 3, "on both sides: 5 keys, and no more than 6"
    assert window["embedding_cosine"] == pytest.approx(window["embedding_cosine_window"])
    assert window["embedding_cosine_low"] <= window["embedding_cosine"] < 0.9999
    assert (records["performer"]["budget_unit"], records["performer"]["window_keys"]) == ("features", 6)
    assert "operator of its own" in records["delta"]["reasons"][0]
    assert "causal form only" in records["moba"]["reasons"][0]


def test_a_variant_that_takes_the_model_down_takes_nothing_else(
    encoder: Path, measured: Callable[..., Any], tmp_path: Path
) -> None:
    plugin = tmp_path / "planted.py"
    plugin.write_text(PLUGIN)
    names = "dies_in_a_model,raises_in_a_model,gives_nan_in_a_model,naive"
    records = {r["variant"]: r for r in measured(encoder, "--variants", names, "--plugin", plugin)}
    assert [r["status"] for r in records.values()] == ["crashed"] * 3 + ["ok"]
    assert "exit status 3" in records["dies_in_a_model"]["reasons"][0]
    assert "not today" in records["raises_in_a_model"]["reasons"][0]
    assert "no finite numbers" in records["gives_nan_in_a_model"]["reasons"][0]


def test_a_stopped_run_goes_on(encoder: Path, cli: Callable[..., Any], tmp_path: Path, text: Path) -> None:
    out = tmp_path / "run"
    command = ("dropin", "--model", encoder, "--text", text, *SMALL, "--variants", "naive,sdpa,topk", "--out", out)
    assert cli(*command).code == 0
    lines = (out / DROPINS).read_text().splitlines()
    kept = json.dumps(json.loads(lines[1]) | {"embedding_cosine": 0.5})
    (out / DROPINS).write_text(f'{kept}\n{{"torn')
    with pytest.warns(UserWarning, match="line 2 skipped"):
        assert cli(*command, "--resume").code == 0
    with pytest.warns(UserWarning, match="line 2 skipped"):
        found = {record.variant: record for record in load_dropins(out)}
    assert set(found) == {"naive", "sdpa", "topk"}
    assert found["sdpa"].embedding_cosine == 0.5, "what has a record is not measured again"
    refused = cli(*command)
    assert refused.code == 2
    assert "holds another run already" in refused.err


def test_the_table_and_the_figure(encoder: Path, cli: Callable[..., Any], tmp_path: Path, text: Path) -> None:
    out = tmp_path / "run"
    answer = cli("dropin", "--model", encoder, "--text", text, *SMALL, "--variants", "naive,topk,moba", "--out", out)
    header, first, second, about = answer.out.splitlines()
    assert header.split("\t")[:3] == ["variant", "a query looks at", "cosine (window)"]
    assert first.split("\t")[2] == "1.000 (—)"
    assert second.startswith("topk(top_k=6, block_size=64)\t6 keys")
    assert "Plain means of values in place of attention give:" in about
    assert "not measured: moba" in answer.err
    figure = tmp_path / "figure.svg"
    assert cli("plot", "dropin", out, "--out", figure).code == 0
    assert "topk 6" in figure.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "nowhere"], "nowhere is no folder; name the folder of a transformers model"),
        (["--text", "nothing.txt"], "cannot read the text nothing.txt"),
        (["--windows", "50"], "name a longer text, or ask for fewer or shorter windows"),
        (["--seq-len", "41"], "reaches at most 40 tokens"),
        (["--windows", "0"], "the number of windows must be at least 1, not 0"),
        (["--seq-len", "0"], "the length of a window must be at least 1, not 0"),
        (["--budgets", "8,0"], "each budget must be at least 1, not 0"),
        (["--variants", "nave"], "did you mean 'naive'"),
        (["--timeout", "soon"], "'soon' is not a time"),
        (["--resume"], "is not a run"),
    ],
)
def test_requests_that_make_no_sense(
    encoder: Path, cli: Callable[..., Any], tmp_path: Path, text: Path, options: list[str], words: str
) -> None:
    out = tmp_path / "run"
    command = ("dropin", "--model", encoder, "--text", text, *SMALL, "--variants", "naive", "--out", out)
    answer = cli(*command, *options)
    assert answer.code == 2
    assert words in answer.err
    assert len(answer.err.strip().splitlines()) <= 4, "a sentence, no traceback"
    assert not out.exists(), "a request that fails leaves nothing behind"


def test_embeddings_by_hand() -> None:
    original = F.normalize(torch.randn(30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1)
    same = compare(original, original)
    assert same == pytest.approx(dict.fromkeys(same, 1.0))
    assert set(same) == {
        *("embedding_cosine", "embedding_cosine_low", "ranking_agreement", "top1_agreement", "top10_overlap")
    }
    mirrored = compare(original, -original)
    assert mirrored["embedding_cosine"] == pytest.approx(-1.0)
    assert mirrored["ranking_agreement"] == pytest.approx(1.0), "a turn of all changes no similarity"
    other = F.normalize(torch.randn(30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=-1)
    strange = compare(original, other)
    assert abs(strange["ranking_agreement"]) < 0.2
    assert strange["top10_overlap"] == pytest.approx(10 / 29, abs=0.12)
    alike = compare(original, original[:1].expand(30, -1))
    assert abs(alike["ranking_agreement"]) < 0.2, "windows that all look alike have no order"
    assert set(compare(original[:2], original[:2])) == {"embedding_cosine", "embedding_cosine_low"}
    with pytest.raises(ArithmeticError):
        compare(original, torch.full_like(original, math.nan))


def test_folders_without_such_records(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"is not a run"):
        load_dropins(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"has no dropin.jsonl; name a folder"):
        load_dropins(tmp_path)
    with pytest.raises(ResultsError, match="name at least one"):
        load_dropins()
