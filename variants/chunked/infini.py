"""Infini-attention: causal attention inside a segment, and a compressive memory of all segments before it.

Munkhdalai et al. 2024, "Leave No Context Behind: Efficient Infinite Context Transformers with Infini-attention",
arXiv:2404.07143, section 3.1 of its second version: the memory is linear attention's, sigma = elu + 1 (equations 7 to
9, the last one the delta rule), read by the same queries as the softmax, and mixed with it by a gate per head,
sigmoid(beta) there, `gates` here (equation 10). The memory that a segment reads was written before it: over the first
segment it is empty and gives zeros, and the gate weighs those like anything else. Segments of 2048 tokens are those of
the paper's language models.

Only the local attention has a scale: in the memory it would cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..api import CaseLike, Complexity, Extra, Identity, State, Supports, Variant, VariantError, register
from ..blocks import attend, wide
from ..definitions import masked_softmax, positions
from ..linear.linear_elu import phi
from ..linear_sum import divide
from .block_local import BlockLocal

UPDATES = ("linear", "delta")


def memory_alone(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, gates: Tensor) -> Tensor:
    """Segments of one token: linear attention over the tokens before one's own, beside the token's own value."""
    before = (phi(q) @ phi(k).mT).tril(-1)
    read = divide(before, before.sum(dim=-1, keepdim=True)) @ v
    gate = gates.view(-1, 1, 1)
    return gate * read + (1 - gate) * v


@register(
    "infini",
    family="chunked",
    kind="own",
    supports=Supports(noncausal=False, cross=False, decode=True),
    complexity=Complexity(
        time=1, memory=1, text="O(N (C + d) d) time, O(N d) memory; decoding keeps C tokens and d² numbers", state=0
    ),
    paper='Munkhdalai et al. 2024, "Leave No Context Behind", arXiv:2404.07143v2, eq. 7 to 10',
    formula="g sigma(q) M / sigma(q) z + (1 - g) softmax attention in the segment; M, z of all segments before",
    reduces_to="block_local where gates = 0",
    extras=(
        Extra(
            "gates",
            ("H",),
            "share of the memory in the output, per head: sigmoid(beta) of the paper, 0 shut, 1 memory alone",
            activate=torch.sigmoid,
            extremes=(0.0, 1.0),
        ),
    ),
    identities=(
        Identity("infini(segment_size=16)", "block_local(chunk_size=16)", extras={"gates": 0.0}),
        Identity("infini(segment_size=16, update='delta')", "block_local(chunk_size=16)", extras={"gates": 0.0}),
        Identity("infini(segment_size={N})", "naive", extras={"gates": 0.0}),
        Identity("infini(segment_size=1)", memory_alone, text="segments of one token: linear attention of the past"),
    ),
)
@dataclass(frozen=True)
class Infini(Variant):
    """block_local's fused call, and the memory before every segment from sums over whole segments."""

    segment_size: int = 2048
    """C: tokens of a segment."""
    update: str = "linear"
    """What a segment writes: linear (its values) or delta (its values less what the memory gives for its keys)."""

    def __post_init__(self) -> None:
        self.require(segment_size=1)
        if self.update not in UPDATES:
            raise VariantError(f"infini: update must be one of {', '.join(UPDATES)}, not {self.update!r}")

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, **extras: Tensor) -> Tensor:
        i, j = positions(q, k, rows)
        past = j <= i
        i, j = i // self.segment_size, j // self.segment_size
        local = masked_softmax(q, k, scale=scale, rows=rows, allowed=past & (i == j))
        if self.update == "linear":
            scores = (phi(q[:, :, rows]) @ phi(k).mT).masked_fill(j >= i, 0.0)  # (B, H, R, Nk)
            memory = divide(scores, scores.sum(dim=-1, keepdim=True))
        else:
            memory = self._delta_weights(phi(q[:, :, rows]), phi(k), i)
        gates = extras["gates"].view(-1, 1, 1)
        return gates * memory + (1 - gates) * local

    def _delta_weights(self, fq: Tensor, fk: Tensor, own: Tensor) -> Tensor:
        """What rows of the segments `own` (R, 1) read, by equation 5, of values that are unit vectors: (…, R, Nk)."""
        values = torch.eye(fk.shape[2], dtype=fk.dtype, device=fk.device)
        memory = fk.new_zeros(*fk.shape[:2], fk.shape[3], fk.shape[2])  # (B, H, D, Nk)
        total = fk.new_zeros(*fk.shape[:2], fk.shape[3], 1)
        read = torch.zeros_like(fq @ memory)
        for s, (keys, new) in enumerate(
            zip(fk.split(self.segment_size, 2), values.split(self.segment_size), strict=True)
        ):
            read = torch.where(own == s, divide(fq @ memory, fq @ total), read)
            memory = memory + keys.mT @ (new - divide(keys @ memory, keys @ total))
            total = total + keys.sum(dim=2).unsqueeze(-1)
        return read

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, **extras: Tensor) -> Tensor:
        return self._run(q, k, v, scale, extras["gates"])[0]

    def prefill(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """As `forward`, and k, v of the newest segment, and the memory before it: (B, Hkv, D, Dv), (B, Hkv, D, 1)."""
        self.check(q, k, v, causal=True, extras=extras)
        out, memory, total = self._run(q, k, v, self.default_scale(q, scale), extras["gates"])
        own = (k.shape[2] - 1) % self.segment_size + 1
        tensors = {"k": k[:, :, -own:], "v": v[:, :, -own:], "memory": memory, "total": total}
        return out, State(k.shape[2], {name: x.clone() for name, x in tensors.items()})

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, state: State, *, scale: float | None = None, **extras: Tensor
    ) -> tuple[Tensor, State]:
        """One token more; the first of a segment has the segment before it written to the memory first."""
        self.check(q, k, v, causal=True, extras=extras)
        keys, values, memory, total = (state[name] for name in ("k", "v", "memory", "total"))
        if state.seen % self.segment_size == 0:
            dtype = memory.dtype
            memory, total = self._write(phi(keys.to(dtype)), values.to(dtype), memory, total)
            keys, values = k.clone(), v.clone()
        else:
            keys, values = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        local = attend(q, keys, values, scale=self.default_scale(q, scale))
        fq = phi(q.to(memory.dtype)).unflatten(1, (k.shape[1], -1)).flatten(2, 3)  # (B, Hkv, G, D)
        read = divide(fq @ memory, fq @ total).unflatten(2, (-1, 1)).flatten(1, 2)
        after = {"k": keys, "v": values, "memory": memory, "total": total}
        return self._mixed(local, read, extras["gates"]), State(state.seen + 1, after)

    def _run(self, q: Tensor, k: Tensor, v: Tensor, scale: float, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The output, and the memory and its normaliser before the last segment."""
        n, c = q.shape[2], self.segment_size
        local = BlockLocal(chunk_size=c).forward(q, k, v, causal=True, scale=scale)
        dtype, segments = wide(q.dtype), -(-n // c)
        written = (segments - 1) * c  # tokens that some segment reads
        keys = phi(k[:, :, :written].to(dtype)).unflatten(2, (-1, c)) if written else None
        zero = torch.zeros(*k.shape[:2], k.shape[3], v.shape[3], dtype=dtype, device=k.device)
        if keys is None:
            return self._mixed(local, torch.zeros_like(local), gates), zero, zero[..., :1]
        values = v[:, :, :written].to(dtype).unflatten(2, (-1, c))  # (B, Hkv, n - 1, C, Dv)
        total = keys.sum(dim=3).unsqueeze(-1).cumsum(dim=2)  # (B, Hkv, n - 1, D, 1)
        if self.update == "linear":
            memory = (keys.mT @ values).cumsum(dim=2)  # (B, Hkv, n - 1, D, Dv)
        else:
            now, steps = zero, []
            before = torch.cat([torch.zeros_like(total[:, :, :1]), total[:, :, :-1]], dim=2)
            for s in range(segments - 1):
                now, _ = self._write(keys[:, :, s], values[:, :, s], now, before[:, :, s])
                steps.append(now)
            memory = torch.stack(steps, dim=2)
        # whole segments of queries read what was written before each; the last may be short
        short = segments * c - n
        fq = phi(q[:, :, c:].to(dtype)).unflatten(1, (k.shape[1], -1))  # (B, Hkv, G, N - C, D)
        fq = F.pad(fq, (0, 0, 0, short)).unflatten(3, (-1, c)).transpose(2, 3).flatten(3, 4)  # (B, Hkv, n - 1, G·C, D)
        read = divide(fq @ memory, fq @ total).unflatten(3, (-1, c)).transpose(2, 3).flatten(3, 4)
        read = F.pad(read[:, :, :, : n - c].flatten(1, 2), (0, 0, c, 0))  # the first segment reads zeros
        return self._mixed(local, read, gates), memory[:, :, -1], total[:, :, -1]

    def _write(self, fk: Tensor, v: Tensor, memory: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Equations 4 and 5: what a segment (B, Hkv, C, ·) makes of the memory and its normaliser."""
        if self.update == "delta":
            v = v - divide(fk @ memory, fk @ total)
        return memory + fk.mT @ v, total + fk.sum(dim=2).unsqueeze(-1)

    @staticmethod
    def _mixed(local: Tensor, read: Tensor, gates: Tensor) -> Tensor:
        """Equation 6, summed wide: (B, H, N, Dv) as the dtype of `local`."""
        dtype = wide(local.dtype)
        g = gates.to(dtype).view(-1, 1, 1)
        return (g * read.to(dtype) + (1 - g) * local.to(dtype)).to(local.dtype)

    def flops_needed(self, case: CaseLike) -> int:
        """Local attention; and each key of a finished segment is written, and each later query reads, D (Dv + 1)."""
        c, n, d = self.segment_size, case.n_k, case.head_dim
        local = 4 * d * case.batch * case.heads * BlockLocal(chunk_size=c).visible_pairs(case.n_q, n, True)
        written = (n - 1) // c * c
        write = 2 * d * d * (1 if self.update == "linear" else 2) * case.batch * case.kv_heads * written
        return local + write + 2 * d * (d + 1) * case.batch * case.heads * max(0, min(case.n_q, n - c))
