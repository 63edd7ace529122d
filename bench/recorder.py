"""The attention function that a model under capture calls: it computes what it always did, and keeps q, k and v.

transformers lets a model's attention be exchanged by name (its AttentionInterface): the model hands over q, k, v as
they are right before the attention itself. See https://huggingface.co/docs/transformers/attention_interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

IMPLEMENTATION = "attnbench_capture"

_CHECKED_ROWS = 256
"""At how many query positions the formula is held against what a layer gave."""


class Recorder:
    """Keeps q, k, v of the wanted layers, window by window, and checks that they are all that the layer goes by.

    `wanted` None keeps every layer; `order` is the order in which `stacked` gives them, that of the model by default.
    """

    def __init__(
        self, wanted: frozenset[int] | None, order: Sequence[int] | None = None, allowed_difference: float = 0.0
    ) -> None:
        self.wanted = wanted
        self.order = order
        self.allowed_difference = allowed_difference
        self.seen: list[int] = []
        """The attention layers of the latest forward pass, as they came."""
        self.largest_difference = 0.0
        self._kept: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}
        self._causal: dict[int, bool] = {}
        self._factor: dict[int, float] = {}
        self._unfit: dict[int, str] = {}

    def take(
        self, module: torch.nn.Module, q: Tensor, k: Tensor, v: Tensor, out: Tensor, scaling: float | None
    ) -> None:
        """Looks at one layer's q (1, H, N, D), k, v (1, Hkv, N, D) and its output (1, N, H, D)."""
        index = getattr(module, "layer_idx", None)
        layer = index if isinstance(index, int) else len(self.seen)
        if layer in self.seen:
            self._unfit[layer] = "attends more than once"
        else:
            self.seen.append(layer)
        if self.wanted is not None and layer not in self.wanted:
            return
        if not q.shape[2] == k.shape[2] == v.shape[2]:
            self._unfit[layer] = f"attends from {q.shape[2]} tokens to {k.shape[2]}: cross-attention"
            return
        if v.shape[3] != q.shape[3]:
            self._unfit[layer] = f"has values of {v.shape[3]} beside keys of {k.shape[3]} dimensions"
            return
        own_scale = q.shape[3] ** -0.5
        factor = 1.0 if scaling is None or scaling == own_scale else scaling / own_scale
        q = q * factor if factor != 1.0 else q
        causal, difference = self._reproduce(q, k, v, out)
        if not difference <= self.allowed_difference:
            self._unfit[layer] = (
                f"does not attend by plain softmax over all tokens or all so far (difference {difference:.1e}): "
                "a window shorter than the text, a position bias or the like"
            )
        if self._causal.setdefault(layer, causal) != causal or self._factor.setdefault(layer, factor) != factor:
            self._unfit[layer] = "changes its mask or its scale from window to window"
        self.largest_difference = max(self.largest_difference, difference)
        self._kept.setdefault(layer, []).append((q[0].clone(), k[0].clone(), v[0].clone()))

    @staticmethod
    def _reproduce(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> tuple[bool, float]:
        """Whether causal or plain softmax attention of q, k, v is nearer to the layer's output, and how near.

        The formula as it is written, in float64, at rows spread from the first token to the last.
        """
        n = q.shape[2]
        rows = torch.linspace(0, n - 1, min(n, _CHECKED_ROWS)).round().long()
        target = out.transpose(1, 2)[:, :, rows]  # (1, H, R, D)
        groups = q.shape[1] // k.shape[1]
        keys, values = (x.double().repeat_interleave(groups, dim=1) for x in (k, v))  # (1, H, N, D)
        scores = q[:, :, rows].double() @ keys.mT * q.shape[3] ** -0.5  # (1, H, R, N)
        future = torch.arange(n) > rows[:, None]
        plain = float((scores.softmax(dim=-1) @ values - target).abs().max())
        causal = float((scores.masked_fill(future, float("-inf")).softmax(dim=-1) @ values - target).abs().max())
        return causal < plain, min(causal, plain) / max(float(target.abs().max()), 1e-30)

    def problem(self) -> str | None:
        """Why what was kept cannot make one capture, with the layers that could; None where it can."""
        fit = [layer for layer in self._kept if layer not in self._unfit]
        instead = f"; capture the layers {_listed(fit)} instead" if fit else ""
        unfit = [layer for layer in self._unfit if self.wanted is None or layer in self.wanted]
        if unfit:
            return f"layer {unfit[0]} {self._unfit[unfit[0]]}{instead}"
        by_kind: dict[tuple[object, ...], list[int]] = {}
        for layer, windows in self._kept.items():
            q, k, _ = windows[0]
            by_kind.setdefault((q.shape, k.shape, self._causal[layer]), []).append(layer)
        if len(by_kind) > 1:
            groups = " and ".join(_listed(layers) for layers in by_kind.values())
            return f"its layers differ in heads, head dimension or causality; capture the layers {groups} apart"
        return None

    @property
    def layers(self) -> list[int]:
        return list(self._kept if self.order is None else self.order)

    @property
    def causal(self) -> bool:
        return self._causal[self.layers[0]]

    @property
    def scale_factors(self) -> list[float]:
        return [self._factor[layer] for layer in self.layers]

    def stacked(self) -> tuple[Tensor, Tensor, Tensor]:
        """q (L, W, H, N, D), k and v (L, W, Hkv, N, D)."""
        q, k, v = (
            torch.stack([torch.stack([window[part] for window in self._kept[layer]]) for layer in self.layers])
            for part in range(3)
        )
        return q, k, v


def _listed(layers: list[int]) -> str:
    return ",".join(map(str, layers))


_active: ContextVar[Recorder | None] = ContextVar("attnbench_recorder", default=None)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """One forward pass whose attention layers the recorder looks at."""
    recorder.seen.clear()
    token = _active.set(recorder)
    try:
        yield
    finally:
        _active.reset(token)


def register_implementation() -> None:
    """Makes IMPLEMENTATION known to transformers: its sdpa, and masks for it, under the recorder's eyes."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attend(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        out, weights = sdpa(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        recorder = _active.get()
        if recorder is not None:
            recorder.take(module, query, key, value, out, scaling)
        return out, weights

    AttentionInterface.register(IMPLEMENTATION, attend)
    AttentionMaskInterface.register(IMPLEMENTATION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
