"""Which variants to use for a length, a mode and a budget, in tiers, and why each other one was left out.

Every variant of the given runs appears exactly once: kept, rejected for a reason, or with the command that would make
the records that are missing. A rank is claimed only where the intervals part: what cannot be told from the first of a
tier shares it. A variant of which any record in this dtype is `incorrect` is never kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from ..results import growth
from ..results.derived import Figure, amdahl, estimate
from ..results.record import Record
from ..results.reference import reference_runs
from ..results.statistics import Interval
from .errors import ReportsError
from .evidence import (
    Accuracy,
    Candidate,
    Evidence,
    Held,
    command,
    fidelity_command,
    fidelity_of,
    gather,
    ratio_at,
    recall_command,
    recall_of,
)
from .question import Question
from .settings import causality, input_words
from .words import count, interval, percent, plural, size

Outcome = Literal["kept", "rejected", "unknown"]
Lack = Literal["figures", "recall", "fidelity"]
"""What is missing of a variant: time or memory at the length; what it recalls; its distance from softmax attention."""
RAN_OUT = ("oom", "timeout", "crashed")
NO_REFERENCE = (
    "no run was named, and no published run comes with this version of attnbench; measure here first: "
    "attnbench run --preset quick, then name the folder that it prints"
)


@dataclass(frozen=True)
class Verdict:
    """What is said of one variant with its parameters."""

    candidate: Candidate
    outcome: Outcome
    reasons: list[str]
    """Why it was rejected, or what is not known; of one that is kept, how it meets what was asked."""
    remarks: list[str] = field(default_factory=list)
    """What a reader of the figures must know."""
    time: Figure | None = None
    memory: Figure | None = None
    """Bytes in all, for the layers and the batch of the question."""
    ratio: Figure | None = None
    """Time over that of the fastest exact variant."""
    gain: Interval | None = None
    """How many times as fast the whole model becomes."""
    recall: Accuracy | None = None
    fidelity: Accuracy | None = None
    tier: int | None = None
    """From 1; variants of one tier cannot be told from its first by their times."""
    lacks: Lack | None = None
    command: str | None = None
    """What to run where something is lacking."""


@dataclass(frozen=True)
class Advice:
    """The answer."""

    question: Question
    verdicts: tuple[Verdict, ...]
    """Kept, in their order, then rejected, then unknown."""
    setting: str | None
    """Of the times and the memory, in words."""
    sources: tuple[str, ...]
    """Each run with its machine."""
    baseline: str | None
    """The fastest exact variant at this length."""
    notes: tuple[str, ...]
    commands: tuple[str, ...] = ()
    """What makes all that is missing, one command for each kind of it."""

    def of(self, outcome: Outcome) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.outcome == outcome]


def recommend(runs: Sequence[str | Path], question: Question) -> Advice:
    """Answers from the given runs; from those that come with the package where none is given.

    Raises ReportsError where there is none, and ResultsError for a folder that is no run.
    """
    published = [] if runs else reference_runs()
    if not runs and not published:
        raise ReportsError(NO_REFERENCE)
    evidence = gather(runs or published, question)
    notes = list(evidence.notes)
    if published:
        notes.insert(
            0,
            "no run was named: all figures are of published runs, measured on the machine named here and not on "
            "yours; measure your own with attnbench run, and name its folder",
        )
    if evidence.others:
        notes.append(
            f"{plural(evidence.others, 'other setting')} of these runs would fit the question too; name --dtype, "
            "--device or --threads to choose"
        )
    looked = {identity: _look(evidence, question, identity) for identity in evidence.candidates}
    exact = [
        (looked[identity].time, identity)
        for identity, candidate in evidence.candidates.items()
        if candidate.kind == "exact"
        and looked[identity].time is not None
        and not _incorrect(evidence, question, identity)
    ]
    base = min(exact, key=lambda each: each[0].value if each[0] else 0.0)[1] if exact else None
    finished = {
        identity: _beside(evidence, question, verdict, identity, base, looked) for identity, verdict in looked.items()
    }
    kept = _tiers(evidence, question, finished)
    others = [verdict for verdict in finished.values() if verdict.outcome != "kept"]
    others.sort(key=lambda v: (v.outcome, v.candidate.spec))
    if published or len({record.machine for run in evidence.runs for record in run.records}) > 1:
        notes.append("times of one machine say little of another; the setting below is of one")
    return Advice(
        question,
        (*kept, *others),
        _setting_words(evidence),
        tuple(f"{run.path}: {run.run.machine.cpu} ({run.run.machine.fingerprint[:8]})" for run in evidence.runs),
        None if base is None else evidence.candidates[base].spec,
        tuple(notes),
        tuple(
            _command(evidence, question, lacks, [verdict.candidate.spec for verdict in group])
            for lacks in get_args(Lack)
            if len(group := [verdict for verdict in others if verdict.lacks == lacks]) > 1
        ),
    )


# -- one variant ----------------------------------------------------------------------------------------------------


def _look(evidence: Evidence, question: Question, identity: str) -> Verdict:
    """All but what depends on other variants: ratio, gain, tier."""
    candidate = evidence.candidates[identity]
    held = evidence.chosen.get(identity)
    time = memory = None
    if held is not None:
        time = estimate(held.series, "time", question.seq_len)
        memory = _memory(held, question)
    recall = recall_of(evidence, identity, question.recall_load)
    fidelity = fidelity_of(evidence, identity, question) if candidate.kind == "approximate" else None
    against = _against(evidence, question, identity, held, memory, recall, fidelity)
    unknown, lacks = _unknown(evidence, question, identity, time, memory, recall, fidelity)
    outcome: Outcome = "rejected" if against else "unknown" if unknown else "kept"
    reasons = against or unknown or _meets(question, candidate, memory, recall, fidelity)
    return Verdict(
        candidate,
        outcome,
        reasons,
        _remarks(evidence, question, identity, held, time, memory, recall, fidelity),
        time,
        memory,
        recall=recall,
        fidelity=fidelity,
        lacks=lacks if outcome == "unknown" else None,
        command=_command(evidence, question, lacks, [candidate.spec]) if outcome == "unknown" and lacks else None,
    )


def _against(
    evidence: Evidence,
    question: Question,
    identity: str,
    held: Held | None,
    memory: Figure | None,
    recall: Accuracy | None,
    fidelity: Accuracy | None,
) -> list[str]:
    """Why it is not to be used; [] where nothing speaks against it."""
    candidate, found = evidence.candidates[identity], []
    if wrong := _incorrect(evidence, question, identity):
        why = f": {wrong.reasons[0]}" if wrong.reasons else ""
        where = f"{wrong.mode} at {count(wrong.n_k)} tokens in {wrong.dtype}"
        found.append(f"its implementation is incorrect, {where}{why}")
    if candidate.kind not in question.kinds:
        found.append(f"its kind is {candidate.kind}, and {' or '.join(question.kinds)} was asked for")
    if held is not None:
        found += _failed(held, question.seq_len)
    if question.max_memory_bytes is not None and memory is not None and memory.value > question.max_memory_bytes:
        found.append(f"it needs {_amount(memory)}, more than {size(question.max_memory_bytes)}")
    if question.min_recall is not None and recall is not None and recall.value < question.min_recall:
        found.append(f"it recalls {_share(recall)}, less than {percent(question.min_recall)} ({recall.source})")
    if question.max_error is not None:
        if candidate.kind == "own":
            found.append("it is an operator of its own: a distance from softmax attention means nothing for it")
        elif fidelity is not None and fidelity.value > question.max_error:
            found.append(
                f"its output is {percent(fidelity.value)} away from softmax attention's, more than "
                f"{percent(question.max_error)} ({fidelity.source})"
            )
    return found


def _failed(held: Held, length: int) -> list[str]:
    """That it cannot run so, or ran out at this length or before."""
    records = held.series.records
    if all(record.status == "unsupported" for record in records):
        return [f"it cannot run so: {'; '.join(records[0].reasons) or 'unsupported'}"]
    at = held.series.at(length)
    if at is not None and at.status == "unsupported":
        return [f"it cannot run at {count(length)} tokens: {'; '.join(at.reasons) or 'unsupported'}"]
    longest = max(held.series.ok, default=0)
    ended = [record for record in records if record.status in RAN_OUT and longest < record.n_k <= length]
    if not ended or (at is not None and at.status == "ok"):
        return []
    first = ended[0]
    why = f": {first.reasons[0]}" if first.reasons else ""
    return [f"it ended as {first.status} at {count(first.n_k)} tokens{why}"]


def _unknown(
    evidence: Evidence,
    question: Question,
    identity: str,
    time: Figure | None,
    memory: Figure | None,
    recall: Accuracy | None,
    fidelity: Accuracy | None,
) -> tuple[list[str], Lack | None]:
    """What would have to be measured before it can be recommended."""
    candidate, held = evidence.candidates[identity], evidence.chosen.get(identity)
    if time is None or (question.max_memory_bytes is not None and memory is None):
        what = "time" if time is None else "memory"
        if held is None:
            why = "none of its records is of this mode, mask and dtype"
        elif not held.series.timed:
            why = f"its records there have no figures ({', '.join(sorted({r.status for r in held.series.records}))})"
        else:
            lengths = sorted(held.series.timed)
            why = (
                f"it was timed at {plural(len(lengths), 'length')} up to {count(lengths[-1])}, and a fit needs "
                f"{growth.FEWEST} and reaches {growth.FARTHEST} times as far"
            )
        return [f"no {what} at {count(question.seq_len)} tokens: {why}"], "figures"
    if question.min_recall is not None and recall is None:
        why_not = next((r.recall_why_not for _, r in evidence.records(identity) if r.recall_why_not), None)
        why = f": {why_not}" if why_not else ""
        return [f"what it recalls was not measured{why}"], "recall"
    if question.max_error is not None and candidate.kind == "approximate" and fidelity is None:
        reason = f"its distance from softmax attention was not measured on {question.inputs} inputs"
        return [reason], "fidelity"
    return [], None


def _command(evidence: Evidence, question: Question, lacks: Lack, specs: Sequence[str]) -> str:
    """What to run. Figures are taken beside sdpa, so that there is a ratio to an exact variant."""
    if lacks == "recall":
        return recall_command(evidence, specs)
    if lacks == "fidelity":
        return fidelity_command(evidence, question, specs)
    beside = [] if any(spec.partition("(")[0] == "sdpa" for spec in specs) else ["sdpa"]
    return command(evidence, question, [*specs, *beside])


def _meets(
    question: Question,
    candidate: Candidate,
    memory: Figure | None,
    recall: Accuracy | None,
    fidelity: Accuracy | None,
) -> list[str]:
    """How a variant that is kept meets each demand."""
    found = []
    if question.max_memory_bytes is not None and memory is not None:
        found.append(f"it needs {_amount(memory)} of {size(question.max_memory_bytes)}")
    if question.min_recall is not None and recall is not None:
        found.append(f"it recalls {_share(recall)} ({recall.source})")
    if question.max_error is not None:
        if candidate.kind == "exact":
            found.append("it is softmax attention")
        elif fidelity is not None:
            found.append(f"its output is {percent(fidelity.value)} away from softmax attention's ({fidelity.source})")
    return found or ["nothing that was asked speaks against it"]


def _remarks(
    evidence: Evidence,
    question: Question,
    identity: str,
    held: Held | None,
    time: Figure | None,
    memory: Figure | None,
    recall: Accuracy | None,
    fidelity: Accuracy | None,
) -> list[str]:
    found = []
    if held is not None and time is not None:
        if time.basis == "extrapolated":
            lengths = sorted(held.series.timed)
            found.append(f"extrapolated from {len(lengths)} lengths, {count(lengths[0])} to {count(lengths[-1])}")
        at = held.series.at(question.seq_len)
        found += (
            [f"not measured at this length: {at.reasons[0]}"] if at and at.status == "skipped" and at.reasons else []
        )
        found += at.reasons if at is not None and at.status == "ok" else []
    limit = question.max_memory_bytes
    if limit is not None and memory is not None and memory.value <= limit < memory.high:
        found.append("its memory may pass the limit: the interval holds it")
    least = question.min_recall
    if least is not None and recall is not None and recall.low < least <= recall.value:
        found.append("it may recall less than was asked for: the interval holds the limit")
    if fidelity is not None and question.max_error is None:
        found.append(f"its output is {percent(fidelity.value)} away from softmax attention's ({fidelity.source})")
    if any(record.status == "incorrect" for _, record in evidence.records(identity)):
        found.append("its implementation is incorrect in another dtype")
    return found


def _incorrect(evidence: Evidence, question: Question, identity: str) -> Record | None:
    """A record that failed its check, in whatever mode and at whatever length; not where its dtype is another."""
    of = evidence.of
    dtype = question.dtype or (of.dtype if of is not None else None)
    wrong = (r for _, r in evidence.records(identity) if r.status == "incorrect" and dtype in (None, r.dtype))
    return next(wrong, None)


def _memory(held: Held, question: Question) -> Figure | None:
    """Bytes in all: inputs or state included, for the layers and the batch of the question.

    Everything grows with the batch. Of a forward pass one layer at a time holds memory; what training keeps lives in
    all layers at once; decoding keeps a state in each and runs one step at a time.
    """
    batch = (question.batch or held.series.of.batch) / held.series.of.batch
    if question.mode != "decode":
        needed = estimate(held.series, "needed", question.seq_len)
        return None if needed is None else _times(needed, batch * (question.layers if question.mode == "train" else 1))
    state, step = (estimate(held.series, name, question.seq_len) for name in ("state", "memory"))
    if state is None or step is None:
        return None
    kept, used = _times(state, batch * question.layers), _times(step, batch)
    ids = tuple(dict.fromkeys((*kept.case_ids, *used.case_ids)))
    basis = kept.basis if kept.basis != "measured" else used.basis
    return Figure(kept.value + used.value, kept.low + used.low, kept.high + used.high, basis, ids)


def _times(figure: Figure, factor: float) -> Figure:
    return Figure(figure.value * factor, figure.low * factor, figure.high * factor, figure.basis, figure.case_ids)


# -- beside others --------------------------------------------------------------------------------------------------


def _beside(
    evidence: Evidence,
    question: Question,
    verdict: Verdict,
    identity: str,
    base: str | None,
    looked: Mapping[str, Verdict],
) -> Verdict:
    """With its ratio to the fastest exact variant, and what a whole model gains."""
    if base is None or verdict.time is None:
        return verdict
    base_time = looked[base].time
    assert base_time is not None
    if identity == base:
        ratio = Figure(1.0, 1.0, 1.0, verdict.time.basis, verdict.time.case_ids)
    else:
        ratio = ratio_at(evidence.chosen[identity], evidence.chosen[base], question.seq_len, (verdict.time, base_time))
    share = question.attention_share
    gain = None if share is None else amdahl(Interval(ratio.value, ratio.low, ratio.high), share)
    return replace(verdict, ratio=ratio, gain=gain)


def _tiers(evidence: Evidence, question: Question, finished: Mapping[str, Verdict]) -> list[Verdict]:
    """Those kept, fastest first; a tier ends where the next is clearly slower than the tier's first."""
    order = sorted(
        (identity for identity, verdict in finished.items() if verdict.outcome == "kept"),
        key=lambda identity: finished[identity].time.value,  # type: ignore[union-attr]
    )
    found: list[Verdict] = []
    tier, first = 0, ""
    for identity in order:
        verdict = finished[identity]
        if first:
            times = verdict.time, finished[first].time
            ratio = ratio_at(evidence.chosen[identity], evidence.chosen[first], question.seq_len, times)  # type: ignore[arg-type]
        if not first or ratio.low > 1:
            tier, first = tier + 1, identity
        found.append(replace(verdict, tier=tier))
    return found


# -- words ----------------------------------------------------------------------------------------------------------


def _setting_words(evidence: Evidence) -> str | None:
    of = evidence.of
    if of is None:
        return None
    heads = plural(of.heads, "head") + ("" if of.kv_heads == of.heads else f" ({of.kv_heads} for keys and values)")
    parts = [of.mode, causality(of), f"{of.dtype} on {of.device} with {plural(of.threads, 'thread')}"]
    parts += [f"batch {of.batch}", f"{heads} of {of.head_dim}", input_words(of.inputs), f"machine {of.machine[:8]}"]
    return ", ".join(parts)


def _amount(figure: Figure) -> str:
    spread = "" if figure.low == figure.high else f", {size(figure.low)} to {size(figure.high)}"
    return f"{size(figure.value)} ({figure.basis}{spread})"


def _share(accuracy: Accuracy) -> str:
    return f"{percent(accuracy.value)} ({interval(accuracy.low * 100, accuracy.high * 100)} %)"
