"""The layer: torch's own for exact variants, its definition for all others, with every weight learned."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attnbench
from attnbench.bench.contract.sizes import shrunk
from attnbench.variants.api import Complexity, Extra, Supports, Variant, VariantError
from attnbench.variants.layer import MultiHeadAttention
from attnbench.variants.registry import variant_class

E, H, N = 32, 4, 41


def variants(kind: str | None = None) -> list:
    """Every registered variant at small sizes; compiled ones take seconds for each new shape."""
    found = []
    for name in attnbench.names():
        cls = variant_class(name)
        if kind in (None, cls.kind):
            found.append(pytest.param(shrunk(cls), id=name, marks=[pytest.mark.slow] if cls.compiles else []))
    return found


def sides(attn: Variant) -> Iterator[bool]:
    yield from (causal for causal, has in ((True, attn.supports.causal), (False, attn.supports.noncausal)) if has)


def make(attn: Variant, causal: bool, **options) -> MultiHeadAttention:
    torch.manual_seed(0)
    layer = MultiHeadAttention(attn, E, H, causal=causal, **options)
    with torch.no_grad():  # torch starts biases at zero, where mistakes with them do not show
        for name, parameter in layer.named_parameters():
            if "bias" in name and "extras" not in name:
                parameter.normal_()
    return layer


def call(layer: MultiHeadAttention, *inputs: Tensor) -> Tensor:
    """A call, or a skip with the variant's reasons."""
    try:
        return layer(*inputs)
    except VariantError as error:
        if "cannot do this" in str(error):
            pytest.skip(str(error))
        raise


