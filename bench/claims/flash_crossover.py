"""From which length approximate attention beats exact attention that is computed well."""

from __future__ import annotations

from .claim import Band, Claim, Context, Measured, Target
from .timing import samples_of, speed_up, table

APPROXIMATE = ("linformer", "block_local(chunk_size=128)", "reformer", "longformer", "bigbird")
SHORT, LONG = 512, 1024
BEFORE, AFTER, FASTER = (
    f"speed-up of the fastest approximate method at {SHORT} tokens",
    f"speed-up of the fastest approximate method at {LONG:,} tokens",
    f"speed-up of fused exact attention over a plain one at {2 * LONG:,} tokens",
)


def measure(context: Context) -> Measured:
    fused, plain = samples_of(context.records, "sdpa"), samples_of(context.records, "naive")
    others = {spec: samples_of(context.records, spec) for spec in APPROXIMATE}

    def best(n: int) -> str:
        return max(others, key=lambda spec: speed_up(fused[n], others[spec][n]).interval.value)

    return Measured(
        {
            BEFORE: speed_up(fused[SHORT], others[best(SHORT)][SHORT]),
            AFTER: speed_up(fused[LONG], others[best(LONG)][LONG]),
            FASTER: speed_up(plain[2 * LONG], fused[2 * LONG]),
        },
        (f"fastest: {best(SHORT)} at {SHORT}, {best(LONG)} at {LONG:,}", table(fused, others)),
    )


CLAIM = Claim(
    name="flash_crossover",
    text="Approximate attention begins to be faster than fused exact attention between 512 and 1,024 tokens, and fused "
    "attention is up to 3 times faster than a plain one",
    source='Dao et al. 2022, "FlashAttention", arXiv:2205.14135, section 4.3 and figure 3',
    setting="forward and backward on an A100, with dropout and padding; Linformer, local attention, Reformer, "
    "Longformer, BigBird and others",
    here="forward and backward on one core of this CPU, where torch has a fused kernel of its own; float32, 2 heads of "
    "64, no dropout; times by turns in fresh order",
    targets=(
        Target(BEFORE, None, "text: slower at 512", Band(high=1), Band(high=1), " ×"),
        Target(AFTER, None, "text: faster at 1,024", Band(low=1), Band(low=1), " ×"),
        Target(FASTER, 3.0, 'text: "up to"', Band(1.5, 4.5), Band(low=1), " ×"),
    ),
    measure=measure,
    cost_s=70,
    sweep={
        "variants": ["naive", "sdpa", *APPROXIMATE],
        "seq_lens": [256, SHORT, LONG, 2 * LONG],
        "modes": ["train"],
        "causal": [False],
        "heads": 2,
        "head_dim": 64,
        "threads": [1],
        "case_time": 0.5,
        "min_rounds": 6,
        "max_rounds": 20,
        "precision": 0.03,
        "timeout": "120s",
    },
)
