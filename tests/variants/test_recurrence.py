"""The definition of recurrences: spans of tokens, between which the gradient finds the state again."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.variants import recurrence
from attnbench.variants.api import make_extras

RECURRENCES = ("delta", "gated_delta", "gla", "kda", "retention", "ssd")
N = 11


def token_by_token(attn: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    """The step, called for one token after another, in one graph."""
    q, k, v = (tensors[name] for name in "qkv")
    lengths = {extra.name: extra.length_axis is not None for extra in attn.extras}
    state, outputs = attn.start(q, k, v), []
    for t in range(q.shape[2]):
        more = {name: tensors[name][:, :, t] if along else tensors[name] for name, along in lengths.items()}
        out, state = attn.step(state, q[:, :, t], k[:, :, t], v[:, :, t], scale=attn.default_scale(q, None), **more)
        outputs.append(out)
    return torch.stack(outputs, dim=2)


def drawn(attn: Any) -> dict[str, Tensor]:
    q, k, v = torch.randn(3, 1, 2, N, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return {"q": q, "k": k, "v": v, **make_extras(attn, q, k, v, seed=0)}


@pytest.mark.parametrize("segment", [1, 4, N])
@pytest.mark.parametrize("name", RECURRENCES)
def test_spans_change_neither_values_nor_gradients(name: str, segment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "SEGMENT", segment)
    attn = attnbench.get(name)
    leaves = {which: x.double().requires_grad_() for which, x in drawn(attn).items()}
    rows = torch.tensor([0, 3, 4, N - 2])
    outputs = attn.definition(**leaves, causal=True, rows=rows), token_by_token(attn, leaves)[:, :, rows]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-13)
    grads = [torch.autograd.grad(out, list(leaves.values()), torch.ones_like(out)) for out in outputs]
    for which, ours, plain in zip(leaves, *grads, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12, msg=lambda text, which=which: f"{which}: {text}")


class KeysAlone(recurrence.Recurrent):
    """A state that depends on keys alone beside one of keys and values; and an extra that all tokens share."""

    extras = (SimpleNamespace(name="share", length_axis=None),)  # type: ignore[assignment]

    def check(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
        """Anything goes."""

    def start(self, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
        return {"total": torch.zeros_like(k[:, :, 0]), "memory": torch.zeros_like(v[:, :, 0])}

    def step(
        self, state: Mapping[str, Tensor], q: Tensor, k: Tensor, v: Tensor, *, scale: float, **extras: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        after = {"total": state["total"] + k, "memory": extras["share"] * state["memory"] + k * v}
        return q * after["memory"] / (1 + after["total"].square()), after


@pytest.mark.parametrize("needed", [{"q"}, {"v"}, {"k"}, {"share"}, {"q", "k", "v", "share"}])
def test_what_needs_no_gradient_gets_none_and_costs_the_others_nothing(
    needed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrence, "SEGMENT", 4)
    attn = KeysAlone()
    tensors = {**drawn(attnbench.get("retention")), "share": torch.full((2, 1), 0.5, dtype=torch.float64)}
    leaves = {name: x.requires_grad_(name in needed) for name, x in tensors.items()}
    wanted = [leaves[name] for name in sorted(needed)]
    ours, plain = (
        torch.autograd.grad(form().square().sum(), wanted)
        for form in (
            functools.partial(attn.definition, **leaves, causal=True),
            functools.partial(token_by_token, attn, leaves),
        )
    )
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
