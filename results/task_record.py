"""One trained task: what one small model with one variant learned, or the reason why it learned nothing.

A record is one JSON object on one line of `tasks.jsonl`. Names carry units. A field that does not apply is null; fields
that a newer schema added are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from .bounds import LARGEST_COUNT, Count, Duration, Figure, Share, Size
from .record import digest

TASK_SCHEMA_VERSION = 1

TaskStatus = Literal["ok", "diverged", "unsupported", "oom", "timeout", "crashed", "skipped"]
Metric = Literal["accuracy", "bits_per_byte"]

TASK_IDENTITY = (
    "task",
    "task_params",
    "variant",
    "params",
    "seq_len",
    "vocab",
    "d_model",
    "layers",
    "heads",
    "backbone",
    "lr",
    "seed",
    "batch",
    "budget",
    "dtype",
    "device",
    "threads",
)
"""The fields that say which training it is. Two records with the same values of these ask for the same curve."""

TASK_SETTING = tuple(field for field in TASK_IDENTITY if field not in ("variant", "params", "lr", "seed"))
"""The fields that trainings share whose values may be compared: all but the variant, and what is searched over."""


class CurvePoint(BaseModel):
    """One evaluation on the way."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    step: Count
    tokens: Count
    """Tokens trained on so far."""
    wall_s: Duration
    """Seconds of training so far, evaluations not counted. After a resume it goes on from the checkpoint's."""
    loss: Figure | None
    """Mean training loss, in nats a scored token, since the point before; null at step 0 and where it is not finite."""
    value: Figure | None
    """The metric on the validation set."""


class Reach(BaseModel):
    """Accuracy on the test set where what is asked for lies some way back."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    nearest: Count
    farthest: Count
    """Tokens from what is asked for to where it is asked, both ends counted in."""
    answers: Size
    accuracy: Share


class TaskRecord(BaseModel):
    """What one training gave. Immutable."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    schema_version: int = TASK_SCHEMA_VERSION
    task_id: str
    """Hash of the identity (the fields in TASK_IDENTITY)."""

    # identity
    task: str
    task_params: dict[str, JsonValue]
    """What the task's generator was given besides the length and the vocabulary; for a text, its name and hash."""
    variant: str
    params: dict[str, JsonValue]
    seq_len: Size
    vocab: int = Field(ge=2, le=LARGEST_COUNT)
    d_model: Size
    layers: Size
    heads: Size
    backbone: dict[str, JsonValue]
    """What all variants share besides these: convolution, MLP, positions, optimiser and schedule."""
    lr: float = Field(gt=0)
    seed: int = Field(ge=0)
    batch: Size
    budget: dict[str, JsonValue]
    """The most that it may train: `steps`, `tokens` or `train_time_s`; and when it is evaluated, and has mastered."""
    dtype: str
    device: str
    threads: Size

    # about the variant
    spec: str | None = None
    """The variant as the command line writes it, with the parameters that differ from their defaults."""
    family: str | None = None
    kind: str | None = None

    # outcome
    status: TaskStatus
    reasons: list[str] = []
    """Why there is no value, in words; or what a reader of it must know."""
    metric: Metric
    value: Figure | None = None
    """The metric on the test set, which neither stopped the training nor chose anything. Accuracy is a share of 1."""
    chance: Share | None = None
    """What guessing gives; null for bits per byte."""
    reach: list[Reach] = []
    """`value` by how far back what is asked for lies, where the task has such a distance."""
    curve: list[CurvePoint] = []
    steps: Count = 0
    """Steps trained."""
    mastered: bool = False
    """The metric on the validation set reached the threshold in `budget`."""
    mastered_at: Count | None = None
    """The step of the first evaluation at which it did."""
    stopped_by: Literal["mastery", "steps", "tokens", "time"] | None = None
    parameters: Count | None = None
    """Trained numbers of the whole model."""
    variant_parameters: Count | None = None
    """Those of them that make the variant's extra inputs: gates, write strengths."""
    state_bytes: Count | None = None
    """What decoding keeps of one test sequence, summed over layers; null without a decode form. The
    backbone's own state, the last inputs of its convolutions, is the same for all and is not in it."""

    # conditions
    wall_s: Duration | None = None
    """All time of it: starting, training, evaluations; of a resumed one what its checkpoint had seen, too."""
    jobs: Size = 1
    """How many trainings shared the machine: times of more than one are contended."""
    resumes: Count = 0
    """How often it went on from a checkpoint."""
    machine: str
    """Fingerprint of the machine and its libraries; `run.json` spells it out."""
    started_at: str
    """UTC, ISO 8601."""


def task_id(identity: Mapping[str, Any]) -> str:
    """Hash of the identity: `identity` must hold the fields in TASK_IDENTITY."""
    return digest({field: identity[field] for field in TASK_IDENTITY})


def setting_id(identity: Mapping[str, Any]) -> str:
    """Hash of what trainings share whose values may be compared."""
    return digest({field: identity[field] for field in TASK_SETTING})
