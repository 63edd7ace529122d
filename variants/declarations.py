"""What a variant declares of itself: what it can do, what it costs, what else it takes in, what it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .errors import VariantError

FAMILIES = ("full", "sparse", "linear", "chunked")
KINDS = ("exact", "approximate", "own")
SPARE = 64
"""Tokens that a cache which is full gets room for, at least."""


@dataclass(frozen=True)
class Supports:
    """What a variant can do. The grid turns everything else into `unsupported` records with the reasons."""

    causal: bool = True
    noncausal: bool = True
    cross: bool = True
    """Nq may differ from Nk."""
    decode: bool = False
    """Has `prefill` and `decode`."""
    varlen: bool = False
    """Has `forward_varlen`: one call over packed sequences of unlike lengths, on machines that `refuses_varlen` lets
    pass. A loop over the sequences is none."""
    backward: bool = True
    dtypes: tuple[str, ...] = ("float64", "float32", "bfloat16", "float16")
    devices: tuple[str, ...] = ("cpu", "cuda")


@dataclass(frozen=True)
class Complexity:
    """How time and extra memory grow with N: the exponents that the method's paper claims, and the words for a card."""

    time: float
    memory: float
    text: str
    state: float | None = None
    """How the state of decoding grows: 1 for a cache of all tokens, 0 for a fixed size (log N counts as 0)."""


@dataclass(frozen=True)
class Extra:
    """An input beyond q, k, v: a gate, a write strength, an indexer vector.

    `axes` spells its shape: letters of the legend, e.g. ("B", "H", "N"), names of the variant's own whole-number
    parameters, or digits. A layer learns it from x, by a linear map to that shape and `activate`; an extra without a
    length axis becomes a parameter instead of a projection.
    """

    name: str
    axes: tuple[str, ...]
    about: str
    activate: Callable[[Tensor], Tensor]
    """Maps unbounded numbers of the extra's shape into its range, elementwise: `torch.sigmoid` for a write strength."""
    bias: float = 0.0
    """What is added before `activate`, in draws and where a layer starts."""
    extremes: tuple[float, ...] = ()
    """Values at the edges of the range that the method must survive: 0 and -50 for a logarithm of a decay."""
    draw: Callable[[torch.Generator, tuple[int, ...], Tensor, Tensor, Tensor], Tensor] | None = None
    """A realistic one, from a CPU generator, its shape, and q, k, v; `activate(bias + standard normal)` by default."""

    @property
    def length_axis(self) -> int | None:
        """The axis that runs along the sequence, if one does."""
        return next((i for i, axis in enumerate(self.axes) if axis in ("N", "Nq", "Nk")), None)


@dataclass(frozen=True)
class Identity:
    """What a variant becomes at some parameters: tested in float64 for every variant that declares one.

    `spec` and `equals` are specs in which {N} stands for the length, e.g. "sliding_window(window_size={N})" and
    "naive"; or `equals` is a function of q, k, v (H heads each), causal, scale and extras that computes the other side.
    """

    spec: str
    equals: str | Callable[..., Tensor]
    text: str = ""
    """The identity in words, where the two specs do not say it."""
    extras: Mapping[str, float | tuple[float, ...] | Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """Extras of `spec` set to a constant, to several along the last axis, or to what a function makes of the drawn one;
    the others are as drawn. The other side shares them all: a variant by name, a function as keywords."""
    prepare: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
    """Changes the drawn q, k, v of both sides first, e.g. to orthonormal keys."""
    causal: bool | None = None
    """Which side it holds on; None: both that the variant has."""
    tolerance: float = 1e-10
    """Largest absolute difference allowed, in float64 on standard-normal input."""


@dataclass(frozen=True)
class Budget:
    """How many vectors each query is held against, and the parameters that say so: for sweeps at matched budgets.

    Of a variant that keeps some keys, those are keys; of others, the landmarks or random features that stand for them.
    A query's products with them are what its approximation pays for.
    """

    unit: str
    """What is counted: keys, landmarks or features."""
    at: Callable[[int, bool, int], Mapping[str, int] | None]
    """Parameters at which a query has a budget, from the budget, whether causal, and N; None where no value has it.

    As near as they get, on average over the queries of a long text: what a query really keeps is measured.
    """


@dataclass
class Room:
    """The memory behind a cached tensor, with space for what is appended next."""

    whole: Tensor
    axis: int
    filled: int
    """Tokens written so far, by the latest of the states that share this memory."""


@dataclass(frozen=True)
class State:
    """What decoding needs of the past: named tensors, and how many tokens they have seen."""

    seen: int
    tensors: Mapping[str, Tensor]
    rooms: Mapping[str, Room] = field(default_factory=dict, repr=False, compare=False)
    """Of tensors that `append` has made."""

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def append(self, new: Mapping[str, Tensor], axis: int = -2) -> State:
        """The state after as many tokens more as `new` has along `axis`; tensors not named there stay as they are.

        As in a server's cache, new tokens are written behind the old ones, into memory kept free for them: what a step
        costs is the token, not a copy of the past. This state stays valid. Where two states grow from one, the second
        has a copy of its own; so has one whose gradients are needed. Raises VariantError for another shape, dtype or
        device than the past's.
        """
        tensors, rooms, count = dict(self.tensors), dict(self.rooms), 0
        for name, x in new.items():
            past, count = tensors[name], x.shape[axis]
            if _but(past, axis) != _but(x, axis):
                raise VariantError(
                    f"{name} of the new token has {_words(x)}, that of the past {_words(past)}: only their lengths may "
                    "differ"
                )
            if torch.is_grad_enabled() and (past.requires_grad or x.requires_grad):
                tensors[name] = torch.cat([past, x], dim=axis)
                rooms.pop(name, None)
                continue
            size = past.shape[axis] + count
            room = rooms.get(name)
            if room is None or room.filled != past.shape[axis] or room.whole.shape[axis] < size:
                shape = list(past.shape)
                shape[axis] = size + max(SPARE, size // 8)
                room = rooms[name] = Room(past.new_empty(shape), axis, size)
                room.whole.narrow(axis, 0, past.shape[axis]).copy_(past)
            room.whole.narrow(axis, size - count, count).copy_(x)
            room.filled = size
            tensors[name] = room.whole.narrow(axis, 0, size)
        return State(self.seen + count, tensors, rooms)

    def rewind(self) -> None:
        """Lets `append` write behind this state again. What has grown from it before is no longer valid."""
        for name, room in self.rooms.items():
            room.filled = self.tensors[name].shape[room.axis]


def _but(x: Tensor, axis: int) -> tuple[object, ...]:
    """What tensors must share to be joined along an axis."""
    lengths = list(x.shape)
    del lengths[axis]
    return (*lengths, x.dtype, x.device)


def _words(x: Tensor) -> str:
    return f"shape {tuple(x.shape)} and dtype {str(x.dtype).removeprefix('torch.')} on {x.device}"


class CaseLike(Protocol):
    """The part of a benchmark case that a variant may look at to say whether it can run."""

    @property
    def mode(self) -> str: ...
    @property
    def causal(self) -> bool: ...
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
    @property
    def device(self) -> str: ...


@dataclass(frozen=True)
class Call:
    """A call that is no case of a benchmark, a layer's or a model's, as a variant looks at cases."""

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
