"""A training, put away as data and taken up again: one safetensors file, its numbers as JSON in the header.

It is replaced as a whole, so that a kill at any moment leaves the last one. Never pickle.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

MODEL, OPTIMISER, RANDOM = "model.", "optimiser.", "random"


def save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """`progress` is plain data."""
    tensors = {MODEL + name: x.detach() for name, x in model.state_dict().items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"{OPTIMISER}{index}.{name}": x for name, x in slots.items()}
    tensors[RANDOM] = torch.get_rng_state()
    draft = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(exist_ok=True)
    save_file({name: x.contiguous() for name, x in tensors.items()}, draft, metadata={"progress": json.dumps(progress)})
    os.replace(draft, path)


def load(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Puts a training back where it was, and returns its progress; None where there is no checkpoint of it.

    One that cannot be read is no checkpoint: the training begins anew, which costs time and nothing else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            progress: dict[str, Any] = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for key, x in tensors.items():
        if key.startswith(OPTIMISER):
            index, _, name = key.removeprefix(OPTIMISER).partition(".")
            slots.setdefault(int(index), {})[name] = x
    model.load_state_dict({k.removeprefix(MODEL): x for k, x in tensors.items() if k.startswith(MODEL)})
    optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})
    torch.set_rng_state(tensors[RANDOM])
    return progress
