"""One decode step: the last of N tokens, from the state that those before it left behind.

What a step includes: the public `decode` of the contract, with its checks of shapes, and the new state that it returns.
A variant that keeps all keys and values writes the new ones behind them, into memory kept free, as a server's cache
does; a state of fixed size is written anew.

Lengths that are multiples of a block are those where a step ends one: it sees the block whole, and pays for what a
variant makes of a block when it ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .error import NotDueError

if TYPE_CHECKING:
    from ..variants.api import State, Variant


class Step:
    """A decode step that can be repeated: every call starts from the same state.

    `tensors` holds q (B, H, N, D), k and v (B, Hkv, N, ·) and extras, N at least 3: the token before the last is
    decoded as well, so that a cache has found its memory before the step that is timed.
    """

    def __init__(self, attn: Variant, tensors: Mapping[str, Tensor]) -> None:
        n = tensors["k"].shape[2]
        # What decoding keeps is made of keys, values and their extras. Where queries may be fewer than keys, the
        # prompt's last one is enough: all N of them would cost `naive` N² memory for outputs that nobody reads.
        asking = slice(n - 3 if attn.supports.cross else 0, n - 2)
        prompt = _tokens(attn, tensors, asking, slice(0, n - 2))
        self.attn = attn
        self.prefill_s, self.state = _prefill(attn, prompt)
        self.compile_s = 0.0
        """Time by which the prompt's first pass was longer than its second, where the variant compiles."""
        if attn.compiles:
            self.compile_s = max(0.0, self.prefill_s - _prefill(attn, prompt)[0])
        before, last = slice(n - 2, n - 1), slice(n - 1, n)
        with torch.no_grad():
            start = time.perf_counter()
            _, self.state = attn.decode(**_tokens(attn, tensors, before, before), state=self.state)
            self.first_s = time.perf_counter() - start
        self.inputs = _tokens(attn, tensors, last, last)

    def __call__(self) -> tuple[Tensor, State]:
        """Output (B, H, 1, Dv) and the state after N tokens."""
        self.state.rewind()
        with torch.no_grad():
            return self.attn.decode(**self.inputs, state=self.state)

    def given(self) -> dict[str, Tensor]:
        """What each call is given, by name: the token's own q, k, v and extras, and the state."""
        return {**self.inputs, **{f"state ({name})": x for name, x in self.state.tensors.items()}}


class Decoder:
    """A variant's decode form as `error.check` takes it: inputs of all N tokens in, the last one's output out."""

    def __init__(self, attn: Variant) -> None:
        self.attn = attn
        self.step: Step | None = None
        """The latest step, to be timed once it has been found correct."""
        self.first_call_s = 0.0

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(B, H, 1, Dv). Raises NotDueError for a step that changes its state, or gives one that saw other tokens."""
        step = self.step = Step(self.attn, tensors)
        seen, kept = step.state.seen, {name: x.clone() for name, x in step.state.tensors.items()}
        start = time.perf_counter()
        out, after = step()
        self.first_call_s = step.first_s + time.perf_counter() - start
        # a state that grew, or was written to, would make every later call a step of another length
        now = step.state.tensors
        changed = [name for name in {*kept, *now} if name not in kept or name not in now or not _same(kept, now, name)]
        if changed:
            raise NotDueError(f"its decode writes into the state it was given ({sorted(changed)[0]})")
        if after.seen != seen + 1:
            raise NotDueError(f"its state says that it saw {after.seen} tokens after {seen + 1}")
        return out


def _prefill(attn: Variant, prompt: dict[str, Any]) -> tuple[float, State]:
    """Seconds, and the state after a prompt."""
    start = time.perf_counter()
    with torch.no_grad():
        _, state = attn.prefill(**prompt)
    return time.perf_counter() - start, state


def _tokens(attn: Variant, tensors: Mapping[str, Tensor], queries: slice, keys: slice) -> dict[str, Any]:
    """q, k, v and extras of some tokens, in memory of their own: a cache is no view of a longer one."""
    axes = {e.name: (e.length_axis, queries if "Nq" in e.axes else keys) for e in attn.extras}
    axes |= {"q": (2, queries), "k": (2, keys), "v": (2, keys)}
    return {
        name: x if axis is None else x.narrow(axis, part.start, part.stop - part.start).clone()
        for name, x in tensors.items()
        for axis, part in (axes[name],)
    }


def _same(kept: Mapping[str, Tensor], now: Mapping[str, Tensor], name: str) -> bool:
    """Whether no number has changed; a value that is not a number is the same as itself."""
    x, y = kept[name], now[name]
    return x.shape == y.shape and bool(((x == y) | (x.isnan() & y.isnan())).all())
