"""One variant of the group that is being measured: its process, its samples, and the figures that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from statistics import median
from typing import Any

from ..results.conditions import EVICTION, HANDOVER
from ..results.run import Ceilings
from ..results.statistics import Interval, median_interval, paired_ratio
from ..results.work import held_bytes, moved_bytes
from .case import Case
from .plan import Planned
from .process import Child
from .roofline import share

LONG_S = 0.15
"""A call that takes longer works on so much memory that it hardly matters where that lies: medians of five calls in
each of six processes spread by .6 to 1.1 %, about as far as chance alone spreads them. One process takes all samples of
such."""
OWN_BYTES = 1 << 19
"""A case whose inputs and outputs are no more than this works mostly in its cores' own caches, which no neighbour
touches: of 1 MiB or more for each core, with room for scores, features and states beside."""
FEWEST = 4
"""Rounds of a half that say whether the machine changed between the two."""


@dataclass(frozen=True)
class Taken:
    """How a sample was taken."""

    process: int
    """Which of the case's, from 1."""
    took_s: float
    timed_s: float
    """Of it, inside of timed calls."""
    handover_s: float | None
    """Right after it: see handover.py. None on a GPU."""


@dataclass
class Turn:
    """One variant of the group that is being measured."""

    planned: Planned
    started_at: str
    child: Child | None
    """Its process, where it has one."""
    fields: dict[str, Any]
    samples: list[float] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    """How each sample was."""
    evictions: list[float] = field(default_factory=list)
    """What others did to the shared cache beside each round that counts, where that was read."""
    wall_s: float = 0.0
    """All time that its process worked on it."""
    sampling_s: float = 0.0
    """Of its own time: rounds beyond the goals of passes cost patience instead."""
    interval: Interval | None = None
    stopped_by: str | None = None
    needed: int = 0
    """Rounds that it took until then; 0 before. Further ones: see rounds.py."""
    held_bytes: int = 0
    """Memory that its process keeps while it waits: resident, or of the GPU."""
    free_bytes: int | None = None
    """What was left of the GPU's memory once it was ready."""
    part: int = 1
    """In which part of its group it takes turns."""
    processes: int = 1
    """That were started so far."""
    before: tuple[int, float] = (0, 0.0)
    """Rounds and seconds of sampling that those before this one took."""
    at_once: bool = False
    """It is measured in one pass, where several were asked for."""
    weighed: bool = False
    """Its memory and operations are known."""
    recorded: bool = False
    """It has its record, and takes turns as the baseline of another part."""

    @property
    def interrupted(self) -> bool:
        """Most samples took over twice the fastest: the system gave the cores to others, in slices as regular as a
        steady time."""
        assert self.interval is not None
        return self.interval.value > 2 * min(self.samples)

    @property
    def resumable(self) -> bool:
        """Another process can go on where one ended, without compiling anew."""
        return self.case.device == "cpu" and not self.case.requests and "compile_s" not in self.fields

    @property
    def renewable(self) -> bool:
        """It matters too, within one pass. Asked when there are samples."""
        return self.resumable and self.call_s < LONG_S

    @property
    def call_s(self) -> float:
        """What a call took so far: the median of its samples."""
        return median(self.samples)

    @property
    def of_this_process(self) -> tuple[int, float]:
        """Rounds and seconds of sampling that its present process took."""
        return len(self.samples) - self.before[0], self.sampling_s - self.before[1]

    @property
    def handovers(self) -> list[float]:
        """What a small piece of work took its threads beside each turn, on a CPU."""
        return [each.handover_s for each in self.taken if each.handover_s is not None]

    @property
    def shares_cache(self) -> bool:
        """It works in the cache that the cores of a CPU share, if not in memory: alike for all cases of a group."""
        return self.case.device == "cpu" and held_bytes(self.case) > OWN_BYTES

    @property
    def case(self) -> Case:
        return self.planned.case

    def end_process(self) -> None:
        if self.child is not None:
            self.child.close()

    def renewed(self) -> None:
        """Another process goes on from here."""
        self.processes += 1
        self.before = len(self.samples), self.sampling_s

    def count(self, rounds: Sequence[int], evictions: Sequence[float]) -> list[Taken]:
        """Keeps the samples of these rounds, numbered from 0 and in order; returns how the others were taken.

        evictions: what others did to the shared cache in each round of the group.
        """
        had = range(len(self.samples))
        counting = [number for number in rounds if number in had]
        left_out = [self.taken[number] for number in set(had).difference(counting)]
        self.samples = [self.samples[number] for number in counting]
        self.taken = [self.taken[number] for number in counting]
        self.evictions = [evictions[number] for number in counting]
        self.interval = median_interval(self.samples)
        return left_out

    def anew(self) -> Turn:
        """The same to take turns as the baseline of another part of its group, without a sample yet."""
        return replace(
            self,
            samples=[],
            taken=[],
            evictions=[],
            sampling_s=0.0,
            interval=None,
            stopped_by=None,
            needed=0,
            processes=1,
            before=(0, 0.0),
            recorded=True,
        )


