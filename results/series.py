"""The records of one run as series: one variant in one setting, over length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .record import GROUP, Record, digest
from .statistics import Interval, median_interval, paired_ratio, ratio_of_medians
from .work import BYTES

REFERENCE = "naive"


@dataclass(frozen=True, eq=False)
class Series:
    """Records that differ in length alone, shortest first, one a length; those without figures too."""

    records: tuple[Record, ...]
    key: str
    """Hash of all that they share."""
    setting: str
    """Hash of what they share with other variants: machine, mode, causal, dtype, device, threads, inputs, shape, ….

    Series of one setting may be compared."""

    @property
    def of(self) -> Record:
        """Any of them, for what all share."""
        return self.records[0]

    @cached_property
    def ok(self) -> dict[int, Record]:
        """By length, those that were measured and are correct."""
        return {record.n_k: record for record in self.records if record.status == "ok"}

    @cached_property
    def timed(self) -> dict[int, Record]:
        return {n: record for n, record in self.ok.items() if record.time_s is not None and record.time_s > 0}

    @property
    def times(self) -> dict[int, Sequence[float]]:
        """Seconds of a call in each round, by length; the median alone where a record keeps no samples."""
        return {n: samples_of(record) for n, record in self.timed.items()}

    def at(self, length: int) -> Record | None:
        return next((record for record in self.records if record.n_k == length), None)


def split(records: Iterable[Record]) -> list[Series]:
    """All series of one run's records, in the order in which they first appear; of a case measured twice, the last."""
    found: dict[tuple[str, str], dict[int, Record]] = {}
    for record in records:
        setting = setting_of(record)
        key = digest({"setting": setting, "variant": record.variant, "params": record.params})
        found.setdefault((key, setting), {})[record.n_k] = record
    return [Series(tuple(of[n] for n in sorted(of)), key, setting) for (key, setting), of in found.items()]


def setting_of(record: Record) -> str:
    """Hash of what a series shares with the others it may be compared with."""
    shared = {name: getattr(record, name) for name in GROUP if name not in ("n_q", "n_k")}
    queries = "square" if record.n_q == record.n_k and record.mode != "decode" else record.n_q
    return digest({**shared, "queries": queries, "machine": record.machine})


def samples_of(record: Record) -> Sequence[float]:
    """Its samples; its median alone where it keeps none. Raises ValueError for a record without a time."""
    if record.time_s is None:
        raise ValueError(f"case {record.case_id} has no time")
    return record.samples_s or [record.time_s]


def time_of(record: Record) -> Interval:
    """Its time as it was recorded. Raises ValueError for a record without one."""
    if record.time_s is None:
        raise ValueError(f"case {record.case_id} has no time")
    if record.time_s_low is None or record.time_s_high is None:
        return median_interval(samples_of(record))
    return Interval(record.time_s, record.time_s_low, record.time_s_high)


def baseline_of(record: Record, records: Iterable[Record]) -> Record | None:
    """The record whose time its `ratio` divides by, among those of its run."""
    found = [
        other
        for other in records
        if other.group_id == record.group_id
        and other.machine == record.machine
        and other.variant == record.baseline
        and other.kind == "exact"
        and other.status == "ok"
    ]
    return min(found, key=lambda other: other.time_s or math.inf, default=None)


def ratio_between(record: Record, other: Record, base: Record | None) -> Interval:
    """Time of one over that of the other, of one group: paired by round where they took turns.

    A group that does not fit into memory is measured in parts, and what a resume measures takes no turns with what was
    there before: then rounds of the same number were not taken together. Whether they were shows in the ratio to the
    baseline `base` that both have recorded, which is that of the samples only where they were.
    """
    x, y = samples_of(record), samples_of(other)
    if base is not None and all(took_turns(each, base) for each in (record, other)):
        return paired_ratio(x, y)
    return ratio_of_medians(x, y)


def took_turns(record: Record, base: Record) -> bool:
    """Whether rounds of the same number were taken together, by a case and the baseline that its ratio divides by."""
    if record.case_id == base.case_id:
        return True
    if record.ratio is None or not record.samples_s or not base.samples_s:
        return False
    return math.isclose(paired_ratio(record.samples_s, base.samples_s).value, record.ratio, rel_tol=1e-6)


def input_bytes(record: Record) -> int | None:
    """What q, k and v take, and when training the gradient that comes in; extras of a variant are not in it.

    None for a dtype of unknown size.
    """
    if record.dtype not in BYTES:
        return None
    own = record.batch * record.head_dim * BYTES[record.dtype]
    queries, keys = own * record.heads * record.n_q, own * record.kv_heads * record.n_k
    return queries * (2 if record.mode == "train" else 1) + 2 * keys


def most_tokens(params: Mapping[str, object]) -> int | None:
    """The longest sequence that a variant takes with these parameters, which it says by one named `max_len`."""
    found = params.get("max_len")
    return found if isinstance(found, int) else None


def needed_bytes(record: Record) -> int | None:
    """What a call needs in all; None where memory was not measured.

    Forward and training: the peak above the inputs, and the inputs. Decoding: the peak of a step, and the state.
    """
    if record.peak_bytes is None:
        return None
    if record.mode == "decode":
        return None if record.state_bytes is None else record.peak_bytes + record.state_bytes
    inputs = input_bytes(record)
    return None if inputs is None else record.peak_bytes + inputs
