"""Memory as a sum of outer products: how much it holds, and what writing a key again does to it."""

from __future__ import annotations

from typing import Any

from .claim import Band, Claim, Context, Measured, Target, median_of

SOURCE = 'Schlag et al. 2021, "Linear Transformers Are Secretly Fast Weight Programmers", arXiv:2102.11174'
HEAD_DIM = 64

# -- capacity ---------------------------------------------------------------------------------------------------

FITTING, BEYOND = "retrieval error with 64 keys", "retrieval error with 65 keys"
SUM = "retention(gamma=1.0)"


def measure_capacity(context: Context) -> Measured:
    """Writes keys that are as far apart as they can be, and reads each of them back from the state."""
    draws = range(12)
    fitting = [_retrieval_error(SUM, HEAD_DIM, seed) for seed in draws]
    beyond = [_retrieval_error(SUM, HEAD_DIM + 1, seed) for seed in draws]
    ruled = [_retrieval_error("delta", HEAD_DIM + 1, seed) for seed in draws]
    return Measured(
        {FITTING: median_of(fitting, "draws"), BEYOND: median_of(beyond, "draws")},
        (f"the delta rule does not move the limit: with 65 keys its error is {max(ruled):.2f} at most",),
    )


def _retrieval_error(spec: str, count: int, seed: int) -> float:
    """Largest ‖read - value‖ / ‖value‖ over `count` keys, orthonormal as long as there are so many dimensions."""
    import torch

    from ...variants.api import get
    from ..recall import constant_extras

    generator = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(count, HEAD_DIM, generator=generator, dtype=torch.float64) for _ in "kv")
    basis = torch.linalg.qr(keys[:HEAD_DIM].mT)[0].mT
    keys = torch.cat([basis, torch.nn.functional.normalize(keys[HEAD_DIM:], dim=-1)])  # (count, D)
    attn = get(spec)
    k = keys.expand(count, 1, -1, -1)
    v = values.expand(count, 1, -1, -1)
    q = k.clone()
    q[:, 0, -1] = keys * HEAD_DIM**0.5  # the scale of d^-1/2 cancels
    extras: dict[str, Any] = constant_extras(attn, q, k, v, beta=1.0, decay=1.0)
    out = attn.definition(q, k, v, causal=True, rows=torch.tensor([count - 1]), **extras)[:, 0, 0]
    return float(((out - values).norm(dim=-1) / values.norm(dim=-1)).max())


CAPACITY = Claim(
    name="sum_capacity",
    text="Linear attention holds as many associations as its keys have dimensions, 64, and errs from there on",
    source=f"{SOURCE}, sections 4.1 and 6.1.1",
    setting="one layer trained on 20 to 600 unique keys, d_key = 64: errors begin at 60 associations and more",
    here="nothing trained: orthonormal keys, the best there are, written by `retention(gamma=1)`, which is linear "
    "attention without feature map and normaliser; each key is read back and compared with its value",
    targets=(
        Target(FITTING, 0.0, "section 4.1", Band(0, 1e-6)),
        Target(BEYOND, None, "section 4.1: more keys cannot all be orthogonal", Band(low=0.1), Band(low=1e-3)),
    ),
    measure=measure_capacity,
    cost_s=2,
)

# -- rewriting --------------------------------------------------------------------------------------------------

KEYS, TRIALS, SEEDS = 20, 8, 8
DELTA, TOTAL, GAIN = "recall of the delta rule", "recall of the sum", "recall gained by the delta rule"


def measure_rewriting(context: Context) -> Measured:
    from ...variants.api import get
    from ..recall import recall

    def of(spec: str, rewritten: int) -> list[float]:
        return [
            recall(get(spec), KEYS, rewritten, head_dim=HEAD_DIM, trials=TRIALS, seed=seed).accuracy
            for seed in range(SEEDS)
        ]

    delta, total = of("delta", KEYS), of(SUM, KEYS)
    once = {spec: median_of(of(spec, 0), "").interval.value for spec in ("delta", SUM)}
    what = f"seeds of {TRIALS} draws"
    return Measured(
        {
            DELTA: median_of(delta, what),
            TOTAL: median_of(total, what),
            GAIN: median_of([a - b for a, b in zip(delta, total, strict=True)], what),
        },
        (f"written once and not again, {KEYS} keys: delta rule {once['delta']:.2f}, sum {once[SUM]:.2f}",),
    )


REWRITING = Claim(
    name="delta_rewriting",
    text="Where keys are written again with new values, the delta rule recalls the newest and a plain sum fails",
    source=f'{SOURCE}, section 6.1.2: "the baseline sum update rule fails"',
    setting="one layer trained on 40 writes of 20 unique keys drawn with replacement; losses are in a figure",
    here="nothing trained: the recall probe with 20 random unit keys of dimension 64, each written twice, write "
    "strength 1; recalled is the nearest of all values and 1,024 more. Failing is read as a recall of at most 0.6",
    targets=(
        Target(DELTA, None, "text, without a number", Band(low=0.95)),
        Target(TOTAL, None, "text, without a number", Band(high=0.6), Band(high=0.9)),
        Target(GAIN, None, "text, without a number", Band(low=0.3), Band(low=0.0)),
    ),
    measure=measure_rewriting,
    cost_s=6,
)
