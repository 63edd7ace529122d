"""xformers' memory_efficient_attention, on CUDA only: its dispatcher's choice among the kernels it was built with.

Rabe & Staats 2021, arXiv:2112.05682, as implemented by Lefaudeux et al. 2022, "xFormers",
https://github.com/facebookresearch/xformers. Its layout is (B, N, H, D); grouped heads are (B, N, Hkv, G, D), with the
keys' G repeated by a stride of 0.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..api import CaseLike, Complexity, Supports, VariantError, register
from ..blocks import blind_rows, prepend_zeros
from ..varlen import Packing
from .naive import SoftmaxAttention


@register(
    "xformers",
    family="full",
    kind="exact",
    supports=Supports(decode=True, varlen=True, dtypes=("float32", "bfloat16", "float16"), devices=("cuda",)),
    complexity=Complexity(time=2, memory=1, text="O(N² d) time, O(N d) memory", state=1),
    paper='Lefaudeux et al. 2022, "xFormers"; Rabe & Staats 2021, arXiv:2112.05682',
    formula="softmax(scale · q kᵀ) v",
    reduces_to="is softmax attention",
    counts_flops=False,
    position_free=True,
)
@dataclass(frozen=True)
class Xformers(SoftmaxAttention):
    """One call of the library, in its own layout."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        fmha, problem = load()
        if fmha is None:
            raise VariantError(f"{self.name}: {problem}")
        blind = blind_rows(q.shape[2], k.shape[2]) if causal else 0
        q = q[:, :, blind:]
        bias = _bias(fmha, q.shape[2], k.shape[2], causal)
        groups = q.shape[1] // k.shape[1]
        q, k, v = _layout(q, k.shape[1]), _layout(k, k.shape[1], groups), _layout(v, v.shape[1], groups)
        try:
            out = fmha.memory_efficient_attention(q, k, v, attn_bias=bias, scale=scale)
        except NotImplementedError as error:
            raise VariantError(f"{self.name} cannot run this: {' '.join(str(error).split())}") from None
        out = out.flatten(2, -2).transpose(1, 2)  # (B, N, H, Dv), or (B, N, Hkv, G, Dv), -> (B, H, N, Dv)
        return prepend_zeros(out, blind)

    def forward_varlen(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, *, causal: bool, scale: float
    ) -> Tensor:
        fmha, problem = load()
        if fmha is None:
            raise VariantError(f"{self.name}: {problem}")
        masks = fmha.attn_bias
        kind = masks.BlockDiagonalCausalFromBottomRightMask if causal else masks.BlockDiagonalMask
        bias = packing.once(kind, lambda: kind.from_seqlens(packing.q_lens, packing.k_lens, device=q.device))
        kv_heads, groups = k.shape[1], q.shape[1] // k.shape[1]
        # a batch of one: the mask says where a sequence ends
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))  # (1, H, T, D)
        q, k, v = _layout(q, kv_heads), _layout(k, kv_heads, groups), _layout(v, kv_heads, groups)
        try:
            out = fmha.memory_efficient_attention(q, k, v, attn_bias=bias, scale=scale)
        except NotImplementedError as error:
            raise VariantError(f"{self.name} cannot run this: {' '.join(str(error).split())}") from None
        return out.flatten(2, -2).squeeze(0)  # type: ignore[no-any-return]

    def reasons_against(self, case: CaseLike) -> list[str]:
        # The library is asked even where `supports` rules the case out already: its own reasons say more.
        reasons = super().reasons_against(case)
        return reasons + [reason for reason in self.refuses(case) if reason not in reasons]

    def refuses(self, case: CaseLike) -> list[str]:
        fmha, problem = load()
        if fmha is None:
            return [problem]
        if case.device.startswith("cuda") and not torch.cuda.is_available():
            return ["torch finds no CUDA device here"]
        inputs = _inputs(fmha, case)
        operators = list(fmha.ALL_FW_OPS)
        try:
            fmha._dispatch_fw(inputs, case.mode == "train")
            if case.mode == "train":
                operators = list(fmha.ALL_BW_OPS)
                fmha._dispatch_bw(inputs, None)
            return []
        except NotImplementedError:
            # the dispatcher's own question, which `forward` would fail on; each operator then says why not
            said: dict[str, list[str]] = {}
            for op in operators:
                for why in op.not_supported_reasons(inputs):
                    said.setdefault(why, []).append(op.NAME)
            # where no operator runs on the device at all, what else each would refuse is no help to anyone
            device = {why: ops for why, ops in said.items() if why.startswith("device=")}
            said = device if sum(map(len, device.values())) >= len(operators) else said
            return ([problem] if problem else []) + [f"{why} ({', '.join(ops)})" for why, ops in said.items()]


@functools.cache
def load() -> tuple[Any, str]:
    """(xformers.ops.fmha, what is wrong with its build or ""), or (None, why it cannot be imported).

    Imported on first use: it takes seconds. At import it logs a warning of several lines where it was built for another
    torch; that is caught here and given as a reason instead.
    """
    log = logging.getLogger("xformers")
    caught = _Caught()
    propagate, log.propagate = log.propagate, False
    log.addHandler(caught)
    try:
        from xformers.ops import fmha
    except ModuleNotFoundError as error:
        if error.name == "xformers":
            return None, "xformers is not installed: pip install xformers"
        return None, f"xformers cannot be imported: {error}"
    except Exception as error:  # whatever a broken build raises is the reason
        return None, f"xformers cannot be imported: {type(error).__name__}: {error}"
    finally:
        log.removeHandler(caught)
        log.propagate = propagate
    return fmha, " ".join(caught.text.split())


class _Caught(logging.Handler):
    """Keeps what is said about C++ extensions that do not load, up to the advice that follows."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage().removeprefix("WARNING[XFORMERS]: ").split("\n  Please reinstall")[0]
        self.text = f"{self.text} {said}"


def _layout(x: Tensor, kv_heads: int, groups: int = 1) -> Tensor:
    """(B, H, N, D) -> (B, N, H, D), or (B, N, Hkv, G, D) where heads come in groups."""
    x = x.transpose(1, 2)
    if x.shape[2] != kv_heads:
        return x.view(*x.shape[:2], kv_heads, -1, x.shape[3])
    return x if groups == 1 else x.unsqueeze(3).expand(-1, -1, -1, groups, -1)


def _bias(fmha: Any, n_q: int, n_k: int, causal: bool) -> Any:
    """The library's mask: its square causal one, or the one that aligns bottom-right."""
    if not causal or n_q == 1:
        return None
    masks = fmha.attn_bias
    return masks.LowerTriangularMask() if n_q == n_k else masks.LowerTriangularFromBottomRightMask()


def _inputs(fmha: Any, case: CaseLike) -> Any:
    """A case as the library sees it, without its memory: one token's heads, repeated by strides of 0."""
    n_q = 1 if case.mode == "decode" else case.n_q
    if case.causal:
        n_q -= blind_rows(n_q, case.n_k)

    def like(heads: int, n: int, groups: int = 1) -> Tensor:
        x = torch.empty(1, heads, 1, case.head_dim, dtype=getattr(torch, case.dtype), device=case.device)
        return _layout(x.expand(case.batch, -1, n, -1), case.kv_heads, groups)

    keys = like(case.kv_heads, case.n_k, case.heads // case.kv_heads)
    bias = _bias(fmha, n_q, case.n_k, case.causal)
    return fmha.Inputs(query=like(case.heads, n_q), key=keys, value=keys, attn_bias=bias)
