"""The contract that every attention variant keeps.

A variant is a frozen dataclass whose fields are its hyper-parameters. It says *what* it computes, in `weights` (or,
where there are no weights, in `definition`), as plainly as its paper; and *how*, in `forward`, which is what the
harness times. Tests and the harness hold the second to the first.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from .declarations import Budget, CaseLike, Complexity, Extra, Identity, State, Supports
from .errors import VariantError
from .registry import get, names, register
from .varlen import Packing, problems

__all__ = [
    "Budget",
    "CaseLike",
    "Complexity",
    "Extra",
    "Identity",
    "State",
    "Supports",
    "Variant",
    "VariantError",
    "get",
    "make_extras",
    "names",
    "register",
]

DEFINITION_BLOCK = 1 << 23
"""Most entries of a weight matrix (over B, H, rows, Nk) that `definition` holds at a time: 64 MiB in float64."""


def positive(scale: float) -> float:
    """A scale as given. Raises VariantError unless it is positive and finite, as fused kernels need it to mask."""
    if not 0 < scale < math.inf:
        raise VariantError(f"scale must be a positive, finite number, not {scale}")
    return scale


def _one_token(decode: Callable[..., tuple[Tensor, State]]) -> Callable[..., tuple[Tensor, State]]:
    @functools.wraps(decode)
    def checked(self: Variant, q: Tensor, k: Tensor, v: Tensor, state: State, **options: Any) -> tuple[Tensor, State]:
        self.check_decode()
        lengths = {x.shape[2] for x in (q, k, v) if x.dim() == 4}
        if lengths != {1}:
            raise VariantError(
                f"{self.name}: decode takes one token at a time, not {sorted(lengths)}; prefill takes more"
            )
        if not isinstance(state, State):
            raise VariantError(f"{self.name}: decode needs the State that prefill gave, not {type(state).__name__}")
        for name, kept in state.tensors.items():
            if kept.shape[0] != q.shape[0] or kept.device != q.device:
                raise VariantError(
                    f"{self.name}: the state's {name} {tuple(kept.shape)} on {kept.device} is of another batch or "
                    f"device than q {tuple(q.shape)} on {q.device}"
                )
        try:
            return decode(self, q, k, v, state, **options)
        except KeyError as error:
            raise VariantError(f"{self.name}: the state has no {error}; it is another variant's") from None

    return checked


class Variant:
    """Base of all variants. Subclasses are frozen dataclasses decorated with `register`."""

    name: ClassVar[str]
    family: ClassVar[str]
    kind: ClassVar[str]
    supports: ClassVar[Supports]
    paper: ClassVar[str]
    formula: ClassVar[str]
    complexity: ClassVar[Complexity]
    reduces_to: ClassVar[str]
    extras: ClassVar[tuple[Extra, ...]] = ()
    tuning: ClassVar[tuple[str, ...]] = ()
    """Parameters that change speed and memory, never the result."""
    position_free: ClassVar[bool] = False
    """Without a causal mask, permuting keys and values (and their extras) together changes nothing."""
    identities: ClassVar[tuple[Identity, ...]] = ()
    choice_of_group: ClassVar[bool] = False
    """Query heads that share a key head choose together what they see: repeating key heads changes the result."""
    compiles: ClassVar[bool] = False
    """The first call compiles: its time is recorded apart and is no part of a sample."""
    counts_flops: ClassVar[bool] = True
    """torch's FLOP counter sees all that `forward` does. False where kernels hide their work from it."""
    budget: ClassVar[Budget | None] = None
    """Which parameters say how much of the keys an approximation looks at, where some do."""

    # -- what a subclass writes ---------------------------------------------------------------------------------

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, **extras: Tensor) -> Tensor:
        """The matrix A of `out = A @ v`, for the query positions `rows` only: (B, H, len(rows), Nk).

        The plain statement of the method in O(N²), computed in the dtype of q. k comes with H heads here, extras come
        whole. A method without such a matrix overrides `definition` instead.
        """
        raise TypeError(f"{type(self).__name__} must define `weights`, or `definition` where it has no weights")

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, **extras: Tensor) -> Tensor:
        """The fast form: (B, H, Nq, D), (B, Hkv, Nk, D), (B, Hkv, Nk, Dv) -> (B, H, Nq, Dv). Inputs are checked."""
        raise TypeError(f"{type(self).__name__} must define `forward`")

    def refuses(self, case: CaseLike) -> list[str]:
        """Reasons beyond `supports` why this cannot run here: a missing library, a shape that a kernel lacks."""
        return []

    def forward_varlen(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, *, causal: bool, scale: float
    ) -> Tensor:
        """The fast form over packed sequences: (Tq, H, D), (Tk, Hkv, D), (Tk, Hkv, Dv) -> (Tq, H, Dv).

        For `Supports(varlen=True)`. Causal aligns bottom-right in each sequence, none of which has more queries than
        keys then. Inputs are checked.
        """
        raise TypeError(f"{type(self).__name__} declares varlen and must define `forward_varlen`")

    def refuses_varlen(self, case: CaseLike) -> list[str]:
        """Reasons why `forward_varlen` cannot run where `forward` can."""
        return []

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        """How many (query, key) pairs the definition looks at, for `flops_needed`."""
        return causal_pairs(n_q, n_k) if causal else n_q * n_k

    def keep(self, state: State) -> State:
        """Drops from a decode state of past k and v what no later token will look at."""
        return state

    # -- what everyone calls ------------------------------------------------------------------------------------

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, scale: float | None = None, **extras: Tensor
    ) -> Tensor:
        """Attention of q (B, H, Nq, D) over k (B, Hkv, Nk, D) and v (B, Hkv, Nk, Dv): (B, H, Nq, Dv), as q's dtype.

        `scale` defaults to D ** -0.5. With Nq != Nk, causal aligns bottom-right: the last query sees every key. A
        row that may see nothing gives zeros.

        Raises VariantError for shapes, dtypes, modes or extras that do not fit.
        """
        self.check(q, k, v, causal=causal, extras=extras)
        with torch.autocast(q.device.type, enabled=False):  # the dtype is q's; what is summed has its own
            return self.forward(q, k, v, causal=causal, scale=self.default_scale(q, scale), **extras)

    def varlen(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """Attention within each of several packed sequences, in one call: see `varlen`. (Tq, H, Dv).

        Raises VariantError where there is no such form, or for shapes that do not fit.
        """
        if not self.supports.varlen:
            raise VariantError(f"{self.name} has no form for packed sequences; call it on each of them")
        for problem in problems(q, k, v, cu_seqlens_q, cu_seqlens_k, causal=causal):
            raise VariantError(f"{self.name}: {problem}")
        packing = Packing.of(cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist(), q.device)
        with torch.autocast(q.device.type, enabled=False):
            return self.forward_varlen(q, k, v, packing, causal=causal, scale=self.default_scale(q, scale))

    def definition(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = False,
        scale: float | None = None,
        rows: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        **extras: Tensor,
    ) -> Tensor:
        """What `__call__` is held to: `weights @ v` in `dtype`, for the query positions `rows` (all by default).

        Returns (B, H, len(rows), Dv) in `dtype`. Differentiable. Works block of rows by block of rows, so that a
        sample of rows can be had at lengths whose whole matrix would not fit.
        """
        self.check(q, k, v, causal=causal, extras=extras)
        scale = self.default_scale(q, scale)
        if rows is None:
            rows = torch.arange(q.shape[2], device=q.device)
        q, k, v = q.to(dtype), repeat_heads(k.to(dtype), q.shape[1]), repeat_heads(v.to(dtype), q.shape[1])
        extras = {name: x.to(dtype) for name, x in extras.items()}
        step = max(1, DEFINITION_BLOCK // max(1, q.shape[0] * q.shape[1] * k.shape[2]))
        blocks = [
            self.weights(q, k, causal=causal, scale=scale, rows=block, **extras) @ v for block in rows.split(step)
        ]
        return torch.cat(blocks, dim=2)

    def prefill(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """Causal attention over a prompt, and the state from which `decode` goes on: the keys and values kept.

        Where they are all kept, the state holds k and v themselves, not copies: do not write into them afterwards.
        """
        self.check_decode()
        out = self(q, k, v, causal=True, scale=scale, **extras)
        return out, self.keep(State(k.shape[2], {"k": k, "v": v}))

    @_one_token
    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """One token more: q (B, H, 1, D), k (B, Hkv, 1, D), v (B, Hkv, 1, Dv) -> out (B, H, 1, Dv), new state."""
        self.check_decode()
        state = self.keep(state.append({"k": k, "v": v}))
        return self.attend_state(q, state, scale=scale, **extras), state

    def attend_state(self, q: Tensor, state: State, *, scale: float | None = None, **extras: Tensor) -> Tensor:
        """The newest token's output from a state of kept keys and values, all of which it sees."""
        return self(q, state["k"], state["v"], causal=True, scale=scale, **extras)

    def reasons_against(self, case: CaseLike) -> list[str]:
        """[] where the case can run here, else why not, in words."""
        s = self.supports
        reasons = []
        if case.causal and not s.causal:
            reasons.append("has no causal form")
        if not case.causal and not s.noncausal:
            reasons.append("has a causal form only")
        if case.mode == "train" and not s.backward:
            reasons.append("has no backward pass")
        if case.mode == "decode" and not s.decode:
            reasons.append("has no decode form")
        if case.mode != "decode" and case.n_q != case.n_k and not s.cross:
            reasons.append(f"needs as many queries as keys, not {case.n_q} and {case.n_k}")
        if case.dtype not in s.dtypes:
            reasons.append(f"runs in {', '.join(s.dtypes)}, not {case.dtype}")
        if case.device.split(":")[0] not in s.devices:
            reasons.append(f"runs on {', '.join(s.devices)}, not on {case.device}")
        return reasons or self.refuses(case)

    def flops_needed(self, case: CaseLike) -> int:
        """Floating-point operations that the definition needs forward: 2 (D + Dv) for each visible pair and head."""
        return 4 * case.head_dim * case.batch * case.heads * self.visible_pairs(case.n_q, case.n_k, case.causal)

    def params(self) -> dict[str, Any]:
        """The hyper-parameters by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @property
    def spec(self) -> str:
        """The variant as the command line writes it, with the parameters that differ from their defaults."""
        changed = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    # -- checks -------------------------------------------------------------------------------------------------

    def check(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, extras: Mapping[str, Tensor]) -> None:
        """Raises VariantError with the first thing that is wrong with a call."""
        for problem in self._problems(q, k, v, causal, extras):
            raise VariantError(f"{self.name}: {problem}")

    def _problems(self, q: Tensor, k: Tensor, v: Tensor, causal: bool, extras: Mapping[str, Any]) -> Iterator[str]:
        for label, tensor in (("q", q), ("k", k), ("v", v)):
            if tensor.dim() != 4:
                yield f"{label} must be (batch, heads, seq_len, head_dim), not {tuple(tensor.shape)}"
        if not q.dtype == k.dtype == v.dtype or not q.dtype.is_floating_point:
            yield f"q, k and v must share one floating-point dtype, not {q.dtype}, {k.dtype} and {v.dtype}"
        if not q.device == k.device == v.device:
            yield f"q, k and v must be on one device, not {q.device}, {k.device} and {v.device}"
        if not q.shape[0] == k.shape[0] == v.shape[0]:
            yield f"q, k and v must have one batch size, not {q.shape[0]}, {k.shape[0]} and {v.shape[0]}"
        if k.shape[1:3] != v.shape[1:3]:
            yield f"k and v must have the same heads and length, not {tuple(k.shape[1:3])} and {tuple(v.shape[1:3])}"
        if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
            yield f"the key heads must divide the query heads, but {k.shape[1]} does not divide {q.shape[1]}"
        if q.shape[3] != k.shape[3]:
            yield f"q and k must have the same head dimension, not {q.shape[3]} and {k.shape[3]}"
        if 0 in q.shape or 0 in k.shape or 0 in v.shape:
            yield f"no dimension may be empty: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        if causal and not self.supports.causal:
            yield "has no causal form; call it with causal=False"
        if not causal and not self.supports.noncausal:
            yield "has a causal form only; call it with causal=True"
        if q.shape[2] != k.shape[2] and not self.supports.cross:
            yield f"needs as many queries as keys, not {q.shape[2]} and {k.shape[2]}"
        wanted = {extra.name for extra in self.extras}
        if wanted != set(extras):
            yield f"takes the extra inputs {sorted(wanted)}, not {sorted(extras)}; attnbench.make_extras draws them"
        for extra in self.extras:
            given, due = extras[extra.name], extra_shape(self, extra, q, k, v)
            if not isinstance(given, Tensor):
                yield f"{extra.name} must be a tensor, not {type(given).__name__}"
            if tuple(given.shape) != due:
                yield f"{extra.name} must be ({', '.join(extra.axes)}) = {due}, not {tuple(given.shape)}"
            if not given.dtype.is_floating_point or given.device != q.device:
                yield f"{extra.name} must be floating-point on {q.device}, not {given.dtype} on {given.device}"

    def check_decode(self) -> None:
        if not self.supports.decode:
            raise VariantError(f"{self.name} has no decode form")

    def __init_subclass__(cls) -> None:
        """Every `decode`, whoever wrote it, gets one token and a state that fits it."""
        super().__init_subclass__()
        if "decode" in cls.__dict__:
            cls.decode = _one_token(cls.__dict__["decode"])  # type: ignore[method-assign]

    @staticmethod
    def default_scale(q: Tensor, scale: float | None) -> float:
        """D ** -0.5 where none is given. Raises VariantError unless it is positive and finite."""
        return float(q.shape[-1] ** -0.5 if scale is None else positive(scale))

    def require(self, **at_least: int) -> None:
        """For `__post_init__`: each named field must be an integer of at least the given value."""
        for field, low in at_least.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise VariantError(f"{self.name}: {field} must be a whole number of at least {low}, not {value!r}")


def causal_pairs(n_q: int, n_k: int) -> int:
    """Pairs (i, j) with j <= i + (Nk - Nq): N(N+1)/2 when square."""
    first = n_k - n_q + 1  # keys that query 0 sees; may be negative
    skipped = max(0, min(n_q, 1 - first))  # queries that see nothing
    rows, first = n_q - skipped, first + skipped
    return rows * first + rows * (rows - 1) // 2


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """(B, Hkv, N, D) -> (B, H, N, D), each key head standing for the H / Hkv query heads that share it."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def extra_shape(attn: Variant, extra: Extra, q: Tensor, k: Tensor, v: Tensor) -> tuple[int, ...]:
    """The shape that an extra must have beside these q, k and v."""
    sizes = {
        "B": q.shape[0],
        "H": q.shape[1],
        "Hkv": k.shape[1],
        "N": k.shape[2],
        "Nq": q.shape[2],
        "Nk": k.shape[2],
        "D": q.shape[3],
        "Dv": v.shape[3],
    }
    unknown = [axis for axis in extra.axes if not (axis.isdigit() or axis in sizes or hasattr(attn, axis))]
    if unknown:
        raise VariantError(
            f"{attn.name}: the axis {unknown[0]!r} of {extra.name} is no letter of {', '.join(sizes)}, no digits "
            "and no parameter of the variant"
        )
    return tuple(
        int(axis) if axis.isdigit() else sizes[axis] if axis in sizes else int(getattr(attn, axis))
        for axis in extra.axes
    )


def make_extras(attn: Variant, q: Tensor, k: Tensor, v: Tensor, *, seed: int = 0) -> dict[str, Tensor]:
    """Realistic draws of the extra inputs that a variant wants beside q, k, v, as q's dtype: {} for most.

    Drawn on the CPU, so that every device and dtype sees the same numbers but for rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for extra in attn.extras:
        shape = extra_shape(attn, extra, q, k, v)
        with torch.device("cpu"):
            if extra.draw is not None:
                x = extra.draw(generator, shape, q, k, v)
            else:
                x = extra.activate(extra.bias + torch.randn(shape, generator=generator, dtype=torch.float64))
        drawn[extra.name] = x.to(q.device, q.dtype)
    return drawn
