"""q, k and v of a case: drawn from a named distribution, or captured from a real model.

All variants of a group get the same values: they depend on the seed and the shape, not on the variant.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .case import Case
from .errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

DRAWN = ("gaussian",)
CAPTURED = "captured"
"""`captured` is the packaged model's q, k, v; `captured:FILE` those of a file that `attnbench capture` wrote."""


def check_name(name: str) -> None:
    """Raises ConfigError for an input that does not exist."""
    if name in DRAWN or name == CAPTURED or (name.startswith(f"{CAPTURED}:") and len(name) > len(CAPTURED) + 1):
        return
    from ..variants.errors import suggest

    raise ConfigError(f"unknown inputs {name!r}; {suggest(name, [*DRAWN, CAPTURED, f'{CAPTURED}:FILE'])}")


def is_captured(name: str) -> bool:
    return name.split(":")[0] == CAPTURED


def draw(case: Case, capture: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """q (B, H, Nq, D), k and v (B, Hkv, Nk, D) of a case, in its dtype and on its device.

    `capture` is the capture file that stands behind captured input. Raises InputsError where that cannot give them.
    """
    import torch

    dtype = getattr(torch, case.dtype)
    if is_captured(case.inputs):
        from .captured import load_capture, read_info

        assert capture is not None, "the plan resolves captured inputs to a file before any case is drawn"
        windows = case.batch // len(read_info(Path(capture)).layers)
        q, k, v = load_capture(Path(capture), seq_len=case.n_k, windows=windows)
        return q.to(case.device, dtype), k.to(case.device, dtype), v.to(case.device, dtype)
    # drawn on the CPU in float32, so that every device and dtype sees the same numbers but for rounding
    generator = torch.Generator().manual_seed(case.seed)

    def normal(heads: int, length: int) -> Tensor:
        values = torch.randn(case.batch, heads, length, case.head_dim, generator=generator)
        return values.to(case.device, dtype)

    return (normal(case.heads, case.n_q), normal(case.kv_heads, case.n_k), normal(case.kv_heads, case.n_k))
