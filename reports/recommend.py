"""Which variants to use for a length, a mode and a budget, in tiers, and why each other one was left out.

Every variant of the given runs appears exactly once: kept, rejected for a reason, or with the command that would make
the records that are missing. A rank is claimed only where the intervals part: what cannot be told from the first of a
tier shares it. A variant of which any record in this dtype is `incorrect` is never kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from ..results.derived import Figure, amdahl
from ..results.reference import reference_runs
from ..results.statistics import Interval
from .errors import ReportsError
from .evidence import Evidence, gather, ratio_at
from .load import unsteady
from .question import Question
from .settings import causality, input_words
from .verdict import Lack, Outcome, Verdict, incorrect, look, what_to_run
from .words import plural

NO_REFERENCE = (
    "no run was named, and no published run comes with this version of attnbench; measure here first: "
    "attnbench run --preset quick, then name the folder that it prints"
)


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
            f"{plural(evidence.others, 'other setting')} of these runs would fit the question too; where they differ "
            "in dtype, device or threads, name those"
        )
    notes += unsteady(evidence.runs)
    looked = {identity: look(evidence, question, identity) for identity in evidence.candidates}
    exact = [
        (looked[identity].time, identity)
        for identity, candidate in evidence.candidates.items()
        if candidate.kind == "exact"
        and looked[identity].time is not None
        and not incorrect(evidence, question, identity)
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
            what_to_run(evidence, question, lacks, [verdict.candidate.spec for verdict in group])
            for lacks in get_args(Lack)
            if len(group := [verdict for verdict in others if verdict.lacks == lacks]) > 1
        ),
    )


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
    """Those kept, tier by tier, the fastest first: each in the first tier whose first it is not clearly slower than."""
    times = {name: one.time for name, one in finished.items() if one.outcome == "kept" and one.time is not None}
    tiers: list[list[str]] = []
    for identity in sorted(times, key=lambda name: times[name].value):
        for tier in tiers:
            first = tier[0]
            pair = times[identity], times[first]
            if ratio_at(evidence.chosen[identity], evidence.chosen[first], question.seq_len, pair).low <= 1:
                tier.append(identity)
                break
        else:
            tiers.append([identity])
    return [replace(finished[name], tier=place) for place, tier in enumerate(tiers, start=1) for name in tier]


# -- words ----------------------------------------------------------------------------------------------------------


def _setting_words(evidence: Evidence) -> str | None:
    of = evidence.of
    if of is None:
        return None
    heads = plural(of.heads, "head") + ("" if of.kv_heads == of.heads else f" ({of.kv_heads} for keys and values)")
    parts = [of.mode, causality(of), f"{of.dtype} on {of.device} with {plural(of.threads, 'thread')}"]
    parts += [f"batch {of.batch}", f"{heads} of {of.head_dim}", input_words(of.inputs), f"machine {of.machine[:8]}"]
    return ", ".join(parts)
