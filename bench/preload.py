"""What the fork server imports once, so that no worker has to: torch, its compiler and every variant of the package.

Imports, and calls small enough for one thread. A thread pool started here would not survive the fork.
"""

import gc

# slow to load, and wanted by each worker: the FLOP counter imports the one, compiled variants both
import torch._dynamo
import torch._inductor.compile_fx

from ..variants import api, registry
from . import first_calls, keeper, worker
from .distributions import realise

registry.discover()
first_calls.make()

# Collecting garbage before each sample would walk all that torch has loaded: a twentieth of a second each time. Set
# aside here, it is walked no more, and its pages stay shared between workers.
gc.collect()
gc.freeze()

__all__ = ["api", "keeper", "realise", "torch", "worker"]