def by_hand(layer: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What the layer is to compute, with the variant's definition in float64: one einsum a projection."""
    state = {name: x.double() for name, x in layer.named_parameters()}
    d, attn = E // H, layer.variant
    heads = {"q": H, "k": layer.num_kv_heads, "v": layer.num_kv_heads}
    split = [heads[name] * d for name in "qkv"]
    weights = (
        state["in_proj_weight"].split(split)
        if "in_proj_weight" in state
        else [state[f"{name}_proj_weight"] for name in "qkv"]
    )
    biases = state["in_proj_bias"].split(split) if "in_proj_bias" in state else [torch.zeros(n).double() for n in split]
    q, k, v = (
        torch.einsum("bne,hde->bhnd", x, w.view(-1, d, w.shape[1])) + b.view(-1, 1, d)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    extras = {extra.name: extra_by_hand(layer, extra, state, query, key) for extra in attn.extras}
    out = attn.definition(q, k, v, causal=layer.causal, **extras)
    out = torch.einsum("bhnd,ehd->bne", out, state["out_proj.weight"].view(E, H, d))
    return out + state["out_proj.bias"] if "out_proj.bias" in state else out


def extra_by_hand(layer: MultiHeadAttention, extra: Extra, state: dict, query: Tensor, key: Tensor) -> Tensor:
    d, attn = E // H, layer.variant
    sizes = {"H": H, "Hkv": layer.num_kv_heads, "D": d, "Dv": d}
    letters = ["b" if a == "B" else "n" if a.startswith("N") else "cdefg"[i] for i, a in enumerate(extra.axes)]
    others = "".join(letter for letter in letters if letter not in "bn")
    shape = [
        int(a) if a.isdigit() else sizes.get(a) or getattr(attn, a)
        for a, letter in zip(extra.axes, letters, strict=True)
        if letter in others
    ]
    if "n" in letters:
        of_query = "Nq" in extra.axes or ("N" in extra.axes and not attn.supports.cross)
        x = F.pad(query if of_query else key, (0, 1), value=1.0)  # a feature of ones, for the bias
        weight, bias = (state[f"extras.projections.{extra.name}.{part}"] for part in ("weight", "bias"))
        rows = torch.cat([weight, bias[:, None]], dim=1).view(*shape, -1)
        made = torch.einsum(f"bnx,{others}x->{''.join(letters)}", x, rows)
    else:
        ones = query.new_ones(len(query) if "b" in letters else 1)
        made = torch.einsum(f"{others},b->{''.join(letters)}", state[f"extras.constants.{extra.name}"], ones)
    return extra.activate(made)


def best(attn: Variant) -> torch.dtype:
    """Where rounding decides no selection: float64, in the variants that have it."""
    return torch.float64 if "float64" in attn.supports.dtypes else torch.float32


def check_by_hand(layer: MultiHeadAttention, *inputs: Tensor) -> None:
    """Output and the gradients of inputs and of every parameter, against `by_hand`."""
    attn = layer.variant
    if not attn.supports.backward:
        with torch.no_grad():
            torch.testing.assert_close(
                call(layer, *inputs).double(), by_hand(layer, *full(inputs)), rtol=1e-4, atol=1e-5
            )
        return
    leaves = [x.requires_grad_() for x in inputs]
    try:
        out = call(layer, *leaves)
    except pytest.skip.Exception:
        with torch.no_grad():  # flex has a backward pass, but not on every machine
            out = call(layer, *inputs)
        torch.testing.assert_close(out.double(), by_hand(layer, *full(inputs)), rtol=1e-4, atol=1e-5)
        return
    expected = by_hand(layer, *full(leaves))
    mix = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = {"out": out, **dict(layer.named_parameters()), **{f"input {i}": x for i, x in enumerate(leaves)}}
    tensors = list(wanted.values())[1:]
    got = torch.autograd.grad(out, tensors, mix.to(out.dtype), allow_unused=True, materialize_grads=True)
    true = torch.autograd.grad(expected, tensors, mix, allow_unused=True, materialize_grads=True)
    tolerance = {"rtol": 1e-7, "atol": 1e-9} if out.dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(out.double(), expected, **tolerance)
    for name, ours, theirs in zip(list(wanted)[1:], got, true, strict=True):
        assert ours.isfinite().all(), name
        torch.testing.assert_close(ours, theirs, **tolerance, msg=lambda text, name=name: f"d{name}: {text}")
    # a check on this check: what selection alone decides may have no gradient, but these always have
    for name, ours in zip(list(wanted)[1:], got, strict=True):
        if name in ("in_proj_weight", "v_proj_weight", "out_proj.weight"):
            assert ours.count_nonzero() > 0, name


def full(inputs) -> list[Tensor]:
    """query, key and value in float64; the layer's defaults where fewer are given."""
    query, key, value = (*inputs, *[None] * (3 - len(inputs)))
    key = query if key is None else key
    return [x.double() for x in (query, key, key if value is None else value)]


def draw(attn: Variant, *shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(best(attn))


# -- every variant ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attn", variants())
def test_self_attention_is_the_definition_in_its_projections(attn: Variant, bias: bool) -> None:
    for causal in sides(attn):
        layer = make(attn, causal, bias=bias, dtype=best(attn))
        check_by_hand(layer, draw(attn, 2, N, E))
        with torch.no_grad():
            assert layer(draw(attn, 1, 1, E)).shape == (1, 1, E)


@pytest.mark.parametrize("attn", variants())
def test_grouped_heads(attn: Variant) -> None:
    layer = make(attn, next(sides(attn)), num_kv_heads=2, dtype=best(attn))
    check_by_hand(layer, draw(attn, 2, N, E))


@pytest.mark.parametrize("attn", variants())
def test_cross_attention_with_inputs_of_other_widths(attn: Variant) -> None:
    if not attn.supports.cross:
        pytest.skip("needs as many queries as keys")
    for causal in sides(attn):
        layer = make(attn, causal, kdim=20, vdim=12, dtype=best(attn))
        check_by_hand(layer, draw(attn, 2, 17, E), draw(attn, 2, N, 20, seed=2), draw(attn, 2, N, 12, seed=3))
        layer = make(attn, causal, dtype=best(attn))
        check_by_hand(layer, draw(attn, 2, 17, E), draw(attn, 2, N, E, seed=2))


@pytest.mark.parametrize("attn", variants())
def test_prefill_and_decode_are_forward(attn: Variant) -> None:
    if not attn.supports.decode:
        pytest.skip("has no decode form")
    layer = make(attn, True, num_kv_heads=2, dtype=best(attn))
    x = draw(attn, 2, N, E)
    with torch.no_grad():
        whole = call(layer, x)
        out, state = layer.prefill(x[:, : N // 2])
        parts = [out]
        for t in range(N // 2, N):
            assert state.seen == t
            out, state = layer.decode(x[:, t : t + 1], state)
            parts.append(out)
    tolerance = 1e-10 if whole.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("attn", variants())
def test_copies_and_saved_weights_give_the_same(attn: Variant) -> None:
    causal = next(sides(attn))
    layer, x = make(attn, causal, dtype=best(attn)), draw(attn, 2, N, E)
    torch.manual_seed(9)
    other = MultiHeadAttention(attn.spec, E, H, causal=causal, dtype=best(attn))
    with torch.no_grad():
        expected = call(layer, x)
        assert not torch.equal(other(x), expected)
        assert other.load_state_dict(layer.state_dict()).missing_keys == []
        assert torch.equal(other(x), expected)
        twin = copy.deepcopy(layer)
        for parameter in layer.parameters():
            parameter.zero_()
        assert torch.equal(twin(x), expected)


@pytest.mark.parametrize("attn", variants())
def test_half_precision(attn: Variant) -> None:
    if "bfloat16" not in attn.supports.dtypes:
        pytest.skip("does not run in bfloat16")
    layer = make(attn, next(sides(attn))).to(torch.bfloat16)
    with torch.no_grad():
        out = call(layer, torch.randn(2, N, E).to(torch.bfloat16))
    assert out.shape == (2, N, E)
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


# -- torch's own layer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", ["self", "causal", "cross", "cross of other widths"])
@pytest.mark.parametrize("attn", variants("exact"))
def test_exact_variants_equal_torchs_layer(attn: Variant, how: str, bias: bool) -> None:
    """To 1e-6 in float32: outputs, and gradients of inputs and weights; the weights go both ways."""
    widths = {"kdim": 20, "vdim": 12} if how == "cross of other widths" else {}
    torch.manual_seed(3)
    mha = nn.MultiheadAttention(E, H, bias=bias, batch_first=True, **widths)
    if bias:
        nn.init.normal_(mha.in_proj_bias)
        nn.init.normal_(mha.out_proj.bias)
    x, memory, values = torch.randn(2, N, E), torch.randn(2, 29, mha.kdim), torch.randn(2, 29, mha.vdim)
    inputs = (x,) if how in ("self", "causal") else (x, memory, values)
    mask = torch.ones(N, N, dtype=torch.bool).triu(1) if how == "causal" else None
    layer = MultiHeadAttention.from_torch(attn, mha, causal=how == "causal")
    query, key, value = (*inputs, *[inputs[0]] * (3 - len(inputs)))
    for x in inputs:
        x.requires_grad_()
    expected, _ = mha(query, key, value, attn_mask=mask, need_weights=False)
    try:
        out = layer(*inputs)
    except VariantError as error:
        with torch.no_grad():
            torch.testing.assert_close(call(layer, *inputs), expected, rtol=0, atol=1e-6)
        pytest.skip(f"forward only: {error}")
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    mix = torch.randn_like(out) / out.numel() ** 0.5
    named = dict(layer.named_parameters())
    theirs = dict(mha.named_parameters())
    assert named.keys() == theirs.keys()
    got = torch.autograd.grad(out, [*inputs, *named.values()], mix)
    true = torch.autograd.grad(expected, [*inputs, *(theirs[name] for name in named)], mix)
    for ours, wanted in zip(got, true, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)
    back = layer.to_torch()
    assert all(torch.equal(x, y) for x, y in zip(back.parameters(), mha.parameters(), strict=True))
    assert torch.equal(back(query, key, value, attn_mask=mask, need_weights=False)[0], expected)


def test_grouped_heads_become_repeated_ones_in_torch() -> None:
    layer = make(attnbench.get("naive"), False, num_kv_heads=2)
    x = torch.randn(2, N, E)
    out, _ = layer.to_torch()(x, x, x, need_weights=False)
    torch.testing.assert_close(layer(x), out, rtol=0, atol=1e-6)
    layer = make(attnbench.get("naive"), False, num_kv_heads=1, kdim=8)
    memory = torch.randn(2, 5, 8)
    wide = torch.randn(2, 5, E)
    out, _ = layer.to_torch()(x, memory, wide, need_weights=False)
    torch.testing.assert_close(layer(x, memory, wide), out, rtol=0, atol=1e-6)


def test_the_same_seed_starts_from_torchs_weights() -> None:
    for widths in ({}, {"kdim": 20, "vdim": 12}):
        torch.manual_seed(5)
        mha = nn.MultiheadAttention(E, H, **widths)
        torch.manual_seed(5)
        layer = MultiHeadAttention(Odd(), E, H, **widths)
        ours = dict(layer.named_parameters())
        assert all(torch.equal(ours[name], x) for name, x in mha.named_parameters())


def test_what_torchs_layer_has_and_this_one_has_not_is_refused() -> None:
    for options, word in (
        ({"add_bias_kv": True}, "bias_k"),
        ({"add_zero_attn": True}, "add_zero_attn"),
        ({"dropout": 0.1}, "dropout=0.1"),
    ):
        with pytest.raises(VariantError, match=word):
            MultiHeadAttention.from_torch("naive", nn.MultiheadAttention(E, H, **options))
    layer = MultiHeadAttention("naive", E, H)
    for mha in (
        nn.MultiheadAttention(E, 2 * H),
        nn.MultiheadAttention(2 * E, H),
        nn.MultiheadAttention(E, H, kdim=20),
        nn.MultiheadAttention(E, H, bias=False),
    ):
        before = copy.deepcopy(layer.state_dict())
        with pytest.raises(VariantError, match="do not fit"):
            layer.load_torch(mha)
        assert all(torch.equal(x, before[name]) for name, x in layer.state_dict().items())
    with pytest.raises(VariantError, match="Linear"):
        layer.load_torch(nn.Linear(3, 3))  # type: ignore[arg-type]


# -- extras of every kind -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Odd(Variant):
    """Softmax attention with extras of every kind of shape, all of which count."""

    parts: int = 3

    def forward(self, q, k, v, *, causal, scale, **extras):
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        return self.weights(q, k, causal=causal, scale=scale, rows=torch.arange(q.shape[2]), **extras) @ v

    def weights(self, q, k, *, causal, scale, rows, by_query, by_key, fixed, of_batch):
        q = q * by_query.sum(dim=-1).movedim(0, 2)  # (Nq, B, H, 1, parts) -> (B, H, Nq, 1)
        scores = scale * q @ k.mT * (fixed + of_batch.transpose(0, 1))[..., None]
        return (scores.softmax(dim=-1) * by_key.prod(dim=1)[:, None, None])[:, :, rows]


def _odd() -> None:
    Odd.name, Odd.family, Odd.kind, Odd.supports = "odd", "full", "own", Supports(causal=False)
    Odd.complexity = Complexity(time=2, memory=2, text="")
    Odd.paper = Odd.formula = Odd.reduces_to = ""
    Odd.extras = (
        Extra("by_query", ("Nq", "B", "H", "1", "parts"), "", torch.sigmoid, bias=2.0),
        Extra("by_key", ("B", "parts", "Nk"), "", torch.tanh),
        Extra("fixed", ("H", "1"), "", torch.sigmoid, bias=-3.0),
        Extra("of_batch", ("H", "B", "1"), "", F.softplus),
    )


_odd()


def test_extras_of_every_shape_are_learned() -> None:
    layer = make(Odd(), False, num_kv_heads=2, kdim=20, dtype=torch.float64)
    shapes = {name: tuple(x.shape) for name, x in layer.extras.named_parameters()}
    assert shapes == {
        "projections.by_query.weight": (H * 3, E),
        "projections.by_query.bias": (H * 3,),
        "projections.by_key.weight": (3, 20),
        "projections.by_key.bias": (3,),
        "constants.fixed": (H, 1),
        "constants.of_batch": (H, 1),
    }
    check_by_hand(layer, draw(layer.variant, 2, 17, E), draw(layer.variant, 2, N, 20), draw(layer.variant, 2, N, E))
    mix = layer(torch.randn(2, 5, E).double(), torch.randn(2, 6, 20).double(), torch.randn(2, 6, E).double()).sum()
    for name, parameter in layer.extras.named_parameters():
        (grad,) = torch.autograd.grad(mix, parameter, retain_graph=True)
        assert grad.count_nonzero() == grad.numel(), name


def test_extras_start_where_they_are_drawn() -> None:
    torch.manual_seed(0)
    layer = MultiHeadAttention(Odd(), 256, H)
    linear = layer.extras.projections["by_query"]
    with torch.no_grad():
        before = linear(torch.randn(64, 256)) - 2.0
    assert abs(float(before.mean())) < 0.3
    assert 0.8 < float(before.std()) < 1.2
    assert float(layer.extras.constants["fixed"].detach().mean()) < -1.0


@pytest.mark.parametrize("axes", [("B", "Nq", "Nk"), ("H", "N")])
def test_an_extra_that_x_cannot_give_is_refused(axes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "extras", (Extra("bad", axes, "", torch.sigmoid),))
    with pytest.raises(VariantError, match="cannot be learned from x"):
        MultiHeadAttention(Odd(), E, H)


# -- refusals -----------------------------------------------------------------------------------------------------


def test_wrong_layers_are_refused() -> None:
    for arguments, options, word in (
        (("naive", 30, 4), {}, "num_heads must divide embed_dim"),
        (("naive", 32, 4), {"num_kv_heads": 3}, "num_kv_heads must divide num_heads"),
        (("naive", 0, 1), {}, "embed_dim must be a whole number"),
        (("naive", 32, 4), {"kdim": 1.5}, "kdim must be a whole number"),
        (("niave", 32, 4), {}, "did you mean 'naive'"),
        (("nystrom", 32, 4), {"causal": True}, "has no causal form"),
    ):
        with pytest.raises(VariantError, match=word):
            MultiHeadAttention(*arguments, **options)


def test_wrong_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = MultiHeadAttention("naive", E, H, causal=True)
    x = torch.randn(2, 5, E)
    for inputs, word in (
        ((x[0],), "query must be"),
        ((x, x[..., :3]), "key must be"),
        ((x, x, x[..., :3]), "value must"),
    ):
        with pytest.raises(VariantError, match=word):
            layer(*inputs)
    with pytest.raises(VariantError, match="as many queries as keys"):
        MultiHeadAttention("nystrom", E, H)(x, x[:, :3])
    with pytest.raises(VariantError, match="one token a call"):
        layer.decode(x, layer.prefill(x)[1])
    with pytest.raises(VariantError, match="causal=True"):
        MultiHeadAttention("naive", E, H).prefill(x)
    with pytest.raises(VariantError, match="has no decode form"):
        MultiHeadAttention("nystrom", E, H).prefill(x)
    monkeypatch.setattr(variant_class("naive"), "supports", Supports(backward=False, dtypes=("float32",)))
    layer = MultiHeadAttention("naive", E, H)
    with pytest.raises(VariantError, match="cannot do this: has no backward pass; call the layer under torch"):
        layer(x)
    with torch.no_grad():
        assert layer(x).shape == x.shape
        with pytest.raises(VariantError, match="not float64"):
            layer.double()(x.double())


def test_the_state_keeps_no_more_alive_than_it_holds() -> None:
    """Keys lie beside queries and values in the fused projection: a view of them would keep all three."""
    layer = MultiHeadAttention("naive", E, H, causal=True)
    with torch.no_grad():
        _, state = layer.prefill(torch.randn(2, N, E))
    held = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in state.tensors.values()}
    assert sum(held.values()) == state.nbytes


def test_it_shows_its_variant() -> None:
    layer = MultiHeadAttention("sliding_window(window_size=8)", E, H, num_kv_heads=2, causal=True)
    assert "sliding_window(window_size=8), embed_dim=32, num_heads=4, num_kv_heads=2" in repr(layer)
    assert attnbench.MultiHeadAttention is MultiHeadAttention
