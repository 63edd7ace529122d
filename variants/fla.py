"""Recurrences by the Triton kernels of flash-linear-attention: what their adapters share.

Yang & Zhang 2024, https://github.com/fla-org/flash-linear-attention (package flash-linear-attention, or fla-core for
the kernels alone), read at version 0.6.0. Its conventions: layout (B, N, H, D); gates are logarithms, <= 0, of what is
kept; `scale` multiplies q once, and None means D ** -0.5; a state is (B, H, D, Dv) in float32, zeros before the first
token. No recurrence of it has grouped keys, so heads are repeated here. A whole sequence goes through a kernel that
works in chunks of 64 tokens, one more token through a fused recurrent one.

Checked without a GPU (`make test-kernels`): each adapter's output, gradients, state and next token, in Triton's
interpreter on a CPU, in float32 (`delta_fla`: float16), against the definition. Not tried on a GPU by this project's
tests: the compiled kernels, and bfloat16, which the interpreter has not. In float32 the compiled kernels multiply in
TF32 unless Triton is told otherwise (TRITON_F32_DEFAULT=ieee), which can be too coarse for the error rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from .api import CaseLike, State, VariantError, repeat_heads
from .blocks import wide
from .external import Adapter, load
from .wy import unit

Result = tuple[Tensor, Any]
"""What a kernel returns: output (B, N, H, Dv), and the state after the last token where it was asked for."""


class Fla(Adapter):
    """Base of recurrences of flash-linear-attention. A subclass writes `chunk` and `recurrent`."""

    modules = ("fla",)
    install = "pip install flash-linear-attention"
    ops: ClassVar[str]
    """Its module of the kernels, e.g. "fla.ops.gla"."""
    widest: ClassVar[int | None] = None
    """The largest head dimension that the kernel takes."""

    def chunk(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, keep: bool, **extras: Tensor) -> Result:
        """A whole sequence: (B, N, H, ·), extras (B, N, H, ·). `keep` asks for the state."""
        raise TypeError(f"{type(self).__name__} must define `chunk`")

    def recurrent(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, state: Any, **extras: Tensor) -> Result:
        """One more token: (B, 1, H, ·), from a state; returns the next one, and does not write into the old."""
        raise TypeError(f"{type(self).__name__} must define `recurrent`")

    def home(self) -> str:
        return self.ops

    def kernel(self, name: str) -> Callable[..., Any]:
        """A function of `ops`. Raises VariantError where it cannot be had."""
        found, problem = load(self.ops)
        if found is None:
            raise VariantError(f"{self.name}: {problem}")
        function: Callable[..., Any] | None = getattr(found, name, None)
        if function is None:
            raise VariantError(f"{self.name}: {self.ops} has no {name}; attnbench was written for version 0.6.0 of fla")
        return function

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, **extras: Tensor) -> Tensor:
        return self._whole(q, k, v, scale, extras, keep=False)[0]

    def prefill(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """As `forward`, and the kernel's own state after the last token."""
        self.check(q, k, v, causal=True, extras=extras)
        out, state = self._whole(q, k, v, self.default_scale(q, scale), extras, keep=True)
        return out, State(k.shape[2], self.pack(state))

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """One call of the fused recurrent kernel."""
        self.check(q, k, v, causal=True, extras=extras)
        self.library(q)
        tensors, more = self._layout(q, k, v, extras)
        out, after = self.recurrent(*tensors, scale=self.default_scale(q, scale), state=self.unpack(state), **more)
        return out.transpose(1, 2).to(q.dtype), State(state.seen + 1, self.pack(after))

    def pack(self, state: Any) -> dict[str, Tensor]:
        """The library's state by names."""
        return {"memory": state}

    def unpack(self, state: State) -> Any:
        """The way back."""
        return state["memory"]

    def limits(self, case: CaseLike) -> list[str]:
        problem = self.too_wide(case.head_dim)
        return [problem] if problem else []

    def too_wide(self, d: int) -> str:
        return f"fla's kernel takes head dimensions up to {self.widest}, not {d}" if d > (self.widest or d) else ""

    def _whole(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, extras: dict[str, Tensor], *, keep: bool
    ) -> tuple[Tensor, Any]:
        self.library(q)
        if problem := self.too_wide(q.shape[3]):
            raise VariantError(f"{self.name}: {problem}")
        tensors, more = self._layout(q, k, v, extras)
        out, state = self.chunk(*tensors, scale=scale, keep=keep, **more)
        return out.transpose(1, 2).to(q.dtype), state

    @staticmethod
    def _layout(
        q: Tensor, k: Tensor, v: Tensor, extras: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Tensor]]:
        """(B, H, N, ·) -> (B, N, H, ·), with heads repeated."""
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        return (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)), {
            name: x.transpose(1, 2) for name, x in extras.items()
        }


class FlaDeltaRule(Fla):
    """Base of those that erase before they write: norms are the kernel's own where queries have one too."""

    normalize_queries: bool
    widest = 256

    def norms(self, k: Tensor) -> tuple[Tensor, bool]:
        """The keys as the kernel is to be given them, and whether it is to divide queries and keys by their norms."""
        if self.normalize_queries:
            return k, True
        return unit(k.to(wide(k.dtype))).to(k.dtype), False
