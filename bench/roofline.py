"""The machine's measured ceilings, and how near a case comes to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..results.run import Ceilings
from . import gpu

if TYPE_CHECKING:
    import torch

MATMUL_SIZES = (256, 1024, 2048)
LONGEST_PRODUCT_S = 1.0
"""A size that would take longer, at the rate of those before it, is not tried: some CPUs have no instructions for a
dtype, and take twenty seconds for a product of 2048. A smaller one shows so low a rate as well."""
COPY_BYTES = 256 << 20
"""Larger than the caches: a copy has to go through main memory."""
MEASURE_S = 0.3
"""How long each ceiling is tried for. The best try counts: a ceiling is what the machine can do at all."""


def measure(state: dict[str, Any], device: str, dtype: str, threads: int) -> Ceilings:
    """Matrix-product rate of a dtype, and copy bandwidth (bytes read plus written). Runs in a process of its own."""
    import torch

    if device == "cpu":
        torch.set_num_threads(threads)
    gpu.use(device)
    rate = 0.0
    for size in MATMUL_SIZES:
        if rate and 2 * size**3 / rate > LONGEST_PRODUCT_S:
            break
        a = torch.randn(size, size).to(device, getattr(torch, dtype))
        rate = max(rate, 2 * size**3 / _best(_product(a), device))
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * COPY_BYTES / _best(lambda: target.copy_(source), device)
    return Ceilings(device=device, dtype=dtype, threads=threads, matmul_flops_per_s=rate, copy_bytes_per_s=bandwidth)


def share(flops_needed: int, bytes_needed: int, time_s: float, ceilings: Ceilings) -> float:
    """The least time that the ceilings allow for what a case needs, over the time it took.

    1 is a perfect roofline; a variant that does more work than its definition needs falls below.
    """
    return max(flops_needed / ceilings.matmul_flops_per_s, bytes_needed / ceilings.copy_bytes_per_s) / time_s


def _product(a: torch.Tensor) -> Callable[[], object]:
    import torch

    out = torch.empty_like(a)
    return lambda: torch.mm(a, a, out=out)


def _best(call: Callable[[], object], device: str) -> float:
    import torch

    def once() -> float:
        start = time.perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    end = time.perf_counter() + MEASURE_S
    best = once()
    while time.perf_counter() < end:
        best = min(best, once())
    return best
