"""The one model that every variant is trained in: blocks of norm, short convolution, attention and, if asked, an MLP.

Pre-norm with residuals, tied embeddings, no dropout. With one seed all variants start from the same weights, but for
what makes a variant's own gates and write strengths from x, which `MultiHeadAttention` learns.

The short causal convolution stands in every block for every variant. Recall needs a token joined with the one before
it, and most recurrences of today bring such a convolution of their own; without it a comparison would mostly tell
which variant has one. Arora et al. give their attention layers the same (Based, arXiv:2402.18668).

There are no positions by default: convolution and causal mask give order, and nothing ends at a length. Where a task
needs to be told places, all variants get the same learned embeddings of absolute positions.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...variants.api import Variant
from ...variants.layer import MultiHeadAttention
from .config import Setting

STD = 0.02
"""Of the embeddings at the start, as in GPT-2."""


class Backbone(nn.Module):
    """Tokens (B, N) to logits. `variant` is the attention of every block."""

    def __init__(self, variant: Variant, setting: Setting, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(setting.vocab, setting.d_model)
        nn.init.normal_(self.embed.weight, std=STD)
        self.positions: nn.Parameter | None = None
        if setting.positions == "learned":
            self.positions = nn.Parameter(STD * torch.randn(setting.seq_len, setting.d_model))
        blocks = []
        for layer in range(setting.layers):
            torch.manual_seed(seed + layer + 1)  # how much a variant's extras have drawn must not reach the next block
            blocks.append(Block(variant, setting))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(setting.d_model)

    def forward(self, tokens: Tensor, due: Tensor | None = None) -> Tensor:
        """Logits (B, N, vocab); with `due`, a mask (B, N), those of its places alone, (places, vocab)."""
        x = self.embed(tokens)
        if self.positions is not None:
            x = x + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        if due is not None:
            x = x[due]
        return F.linear(self.norm(x), self.embed.weight)

    def parameter_counts(self) -> tuple[int, int]:
        """Trained numbers, and those of them that make the variant's extras."""
        extras = (parameter for block in self.blocks for parameter in cast(Block, block).attention.extras.parameters())
        return sum(x.numel() for x in self.parameters()), sum(x.numel() for x in extras)


class Block(nn.Module):
    """x + attention(convolution(norm(x))), then x + MLP(norm(x)) where there is one."""

    def __init__(self, variant: Variant, setting: Setting) -> None:
        super().__init__()
        d = setting.d_model
        self.norm = nn.LayerNorm(d)
        self.conv = ShortConvolution(d, setting.conv_size) if setting.conv_size else nn.Identity()
        self.mlp: nn.Sequential | None = None
        if setting.mlp_ratio:
            hidden = setting.mlp_ratio * d
            self.mlp = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, d))
        self.attention = MultiHeadAttention(variant, d, setting.heads, causal=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d_model) -> the same."""
        x = x + self.attention(self.conv(self.norm(x)))
        return x if self.mlp is None else x + self.mlp(x)


class ShortConvolution(nn.Module):
    """x plus a causal convolution of each channel with itself, (B, N, d) -> (B, N, d).

    Written as a sum of shifted copies: torch's grouped convolution takes several times as long at these sizes.
    """

    def __init__(self, d: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter((2 * torch.rand(size, d) - 1) * size**-0.5)  # as torch draws a Conv1d's

    def forward(self, x: Tensor) -> Tensor:
        out = x + self.weight[0] * x
        for back in range(1, min(len(self.weight), x.shape[1])):
            out = out + F.pad(self.weight[back] * x[:, :-back], (0, 0, back, 0))
        return out


def state_bytes(variant: Variant, setting: Setting, length: int) -> int | None:
    """What decoding keeps of one sequence, summed over layers; None for a variant without a decode form."""
    if not variant.supports.decode:
        return None
    attention = MultiHeadAttention(variant, setting.d_model, setting.heads, causal=True)
    with torch.no_grad():
        _, state = attention.prefill(torch.zeros(1, length, setting.d_model))
    return setting.layers * state.nbytes
