"""FlashAttention's conventions, by `attention_ref`: the reference in plain torch that flash-attn-4 is tested with.

The package's other modules want a GPU's compiler; this one is taken from its file alone.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Shape, draw
from attnbench.variants import flash


@pytest.fixture(autouse=True)
def _reference(monkeypatch: pytest.MonkeyPatch) -> None:
    files = importlib.metadata.files("flash-attn-4") or []
    path = next(file for file in files if file.name == "testing.py").locate()
    spec = importlib.util.spec_from_file_location("flash_attn_4_testing", str(path))
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)

    def flash_attn_func(
        q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool, window_size: tuple[Any, Any]
    ) -> tuple[Tensor, None]:
        scaled = q * (softmax_scale * q.shape[-1] ** 0.5)  # the reference knows the default scale only
        out, *_ = reference.attention_ref(scaled, k, v, causal=causal, window_size=window_size)
        return out, None

    monkeypatch.setattr(flash, "load", lambda module: (SimpleNamespace(flash_attn_func=flash_attn_func), ""))


LENGTHS = [(1, 1), (40, 40), (7, 40), (1, 40), (40, 7)]


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_q", "n_k"), LENGTHS)
@pytest.mark.parametrize("window", [None, 1, 2, 9, 64])
def test_layout_alignment_window_and_groups(
    window: int | None, n_q: int, n_k: int, causal: bool, scale: float | None
) -> None:
    if window is None:
        attn = attnbench.get("flash_attn", version="4")
    else:
        attn = attnbench.get("sliding_window_flash_attn", version="4", window_size=window)
    q, k, v = draw(Shape(n_q, n_k, causal, "float16", heads=4, kv_heads=2, value_dim=16))
    out = attn(q, k, v, causal=causal, scale=scale)
    torch.testing.assert_close(out.double(), attn.definition(q, k, v, causal=causal, scale=scale), atol=4e-3, rtol=0)
