"""Captured inputs as files: q, k and v of a real model's attention layers over real text.

A safetensors file (tensors as data, never code) holds

    q  (L, W, H, N, D)      float32, L captured layers, W windows of text, N tokens each
    k  (L, W, Hkv, N, D)    float32
    v  (L, W, Hkv, N, D)    float32

and, as JSON under the metadata key `attnbench_capture`, where they came from: see CaptureInfo. q carries the model's
own softmax scale, so that softmax(D**-0.5 · q kᵀ) v is what the layer computed.

`read_info` looks at the header only and needs no torch. `attnbench capture` writes such files (capture.py).
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ..results.errors import in_words
from .errors import InputsError

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1
METADATA_KEY = "attnbench_capture"
TENSORS = ("q", "k", "v")

_HEADER_LIMIT = 100_000_000
"""The longest header that the safetensors format allows, in bytes (its README, section "Format")."""


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class CaptureInfo:
    """What a capture holds, and where it came from."""

    model: str
    """The model's folder as it was given, or its package."""
    model_type: str
    """What transformers calls its architecture, e.g. `bert`."""
    weights_sha256: str
    """Of the weight file; where there are several, of all of them in the order of their names."""
    layers: tuple[int, ...]
    """Which of the model's layers, in the order of the tensors' first axis."""
    causal: bool
    """Whether these layers let a token see only itself and what stands before it."""
    max_length: int | None
    """The most tokens that the model takes at once; None where neither model nor tokenizer says."""
    scale_factors: tuple[float, ...]
    """For each layer, the model's softmax scale over D**-0.5: what the model's own q was multiplied by."""
    heads: PositiveInt
    kv_heads: PositiveInt
    seq_len: PositiveInt
    head_dim: PositiveInt
    text: str
    """The text's file, or what stands in for one."""
    text_sha256: str
    """Of the text's bytes in UTF-8."""
    text_tokens: int
    """How many tokens the whole text has, special ones not counted."""
    offsets: tuple[int, ...]
    """For each window, which token of the text it starts at."""
    tokens: tuple[tuple[str, ...], ...]
    """For each window, its N tokens as the tokenizer writes them, special ones included."""
    largest_difference: float
    """Between softmax attention of the stored tensors, in float64, and what the model's layers gave, over the largest
    value; the worst layer and window, at up to 256 query positions of each."""
    transformers: str
    torch: str
    computed_in: str = "float32"
    schema_version: int = SCHEMA_VERSION

    @property
    def windows(self) -> int:
        return len(self.offsets)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """(L, W, H or Hkv, N, D) of one of q, k, v."""
        heads = self.heads if tensor == "q" else self.kv_heads
        return len(self.layers), self.windows, heads, self.seq_len, self.head_dim

    def to_metadata(self) -> dict[str, str]:
        """As the metadata of a safetensors file."""
        return {METADATA_KEY: json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)}

    def problem(self) -> str | None:
        """What does not fit together in it, or None."""
        layers, windows = len(self.layers), self.windows
        if not layers or not windows:
            return "it holds no layer or no window"
        if len(set(self.layers)) != layers or min(self.layers) < 0:
            return "its layers must be different and not negative"
        if len(self.scale_factors) != layers:
            return f"it has {layers} layers but {len(self.scale_factors)} scale factors"
        if len(self.tokens) != windows or any(len(window) != self.seq_len for window in self.tokens):
            return f"its tokens are not {windows} windows of {self.seq_len}"
        if self.heads % self.kv_heads:
            return f"{self.kv_heads} key heads do not divide {self.heads} query heads"
        if not all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in (self.weights_sha256, self.text_sha256)):
            return "a sha256 in it is not one"
        return None


def read_info(path: str | Path) -> CaptureInfo:
    """What a capture holds, from its header: no tensor is read and torch is not needed.

    Raises InputsError where the file cannot be read, is no capture, is of a newer schema, or is broken or cut off.
    """
    header, data_bytes = _read_header(Path(path))
    info = _parse_metadata(path, header)
    ends = [_check_tensor(path, header, name, info.shape(name)) for name in TENSORS]
    extra = sorted(set(header) - {"__metadata__", *TENSORS})
    if extra:
        raise _broken(path, f"it holds the unknown tensor {extra[0]!r}")
    if data_bytes != max(ends):
        raise _broken(path, f"its tensors take {max(ends)} bytes and {data_bytes} are there")
    return info


