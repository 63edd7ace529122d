"""The shape of what is drawn: what a case says of its q, k and v."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """q (B, H, Nq, D), k and v (B, Hkv, Nk, D); `heads` is a multiple of `kv_heads`."""

    batch: int
    heads: int
    kv_heads: int
    n_q: int
    n_k: int
    head_dim: int
    causal: bool
    """The mask under which the statistics are to hold."""
    seed: int = 0

    @property
    def query_positions(self) -> Tensor:
        """(Nq,) on the keys' axis, at whose end the queries stand; negative for queries that see nothing."""
        return torch.arange(self.n_q) + (self.n_k - self.n_q)
