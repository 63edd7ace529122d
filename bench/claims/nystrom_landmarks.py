"""How good Nyström attention is with so many landmarks, on the q, k and v of a real model."""

from __future__ import annotations

from .claim import Band, Claim, Context, Measured, Target, median_of, read_capture

COUNTS = (16, 32, 64, 128, 256)
STEPS = 20
ERROR = "relative error of the output with 64 landmarks"
MORE = f"error with {COUNTS[-1]} landmarks over that with {COUNTS[0]}"


def measure(context: Context) -> Measured:
    """One error for each layer and window: all heads and tokens of it together."""
    import torch

    from ...variants.api import get
    from ..captured import load_capture
    from ..fidelity import fidelity

    q, k, v = load_capture(read_capture(context))
    rows = torch.arange(q.shape[2])
    errors: dict[int, list[float]] = {count: [] for count in COUNTS}
    uniform, converged = [], []
    with torch.no_grad():
        for one in zip(q.split(1), k.split(1), v.split(1), strict=True):
            for count in COUNTS:
                out = get("nystrom", num_landmarks=count)(*one, causal=False)
                found = fidelity(out, *one, causal=False, rows=rows)
                errors[count].append(found.error)
            uniform.append(found.error_uniform)
            out = get("nystrom", num_landmarks=64, pinv_steps=STEPS)(*one, causal=False)
            converged.append(fidelity(out, *one, causal=False, rows=rows).error)
    what = f"layers and windows of {q.shape[2]} tokens"
    medians = ", ".join(f"{count}: {median_of(errors[count], what).interval.value:.2f}" for count in COUNTS)
    return Measured(
        {
            ERROR: median_of(errors[64], what),
            MORE: median_of([a / b for a, b in zip(errors[COUNTS[-1]], errors[COUNTS[0]], strict=True)], what),
        },
        (
            f"error by landmarks: {medians}; giving each query the plain mean of the values: "
            f"{median_of(uniform, what).interval.value:.2f}; with {STEPS} steps towards the pseudo-inverse in place of "
            f"6 and 64 landmarks: {median_of(converged, what).interval.value:.2f}",
        ),
    )


CLAIM = Claim(
    name="nystrom_landmarks",
    text="64 landmarks are often sufficient for a good approximation of softmax attention, and more make it better",
    source='Xiong et al. 2021, "Nyströmformer", arXiv:2102.03902, section on landmarks selection: "We find that using '
    '64 landmarks is often sufficient to ensure a good approximation, although this depends on the application"',
    setting="transformers trained or tuned with Nyström attention and a convolution beside it; no error is given",
    here="q, k and v of a MiniLM encoder that was trained with softmax attention, 512 tokens of real text, no "
    "convolution, nothing tuned; a good approximation is read as a relative error of at most 0.1",
    targets=(
        Target(ERROR, None, "text, without a number; 0.1 is this project's reading", Band(0, 0.1)),
        Target(MORE, None, "text: the error falls with the rank", Band(0, 1), Band(0, 1)),
    ),
    measure=measure,
    cost_s=12,
    captured=True,
)
