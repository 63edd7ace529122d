"""What Performer's theory says of its features: without bias, with an error of m^-1/2, better when orthogonal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .claim import Band, Claim, Context, Measured, Target, median_of

if TYPE_CHECKING:
    from torch import Tensor

HEAD_DIM, PAIRS, NORM = 16, 128, 0.5
COUNTS = (16, 32, 64, 128, 256)
BATCHES, SEEDS, MANY = 16, 32, 512
"""Batches of so many projections, and of how many where two kinds of features are compared: a squared error is a mean
over a batch, the interval one over batches."""
BIAS, RATE, GAIN = (
    "mean estimate over the kernel's value",
    "exponent of the error over the number of features",
    "squared error of orthogonal features over that of independent ones",
)


def measure(context: Context) -> Measured:
    import numpy as np
    import torch

    from ...variants.linear.performer import projection

    generator = torch.Generator().manual_seed(0)
    # x = q · d^-1/4, as Performer scales both
    x, y = (
        NORM * HEAD_DIM**-0.25 * torch.randn(PAIRS, HEAD_DIM, generator=generator, dtype=torch.float64) for _ in "qk"
    )
    kernel = (x * y).sum(dim=-1).exp()  # (PAIRS,)

    def estimate(w: Tensor) -> Tensor:
        """phi(x)·phi(y) over exp(x·y), for each pair: 1 in expectation."""
        half = (x.square().sum(dim=-1) + y.square().sum(dim=-1)) / 2
        found: Tensor = (w @ (x + y).mT - half).exp().mean(dim=0) / kernel
        return found

    def of(count: int, batch: int, seeds: int, orthogonal: bool = True) -> Tensor:
        """(seeds, PAIRS): estimates of a batch of projections."""
        rows = []
        for seed in range(batch * seeds, (batch + 1) * seeds):
            if orthogonal:
                w = projection(count, HEAD_DIM, seed, torch.float64, torch.device("cpu"))
            else:
                own = torch.Generator().manual_seed(seed)
                w = torch.randn(count, HEAD_DIM, generator=own, dtype=torch.float64)
            rows.append(estimate(w))
        return torch.stack(rows)

    slopes, means, gains = [], [], []
    for batch in range(BATCHES):
        found = {count: of(count, batch, SEEDS) for count in COUNTS}
        errors = [float((found[count] - 1).square().mean().sqrt()) for count in COUNTS]
        slopes.append(float(np.polyfit(np.log(COUNTS), np.log(errors), 1)[0]))
        means.append(float(found[COUNTS[-1]].mean()))
        pair = [of(HEAD_DIM, batch, MANY, orthogonal) for orthogonal in (True, False)]
        gains.append(float((pair[0] - 1).square().mean() / (pair[1] - 1).square().mean()))
    what = "batches of {} projections".format
    return Measured(
        {
            BIAS: median_of(means, what(SEEDS)),
            RATE: median_of(slopes, what(SEEDS)),
            GAIN: median_of(gains, what(MANY)),
        }
    )


CLAIM = Claim(
    name="performer_features",
    text="Positive random features estimate exp(q·k) without bias, with an error that falls as m^-1/2, and orthogonal "
    "ones do so with a smaller error than independent ones",
    source='Choromanski et al. 2020, "Rethinking Attention with Performers", arXiv:2009.14794: lemma 1 (without bias), '
    "the squared error ~ 1/m of positive features, theorem 2 (orthogonal features) and the figure that compares them",
    setting="theory, and a figure of approximation errors of orthogonal and independent features",
    here=f"{PAIRS} pairs of Gaussian vectors of dimension {HEAD_DIM} and deviation {NORM}, {COUNTS[0]} to {COUNTS[-1]} "
    f"features, {BATCHES * SEEDS} projections of `performer` in float64; orthogonal beside independent at m = d, "
    f"{BATCHES * MANY:,} projections of each",
    targets=(
        Target(BIAS, 1.0, "lemma 1", Band(0.98, 1.02)),
        Target(RATE, -0.5, "from the formula of the squared error", Band(-0.6, -0.4), Band(high=-0.25)),
        Target(GAIN, None, "theorem 2, which gives a bound and not a number", Band(high=1.0), Band(high=1.0)),
    ),
    measure=measure,
    cost_s=5,
)
