"""One record: what one case gave, or the reason why it gave nothing.

A record is one flat JSON object on one line. Names carry units (`_s` seconds, `_bytes`, `_per_s`). A field that does
not apply is null. Fields that a newer schema added are kept, not dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, field_validator

from .batch_spec import canonical
from .bounds import Count, Duration, Figure, Ratio, Share, Signed, Size, Time

SCHEMA_VERSION = 1

Status = Literal["ok", "unsupported", "incorrect", "oom", "timeout", "crashed", "skipped"]

IDENTITY = (
    "variant",
    "params",
    "mode",
    "causal",
    "batch",
    "heads",
    "kv_heads",
    "n_q",
    "n_k",
    "head_dim",
    "dtype",
    "device",
    "threads",
    "compiled",
    "inputs",
    "seed",
    "requests",
)
"""The fields that say which case it is. Two records with the same values of these measure the same thing."""

LATER = ("requests",)
"""Those that came later. Where they are null they are no part of the hash, so that older records keep theirs."""

GROUP = tuple(field for field in IDENTITY if field not in ("variant", "params"))
"""The fields that cases share whose figures may be divided by each other."""

RECALL = ("recall_32", "recall_64", "recall_128", "recall_256", "recall_32_rewritten", "recall_why_not")
"""The fields of the recall probe: the same in all records of a variant with its parameters in a run."""


class Record(BaseModel):
    """What one case gave. Immutable."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    schema_version: int = SCHEMA_VERSION
    case_id: str
    """Hash of the identity (the fields in IDENTITY)."""
    group_id: str
    """Hash of the fields in GROUP: records that share it were measured in turns, round by round."""

    # identity
    variant: str
    params: dict[str, JsonValue]
    mode: Literal["forward", "train", "decode"]
    causal: bool
    batch: Size
    heads: Size
    kv_heads: Size
    n_q: Size
    n_k: Size
    """Keys that the last query sees; when decoding, that of the new token included."""
    head_dim: Size
    dtype: str
    device: str
    threads: Size
    compiled: bool
    inputs: str
    """Name of the input distribution, or `captured` / `captured:FILE` for a real model's q, k, v."""
    seed: int
    requests: str | None = None
    """Of a batch of unlike requests: which, as `2q2k_32q1s1k`. Then `batch` is 1, and `n_q` and `n_k` are the new
    tokens and all tokens of the whole batch."""

    # about the variant
    family: str | None = None
    kind: str | None = None
    declared_time_exponent: Signed | None = None
    declared_memory_exponent: Signed | None = None

    # outcome
    status: Status
    reasons: list[str] = []
    """Why there is no figure, in words; or what a reader of the figure must know."""

    # time
    time_s: Time | None = None
    """Median over rounds of the time of one call."""
    time_s_low: Time | None = None
    time_s_high: Time | None = None
    """95 % interval of the median."""
    samples_s: list[Time] | None = None
    """Time of one call in each round that counts, which are the same for all of a group, from the first on and in their
    order: pair them by index."""
    calls_per_sample: Size | None = None
    processes: Size | None = None
    """How many processes took the samples, one after the other: see `processes` in bench/config.py."""
    rounds_per_process: list[Size] | None = None
    """How many of `samples_s` each of them took, in their order. Where a process lies in memory is chance that all of
    its samples share."""
    stopped_by: Literal["precision", "time", "rounds"] | None = None
    """Why no further round was needed: the interval was as narrow as asked, or the case's time or the rounds were used
    up."""
    warmup_s: Duration | None = None
    compile_s: Duration | None = None
    """Time of the first call of a variant that compiles or was compiled, less one steady call."""
    graph_breaks: Count | None = None
    """How often torch.compile left its graph and went on in plain Python, where the case is compiled."""
    baseline: str | None = None
    """The variant that `ratio` divides by: the fastest exact one of the group."""
    ratio: Ratio | None = None
    """Median over rounds of this variant's time over the baseline's in the same round. Below 1 is faster."""
    ratio_low: Ratio | None = None
    ratio_high: Ratio | None = None
    handover_s: Duration | None = None
    """On a CPU: median over rounds, right after each turn, of the time in which its threads add 32768 numbers each,
    which is little work, and of several threads one handover. Where it differs between runs, so do calls of many small
    operations."""
    eviction: Ratio | None = None
    """On a CPU, where inputs and outputs are more than 512 KiB: median over the rounds that count of how many times as
    long as at once it took to read 8 MiB again 4 ms later; read beside turns of the group, once a second at most. 1
    where nobody else uses the cache that cores share; about 2.5 where others push all of it out. Where it differs
    between runs, so do calls that come back to what they wrote."""
    evictions: list[Ratio] | None = None
    """The same beside each round of `samples_s`."""
    tokens_per_s: Figure | None = None
    """batch · n_q / time_s."""
    batch_calls: list[str] | None = None
    """Of a batch of unlike requests: the calls that one measured call is made of, such as `forward 2q2k`,
    `decode 32q1s1k`; or the one `varlen` call over packed sequences."""

    # memory
    peak_bytes: Count | None = None
    """Most bytes that the allocator held during one call, above what was there before it."""
    peak_rss_bytes: Count | None = None
    """Growth of the resident high-water mark during one call (CPU): sees scratch memory that the allocator does not."""
    state_bytes: Count | None = None
    """What decoding keeps after a prompt of this length: keys and values of a cache, or sums of a fixed size."""

    # work
    flops: Count | None = None
    """Operations of matrix products that the call really did, where torch's counter sees them all."""
    flops_needed: Count | None = None
    """Operations that the definition needs; 3.5 times the forward's when training, the last token's when decoding."""
    bytes_needed: Count | None = None
    """Of a batch of unlike requests: one pass over inputs, outputs and what decode steps read of their states."""
    ceiling_share: Figure | None = None
    """The least time that this machine's measured ceilings allow for flops_needed and the inputs and outputs, over
    time_s."""

    # accuracy: the implementation against its own definition
    error: Figure | None = None
    """Largest difference from the definition in float64, over its largest value; the worst of output and gradients."""
    error_allowed: Figure | None = None
    """A floor of some rounding steps, where the error is within it; else the floor and twice the definition's own error
    in the case's dtype."""
    error_of: str | None = None
    """Which tensor `error` is of: out, dq, dk, dv or the gradient of an extra."""
    checked_rows: Count | None = None
    """How many query rows were compared."""

    # accuracy: an approximate variant against softmax attention on these inputs
    fidelity_error: Figure | None = None
    """‖out - softmax‖ / ‖softmax‖ over the checked rows."""
    fidelity_cosine: Signed | None = None
    """Mean over rows of the cosine between output and softmax attention's."""
    fidelity_error_uniform: Figure | None = None
    """The null: fidelity_error of giving every query the plain mean of the values it may see."""
    fidelity_keys: Figure | None = None
    """Keys that a query keeps, on average, of a variant that keeps some and leaves out others: its budget."""
    fidelity_mass: Figure | None = None
    """Mass of softmax attention on the keys that are kept."""
    fidelity_mass_window: Figure | None = None
    """The null: that of as many nearest keys."""
    fidelity_mass_oracle: Figure | None = None
    """That of as many keys with the highest scores: the most there is."""
    fidelity_error_window: Figure | None = None
    """The null: fidelity_error of softmax over as many nearest keys."""
    fidelity_error_oracle: Figure | None = None
    """fidelity_error of softmax over as many keys with the highest scores."""

    budget: Size | None = None
    """Keys, landmarks or features for each query, where the parameters were chosen for a budget; see `budget_unit`."""
    budget_unit: str | None = None

    # accuracy: what the variant recalls without training, the same in all its records: see bench/recall.py
    recall_32: Share | None = None
    """Share of 32 pairs of random keys and values whose value the key brings back, by the definition, in one head of 64
    dimensions."""
    recall_64: Share | None = None
    recall_128: Share | None = None
    recall_256: Share | None = None
    recall_32_rewritten: Share | None = None
    """The same of 32 pairs of which 16 were written a second time, with new values that count alone."""
    recall_why_not: str | None = None
    """Why it was not asked, or gave no answer."""

    # what softmax attention on these inputs is like: see results/distributions.py
    inputs_effective_keys: Figure | None = None
    """exp of the mean entropy of a query's weights."""
    inputs_mass_first: Figure | None = None
    inputs_mass_local: Figure | None = None
    """Mass on keys nearer than 64."""
    inputs_mass_hitters: Figure | None = None
    """Mass on a head's 20 keys with the most, the first left out."""
    inputs_mass_top: Figure | None = None
    """Mass on each query's 64 highest."""
    inputs_mass_planted: Figure | None = None
    """Mass on the keys that a drawn distribution has planted for each query."""
    inputs_key_rank: Figure | None = None
    """Directions that hold 90 % of the keys' variance."""
    inputs_strengths: dict[str, float] | None = None
    """By which factor each part of the scores counts, where they were fitted to target statistics."""
    inputs_missed: list[str] | None = None
    """A sentence for each target statistic that was not reached."""

    machine: str
    """Fingerprint of the machine and its libraries; `run.json` spells it out."""
    started_at: str
    """UTC, ISO 8601."""
    wall_s: Duration | None = None
    """All time spent on the case: check, warm-up, samples, memory."""

    @field_validator("requests")
    @classmethod
    def _a_batch(cls, value: str | None) -> str | None:
        return None if value is None else canonical(value)


def digest(values: Mapping[str, Any]) -> str:
    """A short stable hash of plain data."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def case_id(identity: Mapping[str, Any]) -> str:
    """Hash of the identity: `identity` must hold the fields in IDENTITY."""
    return digest(_fields(IDENTITY, identity))


def group_id(identity: Mapping[str, Any]) -> str:
    """Hash of what cases share whose figures may be divided by each other."""
    return digest(_fields(GROUP, identity))


def _fields(names: tuple[str, ...], identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: identity[name] for name in names if name not in LATER or identity.get(name) is not None}
