"""Recurrences over tokens, S_t = f(S_{t-1}, k_t, v_t), o_t = g(S_t, q_t), whose state has a fixed size.

A method writes its step, as plainly as its paper, and its chunked form, which is matrix products. From the two come
the definition, the fast form, and the state of decoding. Always causal, as many queries as keys; heads in groups are
repeated, since gates belong to query heads, and so does the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .api import CaseLike, State, Variant, repeat_heads
from .blocks import wide

SEGMENT = 128
"""Tokens between two states that the definition keeps for its backward pass; what lies between is computed again."""


class Recurrent(Variant):
    """Base of recurrences. A subclass has a parameter `chunk_size` and writes `step` and `chunks`."""

    chunk_size: int

    def start(self, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
        """The state before the first token, in the dtype of q: by default `memory` (B, H, D, Dv), zeros."""
        return {"memory": q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3])}

    def step(
        self, state: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor, *, scale: float, **extras: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One token, as the paper writes it: q, k (B, H, D), v (B, H, Dv), extras without N -> (B, H, Dv), new state.

        Does not write into the state it is given.
        """
        raise TypeError(f"{type(self).__name__} must define `step`")

    def chunks(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, **extras: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The same for whole sequences, from the state of `start`, which must be zeros.

        q, k (B, H, n, C, D), v (B, H, n, C, Dv) and extras (B, H, n, C, ·), in float32 or float64, to the output
        (B, H, n, C, Dv) and the state after the last token. Zeros fill the first chunk from its front: to a state of
        zeros they add nothing.
        """
        raise TypeError(f"{type(self).__name__} must define `chunks`")

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
        """What `__call__` is held to: `step`, token by token, in `dtype`: (B, H, len(rows), Dv)."""
        self.check(q, k, v, causal=causal, extras=extras)
        scale = self.default_scale(q, scale)
        q, k, v = q.to(dtype), repeat_heads(k.to(dtype), q.shape[1]), repeat_heads(v.to(dtype), q.shape[1])
        extras = {name: x.to(dtype) for name, x in extras.items()}
        length = q.shape[2] if rows is None else int(rows.max()) + 1

        # `split` and `unbind`, since the gradient of an index is a tensor of the whole length, once for every token
        lengthy = [extra.name for extra in self.extras if extra.length_axis is not None]
        fixed = [name for name in extras if name not in lengthy]
        along = [q, k, v, *(extras[name] for name in lengthy)]
        spans = zip(*(x[:, :, :length].split(SEGMENT, dim=2) for x in along), strict=True)
        state = self.start(q, k, v)
        names = tuple(state)

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            span, rest = tensors[: len(along)], tensors[len(along) :]
            always = dict(zip(fixed, rest, strict=False))
            now = dict(zip(names, rest[len(fixed) :], strict=True))
            outputs = []
            for x, y, z, *gates in zip(*(x.unbind(2) for x in span), strict=True):
                more = dict(zip(lengthy, gates, strict=True))
                out, now = self.step(now, x, y, z, scale=scale, **more, **always)
                outputs.append(out)
            return torch.stack(outputs, dim=2), *(now[name] for name in names)

        parts = []
        for span in spans:
            given = (*span, *(extras[name] for name in fixed), *(state[name] for name in names))
            out, *after = _Span.apply(run, *given)  # type: ignore[no-untyped-call]
            state = dict(zip(names, after, strict=True))
            parts.append(out)
        whole = torch.cat(parts, dim=2)
        return whole if rows is None else whole[:, :, rows]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, **extras: Tensor) -> Tensor:
        return self._run(q, k, v, scale, extras)[0]

    def prefill(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """As `forward`, and the state after the last token."""
        self.check(q, k, v, causal=True, extras=extras)
        out, state = self._run(q, k, v, self.default_scale(q, scale), extras)
        # a copy of its own: a view would keep the states of all chunks alive
        return out, State(k.shape[2], {name: x.clone() for name, x in state.items()})

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """One `step` in the state's dtype."""
        self.check(q, k, v, causal=True, extras=extras)
        x, y, z = (repeat_heads(t, q.shape[1]).to(wide(q.dtype)).squeeze(2) for t in (q, k, v))
        more = {e.name: extras[e.name].to(x.dtype) for e in self.extras}
        more = {e.name: more[e.name].squeeze(2) if e.length_axis is not None else more[e.name] for e in self.extras}
        out, after = self.step(state.tensors, x, y, z, scale=self.default_scale(q, scale), **more)
        return out.unsqueeze(2).to(q.dtype), State(state.seen + 1, after)

    def flops_needed(self, case: CaseLike) -> int:
        """The recurrence's products: each token adds k vᵀ to the state, and reads q S from it."""
        return 4 * case.head_dim**2 * case.batch * case.heads * case.n_k

    def _run(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, extras: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        n = q.shape[2]
        c = min(self.chunk_size, n)
        x, y, z = (split(repeat_heads(t, q.shape[1]).to(wide(q.dtype)), c) for t in (q, k, v))
        more = {e.name: extras[e.name].to(x.dtype) for e in self.extras}
        more = {e.name: split(more[e.name], c) if e.length_axis is not None else more[e.name] for e in self.extras}
        out, state = self.chunks(x, y, z, scale=scale, **more)
        return out.flatten(2, 3)[:, :, -n:].to(q.dtype), state


class _Span(torch.autograd.Function):
    """Some steps, of which only the tensors before the first are kept: the gradient makes those between again.

    What torch.utils.checkpoint does, without its call from C++ into Python for every tensor of every step: forward and
    backward of `delta` over 4096 tokens take less than half of the time so.
    """

    @staticmethod
    def forward(ctx: Any, run: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run
        ctx.save_for_backward(*tensors)
        return run(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        tensors = [x.detach().requires_grad_(need) for x, need in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad():
            outputs = ctx.run(*tensors)
        wanted = [x for x in tensors if x.requires_grad]
        # a state may depend on keys alone, and these may need no gradient
        due = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
        found = iter(torch.autograd.grad([out for out, _ in due], wanted, [grad for _, grad in due], allow_unused=True))
        return None, *(next(found) if need else None for need in needed)


def fading(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, gamma: float = 1.0, **extras: Tensor
) -> Tensor:
    """sum over j <= i of scale gamma^(i-j) q_i·k_j v_j, in O(N²): what recurrences come to where only time erases.

    With gamma = 1, linear attention without feature map and normaliser. The other side of identities; ignores extras.
    """
    i = torch.arange(q.shape[2], dtype=q.dtype, device=q.device)
    return (scale * (q @ k.mT) * gamma ** (i[:, None] - i).clamp_min(0)).tril() @ v


def split(x: Tensor, chunk_size: int) -> Tensor:
    """(B, H, N, ·) -> (B, H, n, C, ·), with zeros before the first token where C does not divide N."""
    short = -x.shape[2] % chunk_size
    if short:
        x = F.pad(x, (0, 0) * (x.dim() - 3) + (short, 0))
    chunks: Tensor = x.unflatten(2, (-1, chunk_size))
    return chunks
