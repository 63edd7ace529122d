"""What changed from one run to another: faster, slower, bigger, wrong, each with its effect and how sure it is.

A time is called faster or slower only when the effect reaches the threshold *and* a corrected test says that it is more
than chance. Two finished runs did not take turns (apart.py), and a machine that was slower as a whole during one of
them shifts every time alike. That shift is measured and put into words beside what the runs' own ceilings say of the
machine; it is taken off only where asked (`relative`), since a slow-down of all cases may as well be the code's.
Memory, state, status, error and fidelity do not depend on the machine's mood.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .agreement import Agreement, agreement
from .alike import weights_of, words_of_rounds
from .apart import USUAL_SPREAD, Judged, judged
from .benchmark_file import opened
from .between import FEWEST_CASES, case_of, shift_of, shifts_by_group
from .changes import ORDER, Finding, certain, times, words_of_lacking
from .conditions import Side, matching, unlike_beside, unlike_conditions
from .errors import ResultsError, overheard
from .evidence import Turns, Verdict, in_turns
from .record import Record
from .statistics import Interval

THRESHOLD = 0.03
"""A smaller change of time is not called, however sure."""
BADLY = 1.5
"""Times: an interval that reaches farther makes `same` a word that needs a note."""
COUNTED: dict[Verdict, str] = {
    "worse": "worse",
    "better": "better",
    "perhaps": "perhaps changed",
    "other": "otherwise changed",
    "same": "unchanged",
}


@dataclass(frozen=True)
class Comparison:
    """All that was compared, and what could not be."""

    base: str
    head: str
    findings: list[Finding]
    """Worst first."""
    only_base: list[Record]
    only_head: list[Record]
    threshold: float
    shift: Interval | None
    """HEAD's times over BASE's, in the median over cases; None where cases are few, or took turns."""
    ratios: Agreement | None
    """How far ratios to the baseline agree; None where they are not in both, or the sides took turns."""
    relative: bool
    notes: list[str]
    """What a reader must know, worst first."""

    def count(self, verdict: Verdict) -> int:
        return sum(finding.verdict == verdict for finding in self.findings)

    @property
    def worse(self) -> bool:
        return self.count("worse") > 0

    @property
    def reach(self) -> str | None:
        """One line: how well the changes of time are known; None where there are none."""
        ratios = [f.ratio for f in self.findings if f.measure == "time" and f.ratio is not None]
        if not ratios:
            return None
        widths = [
            max(ratio.high / ratio.value, ratio.value / ratio.low) - 1 if ratio.low else math.inf for ratio in ratios
        ]
        return (
            f"95 % intervals of {len(ratios)} times reach {statistics.median(widths):.1%} from HEAD / BASE in the "
            f"median, {max(widths):.1%} at most"
        )

    @property
    def summary(self) -> str:
        """One line: how many comparisons, of what, and how they came out."""
        kinds: Counter[str] = Counter(finding.measure for finding in self.findings)
        names = {"time": "times", "peak": "memory peaks", "state": "sizes of state", "error": "errors"}
        names |= {"fidelity": "fidelity errors", "status": "statuses"}
        parts = ", ".join(f"{kinds[kind]} {name}" for kind, name in names.items() if kinds[kind])
        cases = len({finding.case.case_id for finding in self.findings})
        counts = ", ".join(f"{self.count(verdict)} {name}" for verdict, name in COUNTED.items())
        alone = [f"{len(side)} only in {name}" for name, side in (("BASE", self.only_base), ("HEAD", self.only_head))]
        return f"{len(self.findings)} comparisons of {cases} cases ({parts}): {counts}; {', '.join(alone)}"


def read(path: str | Path) -> Side:
    """A run folder with its records, the last of each case. Raises ResultsError where there is none to compare."""
    folder = opened(path)
    run = folder.run()
    records, notes = overheard(lambda: {record.case_id: record for record in folder.records()})
    if not records:
        raise ResultsError(f"{path} holds no record, so there is nothing to compare; name another run")
    if len(records) < run.cases:
        notes.append(f"{path} has {len(records)} of the {run.cases} cases that it was asked for")
    return Side(str(path), list(records.values()), run, notes)


def compare(
    base: Side,
    head: Side,
    *,
    threshold: float = THRESHOLD,
    relative: bool = False,
    unlike: bool = False,
    paired: bool = False,
) -> Comparison:
    """Compares two sides case by case.

    `relative` judges each time by what it differs from the shift that its group has in common. `unlike` compares what
    was measured under unlike conditions, and says so. `paired`: the sides took turns, round by round. Raises
    ResultsError where nothing is in common, conditions are unlike, or cases are too few for `relative`.
    """
    notes = [*base.notes, *head.notes]
    differences = unlike_conditions(base, head)
    if differences and not unlike:
        raise ResultsError(
            f"{base.name} and {head.name} were not measured under like conditions: {'; '.join(differences)}; "
            "measure both alike, or compare them all the same with --unlike"
        )
    notes = [f"measured under unlike conditions: {difference}" for difference in differences] + notes
    key = matching(base, head)
    before, after = ({key(record): record for record in side.records} for side in (base, head))
    both = [(before[k], after[k]) for k in after if k in before]
    if not both:
        raise ResultsError(f"{base.name} and {head.name} have no case in common; measure the same cases in both")
    ok = [(b, h) for b, h in both if b.status == h.status == "ok"]
    timed = [(b, h) for b, h in ok if _has_samples(b) and _has_samples(h)]
    ratios = None if paired else agreement(timed, base.records, head.records)
    notes += unlike_beside(base, head, timed)
    weighed = [] if paired else [weights_of(b, h) for b, h in timed]
    notes += words_of_rounds(weighed)
    cases = [] if paired else [case_of(pair, weights) for pair, weights in zip(timed, weighed, strict=True)]
    shift = shift_of(cases)
    if relative and shift is None:
        raise ResultsError(
            f"{len(timed)} cases were timed in both, too few to tell a shift of the whole machine from changes of "
            f"their own; leave out --relative, or compare at least {FEWEST_CASES}"
        )
    if shift is not None:
        notes += _words_of_shift(shift, shifts_by_group(cases), base, head, threshold, relative, len(timed))
    if len(timed) < len(ok):
        notes.append(f"{len(ok) - len(timed)} cases have no samples of time in both: their times were not compared")
    doubt = None if paired else judged(cases, threshold, relative)
    evidence = in_turns([_turns(*pair) for pair in timed]) if doubt is None else doubt.evidence
    found, unable = times(timed, evidence, threshold)
    if doubt is not None:
        notes += _words_of_doubt(found, doubt)
    if unable:
        notes.append(
            f"{unable} of {len(timed)} cases have too few rounds for any difference to count among so many: "
            "measure with more (`min_rounds` in a run's configuration, `--benchmark-min-rounds` of pytest-benchmark)"
        )
    notes += words_of_lacking(ok)
    findings = [finding for pair in both for finding in certain(*pair)] + found
    findings.sort(key=lambda f: (ORDER.index(f.verdict), -f.size))
    return Comparison(
        base.name,
        head.name,
        findings,
        [before[k] for k in before if k not in after],
        [after[k] for k in after if k not in before],
        threshold,
        shift,
        ratios,
        relative,
        notes,
    )


def _has_samples(record: Record) -> bool:
    return bool(record.samples_s) and min(record.samples_s or [0.0]) > 0


def _turns(base: Record, head: Record) -> Turns:
    return Turns(base.samples_s or [], head.samples_s or [], head.rounds_per_process or [])


def _words_of_shift(
    shift: Interval, groups: dict[str, float], base: Side, head: Side, threshold: float, relative: bool, cases: int
) -> list[str]:
    shifts = [shift.value, *groups.values()]
    if not relative and all(1 / (1 + threshold) < ratio < 1 + threshold for ratio in shifts):
        return []
    words = (
        f"HEAD's calls took {longer(shift.value)} in the median over {cases} cases "
        f"(95 % interval {shift.low:.3f}–{shift.high:.3f} times)"
    )
    if len(set(groups.values())) > 1:
        words += f", {longer(min(groups.values()))} to {longer(max(groups.values()))} by groups that took turns"
    ceilings = _ceilings(base, head)
    if ceilings:
        words += "; of the machine's own ceilings, " + " and ".join(
            f"a {what} took {longer(ratio)}" for what, ratio in ceilings.items()
        )
    if relative:
        return [f"{words}. Ratios are to the shift of a case's group; a change that all share is not seen"]
    return [
        f"{words}. Two runs do not take turns with each other, so this may be the machine: measure both again, let "
        "revisions take turns with --git, or judge what differs from the shift with --relative"
    ]


def _words_of_doubt(found: Sequence[Finding], doubt: Judged) -> list[str]:
    """Why some changes are only `perhaps` ones."""
    notes = []
    if doubtful := sum(finding.verdict == "perhaps" and not finding.why for finding in found):
        notes.append(
            f"{doubtful} changes of time are called `perhaps`: processes show them, and so may the machine's mood, or "
            f"chance among {len(found)} cases. What the cases of a group have in common is taken to differ by "
            f"{math.sqrt(doubt.luck.value):.1%} from run to run (standard deviation). Let revisions take turns with "
            "--git, or measure both again"
        )
    if excused := sum(finding.verdict == "perhaps" and bool(finding.why) for finding in found):
        notes.append(
            f"{excused} changes of time go with what instruments read beside the turns (`eviction`, `handover_s`), and "
            "are smaller: they may be all the neighbours', and are called `perhaps`"
        )
    if apart := sum(finding.verdict in ("worse", "better") and finding.to_group is not None for finding in found):
        notes.append(
            f"{apart} changes of time count by how they stand out of the other variants of their group: where most of "
            "those were changed, and a little only, it may be they that moved"
        )
    unknown = [f for f in found if f.verdict == "same" and f.ratio is not None and f.ratio.high > BADLY * f.ratio.value]
    if unknown:
        worst = max(unknown, key=lambda f: f.ratio.high if f.ratio else 0.0).case
        notes.append(
            f"{len(unknown)} of {len(found)} cases are known too badly for even {BADLY:g} times as long to count, the "
            f"worst of them {worst.variant} at {worst.n_k:,} tokens: processes of one run differ by as much. Measure "
            "again, by more `processes`"
        )
    if doubt.guessed:
        notes.append(
            f"{doubt.guessed} of {len(found)} cases were measured by one process in one of both, beside too few others "
            f"to tell what that gets by chance: taken to be {math.sqrt(USUAL_SPREAD.value):.0%}, so that only far more "
            "counts. Measure with more `processes`, or more variants, or let revisions take turns with --git"
        )
    return notes


def _ceilings(base: Side, head: Side) -> dict[str, float]:
    """How many times as long the machine itself took in HEAD's run, by the ceilings that both measured."""
    if base.run is None or head.run is None:
        return {}
    old = {(c.device, c.dtype, c.threads): c for c in base.run.ceilings}
    pairs = [(old[k], c) for c in head.run.ceilings if (k := (c.device, c.dtype, c.threads)) in old]
    if not pairs:
        return {}
    return {
        "matrix product": statistics.median(b.matmul_flops_per_s / h.matmul_flops_per_s for b, h in pairs),
        "copy": statistics.median(b.copy_bytes_per_s / h.copy_bytes_per_s for b, h in pairs),
    }


def longer(ratio: float) -> str:
    """E.g. `8.0 % longer`, `2.1 % less long`, `just as long`."""
    if abs(ratio - 1) < 0.0005:
        return "just as long"
    return f"{abs(ratio - 1) * 100:.1f} % {'longer' if ratio > 1 else 'less long'}"
