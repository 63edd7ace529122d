"""What the fork server imports once, so that no worker has to: torch, its compiler and every variant of the package.

Imports, and calls small enough for one thread. A thread pool started here would not survive the fork.
"""

import gc

# slow to load, and wanted by each worker: the FLOP counter imports the one, compiled variants both
import torch._dynamo
import torch._inductor.compile_fx

from ..variants import api, registry
from . import worker
from .distributions import realise

registry.discover()


def _first_calls() -> None:
    """Calls the elementwise functions that torch takes from MKL once, on one thread.

    MKL picks a function's code at its first call. Where two threads make that call at once, one of them may compute
    with less exact code, this once: the first `exp` of a fresh process was seen to be off by 4e-5 in 6 of 60.
    """
    for dtype in (torch.float32, torch.float64):
        x = torch.full((64,), 0.5, dtype=dtype)
        for function in (torch.exp, torch.log, torch.tanh, torch.sin, torch.cos, torch.erf, torch.expm1, torch.log1p):
            function(x)


_first_calls()

# Collecting garbage before each sample would walk all that torch has loaded: a twentieth of a second each time. Set
# aside here, it is walked no more, and its pages stay shared between workers.
gc.collect()
gc.freeze()

__all__ = ["api", "realise", "torch", "worker"]
