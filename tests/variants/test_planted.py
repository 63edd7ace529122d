"""The battery itself, tested: each of these variants has one bug, and one that is named must catch it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from attnbench.bench.contract import growth
from attnbench.bench.contract.battery import battery
from attnbench.bench.contract.shapes import Defect, Unsupported
from attnbench.variants.api import Complexity, State, Supports, Variant
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


BUGS = {
    MaskWrongByOne: "forward",
    MissingScale: "forward",
    SeesTheFuture: "causality",
    SeesTheBatch: "batch",
    WritesIntoInput: "untouched",
    WrongGradient: "gradients",
    SharesHeadsWrongly: "grouped_heads",
    AlignsTopLeft: "cross lengths",
    NanWhereNothingIsSeen: "blind_rows",
    ForgetsTooMuch: "decode",
    ReadsMemoryNotStrides: "strided",
    Overflows: "hostile",
    SumsInBfloat16: "forward",
    ClaimsToBeLinear: "memory_growth",
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


def test_the_control_passes() -> None:
    assert caught_by(Sound()) == set()


@pytest.mark.parametrize(("bug", "check"), BUGS.items(), ids=[bug.__name__ for bug in BUGS])
def test_is_caught(bug: type[Sound], check: str) -> None:
    assert caught_by(bug(), only=check) == {check}
