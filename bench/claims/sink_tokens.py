"""What a window loses that has left the first tokens behind."""

from __future__ import annotations

from .claim import Band, Claim, Context, Measured, Target, median_of, read_capture

SINKS, BUDGET = 4, 128
RATIO = "error of a window over that of four first tokens and a window, at the same number of keys"


def measure(context: Context) -> Measured:
    """Errors at the last quarter of the tokens, all of which have the first four outside of their window."""
    import torch

    from ...variants.api import get
    from ..captured import load_capture
    from ..fidelity import fidelity

    q, k, v = load_capture(read_capture(context))
    n = q.shape[2]
    rows = torch.arange(3 * n // 4, n)
    window = get("sliding_window", window_size=BUDGET)
    sinks = get("sink_window", num_sinks=SINKS, window_size=BUDGET - SINKS)
    ratios, masses, errors = [], [], []
    with torch.no_grad():
        for one in zip(q.split(1), k.split(1), v.split(1), strict=True):
            without, beside = (
                fidelity(attn(*one, causal=True)[:, :, rows], *one, causal=True, rows=rows).error
                for attn in (window, sinks)
            )
            ratios.append(without / beside)
            errors.append(without)
            scale = q.shape[3] ** -0.5
            weights = get("naive").weights(*one[:2], causal=True, scale=scale, rows=rows)
            masses.append(float(weights[..., :SINKS].sum(dim=-1).mean()))
    what = f"layers and windows of {n} tokens"
    return Measured(
        {RATIO: median_of(ratios, what)},
        (
            f"the window alone is off by {median_of(errors, what).interval.value:.2f}; softmax attention has "
            f"{median_of(masses, what).interval.value:.3f} of its mass on the first four tokens, where an even one "
            f"would have about {SINKS / float((rows + 1).double().mean()):.3f}",
        ),
    )


CLAIM = Claim(
    name="sink_tokens",
    text="A window that has left the first tokens behind breaks down, and four of them restore it",
    source='Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453, table 1',
    setting="Llama-2-13B, first book of PG-19 (65 thousand tokens), cache of 1,024: perplexity 5158.07 with the window "
    "alone, 5.40 with 4 + 1,020 tokens",
    here=f"q, k and v of a MiniLM encoder under a causal mask, 512 tokens, {BUDGET} keys against {SINKS} + "
    f"{BUDGET - SINKS}: error of one layer's output, not perplexity of a model; an encoder was trained without the "
    "mask that makes first tokens sinks. Breaking down is read as at least twice the error",
    targets=(Target(RATIO, None, "table 1, in perplexity, which is not comparable", Band(low=2), Band(low=1), " ×"),),
    measure=measure,
    cost_s=12,
    captured=True,
)
