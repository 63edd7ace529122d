"""Checks of what may depend on what: the past on the future, one entry on another, the result on how it is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ...variants.api import Identity, Variant, get, make_extras, repeat_heads
from .shapes import Defect, Extras, Shape, along, close, draw, prepare, replaced, results, rewrite

OTHER_SEED = 1
"""Of the extras that stand where something is changed: they must stay in their range, so they are drawn anew."""

TUNED = (1, 3, 1000)
"""Values given to each parameter that changes speed alone."""


def check_causality(attn: Variant, shape: Shape) -> float:
    """Changes everything after a position, tenfold and by sign, and looks at what was before: values and gradients."""
    q, k, v, extras = prepare(attn, replace(shape, causal=True))
    others = make_extras(attn, q, k, v, seed=OTHER_SEED)
    worst = 0.0
    shift = shape.n_k - shape.n_q
    differentiable = attn.supports.backward and not attn.reasons_against(replace(shape, causal=True, mode="train"))
    for t in sorted({shape.n_q // 3, shape.n_q // 2, shape.n_q - 2} & set(range(shape.n_q - 1))):
        late_q, late_k = slice(t + 1, None), slice(max(0, t + 1 + shift), None)
        changed = [rewrite(x, late) for x, late in ((q, late_q), (k, late_k), (v, late_k))]
        changed_extras = replaced(attn, extras, others, "N", late_q)
        with torch.no_grad():
            before = attn(q, k, v, causal=True, **extras)[:, :, : t + 1]
            after = attn(*changed, causal=True, **changed_extras)[:, :, : t + 1]
        worst = max(worst, close(f"the outputs up to {t}, when what comes later changes", after, before))
        if differentiable:
            leaves = {n: x.clone().requires_grad_() for n, x in {"q": q, "k": k, "v": v, **extras}.items()}
            loss = attn(**leaves, causal=True)[:, :, : t + 1].sum()
            grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
            axes = {"q": 2, "k": 2, "v": 2, **{e.name: e.length_axis for e in attn.extras}}
            for name, grad in zip(leaves, grads, strict=True):
                if axes[name] is None:
                    continue
                leak = along(grad, axes[name], late_k if name in ("k", "v") else late_q)
                worst = max(worst, close(f"d(outputs up to {t})/d{name} later", leak, torch.zeros_like(leak)))
    return worst


def check_batch(attn: Variant, shape: Shape) -> float:
    """An entry of the batch gives the same alone as beside another, loud one."""
    q, k, v, extras = prepare(attn, shape)
    beside = replaced(attn, extras, make_extras(attn, q, k, v, seed=OTHER_SEED), "B", slice(1, None))
    with torch.no_grad():
        together = attn(*(rewrite(x, slice(1, None), dim=0) for x in (q, k, v)), causal=shape.causal, **beside)[:1]
        first: Extras = {e.name: extras[e.name][:1] if "B" in e.axes else extras[e.name] for e in attn.extras}
        alone = attn(q[:1], k[:1], v[:1], causal=shape.causal, **first)
    return close("the first entry of the batch, beside another", together, alone)


def check_grouped_heads(attn: Variant, shape: Shape) -> float:
    """Hkv key heads give what they give when each is repeated H / Hkv times."""
    shape = replace(shape, heads=6, kv_heads=2)
    q, k, v, extras = prepare(attn, shape)
    repeated: Extras = {
        e.name: extras[e.name].repeat_interleave(3, dim=e.axes.index("Hkv")) if "Hkv" in e.axes else extras[e.name]
        for e in attn.extras
    }
    with torch.no_grad():
        grouped = attn(q, k, v, causal=shape.causal, **extras)
        many = attn(q, k.repeat_interleave(3, dim=1), v.repeat_interleave(3, dim=1), causal=shape.causal, **repeated)
    return close("grouped heads", grouped, many)


def check_permutation(attn: Variant, shape: Shape) -> float:
    """Keys, values and their extras in another order give the same: positions play no part."""
    q, k, v, extras = prepare(attn, replace(shape, causal=False))
    order = torch.randperm(shape.n_k, generator=torch.Generator().manual_seed(2))
    moved: Extras = {
        e.name: extras[e.name].index_select(e.axes.index("Nk"), order) if "Nk" in e.axes else extras[e.name]
        for e in attn.extras
    }
    with torch.no_grad():
        straight = attn(q, k, v, causal=False, **extras)
        shuffled = attn(q, k[:, :, order], v[:, :, order], causal=False, **moved)
    return close("keys and values in another order", shuffled, straight)


def check_tuning(attn: Variant, shape: Shape) -> float:
    """Parameters that are declared to change speed alone change neither outputs nor gradients."""
    q, k, v, extras = prepare(attn, shape)
    worst, expected = 0.0, results(attn, shape, (q, k, v), extras)
    for changed in _tuned(attn):
        for name, got in results(changed, shape, (q, k, v), extras).items():
            worst = max(worst, close(f"{name} with {changed.spec}", got, expected[name]))
    return worst


def _tuned(attn: Variant) -> Iterator[Variant]:
    for name in attn.tuning:
        if type(getattr(attn, name)) is int:
            for value in TUNED:
                yield replace(attn, **{name: value})  # type: ignore[type-var]


def check_identity(attn: Variant, shape: Shape, identity: Identity) -> float:
    """The largest difference between the two sides of an identity that the variant declares."""
    one = get(identity.spec.format(N=shape.n_k))
    q, k, v = draw(shape)
    if identity.prepare is not None:
        q, k, v = identity.prepare(q, k, v)
    reasons = one.reasons_against(shape)
    other = get(identity.equals.format(N=shape.n_k)) if isinstance(identity.equals, str) else identity.equals
    if isinstance(other, Variant):
        reasons = reasons or other.reasons_against(shape)
    if reasons:
        raise Defect(f"declares an identity where it cannot run: {reasons[0]}")
    extras: Extras = make_extras(one, q, k, v)
    for name, value in identity.extras.items():
        x = extras[name]
        extras[name] = value(x) if callable(value) else torch.tensor(value).to(x).expand_as(x).contiguous()
    with torch.no_grad():
        left = one(q, k, v, causal=shape.causal, **extras)
        if isinstance(other, Variant):
            shared: Extras = {e.name: extras[e.name] for e in other.extras}
            right = other.definition(q, k, v, causal=shape.causal, **shared)
        else:
            heads = q.shape[1]
            wide = (q, repeat_heads(k, heads), repeat_heads(v, heads))
            right = other(*wide, causal=shape.causal, scale=one.default_scale(q, None), **extras)
    difference = float((left - right).abs().max())
    if not difference <= identity.tolerance:
        raise Defect(f"{describe(identity)}: differs by {difference:.2e}, allowed {identity.tolerance:.0e}", difference)
    return difference


def describe(identity: Identity) -> str:
    """An identity in words."""
    if identity.text:
        return identity.text
    name = identity.equals if isinstance(identity.equals, str) else getattr(identity.equals, "__name__", "another form")
    with_extras = "".join(f", {extra} = {value}" for extra, value in identity.extras.items() if not callable(value))
    return f"{identity.spec.replace('{N}', 'N')}{with_extras} is {name.replace('{N}', 'N')}"
