"""The extra inputs of a variant (gates, write strengths, indexer vectors), learned from what a layer is given."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .api import Extra, Variant, VariantError
from .blocks import wide

LENGTHS = ("N", "Nq", "Nk")


class LearnedExtras(nn.Module):
    """Makes every extra of a variant from a layer's query and key inputs.

    One that runs along the sequence is activate(Linear(x)), the Linear's bias starting at the extra's own. x is the
    query input for an axis Nq and the key input for Nk; for N it is the query input, but in a variant whose queries and
    keys may differ in number (there N counts the keys) the key input. An extra without a length axis is a parameter,
    activate(parameter). Both start where `make_extras` draws: around `bias`, standard normal where x is.

    Weights: projections.NAME, a Linear; constants.NAME, a parameter.
    """

    def __init__(
        self,
        variant: Variant,
        sizes: Mapping[str, int],
        *,
        query_dim: int,
        key_dim: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """`sizes` gives the letters H, Hkv, D and Dv.

        Raises VariantError for an extra with two length axes, or with one but without a batch axis.
        """
        super().__init__()
        self.variant = variant
        self.shapes = {extra.name: _shape(variant, extra, sizes) for extra in variant.extras}
        self.projections, self.constants = nn.ModuleDict(), nn.ParameterDict()
        for extra in variant.extras:
            shape = self.shapes[extra.name]
            if extra.length_axis is None:
                constant = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                nn.init.normal_(constant, mean=extra.bias)
                self.constants[extra.name] = constant
            else:
                features = query_dim if self._of_query(extra) else key_dim
                linear = nn.Linear(features, math.prod(shape), device=device, dtype=dtype)
                nn.init.normal_(linear.weight, std=features**-0.5)
                nn.init.constant_(linear.bias, extra.bias)
                self.projections[extra.name] = linear

    def forward(self, query: Tensor, key: Tensor) -> dict[str, Tensor]:
        """(B, Nq, query_dim), (B, Nk, key_dim) -> each extra by name, in the shape and order of its axes."""
        found = {}
        for extra in self.variant.extras:
            if extra.length_axis is None:
                x = _activated(extra, self.constants[extra.name])
                if "B" in extra.axes:
                    x = x.unsqueeze(extra.axes.index("B"))
                    x = x.expand([query.shape[0] if axis == "B" else -1 for axis in extra.axes])
            else:
                x = query if self._of_query(extra) else key
                x = _activated(extra, self.projections[extra.name](x))  # (B, N, all other axes)
                x = x.reshape(*x.shape[:2], *self.shapes[extra.name])
                others = iter(range(2, x.dim()))
                x = x.permute([0 if axis == "B" else 1 if axis in LENGTHS else next(others) for axis in extra.axes])
            found[extra.name] = x
        return found

    def _of_query(self, extra: Extra) -> bool:
        return "Nq" in extra.axes or ("N" in extra.axes and not self.variant.supports.cross)


def _activated(extra: Extra, x: Tensor) -> Tensor:
    """In float32 at least, since a decay near 1 is a small difference; then as x."""
    return extra.activate(x.to(wide(x.dtype))).to(x.dtype)


def _shape(variant: Variant, extra: Extra, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Sizes of an extra's axes but for those of batch and length."""
    lengths = sum(axis in LENGTHS for axis in extra.axes)
    if lengths > 1 or (lengths and "B" not in extra.axes):
        raise VariantError(
            f"{variant.name}: {extra.name} ({', '.join(extra.axes)}) cannot be learned from x, which has one batch and "
            "one length axis; call the variant itself instead of a layer"
        )
    return tuple(
        int(axis) if axis.isdigit() else sizes[axis] if axis in sizes else int(getattr(variant, axis))
        for axis in extra.axes
        if axis != "B" and axis not in LENGTHS
    )
