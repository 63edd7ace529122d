"""What may stand in one table: the records of a run that differ only in variant, parameters and length."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..results.batch_spec import words as words_of_batch
from ..results.dropin_record import DropinRecord
from ..results.record import GROUP, Record
from ..results.task_record import TaskRecord
from ..results.tasks import TaskSummary
from .load import LoadedRun
from .palette import Style, family_of
from .words import capital, count, plural

MODES = ("forward", "train", "decode")
REFERENCE = "naive"
"""The plainest form of attention: what memory is compared with."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A record, what its variant is called in this report, and where its row stands."""

    run: LoadedRun
    record: Record
    label: str
    style: Style

    @property
    def length(self) -> int:
        return self.record.n_k

    @property
    def timed(self) -> bool:
        """Whether its time may be shown: a record that is not ok has none, whatever its fields hold."""
        return self.record.status == "ok" and self.record.time_s is not None and self.record.time_s > 0

    @property
    def weighed(self) -> bool:
        return self.record.status == "ok" and self.record.peak_bytes is not None

    @property
    def exact(self) -> bool:
        return self.record.kind == "exact"

    @property
    def parameters(self) -> str:
        """All hyper-parameters, defaults too: what was measured is these values, not a name."""
        return ", ".join(f"{key}={_plain(value)}" for key, value in self.record.params.items())

    @property
    def reference(self) -> str:
        """By which the page finds the record."""
        return f"{self.run.number}-{self.record.case_id}"


Test = Callable[[Entry], bool]


@dataclass(frozen=True, eq=False)
class Setting:
    """Records of one run and machine that share everything but variant, parameters and length."""

    run: LoadedRun
    entries: tuple[Entry, ...]
    number: int = 0
    told_apart_by: frozenset[str] = field(default_factory=frozenset)
    """Of seed, compiled, run and machine: those that a reader must be told to tell two settings apart."""

    @property
    def anchor(self) -> str:
        return f"setting-{self.number}"

    @property
    def of(self) -> Record:
        """Any of its records, for the fields that all share."""
        return self.entries[0].record

    @cached_property
    def lengths(self) -> list[int]:
        """All lengths that were asked for."""
        return sorted({entry.length for entry in self.entries})

    @cached_property
    def timed_lengths(self) -> list[int]:
        return sorted({entry.length for entry in self.entries if entry.timed})

    @cached_property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(entry.label for entry in self.entries))

    def at(self, length: int, test: Test = lambda entry: True) -> list[Entry]:
        return [entry for entry in self.entries if entry.length == length and test(entry)]

    def longest(self, test: Test) -> int | None:
        return max((entry.length for entry in self.entries if test(entry)), default=None)

    def baseline(self, length: int) -> Entry | None:
        """The record that the group's ratios divide by: named when it was measured, not chosen here."""
        timed = self.at(length, lambda entry: entry.timed)
        names = [entry.record.baseline for entry in timed if entry.record.baseline is not None]
        if not names:
            return None
        name = max(dict.fromkeys(names), key=names.count)
        found = [entry for entry in timed if entry.exact and entry.record.variant == name]
        return min(found, key=lambda entry: entry.record.time_s or 0.0, default=None)

    def compared(self, length: int) -> list[Entry]:
        """The timed records of a length that were divided by its baseline, fastest first."""
        base = self.baseline(length)
        if base is None:
            return []
        found = self.at(
            length, lambda e: e.timed and e.record.ratio is not None and e.record.baseline == base.record.variant
        )
        return sorted(found, key=lambda e: (e.record.ratio or 0.0, e is not base))

    @property
    def sameness(self) -> tuple[object, ...]:
        """What settings of different runs share that differ in run, machine, threads and device alone."""
        shared = [name for name in GROUP if name not in ("n_q", "n_k", "threads", "device")]
        return (_queries(self.of), *(getattr(self.of, name) for name in shared))

    @property
    def mixed(self) -> bool:
        """Whether it is one batch of unlike requests, which has no length that figures could grow with."""
        return self.of.requests is not None

    def where(self, length: int) -> str:
        """E.g. `at 1,024 tokens`, or `on the batch 2q2k_32q1s1k`."""
        return f"on the batch {self.of.requests}" if self.mixed else f"at {count(length)} tokens"

    @property
    def title(self) -> str:
        """What most distinguishes it."""
        what = f"batch {self.of.requests}" if self.mixed else self.of.mode
        return f"{capital(what)}, {causality(self.of)}, {input_words(self.of.inputs, short=True)}"

    @property
    def detail(self) -> str:
        """The rest of what its records share."""
        return ", ".join([_hardware(self.of), *shape_words(self.of), *self._apart()])

    @property
    def phrase(self) -> str:
        """All of it, for a sentence."""
        record = self.of
        parts = [
            record.mode,
            causality(record),
            _hardware(record),
            *shape_words(record),
            input_words(record.inputs),
            *self._apart(),
        ]
        return ", ".join(parts)

    def _apart(self) -> list[str]:
        words = {
            "compiled": "compiled" if self.of.compiled else "eager",
            "seed": f"seed {self.of.seed}",
            "run": f"run {self.run.name}" if "run" in self.told_apart_by else "",
            "machine": f"machine {self.of.machine[:8]}",
        }
        return [word for name, word in words.items() if name in self.told_apart_by]


