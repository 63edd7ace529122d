"""What is said of one variant for itself: kept, rejected for a reason, or what would have to be measured first.

A variant of which any record in the dtype asked for is `incorrect` is never kept. What depends on others, a ratio, a
gain and a tier, is filled in by recommend.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..results import growth
from ..results.derived import Figure, estimate
from ..results.record import Record
from ..results.series import most_tokens, needed_bytes
from ..results.statistics import Interval
from .evidence import (
    CAPTURED,
    Accuracy,
    Candidate,
    Evidence,
    Held,
    command,
    fidelity_command,
    fidelity_of,
    named,
    recall_command,
    recall_of,
)
from .phrases import SAME_AS_SOFTMAX
from .question import Question
from .words import count, interval, percent, percents, plural, size

Outcome = Literal["kept", "rejected", "unknown"]
Lack = Literal["figures", "recall", "fidelity"]
"""What is missing of a variant: time or memory at the length; what it recalls; its distance from softmax attention."""
RAN_OUT = ("oom", "timeout", "crashed")
CAPTURE_MORE = "capture a model that reaches further, or is causal, and name the file: --inputs captured:FILE"
COVERED = 0.5
"""What keeps more than this share of the keys of a shorter text says little of longer ones, where it keeps no more."""


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


def look(evidence: Evidence, question: Question, identity: str) -> Verdict:
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
        command=what_to_run(evidence, question, lacks, [candidate.spec]) if outcome == "unknown" and lacks else None,
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
    if wrong := incorrect(evidence, question, identity):
        why = f": {wrong.reasons[0]}" if wrong.reasons else ""
        where = f"{wrong.mode} at {count(wrong.n_k)} tokens in {wrong.dtype}"
        found.append(f"its implementation is incorrect, {where}{why}")
    if candidate.kind not in question.kinds:
        found.append(f"its kind is {candidate.kind}, and {' or '.join(question.kinds)} was asked for")
    if held is not None:
        found += _failed(held, question.seq_len)
    most = most_tokens(candidate.params)
    if most is not None and question.seq_len > most:
        found.append(f"it takes at most {count(most)} tokens, its max_len: set that to what is wanted, and measure it")
    if question.max_memory_bytes is not None and memory is not None and memory.value > question.max_memory_bytes:
        found.append(f"it needs {_amount(memory)}, more than {size(question.max_memory_bytes)}")
    if question.min_recall is not None and recall is not None and recall.value < question.min_recall:
        has, least = percents(recall.value, question.min_recall)
        found.append(f"it recalls {has} ({_ends(recall)}), less than {least} ({recall.source})")
    if question.max_error is not None:
        if candidate.kind == "own":
            found.append("it is an operator of its own: a distance from softmax attention means nothing for it")
        elif fidelity is not None and fidelity.value > question.max_error:
            has, limit = percents(fidelity.value, question.max_error)
            found.append(f"its output is {has} away from softmax attention's, more than {limit} ({fidelity.source})")
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
        if (refused := _refused(evidence, question, identity)) is None:
            return [reason], "fidelity"
        return [f"{reason}, and cannot be on those at hand ({refused}): {CAPTURE_MORE}"], None
    if question.max_error is not None and fidelity is not None and (length := _too_short(question, fidelity)):
        gives = (
            "gives what softmax attention gives"
            if fidelity.value < SAME_AS_SOFTMAX
            else f"keeps {count(round(fidelity.keys or 0))} keys a query"
        )
        reason = (
            f"at {count(length)} tokens it {gives} ({fidelity.source}): what leaves out little or nothing there may "
            f"leave out much at {count(question.seq_len)}"
        )
        if not named(question.inputs, "captured") or length < CAPTURED:
            return [reason], "fidelity"
        return [f"{reason}; {CAPTURE_MORE}"], None
    return [], None


def _refused(evidence: Evidence, question: Question, identity: str) -> str | None:
    """Why it could not run on the inputs asked for, where it was tried: an encoder's have no causal form."""
    tried = [record for _, record in evidence.records(identity) if named(record.inputs, question.inputs)]
    refusals = [record.reasons[0] for record in tried if record.status == "unsupported" and record.reasons]
    return refusals[0] if refusals and len(refusals) == len(tried) else None


def _too_short(question: Question, fidelity: Accuracy) -> int | None:
    """The length, where it is shorter than that asked for, and no distance was seen or most keys were kept: a window
    covers a short text."""
    if fidelity.length is None or fidelity.length >= question.seq_len:
        return None
    covered = fidelity.keys is not None and fidelity.keys > COVERED * fidelity.length
    return fidelity.length if covered or fidelity.value < SAME_AS_SOFTMAX else None


def what_to_run(evidence: Evidence, question: Question, lacks: Lack, specs: Sequence[str]) -> str:
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
        found.append(f"it recalls {percent(recall.value)} ({_ends(recall)}) ({recall.source})")
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
    candidate, found = evidence.candidates[identity], []
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
    if limit is not None and memory is not None and memory.value <= limit:
        found += _scratch(held, question, limit)
    if least is not None and recall is not None and recall.tokens is not None and recall.tokens < question.seq_len:
        found.append(
            f"what it recalls was asked over {count(recall.tokens)} tokens: what is said farther back it may not recall"
        )
    if candidate.kind == "approximate" and fidelity is None:
        found.append(f"how far it is from softmax attention was not measured on {question.inputs} inputs")
    if fidelity is not None and question.max_error is None:
        found.append(f"its output is {percent(fidelity.value)} away from softmax attention's ({fidelity.source})")
    if fidelity is not None and fidelity.length is not None and fidelity.length < question.seq_len:
        found.append(
            f"how far it is from softmax attention at {count(question.seq_len)} tokens was not measured: what it "
            "leaves out may grow with the length"
        )
    if any(record.status == "incorrect" for _, record in evidence.records(identity)):
        found.append("its implementation is incorrect in another dtype")
    return found


def incorrect(evidence: Evidence, question: Question, identity: str) -> Record | None:
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


def _scratch(held: Held | None, question: Question, limit: float) -> list[str]:
    """That a call's resident memory passes the limit which torch's allocator keeps: kernels take scratch past it."""
    at = held.series.at(question.seq_len) if held is not None else None
    if at is None or at.peak_rss_bytes is None or at.peak_bytes is None or at.status != "ok":
        return []
    needed = needed_bytes(at)
    if needed is None or needed - at.peak_bytes + at.peak_rss_bytes <= limit:
        return []
    grown = size(at.peak_rss_bytes)
    return [f"resident memory grew by {grown} in a call, which with inputs or state passes the limit: scratch is in it"]


def _times(figure: Figure, factor: float) -> Figure:
    return Figure(figure.value * factor, figure.low * factor, figure.high * factor, figure.basis, figure.case_ids)


def _amount(figure: Figure) -> str:
    spread = "" if figure.low == figure.high else f", {size(figure.low)} to {size(figure.high)}"
    return f"{size(figure.value)} ({figure.basis}{spread})"


def _ends(accuracy: Accuracy) -> str:
    return f"{interval(accuracy.low * 100, accuracy.high * 100)} %"
