"""Variants inside models of transformers: the numbers are those of the model's own code under the same mask."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import attnbench
from attnbench.variants.api import VariantError
from attnbench.variants.in_transformers import PREFIX, reasons_against

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
N = 40


def made(config: Any, *, language: bool = False) -> Any:
    """A model of random weights, far from small ones, so that softmax is far from uniform."""
    torch.manual_seed(0)
    kind = transformers.AutoModelForCausalLM if language else transformers.AutoModel
    model = kind.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "emb" not in name and "wte" not in name and "head" not in name:
                parameter.mul_(8.0)
    return model


def llama(**changes: Any) -> Any:
    return transformers.LlamaConfig(**{**SIZES, "num_key_value_heads": 2, **changes})


def bert() -> Any:
    return transformers.BertConfig(**SIZES)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 64, (2, N), generator=torch.Generator().manual_seed(1))


def put(model: Any, spec: str) -> Any:
    (name,) = attnbench.register_transformers(spec)
    model.set_attn_implementation(name)
    return model


@torch.no_grad()
def test_a_window_is_the_models_own_attention_under_that_mask(ids: torch.Tensor) -> None:
    """Nothing of attnbench takes part on the other side: transformers takes a mask of four axes as it is."""
    i, j = torch.arange(N)[:, None], torch.arange(N)
    for config, seen, language in (
        (bert(), (i - j).abs() < 6, False),
        (llama(), (i - j < 6) & (j <= i), True),
    ):
        model = made(config, language=language)
        mask = torch.zeros(2, 1, N, N).masked_fill(~seen, torch.finfo(torch.float32).min)
        model.set_attn_implementation("eager")
        due, whole = model(ids, attention_mask=mask)[0], model(ids)[0]
        out = put(model, "sliding_window(window_size=6)")(ids)[0]
        torch.testing.assert_close(out, due, rtol=1e-4, atol=1e-4 * float(due.abs().max()))
        assert (out - whole).norm() > 0.1 * whole.norm(), "a test without power"


@torch.no_grad()
@pytest.mark.parametrize("spec", ["naive", "sdpa", "chunked_exact(chunk_size=16)"])
def test_exact_variants_change_nothing(spec: str, ids: torch.Tensor) -> None:
    gpt2 = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, scale_attn_by_inverse_layer_idx=True
    )
    for config, language in ((bert(), False), (llama(), True), (gpt2, True)):
        model = made(config, language=language)
        model.set_attn_implementation("eager")
        due = model(ids)[0]
        torch.testing.assert_close(put(model, spec)(ids)[0], due, rtol=1e-4, atol=1e-4 * float(due.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("spec", ["sliding_window(window_size=5)", "topk(top_k=7)", "sink_window(window_size=5)"])
def test_decoding_with_a_cache_gives_what_the_whole_text_gives(spec: str, ids: torch.Tensor) -> None:
    model = put(made(llama(), language=True), spec)
    whole = model(ids).logits
    cache = transformers.DynamicCache(config=model.config)
    parts = [model(ids[:, :20], past_key_values=cache, use_cache=True).logits]
    for start, end in ((20, 21), (21, 30), (30, N)):  # one token, and several at a time
        parts.append(model(ids[:, start:end], past_key_values=cache, use_cache=True).logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_gradients_reach_the_weights(ids: torch.Tensor) -> None:
    model = put(made(llama(), language=True), "sliding_window(window_size=5)")
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_padding_is_refused_by_name(ids: torch.Tensor) -> None:
    for config, language in ((bert(), False), (llama(), True)):
        model = put(made(config, language=language), "naive")
        mask = torch.ones_like(ids)
        model(ids, attention_mask=mask)
        mask[0, -3:] = 0
        with pytest.raises(VariantError, match="padding"):
            model(ids, attention_mask=mask)


def test_what_is_more_than_softmax_is_refused(ids: torch.Tensor) -> None:
    model = put(made(llama(attention_dropout=0.1), language=True), "naive")
    with pytest.raises(VariantError, match=r"dropout of attention weights; call model\.eval"):
        model.train()(ids)
    gemma = transformers.Gemma2Config(**{**SIZES, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 64})
    with pytest.raises(VariantError, match="takes softcap into account"):
        put(made(gemma, language=True), "naive")(ids)
    mistral = transformers.MistralConfig(**{**SIZES, "num_key_value_heads": 2, "sliding_window": 8})
    with pytest.raises(VariantError, match="a window of the model's own"):
        put(made(mistral, language=True), "naive")(ids)
    model = put(made(llama(), language=True), "naive")
    with pytest.raises(VariantError, match="static cache"):
        model.generate(ids, max_new_tokens=3, do_sample=False, cache_implementation="static")


def test_a_form_that_a_variant_lacks_is_refused(ids: torch.Tensor) -> None:
    with pytest.raises(VariantError, match="attnbench:linformer cannot serve this call: has no causal form"):
        put(made(llama(), language=True), "linformer")(ids)
    with pytest.raises(VariantError, match="attnbench:moba cannot serve this call: has a causal form only"):
        put(made(bert()), "moba")(ids)


def test_who_is_registered() -> None:
    registered = attnbench.register_transformers()
    assert f"{PREFIX}sliding_window" in registered
    assert f"{PREFIX}dsa" in registered, "its indexer is drawn from q and k"
    for name in registered:
        assert attnbench.get(name.removeprefix(PREFIX)).kind != "own"
        assert name in transformers.AttentionInterface().valid_keys()
    for name in ("delta", "infini", "nsa"):
        assert reasons_against(attnbench.get(name))
        with pytest.raises(VariantError, match="cannot stand in for softmax attention in a model: it is an operator"):
            attnbench.register_transformers(name)
    with pytest.raises(VariantError, match="FlashAttention of its own"):
        attnbench.register_transformers("flash_attn")
    with pytest.raises(VariantError, match="did you mean 'naive'"):
        attnbench.register_transformers("nave")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(VariantError, match=r"pip install 'attnbench\[hf\]'"):
        attnbench.register_transformers("naive")
