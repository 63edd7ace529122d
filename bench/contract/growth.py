"""Checks of what grows how: peak memory and counted work, over length."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ...variants.api import Variant
from ..flops import count
from ..memory import allocator_events
from .shapes import Defect, Extras, Inputs, Shape, gradients, prepare
from .sizes import sized


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
    changes = allocator_events(call)
    return Allocated(peak=max(itertools.accumulate(changes), default=0), largest=max(changes, default=0))


GROWTH_LENGTHS = {1.0: (4096, 8192, 16384), 2.0: (1536, 3072, 6144)}
"""N, 2 N and 4 N by the declared exponent of time: as long as is quick, so that what depends on N outgrows the rest."""


def check_memory_growth(attn: Variant, shape: Shape) -> float:
    """The exponent with which peak memory grows, against the one that the variant declares.

    Where it declares less than 2, no single tensor may have an entry for each pair of query and key.
    """
    declared = attn.complexity.memory
    attn = sized(attn)
    peaks = []
    for n in growth_lengths(attn):
        long = replace(shape, n_q=n, n_k=n, batch=1, heads=1, kv_heads=1)
        q, k, v, extras = prepare(attn, long)

        used = allocated(functools.partial(once, attn, shape, (q, k, v), extras))
        peaks.append(used.peak)
    if declared < 2 and used.largest >= n * n:
        raise Defect(f"allocates one tensor of {used.largest} bytes at N = {n}: an entry for each of {n * n} pairs")
    slope = growth(peaks)
    if abs(slope - declared) > 0.1:
        raise Defect(
            f"peak memory grows as N^{slope:.2f}, declared N^{declared:g}: {peaks} bytes at {growth_lengths(attn)}, "
            f"of {attn.spec}",
            slope,
        )
    return slope


def once(attn: Variant, shape: Shape, inputs: Inputs, extras: Extras) -> object:
    """One call, forward or, in the mode `train`, forward and backward."""
    if shape.mode == "train":
        return gradients(lambda *x, **e: attn(*x, causal=shape.causal, **e), inputs, extras)
    with torch.no_grad():
        return attn(*inputs, causal=shape.causal, **extras)


def check_work_growth(attn: Variant, shape: Shape) -> float:
    """The exponent with which counted operations grow, against that of the operations said to be needed.

    A method may mix powers of N, so both are taken over the same lengths; that the needed ones come to the declared
    exponent as N grows is `check_declared_time`.
    """
    attn = sized(attn)
    counts, needed = [], []
    for n in growth_lengths(attn):
        long = replace(shape, n_q=n, n_k=n, batch=1, heads=1, kv_heads=1, mode="forward")
        q, k, v, extras = prepare(attn, long)
        counts.append(count(functools.partial(once, attn, long, (q, k, v), extras)))
        needed.append(attn.flops_needed(long))
    if not all(counts):
        raise Defect("says that torch's FLOP counter sees its work, but the counter sees none")
    slope, due = growth(counts), growth(needed)
    if abs(slope - due) > 0.1:
        raise Defect(
            f"work grows as N^{slope:.2f}, by flops_needed as N^{due:.2f}: {counts}, needed {needed}, "
            f"at {growth_lengths(attn)}, of {attn.spec}",
            slope,
        )
    return slope


NEAR = 1 << 22
ARITHMETIC_S = 0.05
"""CPU time of a closed form, with much to spare; a loop over this many tokens takes longer."""

FAR = 1 << 30
"""A length at which the leading power of N has outgrown all others."""


def check_declared_time(attn: Variant, shape: Shape) -> float:
    """The exponent that `flops_needed` comes to as N grows, against the one that the variant declares."""
    attn = sized(attn)
    start = time.process_time()
    attn.flops_needed(replace(shape, n_q=NEAR, n_k=NEAR))
    spent = time.process_time() - start
    if spent > ARITHMETIC_S:
        raise Defect(
            f"flops_needed takes {spent:.2f} s at N = {NEAR}: write it, or visible_pairs, as a closed form, not as a "
            "loop over tokens; sweeps and fits ask for it at any length"
        )
    near, far = (attn.flops_needed(replace(shape, n_q=n, n_k=n)) for n in (FAR, 2 * FAR))
    slope = math.log2(far / near)
    if abs(slope - attn.complexity.time) > 0.05:
        raise Defect(f"flops_needed grows as N^{slope:.2f} in the end, declared N^{attn.complexity.time:g}", slope)
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
