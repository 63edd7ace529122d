"""What approximations lose, read off the records of a sweep: curves over budgets, and how rankings differ by input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .record import Record

GAUSSIAN = "gaussian"


@dataclass(frozen=True)
class Point:
    """An approximate variant at one budget, on one kind of input."""

    variant: str
    family: str
    params: dict[str, object]
    budget: int | None
    unit: str | None
    """What the budget counts; None where the variant declares none."""
    inputs: str
    causal: bool
    seq_len: int
    head_dim: int
    rows: int
    """Queries that were compared. Of few, those at the ends of the text are many: see bench/error.py."""
    error: float
    cosine: float | None
    keys: float | None
    mass: float | None
    mass_window: float | None
    mass_oracle: float | None
    error_uniform: float | None
    error_window: float | None
    error_oracle: float | None
    time_s: float | None
    ratio: float | None
    """Its time over that of the fastest exact variant."""
    flops: int | None
    state_bytes: int | None
    recall: float | None
    """Of 128 pairs, without training: see the records' `recall_128`."""

    @property
    def label(self) -> str:
        return self.variant if self.budget is None else f"{self.variant} {self.budget}"


@dataclass(frozen=True)
class Swap:
    """Two variants of which one is better on one input and the other on the other."""

    better: str
    """On the first input."""
    worse: str
    first: tuple[float, float]
    """Their errors on the first input."""
    second: tuple[float, float]


@dataclass(frozen=True)
class Agreement:
    """How far the order of variants on one input is that on another, at one budget."""

    first: str
    second: str
    causal: bool
    seq_len: int
    budget: int
    tau: float
    """Kendall's: 1 is the same order, -1 the reverse."""
    variants: int
    swaps: list[Swap]
    """The pairs that change places, the plainest first."""


def points(records: Iterable[Record]) -> list[Point]:
    """Each record that has a fidelity, measured forward and square; of several of one case the latest."""
    found: dict[str, Point] = {}
    for r in records:
        if r.fidelity_error is None or r.mode != "forward" or r.n_q != r.n_k:
            continue
        found[r.case_id] = Point(
            variant=r.variant,
            family=r.family or "other",
            params=dict(r.params),
            budget=r.budget,
            unit=r.budget_unit,
            inputs=r.inputs,
            causal=r.causal,
            seq_len=r.n_k,
            head_dim=r.head_dim,
            rows=r.checked_rows or 0,
            error=r.fidelity_error,
            cosine=r.fidelity_cosine,
            keys=r.fidelity_keys,
            mass=r.fidelity_mass,
            mass_window=r.fidelity_mass_window,
            mass_oracle=r.fidelity_mass_oracle,
            error_uniform=r.fidelity_error_uniform,
            error_window=r.fidelity_error_window,
            error_oracle=r.fidelity_error_oracle,
            time_s=r.time_s,
            ratio=r.ratio,
            flops=r.flops,
            state_bytes=r.state_bytes,
            recall=r.recall_128,
        )
    return list(found.values())


def agreements(found: Sequence[Point], first: str = GAUSSIAN) -> list[Agreement]:
    """For each mask, length, budget and other input: how its order of variants differs from that on `first`.

    Variants that have no budget stand in every one of them.
    """
    settings = dict.fromkeys((p.causal, p.seq_len, p.inputs) for p in found if p.inputs != first)
    budgets = sorted({p.budget for p in found if p.budget is not None})
    result = []
    for (causal, seq_len, second), budget in itertools.product(settings, budgets):
        errors = [
            {
                p.variant: p.error
                for p in found
                if (p.causal, p.seq_len, p.inputs) == (causal, seq_len, inputs) and p.budget in (budget, None)
            }
            for inputs in (first, second)
        ]
        names = sorted(errors[0].keys() & errors[1].keys())
        if len(names) > 2:
            result.append(_agreement(first, second, causal, seq_len, budget, names, *errors))
    return result


def _agreement(
    first: str,
    second: str,
    causal: bool,
    seq_len: int,
    budget: int,
    names: list[str],
    before: dict[str, float],
    after: dict[str, float],
) -> Agreement:
    from scipy.stats import kendalltau

    swaps = []
    for a, b in itertools.combinations(names, 2):
        better, worse = (a, b) if before[a] < before[b] else (b, a)
        if before[better] < before[worse] and after[better] > after[worse]:
            swaps.append(Swap(better, worse, (before[better], before[worse]), (after[better], after[worse])))
    swaps.sort(key=_plainness, reverse=True)
    tau = float(kendalltau([before[n] for n in names], [after[n] for n in names]).statistic)
    return Agreement(first, second, causal, seq_len, budget, 0.0 if math.isnan(tau) else tau, len(names), swaps)


def _plainness(swap: Swap) -> float:
    """The smaller of the two factors by which the pair differs: noise swaps what hardly differs."""
    tiny = 1e-12
    return min(
        (swap.first[1] + tiny) / (swap.first[0] + tiny),
        (swap.second[0] + tiny) / (swap.second[1] + tiny),
    )
