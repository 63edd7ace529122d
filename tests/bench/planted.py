"""A plugin of variants that are wrong, one way each: the harness must publish no time for any of them."""

import os
import sys
import time
from dataclasses import dataclass

import torch

from attnbench.variants.api import Complexity, Supports, register
from attnbench.variants.full.naive import SoftmaxAttention


def planted(name: str):
    return register(
        name,
        family="full",
        kind="exact",
        supports=Supports(),
        complexity=Complexity(2, 2, "O(N²)"),
        paper="none",
        formula="wrong on purpose",
    )


def attend(q, k, v, scale, hidden):
    scores = (q * scale) @ k.mT
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v


def future(q, k, shift=1):
    return torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(k.shape[2] - q.shape[2] + shift)


@planted("mask_wrong_by_one")
@dataclass(frozen=True)
class MaskWrongByOne(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        hidden = future(q, k)
        hidden[1:, 0] = True  # one key too few
        return attend(q, k, v, scale, hidden)


@planted("missing_scale")
@dataclass(frozen=True)
class MissingScale(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v, 1.0, future(q, k))


@planted("leaks_the_future")
@dataclass(frozen=True)
class LeaksTheFuture(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v, scale, future(q, k, shift=2))  # sees the next key


@planted("wrong_gradient")
@dataclass(frozen=True)
class WrongGradient(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k.detach() + 0.9 * (k - k.detach()), v, scale, future(q, k))


@planted("forgets_a_gradient")
@dataclass(frozen=True)
class ForgetsAGradient(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v.detach(), scale, future(q, k))


@planted("writes_into_v")
@dataclass(frozen=True)
class WritesIntoV(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        out = attend(q, k, v, scale, future(q, k))
        v.data.mul_(0)
        return out


@planted("gives_nan")
@dataclass(frozen=True)
class GivesNan(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        out = attend(q, k, v, scale, future(q, k))
        return torch.where(torch.arange(out.shape[2])[:, None] == out.shape[2] // 2, float("nan"), out)


@planted("wrong_dtype")
@dataclass(frozen=True)
class WrongDtype(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v, scale, future(q, k)).double()


@planted("wrong_shape")
@dataclass(frozen=True)
class WrongShape(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v, scale, future(q, k))[:, :, 1:]


@planted("mask_wrong_by_one_in_many")
@dataclass(frozen=True)
class MaskWrongByOneInMany(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        hidden = future(q, k)
        hidden[q.shape[2] // 2 :, 0] = True  # one key too few, where each weighs little
        return attend(q, k, v, scale, hidden)


# faults that are no wrong result


@planted("ignores_q_and_k")
@dataclass(frozen=True)
class IgnoresQAndK(SoftmaxAttention):
    def weights(self, q, k, *, causal, scale, rows):
        return torch.eye(q.shape[2], dtype=q.dtype)[rows].expand(*q.shape[:2], -1, -1)

    def forward(self, q, k, v, *, causal, scale):
        return v.clone()


@planted("raises")
@dataclass(frozen=True)
class Raises(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        raise RuntimeError("the kernel said no")


@planted("exits")
@dataclass(frozen=True)
class Exits(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        print("these are my last words", file=sys.stderr)
        os._exit(7)


@planted("aborts")
@dataclass(frozen=True)
class Aborts(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        os.abort()


@planted("hangs")
@dataclass(frozen=True)
class Hangs(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        while True:
            time.sleep(1)


@planted("eats_memory")
@dataclass(frozen=True)
class EatsMemory(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return torch.empty(1 << 44)


@planted("prints_megabytes")
@dataclass(frozen=True)
class PrintsMegabytes(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        print("x" * (4 << 20))
        return attend(q, k, v, scale, future(q, k))
