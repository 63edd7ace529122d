"""attnbench: which attention mechanism to use at your length, on your machine, and what it costs in accuracy.

    import attnbench

    attn = attnbench.get("sliding_window", window_size=256)
    out = attn(q, k, v, causal=True)            # (B, H, N, D)
    attnbench.names()                           # every variant there is
    attnbench.MultiHeadAttention("gla", embed_dim=512, num_heads=8, causal=True)  # any of them as a layer
    attnbench.register_transformers()           # any that stands in for softmax, inside a transformers model
    attnbench.run(preset="quick", out="runs/mine")
    attnbench.load("runs/mine")                 # a pandas DataFrame, one row a record

Importing this module imports nothing heavy: torch and pandas come in with the first name that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench.sweep import run as run
    from .results.frame import load as load
    from .variants.api import get as get
    from .variants.api import make_extras as make_extras
    from .variants.api import names as names
    from .variants.api import register as register
    from .variants.in_transformers import register_transformers as register_transformers
    from .variants.layer import MultiHeadAttention as MultiHeadAttention

__version__ = "0.1.0"

_HOME = {
    "MultiHeadAttention": ".variants.layer",
    "get": ".variants.api",
    "load": ".results.frame",
    "make_extras": ".variants.api",
    "names": ".variants.api",
    "register": ".variants.api",
    "register_transformers": ".variants.in_transformers",
    "run": ".bench.sweep",
}

__all__ = [
    "MultiHeadAttention",
    "__version__",
    "get",
    "load",
    "make_extras",
    "names",
    "register",
    "register_transformers",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