def causality(record: Record) -> str:
    return "causal" if record.causal else "non-causal"


def captured(record: Record) -> bool:
    """Whether its inputs are a real model's."""
    return record.inputs.partition(":")[0] == "captured"


def input_words(inputs: str, *, short: bool = False) -> str:
    kind, _, source = inputs.partition(":")
    if kind != "captured":
        return f"{inputs} input"
    source = source.replace("\\", "/").rsplit("/", 1)[-1] if short else source
    return f"captured input{' ' + source if source else ''}"


def _hardware(record: Record) -> str:
    return f"{record.dtype} on {record.device} with {plural(record.threads, 'thread')}"


def shape_words(record: Record) -> list[str]:
    """Batch, heads and queries, where those differ from the keys."""
    keys = "" if record.kv_heads == record.heads else f" ({record.kv_heads} for keys and values)"
    batch = f"batch {record.batch}" if record.requests is None else f"a batch of {words_of_batch(record.requests)}"
    shape = [batch, f"{plural(record.heads, 'head')}{keys} of {record.head_dim}"]
    return shape if (queries := _queries(record)) is None else [*shape, plural(queries, "query", "queries")]


def _queries(record: Record) -> int | None:
    """How many queries, where they are not as many as keys."""
    return None if record.requests or (record.n_q == record.n_k and record.mode != "decode") else record.n_q


def split(runs: Sequence[LoadedRun]) -> list[Setting]:
    """All settings of some runs. Runs are never mixed: a ratio holds within the run that measured it."""
    labels, styles = _names([record for run in runs for record in run.records])
    found: dict[tuple[object, ...], list[Entry]] = {}
    shared = [name for name in GROUP if name not in ("n_q", "n_k")]
    for run in runs:
        for record in run.records:
            label = labels[identity_of(record)]
            key = (run.number, record.machine, _queries(record), *(getattr(record, name) for name in shared))
            found.setdefault(key, []).append(Entry(run, record, label, styles[label]))
    apart = {name for name in ("seed", "compiled") if len({getattr(e[0].record, name) for e in found.values()}) > 1}
    apart |= {"run"} if len(runs) > 1 else set()
    apart |= {"machine"} if len({e[0].record.machine for e in found.values()}) > 1 else set()
    ordered = sorted(found.values(), key=lambda entries: _order(entries[0]))
    return [
        Setting(entries[0].run, tuple(entries), number, frozenset(apart))
        for number, entries in enumerate(ordered, start=1)
    ]


def _order(entry: Entry) -> tuple[object, ...]:
    record = entry.record
    mode = MODES.index(record.mode)
    return (entry.run.number, record.machine, captured(record), mode, not record.causal, record.inputs, record.dtype)


def identity_of(record: Record | TaskRecord | TaskSummary | DropinRecord) -> str:
    """Which variant with which parameters it is of."""
    return json.dumps([record.variant, record.params], sort_keys=True)


class Names:
    """What variants are called and how they are drawn beside a sweep: as there where it has them, else by their own."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._known = {identity_of(entry.record): (entry.label, entry.style) for entry in entries}
        self._used: dict[str, int] = {}
        for _, style in self._known.values():
            self._used[style.family] = max(self._used.get(style.family, 0), style.index + 1)

    def of(self, found: TaskSummary | DropinRecord) -> tuple[str, Style]:
        """Label and style; the next free style of its family for one that is new."""
        identity = identity_of(found)
        if identity not in self._known:
            family = family_of(found.family)
            self._known[identity] = found.spec, Style(family, self._used.get(family, 0))
            self._used[family] = self._used.get(family, 0) + 1
        return self._known[identity]


def _names(records: Iterable[Record]) -> tuple[dict[str, str], dict[str, Style]]:
    """What each variant is called, by its identity, and how each of these labels is drawn.

    Parameters are named only where the same variant was measured with several, and then only those that differ.
    """
    records = list(records)
    measured = {record.variant for record in records if record.status == "ok"}
    by_name: dict[str, dict[str, Record]] = {}
    # what was measured gets the plainest marks; then by name, so that reports of the same variants look alike
    for record in sorted(records, key=lambda r: (r.variant not in measured, r.variant, identity_of(r))):
        by_name.setdefault(record.variant, {}).setdefault(identity_of(record), record)
    labels: dict[str, str] = {}
    styles: dict[str, Style] = {}
    counts: dict[str, int] = {}
    for name, versions in by_name.items():
        keys = sorted({key for record in versions.values() for key in record.params})
        differing = [key for key in keys if len({json.dumps(r.params.get(key)) for r in versions.values()}) > 1]
        for identity, record in versions.items():
            values = ", ".join(f"{key}={_plain(record.params[key])}" for key in differing if key in record.params)
            label = f"{name}({values})" if len(versions) > 1 else name
            family = family_of(record.family)
            labels[identity] = label
            styles[label] = Style(family, counts.get(family, 0))
            counts[family] = counts.get(family, 0) + 1
    return labels, styles


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
