"""The list of checks that a variant has to pass to keep the contract. Nothing here knows a variant by name.

A check takes a variant and a `Shape`, returns what it measured, and raises `Defect` where that is too large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ...variants.api import Variant
from .checks import (
    check_batch,
    check_blind_rows,
    check_causality,
    check_decode,
    check_forward,
    check_gradients,
    check_grouped_heads,
    check_hostile,
    check_strided,
    check_untouched,
)
from .growth import check_memory_growth, check_work_growth, growth_lengths
from .shapes import Shape
from .sizes import lengths


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
