"""The battery itself, tested: each of these variants has one bug, and one that is named must catch it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from attnbench.bench.contract import growth
from attnbench.bench.contract.battery import battery
from attnbench.bench.contract.shapes import Defect, Unsupported
from attnbench.variants.api import Complexity, Extra, Identity, State, Supports, Variant
from attnbench.variants.definitions import masked_softmax, positions


@dataclass(frozen=True)
class Sound(Variant):
    """A correct window in the plainest form, as the control: what is planted below differs from it in one thing."""

    name = "sound"
    family = "sparse"
    kind = "approximate"
    supports = Supports(decode=True)
    complexity = Complexity(time=2, memory=2, text="", state=0)
    paper = formula = reduces_to = ""
    extras = ()

    window_size: int = 16

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        return self.softmax(q, k, causal=causal, scale=scale, rows=rows, window=self.window_size)

    @staticmethod
    def softmax(q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, window: int) -> Tensor:
        i, j = positions(q, k, rows)
        return masked_softmax(
            q, k, scale=scale, rows=rows, allowed=(i - j < window) & (j - i < (1 if causal else window))
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return self.mix(q, k, v, causal=causal, scale=scale, window=self.window_size)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, window: int) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        rows = torch.arange(q.shape[2])
        return self.softmax(q, k, causal=causal, scale=scale, rows=rows, window=window) @ v

    def keep(self, state: State) -> State:
        return State(state.seen, {name: x[:, :, -self.window_size :] for name, x in state.tensors.items()})


class MaskWrongByOne(Sound):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return self.mix(q, k, v, causal=causal, scale=scale, window=self.window_size + 1)


class MissingScale(Sound):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return self.mix(q, k, v, causal=causal, scale=1.0, window=self.window_size)


class SeesTheFuture(Sound):
    """In definition and fast form alike, so that comparing the two finds nothing."""

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        return super().weights(q, k * (1 + 1e-3 * k.mean(dim=2, keepdim=True)), causal=causal, scale=scale, rows=rows)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return super().forward(q, k * (1 + 1e-3 * k.mean(dim=2, keepdim=True)), v, causal=causal, scale=scale)


class SeesTheBatch(Sound):
    """In definition and fast form alike."""

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor) -> Tensor:
        return super().weights(q, k, causal=causal, scale=scale / (1 + k.norm()), rows=rows)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        return super().forward(q, k, v, causal=causal, scale=scale / (1 + k.norm() * groups**0.5))


class WritesIntoInput(Sound):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        out = super().forward(q, k, v, causal=causal, scale=scale)
        with torch.no_grad():
            q.detach().mul_(scale)
        return out


class WrongGradient(Sound):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return super().forward(q, k.detach(), v, causal=causal, scale=scale)


class SharesHeadsWrongly(Sound):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat(1, groups, 1, 1), v.repeat(1, groups, 1, 1)
        return super().forward(q, k, v, causal=causal, scale=scale)


class AlignsTopLeft(Sound):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        n = min(q.shape[2], k.shape[2])
        if not causal or n == q.shape[2] == k.shape[2]:
            return super().forward(q, k, v, causal=causal, scale=scale)
        out = super().forward(q[:, :, :n], k[:, :, :n], v[:, :, :n], causal=True, scale=scale)
        return torch.cat([out, out[:, :, -1:].expand(-1, -1, q.shape[2] - n, -1)], dim=2)


class NanWhereNothingIsSeen(Sound):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        out = super().forward(q, k, v, causal=causal, scale=scale)
        blind = max(0, q.shape[2] - k.shape[2]) if causal else 0
        return torch.cat([out[:, :, :blind] / 0, out[:, :, blind:]], dim=2)


class ForgetsTooMuch(Sound):
    def keep(self, state: State) -> State:
        return State(state.seen, {name: x[:, :, 1 - self.window_size :] for name, x in state.tensors.items()})


class ReadsMemoryNotStrides(Sound):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        k = k.as_strided(k.shape, torch.empty(k.shape, device="meta").stride())
        return super().forward(q, k, v, causal=causal, scale=scale)


class Overflows(Sound):
    """exp without its maximum taken off."""

    @staticmethod
    def softmax(q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, window: int) -> Tensor:
        i, j = positions(q, k, rows)
        allowed = (i - j < window) & (j - i < (1 if causal else window))
        terms = (scale * q[:, :, rows] @ k.mT).exp() * allowed
        return terms / terms.sum(dim=-1, keepdim=True).clamp_min(1e-30)


class SumsInBfloat16(Sound):
    """Rounds what it sums, token by token."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        weights = self.softmax(
            q, k.repeat_interleave(q.shape[1] // k.shape[1], dim=1), causal=causal, scale=scale,
            rows=torch.arange(q.shape[2]), window=self.window_size,
        )  # fmt: skip
        v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.bfloat16)
        for j in range(v.shape[2]):
            out = out + (weights[..., j, None] * v[:, :, None, j]).bfloat16()
        return out.to(q.dtype)


class ClaimsToBeLinear(Sound):
    complexity = Complexity(time=1, memory=1, text="")


