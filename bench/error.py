"""Instrument: the implementation's error against its own definition, with the very inputs, dtype and mode of the case.

The definition costs O(N²), so at long lengths it is evaluated for a sample of query rows. That loses nothing but rows:
the compared outputs are exact, and so are the gradients, since the upstream gradient given to both sides is zero
outside the sampled rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..variants.api import Variant

CHECK_ENTRIES = 1 << 22
"""Most entries of the definition's weight matrix (over B, H, rows, Nk) that a check evaluates."""

EDGE_ROWS = 16
"""Rows at each end of the sequence that are always among the checked: edges are where masks and chunks go wrong."""

FLOOR_EPS = {torch.float32: 16, torch.bfloat16: 4, torch.float16: 4}
"""The floor of what is allowed, in rounding steps of the dtype at the size of the largest value. Sums over keys are
taken in float32 whatever the dtype, each kernel in an order of its own: in float32 that shows, in narrower ones the one
rounding at the end does."""

FLOAT64_FLOOR = 1e-10
"""For float64 there is no finer definition to take the measure from; this share of the largest value is allowed."""


@dataclass(frozen=True)
class Check:
    """How far the fast form is from the definition, at its worst tensor."""

    error: float
    """Largest absolute difference over the definition's largest absolute value."""
    allowed: float
    """The floor, where the error is within it; else twice the error of the definition evaluated in the case's dtype,
    plus the floor. The definition is not evaluated again where that could change nothing."""
    of: str
    rows: int
    first_call_s: float
    """Time of the fast form's very first call, its gradients included: a variant that compiles does so there."""
    problem: str | None = None
    """What is wrong in words, where it is no matter of size: NaN, a wrong shape, inputs written to."""

    @property
    def correct(self) -> bool:
        return self.problem is None and self.error <= self.allowed


