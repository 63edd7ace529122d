"""The contract as checks: each measures one figure of a variant, and raises `Defect` where it is too large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...variants.api import Variant
from .shapes import Defect, Inputs, Shape, close, compare, gradients, length_axis, prepare, rewrite, same_state, tokens

# -- the implementation against its own definition ---------------------------------------------------------------


def check_forward(attn: Variant, shape: Shape, inputs: Inputs | None = None) -> float:
    """Largest error of the output. Allowed: twice that of the definition in the same dtype, and four roundings."""
    q, k, v, extras = prepare(attn, shape, inputs)
    with torch.no_grad():
        out = attn(q, k, v, causal=shape.causal, **extras)
        expected = attn.definition(q, k, v, causal=shape.causal, **extras)
        plain = attn.definition(q, k, v, causal=shape.causal, dtype=q.dtype, **extras)
    if out.shape != expected.shape or out.dtype != q.dtype:
        raise Defect(f"gives {tuple(out.shape)} of {out.dtype}, not {tuple(expected.shape)} of {q.dtype}")
    return compare("out", out, expected, plain)


def check_gradients(attn: Variant, shape: Shape, inputs: Inputs | None = None) -> float:
    """Largest error of the gradients of q, k, v and the extras, by the same rule."""
    q, k, v, extras = prepare(attn, replace(shape, mode="train"), inputs)
    fast = gradients(lambda *x, **e: attn(*x, causal=shape.causal, **e), (q, k, v), extras)
    wide = tuple(x.double() for x in (q, k, v))
    wide_extras = {name: x.double() for name, x in extras.items()}
    expected = gradients(lambda *x, **e: attn.definition(*x, causal=shape.causal, **e), wide, wide_extras)
    plain = gradients(lambda *x, **e: attn.definition(*x, causal=shape.causal, dtype=q.dtype, **e), (q, k, v), extras)
    # dq is zero where there is one key: rounding is judged by the size of all gradients together
    top = max(float(x.abs().max()) for x in expected.values())
    return max(compare(f"d{name}", fast[name], expected[name], plain[name], top) for name in expected)


# -- what may depend on what --------------------------------------------------------------------------------------


def check_causality(attn: Variant, shape: Shape) -> float:
    """Changes everything after a position, tenfold and by sign, and looks at what was before: values and gradients."""
    q, k, v, extras = prepare(attn, replace(shape, causal=True))
    worst = 0.0
    shift = shape.n_k - shape.n_q
    for t in sorted({shape.n_q // 3, shape.n_q // 2, shape.n_q - 2} & set(range(shape.n_q - 1))):
        late_q, late_k = slice(t + 1, None), slice(max(0, t + 1 + shift), None)
        changed = [rewrite(x, late) for x, late in ((q, late_q), (k, late_k), (v, late_k))]
        changed_extras = {
            e.name: rewrite(extras[e.name], late_q, dim=length_axis(e)) if length_axis(e) else extras[e.name]
            for e in attn.extras
        }
        with torch.no_grad():
            before = attn(q, k, v, causal=True, **extras)[:, :, : t + 1]
            after = attn(*changed, causal=True, **changed_extras)[:, :, : t + 1]
        worst = max(worst, close(f"the outputs up to {t}, when what comes later changes", after, before))
        if attn.supports.backward and not attn.reasons_against(replace(shape, causal=True, mode="train")):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            loss = attn(*leaves, causal=True, **extras)[:, :, : t + 1].sum()
            grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            for name, grad, late in zip("qkv", grads, (late_q, late_k, late_k), strict=True):
                leak = grad[:, :, late]
                worst = max(worst, close(f"d(outputs up to {t})/d{name} later", leak, torch.zeros_like(leak)))
    return worst


def check_batch(attn: Variant, shape: Shape) -> float:
    """An entry of the batch gives the same alone as beside another, loud one."""
    q, k, v, extras = prepare(attn, shape)
    with torch.no_grad():
        together = attn(*(rewrite(x, slice(1, None), dim=0) for x in (q, k, v)), causal=shape.causal, **extras)[:1]
        first = {e.name: extras[e.name][:1] if "B" in e.axes else extras[e.name] for e in attn.extras}
        alone = attn(q[:1], k[:1], v[:1], causal=shape.causal, **first)
    return close("the first entry of the batch, beside another", together, alone)


def check_grouped_heads(attn: Variant, shape: Shape) -> float:
    """Hkv key heads give what they give when each is repeated H / Hkv times."""
    shape = replace(shape, heads=6, kv_heads=2)
    q, k, v, extras = prepare(attn, shape)
    repeated = {
        e.name: extras[e.name].repeat_interleave(3, dim=e.axes.index("Hkv")) if "Hkv" in e.axes else extras[e.name]
        for e in attn.extras
    }
    with torch.no_grad():
        grouped = attn(q, k, v, causal=shape.causal, **extras)
        many = attn(q, k.repeat_interleave(3, dim=1), v.repeat_interleave(3, dim=1), causal=shape.causal, **repeated)
    return close("grouped heads", grouped, many)


def check_decode(attn: Variant, shape: Shape) -> float:
    """Every split into a prompt and single tokens gives what `forward` gives, and the state is not changed by use."""
    q, k, v, extras = prepare(attn, replace(shape, causal=True, mode="decode"))
    worst = 0.0
    with torch.no_grad():
        whole = attn(q, k, v, causal=True, **extras)
        for prompt in sorted({1, shape.n_k // 2, shape.n_k - 1} - {0}):
            cut = slice(0, prompt)
            out, state = attn.prefill(q[:, :, cut], k[:, :, cut], v[:, :, cut], **tokens(attn, extras, cut))
            parts = [out]
            for t in range(prompt, shape.n_k):
                if state.seen != t:
                    raise Defect(f"the state says that it saw {state.seen} tokens, after {t}")
                now = slice(t, t + 1)
                kept = {name: x.clone() for name, x in state.tensors.items()}
                used = state
                out, state = attn.decode(q[:, :, now], k[:, :, now], v[:, :, now], used, **tokens(attn, extras, now))
                same_state(used, kept)
                parts.append(out)
            worst = max(worst, close(f"a prompt of {prompt}, then token by token", torch.cat(parts, dim=2), whole))
    return worst


# -- how inputs are treated ---------------------------------------------------------------------------------------


def check_untouched(attn: Variant, shape: Shape) -> float:
    """Inputs are as they were after a call, and after a backward pass where there is one."""
    q, k, v, extras = prepare(attn, shape)
    named = {"q": q, "k": k, "v": v, **extras}
    before = {name: x.clone() for name, x in named.items()}
    with torch.no_grad():
        attn(q, k, v, causal=shape.causal, **extras)
    if not attn.reasons_against(replace(shape, mode="train")):
        gradients(lambda *x, **e: attn(*x, causal=shape.causal, **e), (q, k, v), extras)
    for name, x in named.items():
        if not torch.equal(x, before[name]):
            raise Defect(f"writes into its input {name}")
    return 0.0


def check_strided(attn: Variant, shape: Shape) -> float:
    """Inputs laid out as (B, N, H, D), as (B, H, D, N), or as every second row, give what contiguous ones give."""
    q, k, v, extras = prepare(attn, shape)
    layouts: dict[str, Callable[[Tensor], Tensor]] = {
        "(B, N, H, D) in memory": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        "(B, H, D, N) in memory": lambda x: x.mT.contiguous().mT,
        "every second row of a larger tensor": lambda x: x.repeat_interleave(2, dim=2)[:, :, ::2],
    }
    worst = 0.0
    with torch.no_grad():
        plain = attn(q, k, v, causal=shape.causal, **extras)
        for name, layout in layouts.items():
            out = attn(layout(q), layout(k), layout(v), causal=shape.causal, **extras)
            worst = max(worst, close(f"inputs that are {name}", out, plain))
    return worst


def check_hostile(attn: Variant, shape: Shape) -> float:
    """Rows of norm 30, equal rows and zeros give finite outputs and gradients."""
    q, k, v, extras = prepare(attn, shape)
    hostile: dict[str, Inputs] = {
        "rows of norm 30": (q * (30 / q.norm(dim=-1, keepdim=True)), k * (30 / k.norm(dim=-1, keepdim=True)), v),
        "equal rows": tuple(x[:, :, :1].expand_as(x).contiguous() for x in (q, k, v)),  # type: ignore[dict-item]
        "zeros": tuple(torch.zeros_like(x) for x in (q, k, v)),  # type: ignore[dict-item]
    }
    for name, inputs in hostile.items():
        with torch.no_grad():
            if not attn(*inputs, causal=shape.causal, **extras).isfinite().all():
                raise Defect(f"gives NaN or infinity for {name}")
        if not attn.reasons_against(replace(shape, mode="train")):
            grads = gradients(lambda *x, **e: attn(*x, causal=shape.causal, **e), inputs, extras)
            bad = [label for label, grad in grads.items() if not grad.isfinite().all()]
            if bad:
                raise Defect(f"gives NaN or infinity in the gradients of {', '.join(bad)} for {name}")
    return 0.0


def check_blind_rows(attn: Variant, shape: Shape) -> float:
    """Causal with more queries than keys: the first Nq - Nk queries see nothing and give zeros."""
    shape = replace(shape, causal=True)
    q, k, v, extras = prepare(attn, shape)
    blind = shape.n_q - shape.n_k
    with torch.no_grad():
        out = attn(q, k, v, causal=True, **extras)
    if blind <= 0 or out[:, :, :blind].count_nonzero() or not out.isfinite().all():
        raise Defect(f"the first {blind} queries see nothing, but do not give zeros")
    return check_forward(attn, shape, (q, k, v))
