"""Runs that differ in one known thing, written as a quiet machine would give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from attnbench.results.record import Record
from attnbench.results.run import Ceilings, Machine, Run

from .identified import identified

Write = Callable[..., Path]
"""Writes records under a name, and returns the folder: the fixture `write`."""

VARIANTS = ("naive", "sdpa", "gla", "delta", "topk", "nystrom")
LENGTHS = (512, 1024)
GIB = 1 << 30


def record(variant: str, length: int, **changes: Any) -> Record:
    fixed = {
        "threads": 2,
        "error": 2e-7,
        "error_allowed": 1e-6,
        "peak_bytes": 1 << 20,
        "state_bytes": 1 << 14,
        "fidelity_error": 0.1 if variant == "nystrom" else None,
    }
    return Record(**identified(variant, length, **{**fixed, **changes}))


def records(
    seed: int, rounds: int = 20, shift: float = 1.0, changes: dict[tuple[str, int], dict[str, Any]] | None = None
) -> list[Record]:
    """What a run on a quiet machine gives, by four processes a case. `changes` of one case: fields, or `slower`, a
    factor of its time."""
    rng = np.random.default_rng(seed)
    made = []
    for length in LENGTHS:
        for number, variant in enumerate(VARIANTS, start=1):
            changed = dict((changes or {}).get((variant, length), {}))
            time_s = 1e-5 * number * length * shift * changed.pop("slower", 1.0)
            samples = (time_s * rng.lognormal(0, 0.01, rounds)).tolist()
            made.append(
                record(variant, length, **{"samples_s": samples, "rounds_per_process": [rounds // 4] * 4, **changed})
            )
    return made


def run(**changes: Any) -> Run:
    machine = {
        "fingerprint": "f",
        "cpu": "A CPU",
        "cores": 2,
        "memory_bytes": 8 * GIB,
        "system": "Linux",
        "python": "3.11.9",
        "libraries": {"torch": "2.13.0", "numpy": "2.4.6"},
    }
    machine |= {key: changes.pop(key) for key in list(changes) if key in Machine.model_fields}
    return Run(
        **{
            "attnbench_version": "0.1.0",
            "command": "attnbench run",
            "config": {"allocator": "keep"},
            "started_at": "2026-01-01T00:00:00+00:00",
            "cases": 12,
            "machine": Machine(**machine),
            **changes,
        }
    )


def ceiling(rate: float) -> dict[str, Any]:
    one = Ceilings(device="cpu", dtype="float32", threads=2, matmul_flops_per_s=rate, copy_bytes_per_s=rate)
    return {"ceilings": [one]}
