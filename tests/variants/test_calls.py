"""Calls that are wrong or unusual, for everything that runs here: one sentence, or the right numbers."""

from __future__ import annotations

import pytest
import torch

import attnbench
from attnbench.bench.contract.shapes import Shape, prepare, tokens
from attnbench.bench.contract.sizes import shrunk
from attnbench.variants.api import Variant, VariantError
from attnbench.variants.registry import variant_class


def runnable(*, decode: bool = False) -> list[str]:
    classes = {name: variant_class(name) for name in attnbench.names()}
    return [
        name
        for name, cls in classes.items()
        if "cpu" in cls.supports.devices and not cls.compiles and (cls.supports.decode or not decode)
    ]


def prepared(name: str, n: int = 40, dtype: str = "float32") -> tuple[Variant, list[torch.Tensor], dict]:
    attn = shrunk(variant_class(name))
    q, k, v, extras = prepare(attn, Shape(n, n, attn.supports.causal, dtype, batch=1))
    return attn, [q, k, v], extras


@pytest.mark.parametrize("name", runnable())
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_must_be_positive_and_finite(name: str, scale: float) -> None:
    attn, inputs, extras = prepared(name)
    with pytest.raises(VariantError, match="scale must be a positive, finite number"):
        attn(*inputs, causal=attn.supports.causal, scale=scale, **extras)


@pytest.mark.parametrize("name", runnable(decode=True))
def test_decode_takes_one_token_and_a_state_of_its_own(name: str) -> None:
    attn, (q, k, v), extras = prepared(name)
    _, state = attn.prefill(*(x[:, :, :20] for x in (q, k, v)), **tokens(attn, extras, slice(0, 20)))
    now = slice(20, 22)
    with pytest.raises(VariantError, match="one token at a time, not"):
        attn.decode(*(x[:, :, now] for x in (q, k, v)), state, **tokens(attn, extras, now))
    now = slice(20, 21)
    one = [x[:, :, now] for x in (q, k, v)]
    with pytest.raises(VariantError, match="needs the State that prefill gave"):
        attn.decode(*one, None, **tokens(attn, extras, now))
    two = [torch.cat([x, x]) for x in one]
    more = {n: torch.cat([x, x]) if "B" in e.axes else x for e in attn.extras for n, x in [(e.name, extras[e.name])]}
    with pytest.raises(VariantError, match="of another batch"):
        attn.decode(*two, state, **tokens(attn, more, now))


@pytest.mark.parametrize("name", runnable())
def test_autocast_around_a_layer(name: str) -> None:
    attn = shrunk(variant_class(name))
    layer = attnbench.MultiHeadAttention(attn, 32, 4, causal=attn.supports.causal)
    x = torch.randn(1, 40, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    out.float().sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", runnable())
def test_a_call_in_inference_mode_leaves_nothing_that_training_trips_over(name: str) -> None:
    attn, inputs, extras = prepared(name, n=71)
    with torch.inference_mode():
        attn(*inputs, causal=attn.supports.causal, **extras)
    leaves = [x.clone().requires_grad_() for x in inputs]
    attn(*leaves, causal=attn.supports.causal, **extras).sum().backward()
    assert leaves[2].grad is not None


@pytest.mark.parametrize("name", runnable())
def test_another_default_device_changes_no_draw(name: str) -> None:
    """With `meta` as the default, whatever is made without a device would have no values."""
    attn, inputs, extras = prepared(name, n=73)
    due = attn(*inputs, causal=attn.supports.causal, **extras)
    with torch.device("meta"):
        again = attnbench.make_extras(attn, *inputs)
    for x, y in zip(extras.values(), again.values(), strict=True):
        assert torch.equal(x, y)
    assert due.isfinite().all()
