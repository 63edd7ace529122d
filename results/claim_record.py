"""One record of `attnbench reproduce`: what one published claim said, what was measured here, and the verdict.

A record is one JSON object on one line. A field that does not apply is null; an end of a band that is open is null.
Fields that a newer schema added are kept, not dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from .bounds import Duration
from .record import digest

SCHEMA_VERSION = 1

VerdictWord = Literal["holds", "holds in direction only", "does not hold", "not testable here"]
HOLDS: VerdictWord = "holds"
DIRECTION: VerdictWord = "holds in direction only"
FAILS: VerdictWord = "does not hold"
UNTESTABLE: VerdictWord = "not testable here"

IDENTITY = ("name", "text", "source", "setting", "here", "targets")
"""What says which claim it is, as it was asked. Two records with the same values of these put the same question."""


class Quantity(BaseModel):
    """One figure of a claim: what was published, what counts as agreeing with it, and what was measured."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    name: str
    unit: str = ""
    """What follows the figure: `%`, `×`, ` tokens`; nothing for a share or a rank correlation."""
    published: float | None
    """None where the source says it in words, without a number."""
    obtained: str
    """How the published value was obtained: from the text, from a table, read off a figure, …"""
    within_low: float | None
    within_high: float | None
    """The tolerance: the claim holds where the measured value lies in it."""
    toward_low: float | None = None
    toward_high: float | None = None
    """The direction: it is the claimed one where the whole measured interval lies in it. Both null: no direction."""
    value: float
    low: float
    high: float
    """The measured value with its interval; `of` says over what."""
    of: str
    """What the interval covers: 95 % of the median over so many draws, the range over seeds, …"""
    difference: float | None
    """value - published."""
    verdict: VerdictWord
    sure: bool
    """Whether the whole interval agrees with the verdict, so that its noise could not have made another."""
    samples: list[float] | None = None


class ClaimRecord(BaseModel):
    """What became of one claim. Immutable."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    schema_version: int = SCHEMA_VERSION
    claim_id: str
    """Hash of the claim as it was asked (the fields in IDENTITY)."""
    name: str
    text: str
    """The claim in a sentence."""
    source: str
    setting: str
    """How the source measured it."""
    here: str
    """How it is measured here, and what differs from the source: hardware, scale, training."""
    status: Literal["ok", "untestable", "crashed", "oom", "timeout", "skipped"]
    verdict: VerdictWord | None
    """None where nothing was measured for a reason that says nothing of the claim: a crash, too little time."""
    reasons: list[str] = []
    """Why there is no verdict; or what a reader of the verdict must know."""
    quantities: list[Quantity] = []
    runs: list[str] = []
    """Folders below this one that hold the sweeps or trainings that the figures come from."""
    wall_s: Duration
    """Cost: time spent on this claim. Runs that an earlier claim paid for are not in it."""
    shared_s: Duration = 0.0
    """Time of the runs that an earlier claim paid for and this one reads."""
    machine: str
    started_at: str


def claim_id(values: Mapping[str, Any]) -> str:
    """Hash of a claim as it is asked: `values` must hold the fields in IDENTITY."""
    return digest({field: values[field] for field in IDENTITY})
