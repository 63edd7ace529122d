"""The contract of a variant as checks, each of which measures one figure and raises `Defect` where it is too large.

A check takes a variant and a `Shape`, and returns what it measured. `battery` lists the checks that a variant has to
pass. Nothing here knows a variant by name.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnbench.variants.api import Extra, State, Variant, make_extras

SMALL = {
    "window_size": 16,
    "chunk_size": 16,
    "block_size": 8,
    "segment_size": 16,
    "num_landmarks": 16,
    "num_features": 32,
    "top_k": 16,
}
"""Values of size parameters, by their names, at which short lengths already meet every boundary."""

GRAIN = ("chunk_size", "window_size", "num_landmarks", "block_size", "segment_size", "top_k")
"""The parameters around whose value lengths are awkward, the telling one first."""

TIGHT = 1e-10
"""Allowed in float64, over the largest value of what is compared: far above rounding, far below any slip."""


class Defect(AssertionError):
    """A variant does not keep the contract: what was measured, and what is allowed."""


class Unsupported(Exception):
    """A variant says that it cannot run a check's case here; the reasons are its own."""


@dataclass(frozen=True)
class Shape:
    """One call. Has the fields of a benchmark case that a variant may look at."""

    n_q: int
    n_k: int
    causal: bool
    dtype: str = "float64"
    mode: str = "forward"
    batch: int = 2
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 8
    value_dim: int = 8
    device: str = "cpu"

    def __str__(self) -> str:
        lengths = f"N={self.n_q}" if self.n_q == self.n_k else f"Nq={self.n_q},Nk={self.n_k}"
        return f"{lengths},{'causal' if self.causal else 'noncausal'},{self.dtype}"


Inputs = tuple[Tensor, Tensor, Tensor]


def shrunk(cls: type[Variant]) -> Variant:
    """A variant with its size parameters small, whatever else it is by default."""
    return cls(**{f.name: SMALL[f.name] for f in dataclasses.fields(cls) if f.name in SMALL})  # type: ignore[arg-type]


def sized(attn: Variant, size: int) -> Variant:
    """A variant with all its size parameters at one value."""
    return replace(attn, **{name: size for name in SMALL if hasattr(attn, name)})  # type: ignore[type-var]


def lengths(attn: Variant) -> list[int]:
    """1, C - 1, C, C + 1 and a prime of several C, where C is the variant's own grain."""
    c = next((getattr(attn, name) for name in GRAIN if hasattr(attn, name)), 16)
    prime = next(n for n in range(3 * c + 5, 9 * c + 50) if all(n % d for d in range(2, n)))
    return sorted({1, max(1, c - 1), c, c + 1, prime})


def draw(shape: Shape, seed: int = 0) -> Inputs:
    """Gaussian q, k, v: drawn in float64, rounded to the shape's dtype."""
    generator = torch.Generator(device=shape.device).manual_seed(seed)
    sizes = (
        (shape.batch, shape.heads, shape.n_q, shape.head_dim),
        (shape.batch, shape.kv_heads, shape.n_k, shape.head_dim),
        (shape.batch, shape.kv_heads, shape.n_k, shape.value_dim),
    )
    q, k, v = (torch.randn(s, generator=generator, dtype=torch.float64, device=shape.device) for s in sizes)
    return q.to(_dtype(shape)), k.to(_dtype(shape)), v.to(_dtype(shape))


# -- the implementation against its own definition ---------------------------------------------------------------


def check_forward(attn: Variant, shape: Shape, inputs: Inputs | None = None) -> float:
    """Largest error of the output. Allowed: twice that of the definition in the same dtype, and four roundings."""
    q, k, v, extras = _prepare(attn, shape, inputs)
    with torch.no_grad():
        out = attn(q, k, v, causal=shape.causal, **extras)
        expected = attn.definition(q, k, v, causal=shape.causal, **extras)
        plain = attn.definition(q, k, v, causal=shape.causal, dtype=q.dtype, **extras)
    if out.shape != expected.shape or out.dtype != q.dtype:
        raise Defect(f"gives {tuple(out.shape)} of {out.dtype}, not {tuple(expected.shape)} of {q.dtype}")
    return _compare("out", out, expected, plain)


