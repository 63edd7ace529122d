"""Speeds of linear-time methods beside standard attention: tables and sentences of four sources, one run for all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .claim import Band, Claim, Context, Estimate, Measured, Target, Untestable
from .timing import rank_correlation, samples_of, speed_up, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...results.fits import Crossover

HEAD_DIM = 64
FEATURES = round(HEAD_DIM * math.log(HEAD_DIM))
PERFORMER = f"performer(num_features={FEATURES})"
LOCAL = "block_local(chunk_size=128)"
REFORMER = "reformer(num_rounds=2)"
LENGTHS = (512, 1024, 2048, 4096)
EFFICIENT = ("linformer", "nystrom", PERFORMER, "linear_elu", LOCAL, "longformer", "bigbird", REFORMER)

SWEEP = {
    "variants": ["naive", *EFFICIENT],
    "seq_lens": list(LENGTHS),
    "modes": ["forward"],
    "causal": [False],
    "heads": 2,
    "head_dim": HEAD_DIM,
    "threads": [1],
    "case_time": 0.2,
    "min_rounds": 5,
    "max_rounds": 8,
    "precision": 0.03,
    "timeout": "120s",
}
HERE = (
    f"one core of this CPU, float32, attention alone without projections, 2 heads of {HEAD_DIM}, batch 1, times by "
    "turns in fresh order"
)

# -- the table of Nyströmformer ---------------------------------------------------------------------------------

TABLE = {
    "linformer": {512: 1.1, 4096: 6.2},
    "nystrom": {512: 1.1, 4096: 5.6},
    "longformer": {512: 0.3, 4096: 1.8},
}
"""Speed-ups over standard attention at the ends of the lengths that are measured here; the table goes to 8,192."""
AT = "speed-up of {} at {:,} tokens"
SHORT, LONG = 512, 4096


def measure_table(context: Context) -> Measured:
    reference = samples_of(context.records, "naive")
    found = {spec: samples_of(context.records, spec) for spec in TABLE}
    return Measured(
        {AT.format(spec, n): speed_up(reference[n], found[spec][n]) for spec in TABLE for n in (SHORT, LONG)},
        (table(reference, found),),
    )


def _at(spec: str, n: int) -> Target:
    """Within a factor of 2 of the table; faster where that is, slower where that is, by a tenth at least."""
    published = TABLE[spec][n]
    toward = Band(low=1.0) if published > 1.1 else Band(high=1.0) if published < 1 else None
    low, high = published / 2, published * 2
    within = Band(max(low, toward.low), min(high, toward.high)) if toward else Band(low, high)
    return Target(AT.format(spec, n), published, "table 1", within, toward, " ×")


NYSTROM_TABLE = Claim(
    name="nystrom_speed",
    text="At 512 tokens Linformer and Nyström attention are as fast as standard attention and Longformer is slower; at "
    "4,096 they are 6.2, 5.6 and 1.8 times as fast",
    source='Xiong et al. 2021, "Nyströmformer", arXiv:2102.03902, table 1',
    setting="self-attention modules on an Nvidia 1080Ti; Linformer-256, Nyströmformer-64, Longformer with a window of "
    "257",
    here=f"{HERE}; the same sizes; standard attention is `naive`",
    targets=tuple(_at(spec, n) for spec in TABLE for n in (SHORT, LONG)),
    measure=measure_table,
    cost_s=100,
    sweep=SWEEP,
)

# -- the order in Long Range Arena ------------------------------------------------------------------------------

ARENA = {PERFORMER: 5.7, "linear_elu": 5.6, "linformer": 5.5, LOCAL: 5.3, "bigbird": 1.1, REFORMER: 0.8}
"""Steps a second over the vanilla transformer's, at 4,096 tokens."""
DIFFERENT = 1.2
"""Speeds of the table that differ by less are not asked to be in its order."""
ORDER, SLOW, FAST = (
    "rank correlation of speeds at 4,096 tokens, where the table has 1.2 times or more between them",
    "speed-up of reformer at 4,096 tokens",
    "speed-up of performer at 4,096 tokens",
)


def measure_arena(context: Context) -> Measured:
    reference = samples_of(context.records, "naive")
    found = {spec: samples_of(context.records, spec) for spec in ARENA}
    speeds = {spec: speed_up(reference[4096], samples[4096]) for spec, samples in found.items()}
    order = rank_correlation(list(ARENA.values()), [speeds[spec].interval for spec in ARENA], apart=DIFFERENT)
    return Measured(
        {ORDER: order, SLOW: speeds[REFORMER], FAST: speeds[PERFORMER]},
        (table(reference, found),),
    )


ARENA_SPEED = Claim(
    name="arena_speed",
    text="At 4,096 tokens the fastest are Performer, linear attention, Linformer and local attention, about 5.5 times "
    "as fast as full attention; BigBird is hardly faster and Reformer slower",
    source='Tay et al. 2020, "Long Range Arena", arXiv:2011.04006, table 2, as an analysis of the paper quotes it '
    "(the table itself was not seen)",
    setting="whole transformers of 6 layers trained on byte-level text with batch 32, on TPU v3; steps a second",
    here=f"{HERE}; Reformer with 2 rounds",
    targets=(
        Target(ORDER, 1.0, "order of the table", Band(0.6, 1.0), Band(0.0, 1.0)),
        Target(FAST, 5.7, "table 2", Band(2.85, 11.4), Band(low=1), " ×"),
        Target(SLOW, 0.8, "table 2", Band(0.4, 1.0), Band(high=1.0), " ×"),
    ),
    measure=measure_arena,
    cost_s=100,
    sweep=SWEEP,
)

