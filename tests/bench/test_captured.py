"""The capture file: what it says is what is read; a broken, foreign or too short one is refused in a sentence."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from attnbench.bench.captured import METADATA_KEY, CaptureInfo, load_capture, read_info, reason_against
from attnbench.bench.errors import InputsError

LAYERS, WINDOWS, HEADS, KV_HEADS, N, D = 2, 3, 4, 2, 10, 8


def make_info(**changes: Any) -> CaptureInfo:
    info = CaptureInfo(
        model="some/model",
        model_type="llama",
        weights_sha256="0" * 64,
        layers=(1, 3),
        causal=True,
        max_length=16,
        scale_factors=(1.0, 2.0),
        heads=HEADS,
        kv_heads=KV_HEADS,
        seq_len=N,
        head_dim=D,
        text="text.txt",
        text_sha256="f" * 64,
        text_tokens=100,
        offsets=(0, 10, 20),
        tokens=tuple(tuple(f"w{window}t{i}" for i in range(N)) for window in range(WINDOWS)),
        largest_difference=1e-7,
        transformers="5.0",
        torch="2.9",
    )
    return replace(info, **changes)


def make_tensors() -> dict[str, torch.Tensor]:
    sizes = {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(LAYERS, WINDOWS, heads, N, D, generator=generator) for name, heads in sizes.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "capture.safetensors"
    save_file(make_tensors(), target, metadata=make_info().to_metadata())
    return target


def rewrite(path: Path, change: Any) -> None:
    """Changes the header of a safetensors file by hand and keeps its tensors."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_what_is_written_is_read(path: Path) -> None:
    info = read_info(path)
    assert info == make_info()
    assert (info.windows, info.shape("q"), info.shape("v")) == (3, (2, 3, 4, 10, 8), (2, 3, 2, 10, 8))
    with pytest.raises(FrozenInstanceError):
        info.causal = False  # type: ignore[misc]


def test_header_is_read_without_torch(path: Path) -> None:
    code = (
        "import sys; from attnbench.bench.captured import read_info; print(read_info(sys.argv[1]).seq_len);"
        "assert not {'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == str(N)


def test_layers_are_folded_layer_by_layer(path: Path) -> None:
    stored = make_tensors()
    q, k, v = load_capture(path)
    assert q.shape == (LAYERS * WINDOWS, HEADS, N, D)
    assert k.shape == v.shape == (LAYERS * WINDOWS, KV_HEADS, N, D)
    for layer in range(LAYERS):
        for window in range(WINDOWS):
            row = layer * WINDOWS + window
            assert torch.equal(q[row], stored["q"][layer, window])
            assert torch.equal(v[row], stored["v"][layer, window])


@pytest.mark.parametrize(("seq_len", "windows"), [(1, 1), (7, 2), (10, 3)])
def test_shorter_lengths_are_the_start_of_each_window(path: Path, seq_len: int, windows: int) -> None:
    stored = make_tensors()
    loaded = load_capture(path, seq_len, windows)
    for name, tensor in zip("qkv", loaded, strict=True):
        assert torch.equal(tensor, stored[name][:, :windows, :, :seq_len].flatten(0, 1))
        assert tensor.is_contiguous()
        assert tensor.dtype == torch.float32


@pytest.mark.parametrize(
    ("seq_len", "windows", "words"),
    [
        (17, 1, "the model reaches at most 16 tokens, and nothing is tiled"),
        (11, 1, r"hold 10 tokens a window, not 11; capture again .* \(the model reaches at most 16\)"),
        (10, 4, "hold 3 windows, not 4"),
        (0, 1, "at least 1, not 0 and 1"),
        (5, 0, "at least 1, not 5 and 0"),
    ],
)
def test_what_it_does_not_hold_is_refused(path: Path, seq_len: int, windows: int, words: str) -> None:
    with pytest.raises(InputsError, match=words):
        load_capture(path, seq_len, windows)


def test_reason_without_a_known_longest_length() -> None:
    reason = reason_against(make_info(max_length=None), "x", 11)
    assert reason is not None
    assert "the model" not in reason
    assert reason_against(make_info(), "x", 10, 3) is None


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputsError, match="does not exist; `attnbench capture` writes one"):
        read_info(tmp_path / "none.safetensors")
    with pytest.raises(InputsError, match=r"cannot read the capture .*[Dd]irectory"):
        read_info(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        b"hello, I am prose and no capture",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 4) + b"{]]}",
        struct.pack("<Q", 4) + b"\xff\xfe\xff\xfe",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 200_000) + b"[" * 200_000,
    ],
    ids=["empty", "short", "prose", "huge header", "no JSON", "no UTF-8", "a list", "too deep"],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(InputsError, match="is not a capture"):
        read_info(path)


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(InputsError, match="a safetensors file but not a capture"):
        read_info(path)


def with_metadata(**changes: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        metadata = json.loads(header["__metadata__"][METADATA_KEY])
        for key, value in changes.items():
            if value is ...:
                del metadata[key]
            else:
                metadata[key] = value
        header["__metadata__"][METADATA_KEY] = json.dumps(metadata)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_metadata(schema_version=99), "newer attnbench .*99.*; update attnbench"),
        (with_metadata(schema_version=...), "not the JSON of a capture"),
        (with_metadata(causal=...), "causal: Field required"),
        (with_metadata(causal="yes"), "causal: .*bool"),
        (with_metadata(heads=0), "heads: .*greater than 0"),
        (with_metadata(kv_heads=3), "3 key heads do not divide 4"),
        (with_metadata(layers=[]), "no layer or no window"),
        (with_metadata(layers=[1, 1]), "layers must be different"),
        (with_metadata(layers=[1, 2, 3]), "3 layers but 2 scale factors"),
        (with_metadata(offsets=[0]), "not 1 windows of 10"),
        (with_metadata(seq_len=9), "not 3 windows of 9"),
        (with_metadata(head_dim=16), r"q is F32 \[2, 3, 4, 10, 8\] instead of F32 \[2, 3, 4, 10, 16\]"),
        (with_metadata(text_sha256="short"), "sha256"),
        (lambda header: header["__metadata__"].update({METADATA_KEY: "{"}), "not the JSON of a capture"),
        (lambda header: header["__metadata__"].update({METADATA_KEY: "[1]"}), "not the JSON of a capture"),
        (lambda header: header.pop("k") and None, "the tensor k is missing"),
        (lambda header: header["v"].update(dtype="F16"), "v is F16"),
        (lambda header: header["v"].update(data_offsets=[0, 4]), "the place of v in the file"),
        (lambda header: header["v"].update(data_offsets=None), "the place of v in the file"),
        (lambda header: header.update(extra=header["v"]), "unknown tensor 'extra'"),
    ],
)
def test_a_broken_capture_is_refused(path: Path, change: Any, words: str) -> None:
    rewrite(path, change)
    with pytest.raises(InputsError, match=words):
        read_info(path)


def test_a_capture_that_was_cut_off_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputsError, match=r"its tensors take \d+ bytes and \d+ are there"):
        load_capture(path)


def test_overlapping_tensors_are_refused(path: Path) -> None:
    """A header that puts k where v lies reads fine here; safetensors itself finds it, and that is one sentence too."""
    rewrite(path, lambda header: header["k"].update(data_offsets=header["v"]["data_offsets"]))
    with pytest.raises(InputsError, match="broken capture"):
        load_capture(path)
