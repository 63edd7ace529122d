"""The list of checks that a variant has to pass to keep the contract. Nothing here knows a variant by name.

A check takes a variant and a `Shape`, returns what it measured, and raises `Defect` where that is too large.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ...variants.api import Variant
from .checks import (
    check_blind_rows,
    check_extremes,
    check_forward,
    check_gradients,
    check_hostile,
    check_strided,
    check_untouched,
)
from .decoding import check_decode, check_state_growth
from .growth import check_declared_time, check_memory_growth, check_work_growth, growth_lengths
from .invariants import (
    check_batch,
    check_causality,
    check_grouped_heads,
    check_identity,
    check_permutation,
    check_tuning,
    describe,
)
from .shapes import Shape
from .sizes import lengths

DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Check:
    """One check of one variant, ready to run."""

    name: str
    """What is checked: the same at every shape."""
    shape: Shape
    function: Callable[[Variant, Shape], float]
    attn: Variant

    @property
    def label(self) -> str:
        return f"{self.name}-{self.shape}"

    def run(self) -> float:
        """What was measured. Raises Defect where it is too large, Unsupported where the variant cannot run it here."""
        return self.function(self.attn, self.shape)

    def at(self, shape: Shape) -> Check:
        return replace(self, shape=shape)


def battery(attn: Variant) -> Iterator[Check]:
    """Every check that a variant has to pass, at lengths around its own grain. Shrink its parameters first."""
    best = "float64" if "float64" in attn.supports.dtypes else "float32"
    sides = [causal for causal, has in ((True, attn.supports.causal), (False, attn.supports.noncausal)) if has]
    ns = lengths(attn)
    prime = ns[-1]
    hostile_extras = any(extra.extremes for extra in attn.extras)

    def check(function: Callable[[Variant, Shape], float], shape: Shape, name: str = "") -> Check:
        name = name or function.__name__.removeprefix("check_").replace("_", " ")
        return Check(name, shape, function, attn)

    for causal in sides:
        for n in ns:
            for dtype in DTYPES:
                if dtype not in attn.supports.dtypes:
                    continue
                yield check(check_forward, Shape(n, n, causal, dtype), f"forward in {dtype}")
                if attn.supports.backward:
                    yield check(check_gradients, Shape(n, n, causal, dtype), f"gradients in {dtype}")
        square = Shape(prime, prime, causal, best)
        odd = replace(square, heads=6, kv_heads=2, head_dim=7, value_dim=5, batch=1)
        yield check(check_forward, odd, "forward with grouped heads and Dv != D")
        if attn.supports.backward:
            yield check(check_gradients, odd, "gradients with grouped heads and Dv != D")
            yield check(check_gradients, replace(odd, value_dim=7), "gradients with grouped heads")
        yield check(check_batch, square)
        if not attn.choice_of_group:
            yield check(check_grouped_heads, square)
        yield check(check_untouched, square)
        yield check(check_strided, square)
        if attn.tuning:
            yield check(check_tuning, square)
        for dtype in ("float32", "bfloat16"):
            if dtype in attn.supports.dtypes:
                yield check(check_hostile, replace(square, dtype=dtype))
                if hostile_extras:
                    yield check(check_extremes, replace(square, dtype=dtype))
        if attn.supports.cross:
            for n_q, n_k in ((ns[1], prime), (1, prime), (prime, ns[1]), (prime, 1), (prime - 3, prime + 1)):
                yield check(check_forward, replace(square, n_q=n_q, n_k=n_k), "cross lengths")
                if attn.supports.backward:
                    yield check(check_gradients, replace(square, n_q=n_q, n_k=n_k), "gradients at cross lengths")
        longest = growth_lengths(attn)[-1]
        long = Shape(longest, longest, causal, "float32", head_dim=32, value_dim=32)
        yield check(check_memory_growth, long)
        if attn.supports.backward:
            yield check(check_memory_growth, replace(long, mode="train"), "memory growth in training")
        if attn.counts_flops:
            yield check(check_work_growth, long)
        yield check(check_declared_time, long)
        for identity in attn.identities:
            if identity.causal in (None, causal):
                function = functools.partial(check_identity, identity=identity)
                yield check(function, replace(square, heads=4, dtype="float64"), f"identity: {describe(identity)}")
    if attn.supports.noncausal and attn.position_free:
        yield check(check_permutation, Shape(prime, prime, False, best))
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
        longest = growth_lengths(attn)[-1]
        yield check(check_state_growth, Shape(longest, longest, True, "float32", head_dim=32, value_dim=32))