# -- from which length Performer pays ---------------------------------------------------------------------------

FOUND = 18 * HEAD_DIM * math.log(HEAD_DIM)
BEFORE = "speed-up of performer at 2,048 tokens"


def measure_crossover(context: Context) -> Measured:
    from ...results.fits import crossover_of

    reference, samples = samples_of(context.records, "naive"), samples_of(context.records, PERFORMER)
    return Measured(
        {BEFORE: speed_up(reference[2048], samples[2048])},
        (f"faster from {crossover_of(samples, reference).words} tokens on", table(reference, {"performer": samples})),
    )


PERFORMER_CROSSOVER = Claim(
    name="performer_crossover",
    text=f"FAVOR+ gets faster than softmax attention at about 18 d ln d tokens: {FOUND:,.0f} for heads of 64",
    source="huggingface/transformers, issue 7675, comment of 2020-11-24",
    setting="the commenter's own implementation on random Gaussian input, on a GPU",
    here=f"{HERE}; d ln d = {FEATURES} features; softmax attention is `naive`",
    targets=(
        Target(BEFORE, None, "follows from the text: slower at half that length", Band(high=1), Band(high=1), " ×"),
    ),
    measure=measure_crossover,
    cost_s=100,
    sweep=SWEEP,
)

# -- efficiency lengths -----------------------------------------------------------------------------------------

WORST = "fitted efficiency length over the measured crossover, the method where they differ most"
FITTED = ("linformer", "nystrom", PERFORMER, "longformer")


def efficiency_length(vanilla: Mapping[int, Sequence[float]], method: Mapping[int, Sequence[float]]) -> float | None:
    """Where a parabola through vanilla attention's times meets a line through the method's, both by least squares: the
    larger root. None where they do not meet."""
    import numpy as np

    lengths = np.asarray(list(vanilla), dtype=float)
    full = np.polyfit(lengths, [float(np.median(vanilla[n])) for n in vanilla], 2)
    line = np.polyfit(lengths, [float(np.median(method[n])) for n in vanilla], 1)
    roots = np.roots(full - np.concatenate([[0.0], line]))
    meeting = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and root.real > 0]
    return max(meeting, default=None)


def measure_efficiency_length(context: Context) -> Measured:
    """Fitted and measured from the same samples. A crossover outside of the measured lengths has no number."""
    from ...results.fits import crossover_of

    vanilla = samples_of(context.records, "naive")
    factors: dict[str, Estimate] = {}
    notes = []
    for spec in FITTED:
        samples = samples_of(context.records, spec)
        fitted, found = efficiency_length(vanilla, samples), crossover_of(samples, vanilla)
        name = spec.partition("(")[0]
        notes.append(f"{name}: fitted {'none' if fitted is None else f'{fitted:,.0f}'}, measured {found.words}")
        if (factor := _factor(fitted, found)) is not None:
            factors[name] = factor
    if not factors:
        raise Untestable(f"no method crosses vanilla attention between {LENGTHS[0]} and {LENGTHS[-1]:,} tokens here")
    worst = max(factors.values(), key=lambda one: abs(math.log(one.interval.value)))
    return Measured({WORST: worst}, ("; ".join(notes),))


def _factor(fitted: float | None, found: Crossover) -> Estimate | None:
    from ...results.statistics import Interval

    if fitted is None or found.length is None or found.low is None or found.high is None:
        return None
    if found.low <= found.shortest:
        return None
    ends = Interval(fitted / found.length, fitted / found.high, fitted / found.low)
    return Estimate(ends, "the measured crossover's interval")


EFFICIENCY_LENGTH = Claim(
    name="efficiency_length",
    text="The efficiency length of a method, where a parabola fitted to vanilla attention's times meets a line fitted "
    "to the method's, is the length from which the method is faster",
    source='Zhang et al. 2022, "CAB: Comprehensive Attention Benchmarking on Long Sequence Modeling",'
    " arXiv:2210.07661, by its scripts efficiency_test.py and efficiency_length.py (Shark-NLP/CAB); the values of the "
    "paper's table could not be confirmed, so that the order of its methods is not asked",
    setting="one A100, lengths 256 to 8,192, 8 heads of 64, batch 4, mean of calls timed without synchronising",
    here=f"{HERE}, 512 to 4,096 tokens; both lengths from the same samples; that calls were not "
    "synchronised has an effect on a GPU only and cannot be tested on a CPU",
    targets=(Target(WORST, 1.0, "by definition", Band(0.8, 1.25), Band(0.5, 2.0), " ×"),),
    measure=measure_efficiency_length,
    cost_s=100,
    sweep=SWEEP,
)
