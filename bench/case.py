"""A case: one point of a sweep, the unit of measuring."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..results.record import case_id, group_id

MODES = ("forward", "train")
DTYPES = ("float64", "float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Case:
    """A variant with its parameters, and everything that its figures depend on."""

    variant: str
    params: Mapping[str, Any] = field(hash=False)
    """All hyper-parameters, defaults included, so that a changed default is a different case."""
    mode: str
    causal: bool
    batch: int
    heads: int
    kv_heads: int
    n_q: int
    n_k: int
    head_dim: int
    dtype: str
    device: str
    threads: int
    inputs: str
    seed: int
    compiled: bool = False

    def identity(self) -> dict[str, Any]:
        """The fields of a record that say which case it is."""
        return {**dataclasses.asdict(self), "params": dict(self.params)}

    @property
    def case_id(self) -> str:
        return case_id(self.identity())

    @property
    def group_id(self) -> str:
        return group_id(self.identity())

    @property
    def spec(self) -> str:
        return f"{self.variant}({', '.join(f'{k}={v!r}' for k, v in self.params.items())})"

    @property
    def setting(self) -> str:
        """What the cases of a group share, in words."""
        kind = "causal" if self.causal else "non-causal"
        length = f"N {self.n_k}" if self.n_q == self.n_k else f"{self.n_q} queries, {self.n_k} keys"
        return f"{self.mode} {kind} {self.dtype} {self.device} {self.inputs}, {length}"

    def series(self) -> tuple[Any, ...]:
        """What stays the same while a variant's length grows."""
        rest = {k: v for k, v in self.identity().items() if k not in ("n_q", "n_k", "params")}
        return (*rest.values(), repr(sorted(self.params.items())))


def groups(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases whose figures may be divided by each other, together; shorter lengths first, so that they are had first."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.group_id, []).append(case)
    return sorted(found.values(), key=lambda group: (group[0].n_k, group[0].n_q))
