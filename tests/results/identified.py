"""Which case a made-up record is of."""

from __future__ import annotations

from typing import Any

from attnbench.results.record import IDENTITY, case_id, group_id


def identified(variant: str, length: int, /, **changes: Any) -> dict[str, Any]:
    """The fields that every record has, of a square forward pass that went well, with its ids. `changes`: fields of any
    kind, of which those of the identity make other ids."""
    identity = {
        "variant": variant,
        "params": {},
        "mode": "forward",
        "causal": True,
        "batch": 1,
        "heads": 2,
        "kv_heads": 2,
        "n_q": length,
        "n_k": length,
        "head_dim": 8,
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
        "compiled": False,
        "inputs": "gaussian",
        "seed": 0,
    }
    identity |= {key: value for key, value in changes.items() if key in IDENTITY}
    return {
        **identity,
        "case_id": case_id(identity),
        "group_id": group_id(identity),
        "status": "ok",
        "machine": "f",
        "started_at": "2026-01-01T00:00:00+00:00",
        **changes,
    }
