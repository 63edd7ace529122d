"""Captures q, k and v of a transformers model's attention layers over real text, into a file that captured.py reads.

The model runs as it is, in float32 on the CPU; each of its attention layers hands over q, k and v through transformers'
AttentionInterface, after positions are rotated in and with the key heads not yet repeated. Two checks stand between a
model and a file: the model gives the same hidden states with its own eager attention as with the capturing one, and
softmax attention of the stored tensors gives what the layer gave. A model of which that is not true (a window shorter
than the text, position biases, sinks, capped scores) is refused: q, k and v alone would not be its real input.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .capture_text import cut, read_text
from .captured import CaptureInfo, load_capture, read_info
from .errors import InputsError
from .hf_model import default_model, find, first_line, load, quiet, weights_sha256

if TYPE_CHECKING:
    from torch import Tensor

    from .recorder import Recorder

__all__ = ["DEFAULT_MAX_LEN", "CaptureInfo", "capture", "capture_default", "default_model", "load_capture", "read_info"]

DEFAULT_MAX_LEN = 512
"""The length of a window where none is asked for and the model reaches it; all that the packaged model reaches."""

_PROBE_TOKENS = 128
"""How many tokens the model sees both with its own eager attention and with the capturing one, to compare the two."""
_ALLOWED_DIFFERENCE = 1e-4
"""Between two orders of summing in float32, over the largest value: some thousand roundings."""


def capture_default(out: str | Path, *, seq_len: int = DEFAULT_MAX_LEN, windows: int = 1) -> CaptureInfo:
    """Captures all layers of the packaged MiniLM model over CPython's language topics; needs no network.

    Raises InputsError as `capture` does.
    """
    return capture(None, None, out, seq_len=seq_len, windows=windows)


def capture(
    model: str | Path | None,
    text: str | Path | None,
    out: str | Path,
    *,
    layers: Sequence[int] | None = None,
    seq_len: int | None = None,
    windows: int = 1,
) -> CaptureInfo:
    """Runs the model in the folder `model` over the file `text` and writes q, k and v of its layers to `out`.

    `model` None takes the packaged model, `text` None CPython's language topics (`pydoc_data.topics`); a text is a file
    in UTF-8. `layers` chooses among the model's attention layers, counted from 0; None takes all. Windows are
    consecutive pieces of the text that do not overlap, each exactly `seq_len` tokens with the special tokens that the
    model expects; None takes 512, or what the model reaches if that is less. `out` is replaced as a whole or not at
    all.

    Raises InputsError where transformers is missing, the folder holds no model that can be captured, a layer does not
    exist, the model does not reach `seq_len`, the text is unreadable or too short, or `out` cannot be written.
    """
    folder, name = find(model)
    out = Path(out)
    if windows < 1 or (seq_len is not None and seq_len < 1):
        raise InputsError(
            f"a capture needs a length and a number of windows of at least 1, not {seq_len} and {windows}"
        )
    if layers is not None and (not layers or len(set(layers)) != len(layers)):
        raise InputsError(f"name each layer to capture once, not {list(layers)}; leave layers out to take all")
    text_name, content = read_text(text)
    with _draft(out) as draft, quiet("capturing"):
        from .recorder import IMPLEMENTATION, register_implementation

        register_implementation()
        network, tokenizer, max_length = load(folder, name, IMPLEMENTATION)
        if seq_len is None:
            seq_len = min(DEFAULT_MAX_LEN, max_length or DEFAULT_MAX_LEN)
        if max_length is not None and seq_len > max_length:
            raise InputsError(f"{name} reaches at most {max_length} tokens, not {seq_len}; choose a shorter --seq-len")
        ids, offsets, text_tokens = cut(tokenizer, content, seq_len, windows)
        _check_layers(name, _probe(network, name, ids[0]), layers)
        recorder = _record(network, name, ids, layers)
        q, k, v = recorder.stacked()  # (L, W, heads, N, D) each
        import torch
        import transformers

        info = CaptureInfo(
            model=name,
            model_type=str(network.config.model_type),
            weights_sha256=weights_sha256(folder),
            layers=tuple(recorder.layers),
            causal=recorder.causal,
            max_length=max_length,
            scale_factors=tuple(recorder.scale_factors),
            heads=q.shape[2],
            kv_heads=k.shape[2],
            seq_len=seq_len,
            head_dim=q.shape[4],
            text=text_name,
            text_sha256=hashlib.sha256(content.encode()).hexdigest(),
            text_tokens=text_tokens,
            offsets=tuple(offsets),
            tokens=tuple(tuple(tokenizer.convert_ids_to_tokens(window)) for window in ids),
            largest_difference=recorder.largest_difference,
            transformers=transformers.__version__,
            torch=torch.__version__,
        )
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        try:
            mode = draft.stat().st_mode
            save_file({"q": q, "k": k, "v": v}, draft, metadata=info.to_metadata())
            draft.chmod(mode)  # save_file puts a file of its own in the draft's place, for the owner's eyes only
            os.replace(draft, out)
        except (OSError, SafetensorError) as error:
            raise InputsError(f"cannot write the capture {out}: {error}; choose another --out") from None
    return info


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A file beside `out` to write to, claimed before the model runs, so that a bad --out costs no wait."""
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    if out.is_dir():
        raise InputsError(f"cannot write the capture {out}: it is a folder; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft.touch()
    except OSError as error:
        raise InputsError(f"cannot write the capture {out}: {error.strerror}; choose another --out") from None
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _forward(model: Any, name: str, ids: list[int]) -> Tensor:
    """The last hidden state over one window, (1, N, hidden size)."""
    import torch

    try:
        with torch.inference_mode():
            hidden: Tensor = model(input_ids=torch.tensor([ids]))[0]
    except InputsError:
        raise
    except Exception as error:
        # models of all kinds, with all kinds of demands: what one raises over plain text is the reason it cannot serve
        raise InputsError(f"{name} cannot run on {len(ids)} tokens of plain text: {first_line(error)}") from None
    return hidden


def _probe(model: Any, name: str, ids: list[int]) -> list[int]:
    """The model's attention layers. Raises InputsError where its own attention computes something else than ours."""
    from .recorder import Recorder, recording

    recorder = Recorder(wanted=frozenset())
    with recording(recorder):
        ours = _forward(model, name, ids[:_PROBE_TOKENS])
    if not recorder.seen:
        raise InputsError(f"{name} has no attention layer that goes through transformers' AttentionInterface")
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    own = _forward(model, name, ids[:_PROBE_TOKENS])
    model.set_attn_implementation(implementation)
    if not (ours - own).abs().max() <= _ALLOWED_DIFFERENCE * own.abs().max():
        raise InputsError(
            f"{name} attends in a way of its own: with plain softmax attention its hidden states are others; "
            "q, k and v would not stand for it, so take another model"
        )
    return recorder.seen


def _check_layers(name: str, there: list[int], layers: Sequence[int] | None) -> None:
    for layer in layers or ():
        if layer not in there:
            known = (
                f"from {there[0]} to {there[-1]}"
                if there == list(range(there[0], there[-1] + 1))
                else ", ".join(map(str, there))
            )
            raise InputsError(f"{name} has no attention layer {layer}; its layers are {known}")


def _record(model: Any, name: str, ids: list[list[int]], layers: Sequence[int] | None) -> Recorder:
    from .recorder import Recorder, recording

    recorder = Recorder(
        wanted=None if layers is None else frozenset(layers), order=layers, allowed_difference=_ALLOWED_DIFFERENCE
    )
    for window in ids:
        with recording(recorder):
            _forward(model, name, window)
        problem = recorder.problem()
        if problem:
            raise InputsError(f"{name}: {problem}")
    return recorder
