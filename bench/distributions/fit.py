"""Strengths that make parts of scores reach target statistics, fitted on a sample of rows.

Each mass grows with the strength of its part and falls with the others', so that one strength alone could be bisected.
All are found together, by bounded least squares on the log-odds of masses and the logarithm of effective keys, in which
the strengths are nearly linear. A target that cannot be reached (all keys are near where there are only 40) is given
up, so that the others still hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from ...results.distributions import Statistics
from .parts import Part
from .shape import Shape
from .statistics import Planted, attention, near, sample_rows

HEADS = 4
"""Heads, over all batch entries, that strengths are fitted on at most; all heads then have these."""
ENTRIES, FEWEST = 1 << 22, 96
"""Scores that strengths are fitted on, about, and the fewest rows, over these heads."""
STRONGEST = 30.0
"""Of a strength: a key with it has e^30 times the weight of one without, beyond what targets need."""
PULL = 0.01
"""Towards the first guess, over a step of 1 in log-odds: what no target fixes stays there."""
MASS_TOLERANCE, KEYS_TOLERANCE = 0.05, 0.2
"""By how much a reached statistic may differ from its target: a mass absolutely, effective keys as a share."""
DIGITS = 3
"""Of strengths, so that rounding on another processor does not show."""
EVALUATIONS = 40
EDGE = 1e-6
"""Masses are kept so far from 0 and 1, where their log-odds end."""

Array = NDArray[np.float64]


def fit(
    parts: Mapping[str, Part],
    shape: Shape,
    targets: Mapping[str, float],
    start: Mapping[str, float],
    planted: Planted | None,
) -> dict[str, float]:
    """Strengths by part, none negative. `targets` are Statistics by name; `start` has a first guess for each part."""
    sample = Sample(parts, shape, planted)
    strengths = np.array([start[name] for name in parts])
    names = list(targets)
    while names:
        strengths = _solve(sample, {name: targets[name] for name in names}, strengths)
        values, _ = sample.look(strengths, names)
        misses = [miss(name, value, targets[name]) for name, value in zip(names, values, strict=True)]
        if max(misses) <= 1.0:
            break
        names.pop(misses.index(max(misses)))
    return {name: round(float(strength), DIGITS) for name, strength in zip(parts, strengths, strict=True)}


def _solve(sample: Sample, targets: Mapping[str, float], start: Array) -> Array:
    from scipy.optimize import least_squares  # a third of a second, which most cases need not spend

    names = list(targets)
    wanted = np.array([_link(name, target)[0] for name, target in targets.items()])
    seen: dict[bytes, tuple[Array, Array]] = {}

    def at(strengths: Array) -> tuple[Array, Array]:
        """Differences from the targets and their slopes: both are asked for at the same points, and made at once."""
        key = strengths.tobytes()
        if key not in seen:
            values, slopes = sample.look(strengths, names)
            links = [_link(name, value) for name, value in zip(names, values, strict=True)]
            residuals = np.array([linked for linked, _ in links]) - wanted
            slopes = slopes * np.array([[slope] for _, slope in links])
            pulls = PULL * (strengths - start)
            seen[key] = np.concatenate([residuals, pulls]), np.concatenate([slopes, PULL * np.eye(len(start))])
        return seen[key]

    found = least_squares(
        lambda x: at(x)[0], start, jac=lambda x: at(x)[1], bounds=(0.0, STRONGEST), xtol=1e-3, max_nfev=EVALUATIONS
    )
    return np.asarray(found.x, dtype=np.float64)


def _link(name: str, value: float) -> tuple[float, float]:
    """A statistic on the scale on which it is fitted, and the slope of that scale: log-odds, or a logarithm."""
    if name == "effective_keys":
        return math.log(value), 1 / value
    value = min(max(value, EDGE), 1 - EDGE)
    return math.log(value / (1 - value)), 1 / (value * (1 - value))


class Sample:
    """Scores of each part for a sample of rows of some heads, and the statistics of any mixture of them."""

    def __init__(self, parts: Mapping[str, Part], shape: Shape, planted: Planted | None) -> None:
        every = shape.batch * shape.heads
        count = min(HEADS, every)
        heads = [divmod(i * every // count, shape.heads) for i in range(count)]
        rows = sample_rows(shape.n_q, shape.n_k, shape.causal, count, seed=shape.seed, entries=ENTRIES, fewest=FEWEST)
        self.causal = shape.causal
        self.positions = rows + (shape.n_k - shape.n_q)
        self.scores = torch.empty(len(heads), len(rows), len(parts), shape.n_k)
        """(heads, R, parts, Nk)"""
        self.counted = torch.ones(len(heads), len(rows), 3, shape.n_k)
        """(heads, R, 3, Nk): which keys sums go over, all and those planted; the third is for the surprise, -log p."""
        for place, (batch, head) in enumerate(heads):
            for index, part in enumerate(parts.values()):
                self.scores[place, :, index] = part.scores(shape, batch, head, rows)
            if planted is not None:
                keys = planted.keys[batch, head // (shape.heads // shape.kv_heads)]
                self.counted[place, :, 1] = planted.queries[batch, head, rows, None] == keys
        self.near_keys, self.near_real = near(self.positions, shape.n_k)  # (R, 127) each
        at = self.near_keys.unsqueeze(-2).expand(*self.scores.shape[:-1], -1)
        self.near_scores = self.scores.gather(-1, at)  # (heads, R, parts, 127)

    def look(self, strengths: Array, names: list[str]) -> tuple[Array, Array]:
        """Statistics by name (T,), and their derivatives by the strengths (T, parts).

        With weights p and scores s of a part, the derivative of a row's sum of p x is that of p x s less the product of
        the sums of p x and p s; of the entropy, where x is -log p, it is the same.
        """
        mixed = torch.tensor(strengths, dtype=torch.float32) @ self.scores
        p = attention(mixed, self.positions, self.causal)  # (heads, R, Nk)
        torch.log(p.clamp(min=torch.finfo(p.dtype).tiny), out=self.counted[:, :, 2]).neg_()
        weighed = p.unsqueeze(-2) * self.counted
        sums = weighed.sum(dim=-1)  # (heads, R, 3)
        moved = self.scores @ weighed.mT  # (heads, R, parts, 3)
        close = p.gather(-1, self.near_keys.expand(*p.shape[:-1], -1)) * self.near_real
        values, slopes = [], []
        for name in names:
            if name == "mass_first":
                value, shifted = p[..., 0], p[..., :1] * self.scores[..., 0]
            elif name == "mass_local":
                value, shifted = close.sum(dim=-1), (self.near_scores @ close.unsqueeze(-1)).squeeze(-1)
            else:
                column = ("mass_planted", "effective_keys").index(name) + 1
                value, shifted = sums[..., column], moved[..., column]
            slope = (shifted - value.unsqueeze(-1) * moved[..., 0]).double().mean(dim=(0, 1)).numpy()
            mean = float(value.double().mean())
            values.append(math.exp(mean) if name == "effective_keys" else mean)
            slopes.append(slope * values[-1] if name == "effective_keys" else slope)
        return np.array(values), np.stack(slopes)


def miss(name: str, reached: float, target: float) -> float:
    """How far a statistic is from its target, over what is tolerated."""
    if name == "effective_keys":
        return abs(reached / target - 1) / KEYS_TOLERANCE
    return abs(reached - target) / MASS_TOLERANCE


def missed(reached: Statistics, targets: Mapping[str, float], shape: Shape) -> tuple[str, ...]:
    """A sentence for each target that was not reached."""
    return tuple(
        f"{name} is {getattr(reached, name):.3g} instead of {target:.3g} with {shape.n_k} keys of head "
        f"dimension {shape.head_dim}"
        for name, target in targets.items()
        if not miss(name, getattr(reached, name), target) <= 1.0
    )
