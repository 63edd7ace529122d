"""Shapes that nobody thought of, for everything that is registered."""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import attnbench
from attnbench.bench.contract.checks import check_forward, check_gradients
from attnbench.bench.contract.invariants import check_causality
from attnbench.bench.contract.shapes import Shape
from attnbench.bench.contract.sizes import SMALL, shrunk
from attnbench.variants.api import Variant, VariantError
from attnbench.variants.registry import variant_class

EXAMPLES = 12
"""Of each variant: more find little that the battery's own lengths do not, and there are many variants."""

RUNNABLE = [
    name
    for name in attnbench.names()
    if "cpu" in variant_class(name).supports.devices and not variant_class(name).compiles
]


@st.composite
def shapes(draw: st.DrawFn, attn: Variant) -> Shape:
    """A small shape that the variant says it supports."""
    s = attn.supports
    causal = draw(st.booleans()) if s.causal and s.noncausal else s.causal
    n_k = draw(st.integers(1, 70))
    n_q = draw(st.integers(1, 70)) if s.cross else n_k
    kv_heads = draw(st.integers(1, 3))
    return Shape(
        n_q,
        n_k,
        causal,
        draw(st.sampled_from([dtype for dtype in ("float64", "float32") if dtype in s.dtypes])),
        batch=draw(st.integers(1, 3)),
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_dim=draw(st.integers(1, 12)),
        value_dim=draw(st.integers(1, 12)),
    )


@pytest.mark.parametrize("name", RUNNABLE)
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape_and_any_size(name: str, data: st.DataObject) -> None:
    attn = shrunk(variant_class(name))
    sizes = {f.name: data.draw(st.integers(1, 40), f.name) for f in fields(attn) if f.name in SMALL}
    with contextlib.suppress(VariantError):  # sizes that do not go together are refused, in words: small ones it is
        attn = replace(attn, **sizes)
    shape = data.draw(shapes(attn))
    if attn.reasons_against(shape):
        assume(False)
    check_forward(attn, shape)
    if attn.supports.backward:
        check_gradients(attn, shape)
    if shape.causal and shape.n_q <= shape.n_k:
        check_causality(attn, shape)
