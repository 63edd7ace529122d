"""Statements that several definitions share: which positions are where, and softmax over a mask."""

from __future__ import annotations

import torch
from torch import Tensor


def positions(q: Tensor, k: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Positions i of the queries `rows`, (R, 1), and j of all keys, (1, Nk), counted on one axis.

    Where Nq != Nk the axis is the keys' and the queries stand at its end (bottom-right): the last query is at the last
    key.
    """
    n_q, n_k = q.shape[2], k.shape[2]
    i = rows[:, None] + (n_k - n_q)
    j = torch.arange(n_k, device=q.device)[None, :]
    return i, j


def masked_softmax(q: Tensor, k: Tensor, *, scale: float, rows: Tensor, allowed: Tensor | None) -> Tensor:
    """softmax over the allowed keys of scale · q_i·k_j, for the query positions `rows`: (B, H, R, Nk).

    `allowed` is a boolean mask that broadcasts to (B, H, R, Nk), or None for all. A row that may see nothing is zeros.
    """
    scores = scale * q[:, :, rows] @ k.mT  # (B, H, R, Nk)
    if allowed is None:
        return scores.softmax(dim=-1)
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    # softmax of a row of -inf is NaN: such a row sees nothing and gives zeros
    return weights.masked_fill(~allowed.any(dim=-1, keepdim=True), 0.0)