def figures(turn: Turn, baseline: Turn | None, ceilings: Ceilings, shortest_s: float | None = None) -> dict[str, Any]:
    """The record's fields of a case that came through all of its steps.

    `shortest_s`: the handover by which turns were chosen, if they were (placement.py).
    """
    assert turn.interval is not None
    case, time_s = turn.case, turn.interval.value
    found: dict[str, Any] = {
        **turn.fields,
        "status": "ok",
        "started_at": turn.started_at,
        "wall_s": turn.wall_s,
        "time_s": time_s,
        "time_s_low": turn.interval.low,
        "time_s_high": turn.interval.high,
        "samples_s": turn.samples,
        "stopped_by": turn.stopped_by,
        "processes": len({each.process for each in turn.taken}),
        "rounds_per_process": [len(list(group)) for _, group in groupby(each.process for each in turn.taken)],
        "handover_s": median(turn.handovers) if turn.handovers else None,
        "eviction": median(turn.evictions) if turn.evictions else None,
        "evictions": turn.evictions or None,
        "tokens_per_s": case.batch * case.n_q / time_s,
    }
    found["reasons"] = notes = []
    if turn.interrupted:
        notes.append(
            f"half of its samples took over twice the fastest, {min(turn.samples):.3g} s: the machine was busy"
        )
    notes += _moved(turn.handovers) + _slowed(turn.handovers, shortest_s, case.threads) + _evicted(turn.evictions)
    flops = turn.planned.fields["flops_needed"]
    moved = turn.planned.fields.get("bytes_needed") or moved_bytes(case, flops)
    reached = share(flops, moved, time_s, ceilings)
    if reached <= 1:
        found["ceiling_share"] = reached
    else:
        notes.append("no share of the ceiling: its `flops_needed` is more than this machine can do in its time")
    if turn.part > 1:
        beside = f"beside {baseline.case.variant} alone" if baseline is not None else "without a baseline"
        notes.append(f"measured in part {turn.part} of its group, {beside}: all of it did not fit into memory")
    if turn.at_once:
        notes.append(
            "measured in one pass: on a GPU, or with processes that would have held too much memory between several"
        )
    if baseline is not None:
        ratio = paired_ratio(turn.samples, baseline.samples)
        found |= {
            "baseline": baseline.case.variant,
            "ratio": ratio.value,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
        }
    return found


def _moved(handovers: list[float]) -> list[str]:
    """A sentence where small work became slower or faster in the middle of a case's rounds."""
    half = len(handovers) // 2
    if half < FEWEST:
        return []
    first, last = median(handovers[:half]), median(handovers[-half:])
    if 1 / HANDOVER < last / first < HANDOVER:
        return []
    how = "slower" if last > first else "faster"
    return [
        f"small work (`handover_s`) became {how} in the middle of its rounds: the cores were placed or used otherwise, "
        "and its time is of both"
    ]


def _slowed(handovers: list[float], shortest_s: float | None, threads: int) -> list[str]:
    """A sentence where rounds count though its cores did not do small work as fast as the run has seen them do it."""
    if shortest_s is None:
        return []
    why = "the cores lay apart, or others used them" if threads > 1 else "others used its core"
    return [
        f"beside {which} of its rounds {why}, and that did not end in time: small work took longer "
        "(`handover_s`), and so do calls of many small operations"
        for which in _which(handovers, HANDOVER * shortest_s)
    ]


def _evicted(evictions: list[float]) -> list[str]:
    """A sentence where rounds count though others used the shared cache."""
    return [
        f"beside {which} of its rounds others used the cache that cores share (`eviction`): calls that come back to "
        "what they wrote take longer for that"
        for which in _which(evictions, EVICTION)
    ]


def _which(readings: list[float], limit: float) -> list[str]:
    """Which readings reach a limit, in one of few words, so that a report can name all such cases at once; empty for
    none."""
    over = sum(each >= limit for each in readings)
    return ["most" if 2 * over >= len(readings) else "some"] if over else []
