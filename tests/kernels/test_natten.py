"""NATTEN, built without CUDA, on its flex backend: dense and slow, and the same conventions as its kernels."""

from __future__ import annotations

import natten
import pytest
import torch

import attnbench
from attnbench.bench.contract.shapes import Shape, draw
from attnbench.variants.api import VariantError


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [2, 3, 7, 8, 16])
@pytest.mark.parametrize("n", [17, 33, 40])
def test_windows(monkeypatch: pytest.MonkeyPatch, n: int, window: int, causal: bool) -> None:
    monkeypatch.setattr(natten, "HAS_LIBNATTEN", True)
    attn = attnbench.get("na1d", window_size=window)
    q, k, v = draw(Shape(n, n, causal, "float32", heads=4, kv_heads=2))
    out = attn(q, k, v, causal=causal, scale=0.3)
    torch.testing.assert_close(out.double(), attn.definition(q, k, v, causal=causal, scale=0.3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [9, 40])
def test_a_window_as_long_as_the_sequence(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """Non-causal only: NATTEN's flex backend has no full causal attention."""
    monkeypatch.setattr(natten, "HAS_LIBNATTEN", True)
    attn = attnbench.get("na1d", window_size=window)
    q, k, v = draw(Shape(9, 9, False, "float32"))
    out = attn(q, k, v)
    torch.testing.assert_close(out.double(), attn.definition(q, k, v), atol=1e-5, rtol=0)


def test_without_its_kernels_it_is_refused() -> None:
    q, k, v = draw(Shape(9, 9, False, "float32"))
    with pytest.raises(VariantError, match="built without its CUDA kernels"):
        attnbench.get("na1d")(q, k, v)