class WorksMoreThanSaid(Sound):
    """Says that it needs the work of its window, and looks at every pair."""

    complexity = Complexity(time=1, memory=2, text="", state=0)

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        return n_k * self.window_size


class CountsOneByOne(Sound):
    """Right, but a loop: at the length where exponents are compared it would not end."""

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        return sum(min(i + 1, n_k) for i in range(n_q))


class DeclaresAnotherExponent(Sound):
    complexity = Complexity(time=1.5, memory=2, text="", state=0)


class ChangesWithItsBlocks(Sound):
    """What is said to change speed alone changes the window."""

    tuning = ("window_size",)


class CountsOnPositions(Sound):
    position_free = True


class IsNotWhatItSays(Sound):
    identities = (Identity("sliding_window(window_size=16)", "sliding_window(window_size=17)"),)


class KeepsEverything(Sound):
    def keep(self, state: State) -> State:
        return state


class KeepsThePromptAlive(Sound):
    """A few tokens, as a view of all."""

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None
    ) -> tuple[Tensor, State]:
        raise AssertionError("not needed here")

    def keep(self, state: State) -> State:
        return State(state.seen, {name: x.clone()[:, :, -self.window_size :] for name, x in state.tensors.items()})


@dataclass(frozen=True)
class Gated(Sound):
    """As sound, with an extra input: each value is faded by a gate of its key."""

    extras = (Extra("gates", ("B", "H", "N"), "", torch.sigmoid, extremes=(0.0, 1.0)),)

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, gates: Tensor) -> Tensor:
        return super().weights(q, k, causal=causal, scale=scale, rows=rows) * gates[:, :, None]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, gates: Tensor) -> Tensor:
        v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1) * self.fade(gates).unsqueeze(-1)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        return super().forward(q, k, v, causal=causal, scale=scale)

    def fade(self, gates: Tensor) -> Tensor:
        return gates

    supports = Supports(cross=False)


class NoGradientOfItsGate(Gated):
    def fade(self, gates: Tensor) -> Tensor:
        return gates.detach()


class OverflowsAtAnEdge(Gated):
    """Right for all gates but 0."""

    def fade(self, gates: Tensor) -> Tensor:
        return gates.log().exp() + 0 * gates.log()


class WrongAtAnEdge(Gated):
    """Finite, and right for all gates but 0."""

    def fade(self, gates: Tensor) -> Tensor:
        return gates.masked_fill(gates == 0, 0.01)


class GateOfTheFuture(Gated):
    """In definition and fast form alike."""

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, gates: Tensor) -> Tensor:
        return super().weights(q, k, causal=causal, scale=scale, rows=rows, gates=self.fade(gates))

    def fade(self, gates: Tensor) -> Tensor:
        return gates * (1 + 1e-3 * gates.mean(dim=-1, keepdim=True))


BUGS = {
    MaskWrongByOne: "forward in float64",
    MissingScale: "forward in float64",
    SeesTheFuture: "causality",
    SeesTheBatch: "batch",
    WritesIntoInput: "untouched",
    WrongGradient: "gradients in float64",
    SharesHeadsWrongly: "grouped heads",
    AlignsTopLeft: "cross lengths",
    NanWhereNothingIsSeen: "blind rows",
    ForgetsTooMuch: "decode",
    ReadsMemoryNotStrides: "strided",
    Overflows: "hostile",
    SumsInBfloat16: "forward in float32",
    ClaimsToBeLinear: "memory growth",
    WorksMoreThanSaid: "work growth",
    CountsOneByOne: "declared time",
    DeclaresAnotherExponent: "declared time",
    ChangesWithItsBlocks: "tuning",
    CountsOnPositions: "permutation",
    IsNotWhatItSays: "identity: sliding_window(window_size=16) is sliding_window(window_size=17)",
    KeepsEverything: "state growth",
    KeepsThePromptAlive: "state growth",
    NoGradientOfItsGate: "gradients in float64",
    OverflowsAtAnEdge: "hostile",
    WrongAtAnEdge: "extremes",
    GateOfTheFuture: "causality",
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """These hold every score in memory, so what grows is seen at short lengths."""
    monkeypatch.setattr(growth, "GROWTH_LENGTHS", dict.fromkeys((1.0, 2.0), (512, 1024, 2048)))


def caught_by(attn: Variant, only: str = "") -> set[str]:
    """Labels of the checks that find a defect, without the shapes."""
    found = set()
    for check in battery(attn):
        label = check.name
        if label in found or (only and label != only):
            continue
        try:
            check.run()
        except Unsupported:
            continue
        except Defect:
            found.add(label)
    return found


@pytest.mark.parametrize("control", [Sound, Gated])
def test_the_controls_pass(control: type[Sound]) -> None:
    assert caught_by(control()) == set()


@pytest.mark.parametrize(("bug", "check"), BUGS.items(), ids=[bug.__name__ for bug in BUGS])
def test_is_caught(bug: type[Sound], check: str) -> None:
    assert caught_by(bug(), only=check) == {check}
