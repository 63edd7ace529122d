"""What changed from one run to another: faster, slower, bigger, wrong, each with its effect and how sure it is.

A time is called faster or slower only when the effect reaches the threshold *and* the corrected test says that the
samples differ. Two finished runs did not take turns, so a machine that was slower as a whole during one of them shifts
every time alike. That shift is measured and put into words beside what the runs' own ceilings say of the machine; it is
taken off only where asked (`relative`), since a slow-down of all cases may as well be the code's, and then it is the
worst regression of all. Of their rounds those are compared that had like neighbours (alike.py). Memory, state, status,
error and fidelity do not depend on the machine's mood.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .agreement import Agreement, agreement
from .alike import of_like_rounds, words_of_rounds
from .benchmark_file import opened
from .changes import ORDER, Finding, Verdict, certain, times
from .conditions import Side, matching, unlike_beside, unlike_conditions
from .errors import ResultsError
from .record import Record
from .statistics import Interval, median_interval, spread
from .store import ResultsWarning

THRESHOLD = 0.03
"""A smaller change of time is not called, however sure."""
FEWEST_CASES = 5
"""Fewer cases have no shift in common that could be told from their own changes."""
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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResultsWarning)
        records = {record.case_id: record for record in folder.records()}
    if not records:
        raise ResultsError(f"{path} holds no record, so there is nothing to compare; name another run")
    notes = [str(warning.message) for warning in caught]
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
    if not paired:
        all_rounds, timed = timed, [of_like_rounds(b, h) for b, h in timed]
        notes += words_of_rounds(all_rounds, timed)
    shift = None if paired else _shift(timed)
    if relative and shift is None:
        raise ResultsError(
            f"{len(timed)} cases were timed in both, too few to tell a shift of the whole machine from changes of "
            f"their own; leave out --relative, or compare at least {FEWEST_CASES}"
        )
    groups = _by_group(timed, shift)
    shifts = [groups[h.group_id] if relative else 1.0 for _, h in timed]
    if shift is not None:
        notes += _words_of_shift(shift, list(groups.values()), base, head, threshold, relative, len(timed))
    if len(timed) < len(ok):
        notes.append(f"{len(ok) - len(timed)} cases have no samples of time in both: their times were not compared")
    found, unable = times(timed, threshold, shifts, paired)
    if shift is not None and any(finding.verdict in ("worse", "better") for finding in found):
        notes += _words_of_spread(timed, shifts, threshold)
    if unable:
        notes.append(
            f"{unable} of {len(timed)} cases have too few rounds for any difference to count among so many: "
            "measure with more (`min_rounds` in a run's configuration, `--benchmark-min-rounds` of pytest-benchmark)"
        )
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


def _shift(pairs: Sequence[tuple[Record, Record]]) -> Interval | None:
    """HEAD's time over BASE's, in the median over cases; None for too few."""
    if len(pairs) < FEWEST_CASES:
        return None
    return median_interval(_ratios(pairs))


def _ratios(pairs: Sequence[tuple[Record, Record]]) -> list[float]:
    """HEAD's median time over BASE's, of each case."""
    medians = [[statistics.median(record.samples_s or []) for record in pair] for pair in pairs]
    return [new / old for old, new in medians]


def _by_group(pairs: Sequence[tuple[Record, Record]], shift: Interval | None) -> dict[str, float]:
    """The shift of each group, whose cases took turns and so share the machine's mood; of small ones, that of all."""
    groups: dict[str, list[tuple[Record, Record]]] = {}
    for b, h in pairs:
        groups.setdefault(h.group_id, []).append((b, h))
    own = {group: _shift(members) or shift for group, members in groups.items()}
    return {group: 1.0 if found is None else found.value for group, found in own.items()}


def _words_of_shift(
    shift: Interval, groups: list[float], base: Side, head: Side, threshold: float, relative: bool, cases: int
) -> list[str]:
    if all(1 / (1 + threshold) < ratio < 1 + threshold for ratio in (shift.value, *groups)):
        return []
    words = (
        f"HEAD's calls took {longer(shift.value)} in the median over {cases} cases "
        f"(95 % interval {shift.low:.3f}–{shift.high:.3f} times)"
    )
    if len(set(groups)) > 1:
        words += f", {longer(min(groups))} to {longer(max(groups))} by groups that took turns"
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


def _words_of_spread(pairs: Sequence[tuple[Record, Record]], shifts: Sequence[float], threshold: float) -> list[str]:
    """Where ratios of cases spread by more than the threshold allows, be it by changes or by noise."""
    sigma = spread([math.log(ratio / shift) for ratio, shift in zip(_ratios(pairs), shifts, strict=True)])
    if 2 * sigma < math.log1p(threshold):
        return []
    return [
        f"from case to case the ratios have a standard deviation of {sigma:.1%}, by the middle 68 % of {len(pairs)}: "
        "either a sixth of the cases or more were changed, or two runs of the same code differ by as much here. Let "
        "revisions take turns with --git, or measure both again, to tell the one from the other"
    ]


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
