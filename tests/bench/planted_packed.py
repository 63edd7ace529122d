"""A plugin of variants that take packed sequences: one right, the others wrong in one thing each."""

from dataclasses import dataclass

import torch

from attnbench.variants.api import Complexity, Supports, register
from attnbench.variants.full.naive import Naive, SoftmaxAttention


def packed(name, **supports):
    return register(
        name,
        family="full",
        kind="exact",
        supports=Supports(varlen=True, **supports),
        complexity=Complexity(2, 2, "O(N²)"),
        paper="none",
        formula="one sequence after another",
    )


class Packs(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return Naive().forward(q, k, v, causal=causal, scale=scale)

    def forward_varlen(self, q, k, v, packing, *, causal, scale):
        ends_q, ends_k = packing.cu_seqlens_q.tolist(), packing.cu_seqlens_k.tolist()
        out = []
        for i in range(len(ends_q) - 1):
            rows, keys = slice(ends_q[i], ends_q[i + 1]), self.keys(ends_k[i], ends_k[i + 1])
            one = (x.transpose(0, 1)[None] for x in (q[rows], k[keys], v[keys]))
            out.append(self.one(*one, scale=scale)[0].transpose(0, 1))
        return torch.cat(out)

    def keys(self, start, end):
        return slice(start, end)

    def one(self, q, k, v, *, scale):
        return self.forward(q, k, v, causal=True, scale=scale)


@packed("packs")
@dataclass(frozen=True)
class PacksRightly(Packs):
    pass


@packed("leaks_between_sequences")
@dataclass(frozen=True)
class LeaksBetweenSequences(Packs):
    def keys(self, start, end):
        return slice(max(0, start - 1), end)  # the last key of the sequence before


@packed("aligns_top_left")
@dataclass(frozen=True)
class AlignsTopLeft(Packs):
    def one(self, q, k, v, *, scale):
        n = q.shape[2]
        return self.forward(q, k[:, :, :n], v[:, :, :n], causal=True, scale=scale)


@packed("writes_into_packed_keys")
@dataclass(frozen=True)
class WritesIntoPackedKeys(Packs):
    def forward_varlen(self, q, k, v, packing, *, causal, scale):
        out = super().forward_varlen(q, k, v, packing, causal=causal, scale=scale)
        k.mul_(1.5)
        return out


@packed("forgets_the_last_sequence")
@dataclass(frozen=True)
class ForgetsTheLastSequence(Packs):
    def forward_varlen(self, q, k, v, packing, *, causal, scale):
        out = super().forward_varlen(q, k, v, packing, causal=causal, scale=scale)
        return out[: packing.cu_seqlens_q[-2]]


@packed("packs_elsewhere")
@dataclass(frozen=True)
class PacksElsewhere(Packs):
    def refuses_varlen(self, case):
        return ["not on this machine"]
