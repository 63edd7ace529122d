"""Multi-query associative recall, trained: what attention learns at a small width, and a window as its state grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .claim import Band, Claim, Context, Estimate, Measured, Target, Untestable

if TYPE_CHECKING:
    from ...results.tasks import TaskSummary

HERE = (
    "trained here on a CPU for some hundred steps: 2 layers with one head and a short convolution before each, batches "
    "of 32, the best of the learning rates by validation accuracy, accuracy on other test sequences"
)

# -- attention and fixed states ---------------------------------------------------------------------------------

FIXED = ("linear_elu", "retention")
ATTENTION, GAP = "accuracy of attention", "accuracy of attention less that of the best fixed state"


def summaries(context: Context) -> list[TaskSummary]:
    """One for each variant, in the order of the configuration. Raises Untestable where one was not trained."""
    from ...results.tasks import summarise

    found = summarise(context.trained)
    for one in found:
        if one.median is None:
            raise Untestable(f"{one.spec} could not be trained: {'; '.join(one.reasons) or 'no value'}")
    return found


def accuracy(one: TaskSummary) -> Estimate:
    """Median over seeds, with their range."""
    from ...results.statistics import Interval

    assert one.median is not None
    assert one.low is not None
    assert one.high is not None
    return Estimate(Interval(one.median, one.low, one.high), f"median and range of {one.seeds} seeds")


def measure_width(context: Context) -> Measured:
    from ...results.statistics import Interval

    found = {one.variant: one for one in summaries(context)}
    attention = accuracy(found["sdpa"])
    fixed = [accuracy(found[name]).interval for name in FIXED]
    # another of them may be the best in truth: the ends are those of the best that each could be
    best = Interval(*(max(getattr(one, end) for one in fixed) for end in ("value", "low", "high")))
    mine = attention.interval
    gap = Interval(mine.value - best.value, mine.low - best.high, mine.high - best.low)
    told = ", ".join(f"{one.spec} {one.median:.2f} ({one.state_bytes:,} bytes of state)" for one in found.values())
    chance = next(iter(found.values())).chance
    return Measured(
        {ATTENTION: attention, GAP: Estimate(gap, "medians; ends of both ranges over seeds")},
        (
            f"{told}; chance {chance:.2f}",
            f"the delta rule's state is of a fixed size too and could hold these pairs: what it did not learn in "
            f"{found['delta'].records[0].steps} steps it may learn in more, and so may the others",
        ),
    )


WIDTH = Claim(
    name="recall_at_small_width",
    text="Attention solves associative recall at a small width, and mixers with a state of fixed size do not",
    source='Arora et al. 2023, "Zoology", arXiv:2312.04927, proposition 4.3, theorem 4.4 and figure 2',
    setting="MQAR of 64 to 512 tokens with 4 to 64 pairs, vocabulary of 8,192, widths 64 to 512; gated convolutions "
    "need a width that grows with the length",
    here=f"{HERE}. MQAR of 64 tokens with 8 pairs, vocabulary of 64, width 32; fixed states are those of linear "
    "attention and retention, not gated convolutions. The delta rule is trained beside them and not judged",
    targets=(
        Target(ATTENTION, None, "text of the paper: solves it", Band(low=0.95), Band(low=0.5)),
        Target(GAP, None, "text of the paper: they do not", Band(low=0.2), Band(low=0.0)),
    ),
    measure=measure_width,
    cost_s=60,
    tasks={
        "lrs": [1e-2],
        "seeds": [0, 1],
        "task": [
            {
                "name": "mqar",
                "kv_pairs": 8,
                "seq_len": 64,
                "vocab": 64,
                "variants": ["sdpa", *FIXED, "delta"],
                "d_model": 32,
                "heads": 1,
                "steps": 300,
                "eval_every": 50,
            }
        ],
    },
)

# -- a window and its state -------------------------------------------------------------------------------------

WINDOWS = (4, 16, 40, 128)
"""From the narrowest to the widest its state grows 32 times; in the figure, 28 times."""
NARROW, WIDE, ORDER = (
    "recall at the smallest state",
    "recall at the largest state",
    "rank correlation of recall and state",
)


def measure_window(context: Context) -> Measured:
    from .timing import rank_correlation

    found = sorted(summaries(context), key=lambda one: one.state_bytes or 0)
    values = [accuracy(one) for one in found]
    told = ", ".join(f"{one.state_bytes:,} bytes: {one.median:.2f}" for one in found)
    return Measured(
        {
            NARROW: values[0],
            WIDE: values[-1],
            ORDER: rank_correlation([float(one.state_bytes or 0) for one in found], [one.interval for one in values]),
        },
        (f"{told}; chance {found[0].chance:.2f}",),
    )


WINDOW = Claim(
    name="window_state",
    text="A sliding window recalls more the larger its state: .15 at 18 thousand bytes, .94 at 524 thousand",
    source='Arora et al. 2024, "Simple linear attention language models balance the recall-throughput tradeoff" '
    "(Based), arXiv:2402.18668, the figure of recall over state size",
    setting="trained MQAR, windows of growing width, other architectures beside them",
    here=f"{HERE}. MQAR of 128 tokens with 16 pairs, vocabulary of 64, width 32, windows of "
    f"{', '.join(map(str, WINDOWS))} tokens: the same growth of state, of smaller states and a smaller task; what "
    "counts for recall is whether the window reaches back to the pair",
    targets=(
        Target(NARROW, 0.15, "read off a figure, not confirmed", Band(0.0, 0.3), Band(high=0.5)),
        Target(WIDE, 0.94, "read off a figure, not confirmed", Band(0.84, 1.0), Band(low=0.5)),
        Target(ORDER, 1.0, "order in the figure", Band(0.99, 1.0), Band(0.0, 1.0)),
    ),
    measure=measure_window,
    cost_s=70,
    tasks={
        "lrs": [1e-2],
        "seeds": [0, 1],
        "sizes": "own",
        "task": [
            {
                "name": "mqar",
                "kv_pairs": 16,
                "seq_len": 128,
                "vocab": 64,
                "variants": [f"sliding_window(window_size={w})" for w in WINDOWS],
                "d_model": 32,
                "heads": 1,
                "steps": 300,
                "eval_every": 50,
            }
        ],
    },
)
