"""Drawn inputs beside those of a real model, for a figure: attention of one head, and statistics of all heads.

Drawn ones have the captured one's heads, head dimension, length and mask, so that their numbers can be compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...results.distributions import Look, Sheet, Statistics
from .. import captured as captures
from ..errors import BenchError, InputsError
from . import FITTED, GAUSSIAN, draw

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

SHOWN = (GAUSSIAN, f"{GAUSSIAN}:3", *FITTED)
"""Drawn inputs that are shown where none are named."""
LONGEST = 2048
"""Tokens: a head's matrix has their square of cells."""
LAYERS = 3
"""Captured layers whose attention is shown, at most: the first, the last and one between; statistics are of all."""


def look(
    names: Sequence[str] = SHOWN,
    *,
    seq_len: int | None = None,
    capture: Path | None = None,
    head: int = 0,
    seed: int = 0,
) -> Sheet:
    """Draws each of `names`, and reads `capture`, or captures the packaged model where it is None.

    `seq_len` None is all of the capture. Raises BenchError for a length, head or seed that does not exist, ConfigError
    for an unknown name, and InputsError where the capture cannot be had.
    """
    if not 0 <= seed < 1 << 63:
        raise BenchError(f"the seed must be a whole number from 0 to 2^63 - 1, not {seed}")
    if seq_len is not None and not 2 <= seq_len <= LONGEST:
        raise BenchError(f"a figure of inputs has from 2 to {LONGEST} tokens, not {seq_len}")
    if capture is not None:
        return _beside(capture, names, seq_len, head, seed)
    from ..capture import DEFAULT_MAX_LEN, capture_default

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "captured.safetensors"
        capture_default(file, seq_len=seq_len or DEFAULT_MAX_LEN)
        return _beside(file, names, seq_len, head, seed)


def _beside(path: Path, names: Sequence[str], seq_len: int | None, head: int, seed: int) -> Sheet:
    from .shape import Shape
    from .statistics import statistics_of

    info = captures.read_info(path)
    length = min(info.seq_len, LONGEST) if seq_len is None else seq_len
    if refusal := captures.reason_against(info, path, length):
        raise InputsError(refusal)
    if not 0 <= head < info.heads:
        raise BenchError(f"there is no head {head}: the inputs have {info.heads}, counted from 0")
    shape = Shape(1, info.heads, info.kv_heads, length, length, info.head_dim, info.causal, seed)
    looks = []
    for name in names:
        drawn = draw(name, shape)
        realised = drawn.realised
        matrix = _matrix(drawn.q, drawn.k, 0, head, info.causal)
        looks.append(Look(name, matrix, realised.reached, False, realised.targets, realised.missed))
    q, k, _ = captures.load_capture(path, seq_len=length, windows=1)  # (layers, heads, N, D)
    by_head: list[Statistics] = []
    group = info.heads // info.kv_heads
    for place in range(len(info.layers)):
        for index in range(info.heads):
            at = index // group
            by_head.append(statistics_of(q[place, index][None, None], k[place, at][None, None], causal=info.causal))
    last = len(info.layers) - 1
    for place in sorted({round(i * last / max(1, LAYERS - 1)) for i in range(LAYERS)}):
        statistics = statistics_of(q[place][None], k[place][None], causal=info.causal)
        name = f"captured, layer {info.layers[place]}"
        looks.append(Look(name, _matrix(q, k, place, head, info.causal), statistics, captured=True))
    about = f"{info.model} over {info.text}"
    return Sheet(tuple(looks), tuple(by_head), about, info.causal, head, info.head_dim, seed)


def _matrix(q: Tensor, k: Tensor, batch: int, head: int, causal: bool) -> NDArray[np.float64]:
    """Softmax attention of one head, (N, N)."""
    import torch

    from .statistics import attention

    keys = k[batch, head // (q.shape[1] // k.shape[1])].double()
    scores = q[batch, head].double() @ keys.mT * q.shape[3] ** -0.5
    matrix: NDArray[np.float64] = attention(scores, torch.arange(len(scores)), causal).numpy()
    return matrix
