"""q, k and v of a case: drawn from a named distribution, or captured from a real model.

All variants of a group get the same values: they depend on the seed and the shape, not on the variant.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .case import Case
from .distributions import NAMES, is_drawn
from .errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from ..results.distributions import Realised

CAPTURED = "captured"
"""`captured` is the packaged model's q, k, v; `captured:FILE` those of a file that `attnbench capture` wrote."""


def check_name(name: str) -> None:
    """Raises ConfigError for an input that does not exist."""
    if is_drawn(name) or name == CAPTURED or (name.startswith(f"{CAPTURED}:") and len(name) > len(CAPTURED) + 1):
        return
    from ..variants.errors import suggest

    raise ConfigError(f"unknown inputs {name!r}; {suggest(name, [*NAMES, CAPTURED, f'{CAPTURED}:FILE'])}")


def is_captured(name: str) -> bool:
    return name.split(":")[0] == CAPTURED


def draw(case: Case, capture: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """q (B, H, Nq, D), k and v (B, Hkv, Nk, D) of a case, in its dtype and on its device.

    For a decode step q has all Nk tokens, as for the forward pass of that length: the prompt has queries too. Of
    captured input, fewer queries than keys are the last ones.

    `capture` is the capture file that stands behind captured input. Raises InputsError where that cannot give them.
    """
    return realise(case, capture)[0]


def realise(
    case: Case, capture: str | None, known: Realised | None = None
) -> tuple[tuple[Tensor, Tensor, Tensor], Realised]:
    """As `draw`, and the statistics that attention has on them, measured before they are rounded to the dtype.

    `known`: those statistics, where another case of the group had them measured.
    """
    import torch

    from ..results.distributions import Realised
    from .distributions import draw as draw_distribution
    from .distributions.shape import Shape
    from .distributions.statistics import statistics_of

    dtype = getattr(torch, case.dtype)
    queries = case.n_k if case.mode == "decode" else case.n_q
    if is_captured(case.inputs):
        from .captured import load_capture, read_info

        assert capture is not None, "the plan resolves captured inputs to a file before any case is drawn"
        windows = case.batch // len(read_info(Path(capture)).layers)
        q, k, v = load_capture(Path(capture), seq_len=case.n_k, windows=windows)
        q = q[:, :, case.n_k - queries :].contiguous()
        realised = known or Realised(CAPTURED, {}, {}, statistics_of(q, k, causal=case.causal))
    else:
        shape = Shape(case.batch, case.heads, case.kv_heads, queries, case.n_k, case.head_dim, case.causal, case.seed)
        drawn = draw_distribution(case.inputs, shape, known)
        q, k, v, realised = drawn.q, drawn.k, drawn.v, drawn.realised
    return (q.to(case.device, dtype), k.to(case.device, dtype), v.to(case.device, dtype)), realised
