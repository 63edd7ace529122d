"""What `attnbench recommend` is asked: a length and a mode, what must hold, and how the figures are to be counted."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

from ..results.bounds import LARGEST_COUNT
from .errors import ReportsError
from .words import count, percent, size

MODES = ("forward", "train", "decode")
KINDS = ("exact", "approximate", "own")
DTYPES = ("float64", "float32", "bfloat16", "float16")
LOADS = (32, 64, 128, 256)
"""Pairs that the recall probe is asked with."""
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class Question:
    """Raises ReportsError for what cannot be asked."""

    seq_len: int
    mode: str = "forward"
    causal: bool = True
    max_memory_bytes: float | None = None
    """Of a call with all that it needs, for `layers` and `batch`."""
    min_recall: float | None = None
    recall_load: int = 64
    """Pairs that are to be recalled."""
    max_error: float | None = None
    """Largest relative distance from softmax attention on `inputs`."""
    inputs: str = "captured"
    """On which inputs that distance counts."""
    kinds: tuple[str, ...] = KINDS
    dtype: str | None = None
    device: str | None = None
    threads: int | None = None
    attention_share: float | None = None
    """Of a whole model's time, with the fastest exact variant."""
    layers: int = 1
    batch: int | None = None
    """For memory; that of the records where it is not given."""

    def __post_init__(self) -> None:
        counts = {"seq-len": self.seq_len, "layers": self.layers, "batch": self.batch, "threads": self.threads}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ReportsError(f"--{name} must be at least 1, not {value}")
            if value is not None and value > LARGEST_COUNT:
                raise ReportsError(f"--{name} must be at most {LARGEST_COUNT}: no record counts further")
        _known("mode", self.mode, MODES)
        if self.dtype is not None:
            _known("dtype", self.dtype, DTYPES)
        for kind in self.kinds:
            _known("kind", kind, KINDS)
        if not self.kinds:
            raise ReportsError(f"--kinds names none; choose from {', '.join(KINDS)}")
        if self.recall_load not in LOADS:
            raise ReportsError(f"--recall-load is one of {', '.join(map(str, LOADS))}, not {self.recall_load}")
        for name, share in (("min-recall", self.min_recall), ("attention-share", self.attention_share)):
            if share is not None and not 0 <= share <= 1:
                raise ReportsError(f"--{name} is a share between 0 and 1, not {share:g}")
        if self.max_error is not None and not 0 <= self.max_error < math.inf:
            raise ReportsError(f"--max-error must not be negative, and finite, which {self.max_error:g} is not")
        if self.mode == "decode" and not self.causal:
            raise ReportsError("decoding is causal: leave out --no-causal, or ask for another --mode")

    @property
    def words(self) -> str:
        """The question in one line."""
        parts = [f"{self.mode} at {count(self.seq_len)} tokens", "causal" if self.causal else "non-causal"]
        parts += [text for text in (self.dtype, self.device and f"on {self.device}") if text]
        if self.threads is not None:
            parts.append(f"{self.threads} threads")
        if self.kinds != KINDS:
            parts.append("only " + " or ".join(self.kinds))
        if self.max_memory_bytes is not None:
            parts.append(f"at most {size(self.max_memory_bytes)}")
        if self.layers > 1:
            parts.append(f"{self.layers} layers")
        if self.batch is not None:
            parts.append(f"memory for a batch of {self.batch}")
        if self.min_recall is not None:
            parts.append(f"at least {percent(self.min_recall)} recalled of {self.recall_load} pairs")
        if self.max_error is not None:
            parts.append(f"at most {percent(self.max_error)} from softmax attention on {self.inputs} inputs")
        if self.attention_share is not None:
            parts.append(f"attention {percent(self.attention_share)} of a model's time")
        return ", ".join(parts)


def parse_bytes(text: str) -> float:
    """8GiB, 512 MiB, 4GB -> bytes. Raises ReportsError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B)\s*", text.upper())
    if not match or match[2] not in UNITS or not 0 < float(match[1]) <= LARGEST_COUNT:
        raise ReportsError(f"{text!r} is not an amount of memory; write it with its unit, as 8GiB or 512MiB")
    return float(match[1]) * UNITS[match[2]]


def _known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
        raise ReportsError(f"unknown {what} {value!r}; {hint}")
