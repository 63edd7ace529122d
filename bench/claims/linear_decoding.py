"""What one more token costs a linear transformer, and softmax attention with its cache."""

from __future__ import annotations

import math

from .claim import Band, Claim, Context, Measured, Target, Untestable, exact
from .timing import exponent, matching, samples_of

LINEAR, SOFTMAX = "linear_elu", "naive"
TIME, STATE, CACHE, FULL = (
    "exponent of the time of one step over the length",
    "exponent of the state's bytes",
    "exponent of the cache's bytes of softmax attention",
    "exponent of the time of one step of softmax attention",
)


def measure(context: Context) -> Measured:
    times = {spec: samples_of(context.records, spec) for spec in (LINEAR, SOFTMAX)}

    def growth(spec: str) -> float:
        state = {record.n_k: record.state_bytes for record in matching(context.records, spec)}
        short, long = min(state), max(state)
        before, after = state[short], state[long]
        if not before or not after:
            raise Untestable(f"{spec} has no state to be weighed")
        return math.log(after / before) / math.log(long / short)

    of = "exact: bytes of the state"
    steps = {spec: {n: 1e6 * sorted(x)[len(x) // 2] for n, x in samples.items()} for spec, samples in times.items()}
    notes = tuple(
        f"{spec}, microseconds a step: " + ", ".join(f"{n:,}: {us:,.0f}" for n, us in found.items())
        for spec, found in steps.items()
    )
    return Measured(
        {
            TIME: exponent(times[LINEAR]),
            STATE: exact(growth(LINEAR), of),
            CACHE: exact(growth(SOFTMAX), of),
            FULL: exponent(times[SOFTMAX]),
        },
        notes,
    )


CLAIM = Claim(
    name="linear_decoding",
    text="One more token costs linear attention the same time and memory whatever the length, and softmax attention "
    "more with each token",
    source='Katharopoulos et al. 2020, "Transformers are RNNs", arXiv:2006.16236, section 3.3.2',
    setting="theory, and images generated pixel by pixel on a P40 without a cache, where whole images take 4,460 times "
    "as long with softmax attention",
    here="one decode step on one core after 1,024 to 16,384 tokens, float32, 8 heads of 64; softmax attention "
    "has its cache of keys and values, so that a step grows linearly and not with the square that the paper names. "
    "The factor of 4,460 compares a step with a cache that is made anew each time, and is not asked",
    targets=(
        Target(TIME, 0.0, "text", Band(-0.1, 0.1), Band(high=0.3)),
        Target(STATE, 0.0, "text", Band(-0.001, 0.001)),
        Target(CACHE, 1.0, "text: both time and memory grow", Band(0.95, 1.05), Band(low=0.5)),
        Target(FULL, None, "text: the square without a cache; any growth with one", Band(low=0.3), Band(low=0.1)),
    ),
    measure=measure,
    cost_s=25,
    sweep={
        "variants": [LINEAR, SOFTMAX],
        "seq_lens": [1024, 4096, 16384],
        "modes": ["decode"],
        "causal": [True],
        "heads": 8,
        "head_dim": 64,
        "threads": [1],
        "case_time": 1.0,
        "min_rounds": 10,
        "max_rounds": 40,
        "precision": 0.03,
        "timeout": "60s",
    },
)