def check_gradients(attn: Variant, shape: Shape, inputs: Inputs | None = None) -> float:
    """Largest error of the gradients of q, k, v and the extras, by the same rule."""
    q, k, v, extras = _prepare(attn, replace(shape, mode="train"), inputs)
    fast = _gradients(lambda *x, **e: attn(*x, causal=shape.causal, **e), (q, k, v), extras)
    wide = tuple(x.double() for x in (q, k, v))
    wide_extras = {name: x.double() for name, x in extras.items()}
    expected = _gradients(lambda *x, **e: attn.definition(*x, causal=shape.causal, **e), wide, wide_extras)
    plain = _gradients(lambda *x, **e: attn.definition(*x, causal=shape.causal, dtype=q.dtype, **e), (q, k, v), extras)
    # dq is zero where there is one key: rounding is judged by the size of all gradients together
    top = max(float(x.abs().max()) for x in expected.values())
    return max(_compare(f"d{name}", fast[name], expected[name], plain[name], top) for name in expected)


# -- what may depend on what --------------------------------------------------------------------------------------


def check_causality(attn: Variant, shape: Shape) -> float:
    """Changes everything after a position, tenfold and by sign, and looks at what was before: values and gradients."""
    q, k, v, extras = _prepare(attn, replace(shape, causal=True))
    worst = 0.0
    shift = shape.n_k - shape.n_q
    for t in sorted({shape.n_q // 3, shape.n_q // 2, shape.n_q - 2} & set(range(shape.n_q - 1))):
        late_q, late_k = slice(t + 1, None), slice(max(0, t + 1 + shift), None)
        changed = [_rewrite(x, late) for x, late in ((q, late_q), (k, late_k), (v, late_k))]
        changed_extras = {
            e.name: _rewrite(extras[e.name], late_q, dim=_length_axis(e)) if _length_axis(e) else extras[e.name]
            for e in attn.extras
        }
        with torch.no_grad():
            before = attn(q, k, v, causal=True, **extras)[:, :, : t + 1]
            after = attn(*changed, causal=True, **changed_extras)[:, :, : t + 1]
        worst = max(worst, _close(f"the outputs up to {t}, when what comes later changes", after, before))
        if attn.supports.backward and not attn.reasons_against(replace(shape, causal=True, mode="train")):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            loss = attn(*leaves, causal=True, **extras)[:, :, : t + 1].sum()
            grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            for name, grad, late in zip("qkv", grads, (late_q, late_k, late_k), strict=True):
                leak = grad[:, :, late]
                worst = max(worst, _close(f"d(outputs up to {t})/d{name} later", leak, torch.zeros_like(leak)))
    return worst


def check_batch(attn: Variant, shape: Shape) -> float:
    """An entry of the batch gives the same alone as beside another, loud one."""
    q, k, v, extras = _prepare(attn, shape)
    with torch.no_grad():
        together = attn(*(_rewrite(x, slice(1, None), dim=0) for x in (q, k, v)), causal=shape.causal, **extras)[:1]
        first = {e.name: extras[e.name][:1] if "B" in e.axes else extras[e.name] for e in attn.extras}
        alone = attn(q[:1], k[:1], v[:1], causal=shape.causal, **first)
    return _close("the first entry of the batch, beside another", together, alone)


def check_grouped_heads(attn: Variant, shape: Shape) -> float:
    """Hkv key heads give what they give when each is repeated H / Hkv times."""
    shape = replace(shape, heads=6, kv_heads=2)
    q, k, v, extras = _prepare(attn, shape)
    repeated = {
        e.name: extras[e.name].repeat_interleave(3, dim=e.axes.index("Hkv")) if "Hkv" in e.axes else extras[e.name]
        for e in attn.extras
    }
    with torch.no_grad():
        grouped = attn(q, k, v, causal=shape.causal, **extras)
        many = attn(q, k.repeat_interleave(3, dim=1), v.repeat_interleave(3, dim=1), causal=shape.causal, **repeated)
    return _close("grouped heads", grouped, many)


def check_decode(attn: Variant, shape: Shape) -> float:
    """Every split into a prompt and single tokens gives what `forward` gives, and the state is not changed by use."""
    q, k, v, extras = _prepare(attn, replace(shape, causal=True, mode="decode"))
    worst = 0.0
    with torch.no_grad():
        whole = attn(q, k, v, causal=True, **extras)
        for prompt in sorted({1, shape.n_k // 2, shape.n_k - 1} - {0}):
            cut = slice(0, prompt)
            out, state = attn.prefill(q[:, :, cut], k[:, :, cut], v[:, :, cut], **_tokens(attn, extras, cut))
            parts = [out]
            for t in range(prompt, shape.n_k):
                if state.seen != t:
                    raise Defect(f"the state says that it saw {state.seen} tokens, after {t}")
                now = slice(t, t + 1)
                kept = {name: x.clone() for name, x in state.tensors.items()}
                used = state
                out, state = attn.decode(q[:, :, now], k[:, :, now], v[:, :, now], used, **_tokens(attn, extras, now))
                _same_state(used, kept)
                parts.append(out)
            worst = max(worst, _close(f"a prompt of {prompt}, then token by token", torch.cat(parts, dim=2), whole))
    return worst


# -- how inputs are treated ---------------------------------------------------------------------------------------


def check_untouched(attn: Variant, shape: Shape) -> float:
    """Inputs are as they were after a call, and after a backward pass where there is one."""
    q, k, v, extras = _prepare(attn, shape)
    named = {"q": q, "k": k, "v": v, **extras}
    before = {name: x.clone() for name, x in named.items()}
    with torch.no_grad():
        attn(q, k, v, causal=shape.causal, **extras)
    if not attn.reasons_against(replace(shape, mode="train")):
        _gradients(lambda *x, **e: attn(*x, causal=shape.causal, **e), (q, k, v), extras)
    for name, x in named.items():
        if not torch.equal(x, before[name]):
            raise Defect(f"writes into its input {name}")
    return 0.0


def check_strided(attn: Variant, shape: Shape) -> float:
    """Inputs laid out as (B, N, H, D), as (B, H, D, N), or as every second row, give what contiguous ones give."""
    q, k, v, extras = _prepare(attn, shape)
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
            worst = max(worst, _close(f"inputs that are {name}", out, plain))
    return worst


def check_hostile(attn: Variant, shape: Shape) -> float:
    """Rows of norm 30, equal rows and zeros give finite outputs and gradients."""
    q, k, v, extras = _prepare(attn, shape)
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
            grads = _gradients(lambda *x, **e: attn(*x, causal=shape.causal, **e), inputs, extras)
            bad = [label for label, grad in grads.items() if not grad.isfinite().all()]
            if bad:
                raise Defect(f"gives NaN or infinity in the gradients of {', '.join(bad)} for {name}")
    return 0.0


def check_blind_rows(attn: Variant, shape: Shape) -> float:
    """Causal with more queries than keys: the first Nq - Nk queries see nothing and give zeros."""
    shape = replace(shape, causal=True)
    q, k, v, extras = _prepare(attn, shape)
    blind = shape.n_q - shape.n_k
    with torch.no_grad():
        out = attn(q, k, v, causal=True, **extras)
    if blind <= 0 or out[:, :, :blind].count_nonzero() or not out.isfinite().all():
        raise Defect(f"the first {blind} queries see nothing, but do not give zeros")
    return check_forward(attn, shape, (q, k, v))


# -- what grows how -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Allocated:
    """What torch's allocator gave out during a call, in bytes."""

    peak: int
    """Most that was held at a time, above what was held before."""
    largest: int
    """The largest single tensor."""


def allocated(call: Callable[[], object]) -> Allocated:
    """Bytes that a call allocates on the CPU, from the profiler's memory events: exact, as torch asks for them."""
    call()  # what is made once and kept is not the call's
    with torch.autograd.profiler.profile(use_device=None, profile_memory=True, use_kineto=True) as profile:
        call()
    results = profile.kineto_results
    if results is None:
        raise RuntimeError("the profiler gave no events")
    events = sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns())
    held = peak = largest = 0
    for event in events:
        held += event.nbytes()
        peak, largest = max(peak, held), max(largest, event.nbytes())
    return Allocated(peak, largest)


GROWTH_LENGTHS = {1.0: (4096, 8192, 16384), 2.0: (1536, 3072, 6144)}
"""N, 2 N and 4 N by the declared exponent of time: as long as is quick, so that what depends on N outgrows the rest."""

GROWTH_SIZE = 128
"""Of every size parameter while growth is measured: well below the lengths, and not so small that it takes long."""


def check_memory_growth(attn: Variant, shape: Shape) -> float:
    """The exponent with which peak memory grows, against the one that the variant declares.

    Where it declares less than 2, no single tensor may have an entry for each pair of query and key.
    """
    declared = attn.complexity.memory
    attn = sized(attn, GROWTH_SIZE)
    peaks = []
    for n in growth_lengths(attn):
        long = replace(shape, n_q=n, n_k=n, batch=1, heads=1, kv_heads=1)
        q, k, v, extras = _prepare(attn, long)

        used = allocated(functools.partial(_once, attn, shape, (q, k, v), extras))
        peaks.append(used.peak)
    if declared < 2 and used.largest >= n * n:
        raise Defect(f"allocates one tensor of {used.largest} bytes at N = {n}: an entry for each of {n * n} pairs")
    slope = growth(peaks)
    if abs(slope - declared) > 0.1:
        raise Defect(
            f"peak memory grows as N^{slope:.2f}, declared N^{declared:g}: {peaks} bytes at {growth_lengths(attn)}"
        )
    return slope


def _once(attn: Variant, shape: Shape, inputs: Inputs, extras: dict[str, Tensor]) -> object:
    if shape.mode == "train":
        return _gradients(lambda *x, **e: attn(*x, causal=shape.causal, **e), inputs, extras)
    with torch.no_grad():
        return attn(*inputs, causal=shape.causal, **extras)


def check_work_growth(attn: Variant, shape: Shape) -> float:
    """The exponent with which counted operations grow, against the one that the variant declares."""
    from torch.utils.flop_counter import FlopCounterMode

    attn = sized(attn, GROWTH_SIZE)
    counts = []
    for n in growth_lengths(attn):
        q, k, v, extras = _prepare(attn, replace(shape, n_q=n, n_k=n, batch=1, heads=1, kv_heads=1))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            attn(q, k, v, causal=shape.causal, **extras)
        counts.append(counter.get_total_flops())
    if not all(counts):
        raise Defect("says that torch's FLOP counter sees its work, but the counter sees none")
    slope = growth(counts)
    if abs(slope - attn.complexity.time) > 0.1:
        raise Defect(
            f"work grows as N^{slope:.2f}, declared N^{attn.complexity.time:g}: {counts} at {growth_lengths(attn)}"
        )
    return slope


def growth_lengths(attn: Variant) -> tuple[int, int, int]:
    """The lengths for a variant of this declared time: those of the next larger exponent that is listed."""
    return next((ns for time, ns in GROWTH_LENGTHS.items() if attn.complexity.time <= time), GROWTH_LENGTHS[2.0])


def growth(figures: Sequence[int]) -> float:
    """The exponent p of a + b N^p through three figures at N, 2 N and 4 N: a constant scratch buffer drops out."""
    first, second, third = figures
    if not first < second < third:
        return 0.0
    return math.log2((third - second) / (second - first))


# -- the list -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One check of one variant, ready to run."""

    label: str
    run: Callable[[], float]


def battery(attn: Variant) -> Iterator[Check]:
    """Every check that a variant has to pass, at lengths around its own grain. Shrink its parameters first."""
    best = "float64" if "float64" in attn.supports.dtypes else "float32"
    sides = [causal for causal, has in ((True, attn.supports.causal), (False, attn.supports.noncausal)) if has]
    ns = lengths(attn)
    prime = ns[-1]

    def check(function: Callable[[Variant, Shape], float], shape: Shape, label: str = "") -> Check:
        name = label or function.__name__.removeprefix("check_")
        return Check(f"{name}-{shape}", lambda: function(attn, shape))

    for causal in sides:
        for n in ns:
            for dtype in ("float64", "float32", "bfloat16", "float16"):
                if dtype not in attn.supports.dtypes:
                    continue
                yield check(check_forward, Shape(n, n, causal, dtype))
                if attn.supports.backward:
                    yield check(check_gradients, Shape(n, n, causal, dtype))
        square = Shape(prime, prime, causal, best)
        odd = replace(square, heads=6, kv_heads=2, head_dim=7, value_dim=5, batch=1)
        yield check(check_forward, odd, "forward with grouped heads and Dv != D")
        if attn.supports.backward:
            yield check(check_gradients, odd, "gradients with grouped heads and Dv != D")
            yield check(check_gradients, replace(odd, value_dim=7), "gradients with grouped heads")
        yield check(check_batch, square)
        yield check(check_grouped_heads, square)
        yield check(check_untouched, square)
        yield check(check_strided, square)
        longest = growth_lengths(attn)[-1]
        long = Shape(longest, longest, causal, "float32", head_dim=32, value_dim=32)
        yield check(check_memory_growth, long)
        if attn.supports.backward:
            yield check(check_memory_growth, replace(long, mode="train"), "memory_growth in training")
        if attn.counts_flops:
            yield check(check_work_growth, long)
        for dtype in ("float32", "bfloat16"):
            yield check(check_hostile, replace(square, dtype=dtype))
        if attn.supports.cross:
            for n_q, n_k in ((ns[1], prime), (1, prime), (prime, ns[1]), (prime, 1), (prime - 3, prime + 1)):
                yield check(check_forward, replace(square, n_q=n_q, n_k=n_k), "cross lengths")
                if attn.supports.backward:
                    yield check(check_gradients, replace(square, n_q=n_q, n_k=n_k), "gradients at cross lengths")
    if attn.supports.causal:
        square = Shape(prime, prime, True, best)
        yield check(check_causality, square)
        if attn.supports.cross:
            yield check(check_causality, replace(square, n_q=prime - 7), "causality at cross lengths")
            for n_k in (1, ns[1], prime - 1):
                yield check(check_blind_rows, replace(square, n_k=n_k))
    if attn.supports.decode:
        yield check(check_decode, Shape(prime, prime, True, best))
        yield check(check_decode, Shape(prime, prime, True, best, heads=6), "decode with grouped heads")


# -- pieces -------------------------------------------------------------------------------------------------------


def _dtype(shape: Shape) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, shape.dtype)
    return dtype


def _prepare(
    attn: Variant, shape: Shape, inputs: Inputs | None = None
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    reasons = attn.reasons_against(shape)
    if reasons:
        raise Unsupported("; ".join(reasons))
    q, k, v = inputs or draw(shape)
    return q, k, v, make_extras(attn, q, k, v)


def _gradients(call: Callable[..., Tensor], inputs: Inputs, extras: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients by name of a fixed random mix of the outputs."""
    named = dict(zip("qkv", inputs, strict=True)) | extras
    leaves = {name: x.detach().clone().requires_grad_() for name, x in named.items()}
    out = call(*(leaves[name] for name in "qkv"), **{name: leaves[name] for name in extras})
    mix = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mix = mix.to(device=out.device, dtype=out.dtype)
    grads = torch.autograd.grad(out, list(leaves.values()), mix, allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))


def _compare(what: str, got: Tensor, expected: Tensor, plain: Tensor, top: float | None = None) -> float:
    """Error of `got` over the largest value, held to twice that of `plain`, the definition in that dtype."""
    top = float(expected.abs().max()) if top is None else top
    error = float((got.double() - expected).abs().max())
    floor = TIGHT if got.dtype == torch.float64 else 4 * torch.finfo(got.dtype).eps
    allowed = 2 * float((plain.double() - expected).abs().max()) + floor * top
    if not error <= allowed:  # NaN too
        raise Defect(f"{what}: error {error:.2e}, allowed {allowed:.2e}, largest value {top:.2e}")
    return error / top if top else error


def _close(what: str, got: Tensor, expected: Tensor) -> float:
    """Error between two results of the same implementation, which rounding alone may set apart."""
    if got.numel() == 0:
        return 0.0
    error = float((got.double() - expected.double()).abs().max())
    allowed = (TIGHT if got.dtype == torch.float64 else 1e-5) * max(1.0, float(expected.abs().max()))
    if not error <= allowed:
        raise Defect(f"{what}: changes by {error:.2e}, allowed {allowed:.2e}")
    return error


def _rewrite(x: Tensor, where: slice, dim: int = 2) -> Tensor:
    """A copy with one part made loud and turned round."""
    x = x.clone()
    x[(slice(None),) * dim + (where,)] *= -10
    return x


def _length_axis(extra: Extra) -> int:
    """The axis of an extra that runs along the sequence, or 0."""
    return next((i for i, axis in enumerate(extra.axes) if axis in ("N", "Nq", "Nk")), 0)


def _tokens(attn: Variant, extras: dict[str, Tensor], which: slice) -> dict[str, Tensor]:
    """The extras of some tokens."""
    axes = {e.name: _length_axis(e) for e in attn.extras}
    return {name: x[(slice(None),) * axes[name] + (which,)] if axes[name] else x for name, x in extras.items()}


def _same_state(state: State, kept: dict[str, Tensor]) -> None:
    for name, x in kept.items():
        if not torch.equal(state[name], x):
            raise Defect(f"decode writes into the state it was given: {name}")
