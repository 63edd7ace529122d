"""What the given runs hold to answer a question with: variants, the setting that fits best, tasks, recall, fidelity."""

from __future__ import annotations

import json
import math
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..results import growth
from ..results.bounds import LARGEST_COUNT
from ..results.derived import Figure
from ..results.files import is_file
from ..results.record import Record
from ..results.series import Series, baseline_of, ratio_between, setting_of
from ..results.statistics import Interval, quotient
from ..results.store import RECORDS
from ..results.task_record import TaskRecord
from ..results.tasks import TaskFolder, TaskSummary, load_tasks, summarise
from .errors import ReportsError
from .load import LoadedRun, load_runs
from .question import Question
from .settings import captured, identity_of, input_words
from .words import percent, plural

MQAR = "mqar"
PROBED = 256
"""Answers that a share of the recall probe comes from, at most: see bench/recall.py."""


@dataclass(frozen=True)
class Candidate:
    """A variant with its parameters."""

    variant: str
    params: Mapping[str, object]
    family: str | None
    kind: str | None

    @property
    def spec(self) -> str:
        """As `attnbench run --variants` takes it, with every parameter."""
        values = ", ".join(f"{key}={_literal(value)}" for key, value in self.params.items())
        return f"{self.variant}({values})" if values else self.variant


def _literal(value: object) -> str:
    """As Python reads it; text in double quotes, which a shell's single ones hold."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


@dataclass(frozen=True)
class Accuracy:
    """A figure of accuracy, and where it is from."""

    value: float
    low: float
    high: float
    source: str
    ids: tuple[str, ...]
    """Of records, or of trained tasks."""
    length: int | None = None
    """Tokens at which it was measured, where it depends on them."""
    keys: float | None = None
    """Of a distance: how many keys a query kept there, where keys are chosen."""
    tokens: int | None = None
    """Of recall: over how many tokens it was asked."""


@dataclass(frozen=True, eq=False)
class Held:
    """One series of the chosen setting, which may come from several runs of one machine."""

    series: Series
    run_of: Mapping[str, LoadedRun]
    """By case_id."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that was read."""

    runs: Sequence[LoadedRun]
    tasks: Sequence[TaskSummary]
    candidates: Mapping[str, Candidate]
    """By identity."""
    chosen: Mapping[str, Held]
    """Series of the chosen setting, by identity; {} where no run holds a fitting one."""
    others: int
    """Other settings that would have fitted."""
    notes: list[str] = field(default_factory=list)

    @property
    def of(self) -> Record | None:
        """Any record of the chosen setting."""
        return next((held.series.of for held in self.chosen.values()), None)

    def records(self, identity: str) -> list[tuple[LoadedRun, Record]]:
        """All of a candidate, whatever their setting."""
        return [(run, record) for run in self.runs for record in run.records if identity_of(record) == identity]


def gather(paths: Sequence[str | Path], question: Question) -> Evidence:
    """Reads run folders: of sweeps, of trained tasks, or of both. Raises ReportsError, and ResultsError for neither."""
    folders = [Path(path) for path in dict.fromkeys(map(str, paths))]
    trained = [path for path in folders if is_file(path / TaskFolder.file)]
    swept = [path for path in folders if path not in trained or is_file(path / RECORDS)]
    if folders and not swept:
        raise ReportsError("there are only trained tasks in these folders; name the run of a sweep too")
    runs = load_runs(swept)
    notes = [note for run in runs for note in run.warnings]
    tasks: list[TaskRecord] = []
    if trained:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tasks = load_tasks(*trained)
        notes += [str(warning.message) for warning in caught]
    candidates: dict[str, Candidate] = {}
    for run in runs:
        for record in run.records:
            candidates.setdefault(
                identity_of(record), Candidate(record.variant, record.params, record.family, record.kind)
            )
    for task in tasks:
        candidates.setdefault(identity_of(task), Candidate(task.variant, task.params, task.family, task.kind))
    chosen, others = _choose(runs, question)
    return Evidence(runs, summarise(tasks), candidates, chosen, others, notes)


# -- the setting ----------------------------------------------------------------------------------------------------


