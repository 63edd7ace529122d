"""What a task gives to a model: tokens in, the tokens that are due, and where they are counted. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

IGNORE = -100
"""As a target: nothing is due here. It is torch's own default for its cross-entropy."""

HELD_OUT_SEED = 20_240_229
"""Of validation and test sequences: the same ones for every variant, learning rate and seed, so that these compare."""

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Some sequences, all of one length."""

    inputs: Tokens
    """(B, N)."""
    targets: Tokens
    """(B, N): what is due after each input, or IGNORE."""
    counted: NDArray[np.bool_] | None = None
    """(B, N): which targets an evaluation counts; all that are due where None. Training learns from all of them."""
    distance: Tokens | None = None
    """(B, N): how many tokens back lies what a target asks for."""


def generator(part: Part, seed: int, index: int) -> np.random.Generator:
    """The randomness of one batch: a function of part, seed and index alone, so that a resume needs no state of it.

    Streams of different keys are independent by construction (numpy's SeedSequence); training uses its own seed, and
    the held-out parts HELD_OUT_SEED, each under a key that no other part has.
    """
    entropy = seed if part == "train" else HELD_OUT_SEED
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(PARTS.index(part), index)))


def distinct(rng: np.random.Generator, rows: int, low: int, high: int, count: int) -> Tokens:
    """(rows, count): different numbers from low to high - 1 in each row, in random order."""
    keys = rng.random((rows, high - low))
    drawn: Tokens = np.argsort(keys, axis=1)[:, :count].astype(np.int64) + low
    return drawn
