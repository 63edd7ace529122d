"""Heads, key/value heads and head dimension of well-known models, from `model_shapes.toml`."""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from dataclasses import dataclass

from ..variants.errors import suggest
from .errors import ConfigError


@dataclass(frozen=True)
class ModelShape:
    """The attention of one model, and where its numbers were read."""

    name: str
    heads: int
    kv_heads: int
    head_dim: int
    source: str


@functools.cache
def model_shapes() -> dict[str, ModelShape]:
    """All models, by name."""
    text = importlib.resources.files(__package__).joinpath("model_shapes.toml").read_text("utf-8")
    return {name: ModelShape(name, **numbers) for name, numbers in tomllib.loads(text).items()}


def model_shape(name: str) -> ModelShape:
    """Raises ConfigError for a model that is not in the file."""
    found = model_shapes().get(name.lower())
    if found is None:
        near = suggest(name.lower(), list(model_shapes()))
        raise ConfigError(f"unknown shape {name!r}; {near} `--shape list` shows all with their sources")
    return found
