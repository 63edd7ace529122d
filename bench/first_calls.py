"""The first calls of MKL's functions, made before anything is measured: on one thread they are as exact as all later.

MKL picks a function's code at its first call. Where two threads make that call at once, one of them may compute with
less exact code, this once: the first `exp` of a fresh process was seen to be off by 4e-5 in 6 of 60.
"""

from __future__ import annotations

import torch

LENGTH = 64
"""Too short for torch to share it out among threads."""


def make() -> None:
    """Calls once each elementwise function that torch takes from MKL, in the dtypes that MKL has."""
    for dtype in (torch.float32, torch.float64):
        x = torch.full((LENGTH,), 0.5, dtype=dtype)
        for function in (torch.exp, torch.log, torch.tanh, torch.sin, torch.cos, torch.erf, torch.expm1, torch.log1p):
            function(x)