def _choose(runs: Sequence[LoadedRun], question: Question) -> tuple[dict[str, Held], int]:
    """The setting that says most about the length asked for, and how many others would fit."""
    found: dict[str, dict[str, dict[int, tuple[LoadedRun, Record]]]] = {}
    for run in runs:
        for record in run.records:
            if _fits(record, question):
                by_length = found.setdefault(setting_of(record), {}).setdefault(identity_of(record), {})
                before = by_length.get(record.n_k)
                # of several runs the latest counts, but a figure rather than none, and a fault above all
                if before is None or _weight(record) >= _weight(before[1]):
                    by_length[record.n_k] = run, record
    if not found:
        return {}, 0
    best = max(found, key=lambda setting: _rank(found[setting], question.seq_len))
    chosen = {}
    for identity, by_length in found[best].items():
        records = tuple(by_length[n][1] for n in sorted(by_length))
        run_of = {record.case_id: run for run, record in by_length.values()}
        chosen[identity] = Held(Series(records, identity, best), run_of)
    return chosen, len(found) - 1


def _weight(record: Record) -> int:
    return {"incorrect": 2, "ok": 1}.get(record.status, 0)


def _fits(record: Record, question: Question) -> bool:
    return (
        record.mode == question.mode
        and record.causal == question.causal
        and (record.mode == "decode" or record.n_q == record.n_k)
        and question.dtype in (None, record.dtype)
        and (question.device is None or record.device.partition(":")[0] == question.device.partition(":")[0])
        and question.threads in (None, record.threads)
    )


def _rank(setting: Mapping[str, Mapping[int, tuple[LoadedRun, Record]]], length: int) -> tuple[float, ...]:
    """Variants timed at the length, then those with lengths around it, then those that reach it by a fit."""
    at = around = reach = 0
    for by_length in setting.values():
        timed = sorted(n for n, (_, record) in by_length.items() if record.status == "ok" and record.time_s)
        at += length in timed
        around += bool(timed) and timed[0] <= length <= timed[-1]
        reach += len(timed) >= growth.FEWEST and length <= timed[-1] * growth.FARTHEST
    run, record = next(iter(next(iter(setting.values())).values()))
    return at, around, reach, not record.compiled, not captured(record), record.threads, run.number


def ratio_at(one: Held, other: Held, length: int, times: tuple[Figure, Figure]) -> Figure:
    """Time of one over that of the other: of the rounds that they took in turns, or of their two estimates."""
    ids = tuple(dict.fromkeys((*times[0].case_ids, *times[1].case_ids)))
    x, y = one.series.timed.get(length), other.series.timed.get(length)
    if x is not None and y is not None:
        run = one.run_of[x.case_id]
        if run is other.run_of[y.case_id] and x.group_id == y.group_id:
            base = baseline_of(x, run.records)
            if base is not None and base.case_id == y.case_id and x.ratio is not None:
                found = Interval(x.ratio, x.ratio_low or x.ratio, x.ratio_high or x.ratio)
            else:
                found = ratio_between(x, y, base)
            return Figure(found.value, found.low, found.high, "measured", ids)
    found = quotient(*(Interval(time.value, time.low, time.high) for time in times))
    order = ("measured", "interpolated", "extrapolated")
    basis = max((times[0].basis, times[1].basis), key=order.index)
    return Figure(found.value, found.low, found.high, basis, ids)


# -- accuracy -------------------------------------------------------------------------------------------------------


def recall_of(evidence: Evidence, identity: str, load: int) -> Accuracy | None:
    """What it recalls: of trained models where there are any, else by the probe, which trains nothing."""
    trained = [
        task
        for task in evidence.tasks
        if identity_of(task) == identity and task.task == MQAR and task.median is not None
    ]
    if trained:
        task = min(trained, key=lambda t: (abs(math.log(_pairs(t) / load)), -t.seq_len))
        assert task.median is not None
        source = (
            f"trained MQAR with {_pairs(task)} pairs in {task.seq_len} tokens, width {task.d_model}, "
            f"{plural(task.seeds, 'seed')}; the interval is their range"
        )
        ids = tuple(record.task_id for record in task.records)
        low, high = (task.median if end is None else end for end in (task.low, task.high))
        return Accuracy(task.median, low, high, source, ids, tokens=task.seq_len)
    for run in reversed(evidence.runs):
        for record in run.records:
            value = getattr(record, f"recall_{load}", None)
            if value is not None and identity_of(record) == identity:
                source = f"recall probe, {load} pairs, untrained"
                return Accuracy(value, *_ends(value), source, (record.case_id,), tokens=load)
    return None


