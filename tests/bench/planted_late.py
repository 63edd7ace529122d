"""A plugin of variants that are right at their first calls, and then write into what they are given."""

import itertools
from dataclasses import dataclass

import torch

from attnbench.variants.api import Complexity, Supports, register
from attnbench.variants.full.naive import Naive, SoftmaxAttention

CHECKED = 4
"""Calls of a process that do no harm: more than any check makes here, and far fewer than are timed."""
CALLS = itertools.count(1)


def late(name, **supports):
    return register(
        name,
        family="full",
        kind="exact",
        supports=Supports(**supports),
        complexity=Complexity(2, 2, "O(N²)", state=1),
        paper="none",
        formula="right at first",
    )


def spoil(x):
    if next(CALLS) > CHECKED:
        x.data[..., -1, :].mul_(0.5)


@late("writes_into_v_later", decode=True)
@dataclass(frozen=True)
class WritesIntoVLater(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        out = Naive().forward(q, k, v, causal=causal, scale=scale)
        spoil(v)
        return out


@late("writes_into_its_state_later", decode=True)
@dataclass(frozen=True)
class WritesIntoItsStateLater(Naive):
    def decode(self, q, k, v, state, **options):
        found = super().decode(q, k, v, state, **options)
        spoil(state.tensors["k"])
        return found


@late("writes_into_packed_keys_later", varlen=True)
@dataclass(frozen=True)
class WritesIntoPackedKeysLater(WritesIntoVLater):
    def forward_varlen(self, q, k, v, packing, *, causal, scale):
        ends = packing.cu_seqlens_q.tolist()
        outs = []
        for start, end in itertools.pairwise(ends):
            one = (x[start:end].transpose(0, 1)[None] for x in (q, k, v))
            outs.append(Naive().forward(*one, causal=causal, scale=scale)[0].transpose(0, 1))
        spoil(k)
        return torch.cat(outs)
