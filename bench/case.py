"""A case: one point of a sweep, the unit of measuring."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..results.batch_spec import parse
from ..results.record import case_id, group_id

MODES = ("forward", "train", "decode")
DTYPES = ("float64", "float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda")
LEAST_PAST = 3
"""Tokens that a decode step ends: a prompt of one, a first step that finds its memory, and the one that is timed."""
SEEDS = 1 << 63
"""Seeds are below this."""


@dataclass(frozen=True)
class Case:
    """A variant with its parameters, and everything that its figures depend on."""

    variant: str
    params: Mapping[str, Any] = field(hash=False)
    """All hyper-parameters, defaults included, so that a changed default is a different case."""
    mode: str
    """`forward`, `train` (forward and backward), or `decode`: one token, the last of `n_k`, after all before it."""
    causal: bool
    batch: int
    heads: int
    kv_heads: int
    n_q: int
    n_k: int
    """Keys, that of a decoded token itself included."""
    head_dim: int
    dtype: str
    device: str
    threads: int
    inputs: str
    seed: int
    compiled: bool = False
    requests: str | None = None
    """A batch of unlike requests (see results/batch_spec.py), measured as one call. Then `batch` is 1, and `n_q` and
    `n_k` are the new tokens and all tokens of the whole batch, as where sequences are packed."""

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
        if self.requests:
            return f"{self.mode} {kind} {self.dtype} {self.device} {self.inputs}, batch {self.requests}"
        if self.mode == "decode":
            return f"{self.mode} {kind} {self.dtype} {self.device} {self.inputs}, the last of {self.n_k} tokens"
        length = f"N {self.n_k}" if self.n_q == self.n_k else f"{self.n_q} queries, {self.n_k} keys"
        return f"{self.mode} {kind} {self.dtype} {self.device} {self.inputs}, {length}"

    def series(self) -> tuple[Any, ...]:
        """What stays the same while a variant's length grows: as many queries as keys, or some number of queries."""
        rest = {k: v for k, v in self.identity().items() if k not in ("n_q", "n_k", "params")}
        queries = "square" if self.n_q == self.n_k and self.mode != "decode" else self.n_q
        return (*rest.values(), repr(sorted(self.params.items())), queries)

    def reasons_against(self) -> list[str]:
        """Why no variant can be measured so; [] where it depends on the variant."""
        if self.mode == "decode" and not self.causal:
            return ["decoding is causal: a new token sees those before it, and there are none after it"]
        if self.mode == "decode" and self.n_k < LEAST_PAST:
            return [f"a decode step is measured after a prompt and a first step: the least length is {LEAST_PAST}"]
        return []

    def parts(self) -> list[Case]:
        """A batch of unlike requests as uniform cases, one for those of like lengths: forward passes, and decode steps
        where a request has one new token after others. Each has a seed of its own."""
        return [
            dataclasses.replace(
                self,
                requests=None,
                mode="decode" if part.n_q == 1 and part.n_k >= LEAST_PAST else "forward",
                batch=part.count,
                n_q=part.n_q,
                n_k=part.n_k,
                seed=(self.seed + number) % SEEDS,
            )
            for number, part in enumerate(parse(self.requests or ""))
        ]


def groups(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases whose figures may be divided by each other, together; shorter lengths first, so that they are had first."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.group_id, []).append(case)
    return sorted(found.values(), key=lambda group: (group[0].n_k, group[0].n_q))
