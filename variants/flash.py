"""FlashAttention 2, 3 and 4 behind one call: which of them are installed, what each takes, how each is called.

Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691; Shah et al. 2024, arXiv:2407.08608; code at
https://github.com/Dao-AILab/flash-attention. Conventions that the three share, from their docstrings: layout
(B, N, H, D); query head h reads key head h // G; `softmax_scale` multiplies q·k; causal aligns bottom-right; a window
(left, right) counts the keys beside the query's own position, so (w - 1, 0) is w keys; a row that sees nothing gives
zeros.

The versions differ in the head dimensions that they take, in what says "no window" (-1 or None), and in whether the
log-sum-exp comes back beside the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .api import CaseLike, VariantError
from .blocks import prepend_zeros
from .errors import suggest
from .external import Adapter, installed, load
from .varlen import Packing


@dataclass(frozen=True)
class Version:
    """One major version: a package of its own."""

    module: str
    install: str
    capabilities: tuple[int, ...]
    """Major compute capabilities of the GPUs that it is made for."""


VERSIONS = {
    "2": Version("flash_attn", "pip install flash-attn --no-build-isolation", (8, 9, 10, 11, 12)),
    "3": Version("flash_attn_interface", "python setup.py install in hopper/ of its repository", (9,)),
    "4": Version("flash_attn.cute", "pip install flash-attn-4", (8, 9, 10, 11, 12)),
}

PREFERRED = {8: ("2", "4"), 9: ("3", "4", "2")}
"""What "auto" takes first, by major compute capability: the version that was written for it."""

NEWEST = ("4", "2")
"""The same for later GPUs, for which no kernel of version 3 is built."""


class FlashAttention(Adapter):
    """Base of variants that are one call of FlashAttention. A subclass has a field `version` and writes `forward`."""

    version: str
    modules = tuple(version.module for version in VERSIONS.values())
    install = VERSIONS["2"].install

    def check_version(self) -> None:
        """For `__post_init__`."""
        choices = ("auto", *VERSIONS)
        if self.version not in choices:
            raise VariantError(f"{self.name}: unknown version {self.version!r}; {suggest(str(self.version), choices)}")

    # -- where it runs ------------------------------------------------------------------------------------------

    def missing(self) -> list[str]:
        if self.version == "auto":
            if any(installed(version.module) for version in VERSIONS.values()):
                return []
            return [f"no FlashAttention is installed: {VERSIONS['2'].install} (version 2), {VERSIONS['4'].install} (4)"]
        version = VERSIONS[self.version]
        if installed(version.module):
            return []
        return [f"FlashAttention {self.version} is not installed: {version.install}"]

    def broken(self) -> list[str]:
        major = torch.cuda.get_device_capability()[0]
        number = self.chosen(major)
        if number is None:
            versions = self.version if self.version != "auto" else ", ".join(v for v in VERSIONS if self.has(v))
            return [f"FlashAttention {versions} has no kernel for this GPU, of compute capability {major}.x"]
        problem = load(VERSIONS[number].module)[1]
        return [problem] if problem else []

    def limits(self, case: CaseLike) -> list[str]:
        return [
            problem
            for problem in [self.bad_head_dim(case.head_dim, case.head_dim, self.chosen(capability(case.device)))]
            if problem
        ]

    @staticmethod
    def has(number: str) -> bool:
        return installed(VERSIONS[number].module)

    def chosen(self, major: int) -> str | None:
        """The version to run on a GPU of this major compute capability, or None where none that is here fits."""
        order = PREFERRED.get(major, NEWEST) if self.version == "auto" else (self.version,)
        return next((number for number in order if self.has(number) and major in VERSIONS[number].capabilities), None)

    @staticmethod
    def bad_head_dim(d: int, dv: int, number: str | None) -> str:
        """Why a head dimension does not fit ("" where it does): 256 is the most; 3 and 4 take multiples of 8 only."""
        if max(d, dv) > 256:
            return f"runs head dimensions up to 256, not {max(d, dv)}"
        if number in ("3", "4") and (d % 8 or dv % 8):
            return f"FlashAttention {number} runs head dimensions that are multiples of 8, not {d if d % 8 else dv}"
        return ""

    # -- the call -----------------------------------------------------------------------------------------------

    def call(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool, window: tuple[int, int] | None, blind: int
    ) -> Tensor:
        """Attention of q (B, H, Nq, D) over k, v (B, Hkv, Nk, ·); the first `blind` rows see nothing and give zeros.

        `window` is how many keys are seen before and after the query's own position, None for all. Where Dv != D,
        versions 2 and 3 get the shorter one filled up with zeros.
        """
        q, k, v = (x.transpose(1, 2) for x in (q[:, :, blind:], k, v))  # (B, N, H, D)
        out = self._run("flash_attn_func", q, k, v, scale=scale, causal=causal, window=window)
        return prepend_zeros(out.transpose(1, 2), blind)

    def call_varlen(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        packing: Packing,
        *,
        scale: float,
        causal: bool,
        window: tuple[int, int] | None,
    ) -> Tensor:
        """The same within each of several packed sequences: (Tq, H, D), (Tk, Hkv, ·) -> (Tq, H, Dv)."""
        return self._run(
            "flash_attn_varlen_func",
            q,
            k,
            v,
            scale=scale,
            causal=causal,
            window=window,
            cu_seqlens_q=packing.cu_seqlens_q,
            cu_seqlens_k=packing.cu_seqlens_k,
            max_seqlen_q=packing.max_seqlen_q,
            max_seqlen_k=packing.max_seqlen_k,
        )

    def _run(
        self,
        function: str,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        causal: bool,
        window: tuple[int, int] | None,
        **packing: Any,
    ) -> Tensor:
        """One function of the library on tensors in its layout: (…, H, D), (…, Hkv, ·) -> (…, H, Dv)."""
        self.check_call(q)
        number = self.chosen(capability(str(q.device)))
        d, dv = q.shape[-1], v.shape[-1]
        if problem := self.bad_head_dim(d, dv, number):
            raise VariantError(f"{self.name}: {problem}")
        library, problem = load(VERSIONS[number].module) if number else (None, self.broken()[0])
        if library is None:
            raise VariantError(f"{self.name}: {problem}")
        if number != "4":
            width = max(d, dv)
            q, k, v = (F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] != width else x for x in (q, k, v))
        out: Any = getattr(library, function)(
            q,
            k,
            v,
            softmax_scale=scale,
            causal=causal,
            window_size=window or ((None, None) if number == "4" else (-1, -1)),
            **packing,
        )
        if isinstance(out, tuple):
            out = out[0]
        return out[..., :dv]  # type: ignore[no-any-return]


def capability(device: str) -> int:
    """The major compute capability of a device: 9 for an H100. 0 where there is no such GPU."""
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return 0
    return torch.cuda.get_device_capability(device)[0]