def sample_rows(n_q: int, n_k: int, heads: int, *, seed: int, entries: int = CHECK_ENTRIES) -> Tensor:
    """Query positions to check, ascending: all of them where that is affordable, else both ends and a random rest."""
    affordable = max(2 * EDGE_ROWS, entries // (heads * n_k))
    if n_q <= affordable:
        return torch.arange(n_q)
    edges = torch.cat([torch.arange(EDGE_ROWS), torch.arange(n_q - EDGE_ROWS, n_q)])
    inner = torch.randperm(n_q - 2 * EDGE_ROWS, generator=torch.Generator().manual_seed(seed)) + EDGE_ROWS
    return torch.cat([edges, inner[: affordable - 2 * EDGE_ROWS]]).sort().values


def allowance(baseline_error: float, dtype: torch.dtype, largest: float) -> float:
    """Twice the error that the definition itself makes in this dtype, plus a floor of a few rounding steps."""
    floor = FLOAT64_FLOOR if dtype == torch.float64 else FLOOR_EPS[dtype] * torch.finfo(dtype).eps
    return 2 * baseline_error + floor * largest


def compare(
    got: Tensor, wanted: Tensor, baseline: Tensor | None, *, dtype: torch.dtype, largest: float | None = None
) -> tuple[float, float]:
    """(error, allowed) of one tensor, both over `largest`: the largest value wanted, where it is not given.

    `baseline`: the definition in the dtype; None allows the floor alone.
    """
    largest = wanted.abs().max().item() if largest is None else largest
    unit = largest or 1.0
    error = (got.double() - wanted).abs().max().item()
    own = 0.0 if baseline is None else (baseline.double() - wanted).abs().max().item()
    return error / unit, allowance(own, dtype, largest) / unit


def check(
    attn: Variant,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    train: bool,
    rows: Tensor,
    seed: int,
    extras: Mapping[str, Tensor] | None = None,
    fast: Callable[[Mapping[str, Tensor]], Tensor] | None = None,
    wanted: dict[str, Tensor] | None = None,
) -> tuple[Check, Tensor]:
    """Holds the fast form to the definition; returns the verdict and the fast form's output in the checked rows.

    The fast form is the variant called on q, k, v and extras; or `fast`, which takes these by name, gives the output of
    the `rows` alone, (B, H, len(rows), Dv), and may raise NotDueError. With `train`, the gradients of q, k, v and every
    extra are held to the definition's too. `wanted` keeps what the definition gives in float64 for another check of
    the same numbers in another dtype: an empty dict is filled, a full one taken.
    """
    extras = dict(extras or {})
    inputs = {"q": q, "k": k, "v": v, **extras}
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    rows = rows.to(q.device)
    first_call_s = [0.0]

    def attend(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
        """Output in the checked rows, and gradients: of the fast form (dtype None), or the definition in a dtype."""
        leaves = {n: (t if dtype is None else t.to(dtype)).detach().requires_grad_(train) for n, t in tensors.items()}
        more: dict[str, Any] = {name: leaves[name] for name in extras}
        start = time.perf_counter()
        with torch.set_grad_enabled(train):
            if dtype is not None:
                out = attn.definition(
                    leaves["q"], leaves["k"], leaves["v"], causal=causal, rows=rows, dtype=dtype, **more
                )
            else:
                if fast is not None:
                    out = fast(leaves)
                else:
                    out = attn(leaves["q"], leaves["k"], leaves["v"], causal=causal, **more)
                first_call_s[:] = [time.perf_counter() - start]
                due = (*q.shape[:2], q.shape[2] if fast is None else len(rows), v.shape[3])
                if out.shape != due or out.dtype != q.dtype:
                    raise NotDueError(f"gave {tuple(out.shape)} {out.dtype} where {due} {q.dtype} is due")
                if not torch.isfinite(out).all():
                    raise NotDueError("gave values that are not finite")
                out = out[:, :, rows] if fast is None else out
        found = {"out": out.detach()}
        if train:
            upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(out)
            gradients = torch.autograd.grad(out, list(leaves.values()), upstream, allow_unused=True)
            if dtype is None:
                first_call_s[:] = [time.perf_counter() - start]
            for name, leaf, gradient in zip(leaves, leaves.values(), gradients, strict=True):
                found[f"d{name}"] = torch.zeros_like(leaf) if gradient is None else gradient
        return found

    wanted = {} if wanted is None else wanted
    if not wanted:
        wanted.update(attend(before, torch.float64))
    nan = float("nan")
    try:
        got = attend(inputs, None)
    except NotDueError as error:
        return Check(nan, nan, "out", len(rows), first_call_s[0], str(error)), torch.empty(0)
    written = [name for name, tensor in inputs.items() if not torch.equal(tensor, before[name])]
    if written:
        problem = f"writes into its input {written[0]}"
        return Check(nan, nan, written[0], len(rows), first_call_s[0], problem), got["out"]
    # A gradient may vanish where another does not (one key alone: dq is zero, and rounding is not), so the gradients of
    # q, k, v and the extras are measured by the largest of them all.
    largest = {name: tensor.abs().max().item() for name, tensor in wanted.items()}
    steepest = max((value for name, value in largest.items() if name != "out"), default=0.0)

    def judged(baseline: Mapping[str, Tensor]) -> tuple[str, float, float]:
        """The worst tensor, its error and what is allowed."""
        verdicts = {
            name: compare(
                got[name],
                wanted[name],
                baseline.get(name),
                dtype=q.dtype,
                largest=largest[name] if name == "out" else steepest,
            )
            for name in wanted
        }
        name = max(verdicts, key=lambda name: _excess(*verdicts[name]))
        return name, *verdicts[name]

    worst, size, allowed = judged({})
    if size > allowed:
        worst, size, allowed = judged(attend(before, q.dtype))
    if math.isnan(size):
        problem = f"gave values of {worst} that are not finite"
        return Check(size, allowed, worst, len(rows), first_call_s[0], problem), got["out"]
    return Check(size, allowed, worst, len(rows), first_call_s[0]), got["out"]


def worst(checks: Sequence[Check]) -> Check:
    """The one verdict of several parts: one that is wrong, or else the least exact, over the rows of all."""
    found = max(checks, key=lambda check: (check.problem is not None, not check.correct, check.error))
    return replace(found, rows=sum(check.rows for check in checks))


class NotDueError(Exception):
    """What the fast form gives or does is not of the kind that is due."""


def _excess(error: float, allowed: float) -> float:
    return float("inf") if math.isnan(error) else error / allowed if allowed else error


def as_fields(check: Check) -> dict[str, Any]:
    """The record's fields. A figure that is not finite is null there; `problem` says what happened."""
    return {
        "error": check.error if math.isfinite(check.error) else None,
        "error_allowed": check.allowed if math.isfinite(check.allowed) else None,
        "error_of": check.of,
        "checked_rows": check.rows,
    }