def _ends(share: float) -> tuple[float, float]:
    """95 % interval of a share of PROBED answers: Wilson's, which of 256 right ones does not claim that all ever are.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22(158).
    """
    z = 1.96
    middle = (share + z * z / (2 * PROBED)) / (1 + z * z / PROBED)
    spread = z / (1 + z * z / PROBED) * math.sqrt(share * (1 - share) / PROBED + (z / (2 * PROBED)) ** 2)
    return min(share, max(0.0, middle - spread)), max(share, min(1.0, middle + spread))


def _pairs(task: TaskSummary) -> int:
    pairs = task.records[0].task_params.get("kv_pairs")
    return pairs if isinstance(pairs, int) and 0 < pairs <= LARGEST_COUNT else 1


def fidelity_of(evidence: Evidence, identity: str, question: Question) -> Accuracy | None:
    """Its distance from softmax attention on the inputs asked for: like masks first, then the nearest length."""
    found = [
        record
        for _, record in evidence.records(identity)
        if record.status == "ok" and record.fidelity_error is not None and named(record.inputs, question.inputs)
    ]
    if not found:
        return None

    def likeness(record: Record) -> tuple[bool, float, int, bool]:
        away = abs(math.log(record.n_k / question.seq_len))
        return record.causal == question.causal, -away, record.n_k, record.mode == "forward"

    best = max(found, key=likeness)
    assert best.fidelity_error is not None
    mask = "causal" if best.causal else "non-causal"
    null = best.fidelity_error_uniform
    beside = "" if null is None else f"; the plain mean of the values is {percent(null)} away"
    source = f"{input_words(best.inputs, short=True)}, {mask}, {best.n_k:,} tokens{beside}"
    error = best.fidelity_error
    return Accuracy(error, error, error, source, (best.case_id,), best.n_k, keys=best.fidelity_keys)


def named(inputs: str, wanted: str) -> bool:
    """Whether inputs are those wanted: `captured` stands for those of any file."""
    return inputs == wanted or inputs.partition(":")[0] == wanted


# -- what to run ----------------------------------------------------------------------------------------------------


def command(evidence: Evidence, question: Question, specs: Iterable[str]) -> str:
    """The command that makes the records that are missing, in the setting that was chosen."""
    of = evidence.of
    options: dict[str, object] = {"seq-lens": question.seq_len, "modes": question.mode}
    if of is not None:
        options |= {"dtypes": of.dtype, "devices": of.device, "threads": of.threads, "inputs": of.inputs}
        options |= {"batch": of.batch, "heads": of.heads, "kv-heads": of.kv_heads, "head-dim": of.head_dim}
        options |= {"seed": of.seed} if of.seed else {}
    else:
        options |= {"dtypes": question.dtype, "devices": question.device, "threads": question.threads}
    words = _words(specs, options, question.causal)
    words += ["--compiled"] if of is not None and of.compiled else []
    return shlex.join(words + _plugins(evidence))


CAPTURED = 512
"""Tokens of the packaged model's capture, which is all that it reaches."""


def fidelity_command(evidence: Evidence, question: Question, specs: Iterable[str]) -> str:
    """The command that measures the distance from softmax attention. The packaged capture is of an encoder."""
    real = named(question.inputs, "captured")
    options = {"seq-lens": CAPTURED if real else question.seq_len, "modes": "forward", "inputs": question.inputs}
    return shlex.join(_words(specs, options, question.causal and not real) + _plugins(evidence))


def recall_command(evidence: Evidence, specs: Iterable[str]) -> str:
    """The command that asks what variants recall: any short sweep does."""
    return shlex.join(_words(specs, {"seq-lens": 256, "modes": "forward"}, None) + _plugins(evidence))


def _words(specs: Iterable[str], options: Mapping[str, object], causal: bool | None) -> list[str]:
    words = ["attnbench", "run", "--variants", ",".join(specs)]
    for name, value in options.items():
        words += [f"--{name}", str(value)] if value is not None else []
    return words + ([] if causal is None else ["--causal" if causal else "--no-causal"])


def _plugins(evidence: Evidence) -> list[str]:
    named = [run.run.config.get("plugins") for run in evidence.runs]
    files = sorted({str(plugin) for each in named if isinstance(each, list) for plugin in each})
    return [part for plugin in files for part in ("--plugin", plugin)]
