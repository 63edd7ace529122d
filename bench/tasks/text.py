"""Byte-level language modelling on real text: the next byte. Measured in bits per byte on text not trained on.

By default the text is what every CPython ships: the sources of its standard library, and the topics of its language
reference in English. Each document of a text is cut by position: nine tenths to train on, then a twentieth to validate
and a twentieth to test on. No sequence crosses a cut, and in between lie GAP bytes that nobody reads.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputsError
from .batch import Batch, Part
from .task import Task

TRAIN, HELD_OUT = 0.9, 0.05
GAP = 64
"""Bytes between two parts: a sentence that runs across a cut gives nothing away."""


class Text(Task):
    """Training windows begin anywhere in a document; held-out ones are spread evenly, without overlap if they fit."""

    name: ClassVar[str] = "text"
    about: ClassVar[str] = "byte-level language modelling on real text: bits per byte"
    source: ClassVar[str] = "the standard library's sources and pydoc_data.topics, or --text FILE"
    metric: ClassVar[Literal["accuracy", "bits_per_byte"]] = "bits_per_byte"
    defaults: ClassVar[dict[str, Any]] = {
        "seq_len": 256,
        "vocab": 256,
        "mlp_ratio": 2,
        "batch": 16,
        "mastery": None,
        "alone": True,
    }

    text: str | None = None
    """A file; CPython's own sources and topics where None."""

    def problem(self, seq_len: int, vocab: int) -> str | None:
        if vocab != 256:
            return f"text is bytes: its vocab is 256, not {vocab}"
        found = corpus(self.text)
        part, shortest = min(
            ((name, len(document)) for name, documents in found.parts.items() for document in documents),
            key=lambda each: each[1],
        )
        if shortest <= seq_len:
            what = {"train": "to train on", "validation": "to validate on", "test": "to test on"}[part]
            return f"{found.name} has {shortest} bytes {what}: too few for a seq_len of {seq_len}"
        return None

    def chance(self, vocab: int) -> None:
        return None

    def draw(self, rng: np.random.Generator, count: int, seq_len: int, vocab: int, part: Part) -> Batch:
        documents = corpus(self.text).parts[part]
        room = np.array([len(document) - seq_len for document in documents])  # places where a window may begin
        ends = np.cumsum(room)
        spread = np.arange(count) * ends[-1] // count  # held-out places are the same for everyone
        starts = rng.integers(ends[-1], size=count) if part == "train" else spread
        which = np.searchsorted(ends, starts, side="right")
        offsets = starts - (ends - room)[which]
        windows = np.stack([documents[i][at : at + seq_len + 1] for i, at in zip(which, offsets, strict=True)])
        windows = windows.astype(np.int64)
        return Batch(windows[:, :-1].copy(), windows[:, 1:].copy())

    def params(self) -> dict[str, Any]:
        found = corpus(self.text)
        return {"text": self.text, "name": found.name, "sha256": found.sha256, "bytes": found.size}


class Corpus:
    """A text, cut into its parts: for each, the same documents in the same order."""

    def __init__(self, name: str, documents: list[bytes]) -> None:
        self.name = name
        self.size = sum(map(len, documents))
        self.sha256 = hashlib.sha256(b"\0".join(documents)).hexdigest()
        self.parts: dict[Part, list[NDArray[np.uint8]]] = {"train": [], "validation": [], "test": []}
        for document in documents:
            data = np.frombuffer(document, np.uint8)
            first, second = int(len(data) * TRAIN), int(len(data) * (TRAIN + HELD_OUT))
            self.parts["train"].append(data[:first])
            self.parts["validation"].append(data[first + GAP : second])
            self.parts["test"].append(data[second + GAP :])


@functools.lru_cache(maxsize=4)
def corpus(text: str | None) -> Corpus:
    """Raises InputsError for a file that cannot be read, or a Python that ships no sources."""
    if text is None:
        return Corpus(f"the standard library's sources and topics, Python {platform.python_version()}", _own())
    try:
        return Corpus(str(text), [Path(text).read_bytes()])
    except OSError as error:
        raise InputsError(f"cannot read the text {text}: {error.strerror}; name a file of text") from None


def _own() -> list[bytes]:
    """Two documents: all top-level modules one after the other by name, and all topics."""
    home = Path(os.__file__).parent
    sources = b"\n".join(path.read_bytes() for path in sorted(home.glob("*.py")))
    try:
        from pydoc_data.topics import topics
    except ImportError:
        sources = b""
    if not sources:
        raise InputsError("this Python ships no sources or no topics; name a text of your own with --text")
    return [sources, "\n\n".join(topics[key] for key in sorted(topics)).encode()]
