"""The base of tasks: a frozen model of a task's own parameters, which draws sequences and says what guessing gives."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from .batch import Batch, Part


class Task(BaseModel):
    """A task. Its fields are its own parameters; length and vocabulary belong to the setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ClassVar[str]
    about: ClassVar[str]
    source: ClassVar[str]
    metric: ClassVar[Literal["accuracy", "bits_per_byte"]] = "accuracy"
    defaults: ClassVar[dict[str, Any]] = {}
    """Of the setting, where a configuration says nothing."""

    def problem(self, seq_len: int, vocab: int) -> str | None:
        """Why there are no such sequences, in words; None where there are."""
        return None

    def chance(self, vocab: int) -> float | None:
        """The accuracy of the best guess that has not looked where it should."""
        raise NotImplementedError

    def draw(self, rng: np.random.Generator, count: int, seq_len: int, vocab: int, part: Part) -> Batch:
        """`count` sequences of a part."""
        raise NotImplementedError

    def params(self) -> dict[str, Any]:
        """The parameters as a record keeps them."""
        return self.model_dump(mode="json")
