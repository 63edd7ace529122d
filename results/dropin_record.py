"""Drop-in accuracy: what a real model loses where a variant takes the place of its softmax attention, untrained for it.

`dropin.jsonl` in a run folder has a record a line: a variant inside one model over one text. A field that does not
apply is null; fields that a newer schema added are kept. Beside each figure stand two nulls: the same model with the
plain mean of the values in place of attention, and with a window of as many keys as the variant looks at.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from .bounds import Duration, Figure, Share, Signed, Size
from .errors import ResultsError
from .files import end_line, is_file
from .json_lines import records_of
from .record import digest
from .store import RUN

SCHEMA_VERSION = 1
DROPINS = "dropin.jsonl"

IDENTITY = ("weights_sha256", "text_sha256", "seq_len", "windows", "variant", "params")
"""The fields that say which measurement it is."""


class DropinRecord(BaseModel):
    """What one variant gave inside one model. Immutable."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    schema_version: int = SCHEMA_VERSION
    dropin_id: str
    """Hash of the identity (the fields in IDENTITY)."""

    # the model and the text
    model: str
    """The model's folder as it was given, or its package."""
    model_type: str
    weights_sha256: str
    text: str
    text_sha256: str
    seq_len: Size
    """Tokens of each window of the text."""
    windows: Size
    """Pieces of the text, spread evenly over it: each is read alone."""
    causal: bool
    metric: Literal["embedding", "perplexity"]
    """What is compared: the windows' embeddings, or how well a language model predicts them."""

    # the variant
    variant: str
    params: dict[str, JsonValue]
    family: str
    kind: str
    budget: Size | None = None
    """Keys, landmarks or features for each query, where the parameters were chosen for a budget."""
    budget_unit: str | None = None
    keys: Figure | None = None
    """Keys that a query keeps in this model, of variants that keep some: mean over layers, heads and queries of the
    first window."""

    # outcome
    status: Literal["ok", "unsupported", "oom", "timeout", "crashed"]
    reasons: list[str] = []

    # embeddings: the mean over a window's last hidden states, as one unit vector
    embedding_cosine: Signed | None = None
    """Between a window's embedding by the original and by the changed model: the mean over windows."""
    embedding_cosine_low: Signed | None = None
    """That of the window that changed most."""
    ranking_agreement: Signed | None = None
    """Kendall's tau between the original's ranking of all other windows by their similarity to one, and the changed
    model's: the mean over windows. 1 is the same order, 0 none."""
    top1_agreement: Share | None = None
    """Share of windows whose nearest other window stays the same."""
    top10_overlap: Share | None = None
    """Share of a window's ten nearest that stay among them; where there are more than twenty others."""
    # a causal language model
    perplexity: Figure | None = None
    """exp of the mean loss over all tokens but each window's first."""
    perplexity_original: Figure | None = None
    next_token_agreement: Share | None = None
    """Share of places where the likeliest next token stays the same."""

    # the nulls: the same model and text, every layer's attention replaced
    embedding_cosine_uniform: Signed | None = None
    """By the plain mean of the values that a query may see."""
    ranking_agreement_uniform: Signed | None = None
    top1_agreement_uniform: Share | None = None
    top10_overlap_uniform: Share | None = None
    perplexity_uniform: Figure | None = None
    next_token_agreement_uniform: Share | None = None
    window_keys: Size | None = None
    """Keys of the window that stands beside it: `keys`, or the budget of variants that keep none."""
    embedding_cosine_window: Signed | None = None
    """By a sliding window of `window_keys`."""
    ranking_agreement_window: Signed | None = None
    top1_agreement_window: Share | None = None
    top10_overlap_window: Share | None = None
    perplexity_window: Figure | None = None
    next_token_agreement_window: Share | None = None

    machine: str
    """Fingerprint of the machine and its libraries; `run.json` spells it out."""
    started_at: str
    """UTC, ISO 8601."""
    wall_s: Duration | None = None
    """All time spent on it, compilation included: no measurement of speed."""

    @property
    def spec(self) -> str:
        return f"{self.variant}({', '.join(f'{key}={value!r}' for key, value in self.params.items())})"


def dropin_id(identity: Mapping[str, Any]) -> str:
    """Hash of the identity: `identity` must hold the fields in IDENTITY."""
    return digest({field: identity[field] for field in IDENTITY})


def append_dropins(folder: Path, records: Iterable[DropinRecord]) -> None:
    """Adds records to a run folder and sees them to the disk. Raises ResultsError where that fails."""
    path = folder / DROPINS
    lines = "".join(record.model_dump_json() + "\n" for record in records).encode()
    try:
        end_line(path)
        with path.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        kept = "the records before are kept" if os.path.exists(path) else "they are gone: begin anew"
        raise ResultsError(f"cannot write to {path}: {error.strerror}; {kept}") from None


def load_dropins(*folders: str | Path) -> list[DropinRecord]:
    """The drop-in records of run folders, in the order of measuring. A torn or foreign line is warned of and skipped.

    Raises ResultsError for a folder that is no run, or holds none.
    """
    if not folders:
        raise ResultsError("name at least one run folder")
    found: list[DropinRecord] = []
    for folder in map(Path, folders):
        path = folder / DROPINS
        if not is_file(folder / RUN):
            raise ResultsError(f"{folder} is not a run: it has no {RUN}; name a folder that `attnbench dropin` wrote")
        try:
            found += records_of(path, DropinRecord)
        except FileNotFoundError:
            raise ResultsError(f"{folder} has no {DROPINS}; name a folder that `attnbench dropin` wrote") from None
    return found