def load_capture(
    path: str | Path, seq_len: int | None = None, windows: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """q (L·W, H, N, D), k and v (L·W, Hkv, N, D) in float32, layer by layer and window by window within a layer.

    The first `windows` windows (all by default) and the first `seq_len` tokens of each (all by default). The start of a
    window of a causal model is exactly what the model would compute for the shorter text; in a model that attends both
    ways, its first tokens have seen the later ones.

    Raises InputsError as `read_info` does, and where the file holds fewer tokens or windows than asked for: nothing is
    repeated or padded to reach them.
    """
    info = read_info(path)
    seq_len = info.seq_len if seq_len is None else seq_len
    windows = info.windows if windows is None else windows
    refusal = reason_against(info, path, seq_len, windows)
    if refusal:
        raise InputsError(refusal)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            q, k, v = (file.get_slice(name)[:, :windows, :, :seq_len].flatten(0, 1).contiguous() for name in TENSORS)
    except (OSError, SafetensorError) as error:
        raise _broken(path, str(error)) from None
    return q, k, v


def reason_against(info: CaptureInfo, path: str | Path, seq_len: int, windows: int = 1) -> str | None:
    """Why a capture cannot give so many tokens or windows, in a sentence; None where it can."""
    if seq_len < 1 or windows < 1:
        return f"captured inputs need a length and a number of windows of at least 1, not {seq_len} and {windows}"
    if seq_len > info.seq_len:
        reach = f"captured inputs of {path} hold {info.seq_len} tokens a window, not {seq_len}"
        if info.max_length is not None and seq_len > info.max_length:
            return f"{reach}: the model reaches at most {info.max_length} tokens, and nothing is tiled to go further"
        most = "" if info.max_length is None else f" (the model reaches at most {info.max_length})"
        return f"{reach}; capture again with a longer --seq-len{most}"
    if windows > info.windows:
        return (
            f"captured inputs of {path} hold {info.windows} windows, not {windows}; capture again with more --windows"
        )
    return None


def _broken(path: str | Path, why: str) -> InputsError:
    return InputsError(f"{path} is a broken capture: {why}; make it again with `attnbench capture`")


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file, and how many bytes of tensors follow it.

    The format: 8 bytes, the header's length N as an unsigned little-endian integer; N bytes of JSON; the tensors.
    """
    foreign = InputsError(f"{path} is not a capture (no safetensors file); `attnbench capture` writes one")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(_HEADER_LIMIT, size - 8):
                raise foreign
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise InputsError(f"the capture {path} does not exist; `attnbench capture` writes one") from None
    except OSError as error:
        raise InputsError(f"cannot read the capture {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise (error if isinstance(error, InputsError) else foreign) from None
    if not isinstance(header, dict):
        raise foreign
    return header, size - 8 - length


def _parse_metadata(path: str | Path, header: dict[str, Any]) -> CaptureInfo:
    metadata = header.get("__metadata__")
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise InputsError(
            f"{path} is a safetensors file but not a capture: its metadata lack {METADATA_KEY!r}; "
            "`attnbench capture` writes one"
        )
    try:
        version = json.loads(text)["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise InputsError(f"{path} was written by a newer attnbench (capture schema {version}); update attnbench")
        info = TypeAdapter(CaptureInfo).validate_json(text)
    except InputsError:
        raise
    except ValidationError as error:
        raise _broken(path, in_words(error)) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _broken(path, "its metadata are not the JSON of a capture") from None
    problem = info.problem()
    if problem:
        raise _broken(path, problem)
    return info


def _check_tensor(path: str | Path, header: dict[str, Any], name: str, shape: tuple[int, ...]) -> int:
    """Raises InputsError unless the header describes this tensor; returns where its bytes end."""
    entry = header.get(name)
    if not isinstance(entry, dict):
        raise _broken(path, f"the tensor {name} is missing")
    if entry.get("dtype") != "F32" or entry.get("shape") != list(shape):
        raise _broken(path, f"{name} is {entry.get('dtype')} {entry.get('shape')} instead of F32 {list(shape)}")
    count = 4
    for size in shape:
        count *= size
    match entry.get("data_offsets"):
        case [int(begin), int(end)] if begin >= 0 and end - begin == count:
            return end
    raise _broken(path, f"the place of {name} in the file does not fit its shape")
