"""What a case cannot do without: the bytes that its definition has to read and write."""

from __future__ import annotations

from typing import Protocol

from .record import Record

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Of one number, by dtype."""


class Shape(Protocol):
    """What a case and its record both say of its size."""

    @property
    def mode(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def n_q(self) -> int: ...
    @property
    def n_k(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def dtype(self) -> str: ...


def moved_bytes(case: Shape, flops_needed: int) -> int:
    """One pass over inputs and outputs, in bytes; over their gradients too, when training.

    A decode step reads of its state one number for each multiply-add, which the query heads of a group share. Raises
    KeyError for a dtype that is not in BYTES.
    """
    if case.mode == "decode":
        token = case.batch * case.head_dim * (2 * case.heads + 2 * case.kv_heads)
        return (token + flops_needed * case.kv_heads // (2 * case.heads)) * BYTES[case.dtype]
    return (2 if case.mode == "train" else 1) * held_bytes(case)


def held_bytes(case: Shape) -> int:
    """Of queries, keys, values and output. Raises KeyError for a dtype that is not in BYTES."""
    numbers = 2 * case.batch * case.head_dim * (case.heads * case.n_q + case.kv_heads * case.n_k)
    return numbers * BYTES[case.dtype]


def moved_by(record: Record) -> int | None:
    """The same of a measured case; None where its operations, or the size of its dtype, are unknown."""
    if record.bytes_needed is not None:
        return record.bytes_needed
    if record.flops_needed is None or record.dtype not in BYTES:
        return None
    return moved_bytes(record, record.flops_needed)
