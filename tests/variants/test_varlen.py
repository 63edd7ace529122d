"""Packed sequences of unlike lengths: each is held to the definition of its own, whatever lies beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Shape
from attnbench.variants import external, flash
from attnbench.variants.api import Complexity, Supports, Variant, VariantError, register
from attnbench.variants.full import flex, xformers
from attnbench.variants.full.naive import SoftmaxAttention
from attnbench.variants.registry import variant_class
from attnbench.variants.varlen import Packing, bounds, pack, unpack

from . import fakes
from .test_adapters import install, put_flash  # noqa: F401 - a fixture
from .test_kernels import needs_compiler

CPU = torch.device("cpu")
LENGTHS = [(7, 7), (1, 12), (1, 1), (4, 9), (5, 5)]
"""Queries and keys of each sequence: prompts, decode steps, and an extension."""
PACKS = [name for name in attnbench.names() if variant_class(name).supports.varlen]


def held(attn: Variant, lengths: list[tuple[int, int]], *, causal: bool, dtype: torch.dtype, kv_heads: int = 2) -> None:
    """Packs sequences, calls the variant once, and holds each sequence to its definition in float64."""
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int, n: int) -> Tensor:
        return torch.randn(1, heads, n, 16, generator=generator).to(dtype)

    sequences = [(draw(4, n_q), draw(kv_heads, n_k), draw(kv_heads, n_k)) for n_q, n_k in lengths]
    q, k, v = (pack(tensors) for tensors in zip(*sequences, strict=True))
    packing = Packing.of([n for n, _ in lengths], [n for _, n in lengths], CPU)
    sums = {"cu_seqlens_q": packing.cu_seqlens_q, "cu_seqlens_k": packing.cu_seqlens_k}
    with torch.no_grad():
        out = attn.varlen(q, k, v, **sums, causal=causal, scale=0.3)
    assert (out.shape, out.dtype) == (q.shape, dtype)
    allowed = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3}[dtype]
    for mine, one in zip(unpack(out, [1] * len(lengths), packing.q_lens), sequences, strict=True):
        due = attn.definition(*one, causal=causal, scale=0.3)
        torch.testing.assert_close(mine.double(), due, atol=allowed * max(1.0, float(due.abs().max())), rtol=0)


def test_packing_goes_there_and_back() -> None:
    batches = [torch.randn(2, 3, 5, 4), torch.randn(1, 3, 7, 4)]
    packed = pack(batches)
    assert packed.shape == (17, 3, 4)
    assert torch.equal(packed[5:10], batches[0][1].transpose(0, 1))
    for x, y in zip(unpack(packed, [2, 1], [5, 7]), batches, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(("before", "after"), [(None, 0), (None, None), (2, 0), (2, 2), (0, 0)])
@pytest.mark.parametrize("lengths", [LENGTHS, [(1, 300), (1, 300), (200, 200), (130, 257)], [(128, 128)] * 3, [(1, 1)]])
def test_blocks_of_packed_sequences_cover_what_is_seen_and_nothing_else(
    lengths: list[tuple[int, int]], before: int | None, after: int | None
) -> None:
    packing = Packing.of([n for n, _ in lengths], [n for _, n in lengths], CPU)
    first, last = bounds(packing, before=before, after=after, device=CPU)
    n_q, n_k = sum(packing.q_lens), sum(packing.k_lens)
    seen = torch.zeros(n_q, n_k, dtype=torch.bool)
    row = start = 0
    for own_q, own_k in lengths:
        for i in range(own_q):
            p = i + own_k - own_q
            low = 0 if before is None else max(0, p - before)
            high = own_k - 1 if after is None else min(own_k - 1, p + after)
            seen[row, start + low : start + high + 1] = True
            row += 1
        start += own_k
    mask = flex.ranges_mask(first, last, n_k, backward=False)
    q_idx, kv_idx = torch.arange(n_q)[:, None], torch.arange(n_k)[None]
    assert torch.equal(mask.mask_mod(0, 0, q_idx, kv_idx), seen)
    for block in range(mask.kv_num_blocks.shape[-1]):
        full = mask.full_kv_indices[0, 0, block, : mask.full_kv_num_blocks[0, 0, block]].tolist()
        part = mask.kv_indices[0, 0, block, : mask.kv_num_blocks[0, 0, block]].tolist()
        rows = seen[block * 128 : (block + 1) * 128]
        kinds = [rows[:, j * 128 : (j + 1) * 128] for j in range(-(-n_k // 128))]
        assert all(kinds[j].all() and kinds[j].shape == (128, 128) for j in full)
        assert len({*full, *part}) == len(full) + len(part)
        assert {j for j, kind in enumerate(kinds) if kind.any()} <= {*full, *part}


def test_those_that_take_packed_sequences() -> None:
    assert set(PACKS) == {
        "sdpa", "flex", "xformers", "flash_attn", "sliding_window_flex", "sliding_window_flash_attn"
    }  # fmt: skip


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("spec", ["flash_attn", "sliding_window_flash_attn(window_size=4)"])
@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_flash_attention(
    install: Callable[..., None],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    spec: str,
    causal: bool,
) -> None:
    put_flash(install, monkeypatch, version)
    function = fakes.flash_attn_varlen_func_4 if version == "4" else fakes.flash_attn_varlen_func
    module = flash.VERSIONS[version].module
    external.load.cache_clear()
    install(module, flash_attn_varlen_func=function)
    held(attnbench.get(spec), LENGTHS, causal=causal, dtype=torch.float16)


@pytest.mark.parametrize("kv_heads", [1, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_sdpa(monkeypatch: pytest.MonkeyPatch, causal: bool, kv_heads: int) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    monkeypatch.setattr(varlen, "varlen_attn", fakes.varlen_attn)
    held(attnbench.get("sdpa"), LENGTHS, causal=causal, dtype=torch.float32, kv_heads=kv_heads)


def test_sdpa_says_where_torch_has_no_such_kernel() -> None:
    here = Shape(8, 8, True, "float32")
    reasons = attnbench.get("sdpa", backend="math").refuses_varlen(here)
    assert reasons[0] == "torch's varlen_attn runs on CUDA only"
    assert "not float32" in reasons[1]
    assert "not math" in reasons[2]


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_xformers_by_its_own_mask(monkeypatch: pytest.MonkeyPatch, causal: bool, kv_heads: int) -> None:
    """The library's block-diagonal masks, written out by itself, with plain attention in place of its kernel."""
    pytest.importorskip("xformers")
    fmha, _ = xformers.load()

    def attend(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any, scale: float) -> Any:
        if q.dim() == 4:
            q, k, v = (x.unsqueeze(3) for x in (q, k, v))
        q, k, v = (x.permute(0, 2, 3, 1, 4) for x in (q, k, v))  # (B, Hkv, G, T, D)
        bias = attn_bias.materialize((q.shape[3], k.shape[3]), dtype=q.dtype)
        out = ((q * scale) @ k.mT + bias).softmax(-1) @ v
        out = out.permute(0, 3, 1, 2, 4)
        return out.squeeze(3) if kv_heads == 4 else out

    monkeypatch.setattr(fmha, "memory_efficient_attention", attend)
    held(attnbench.get("xformers"), LENGTHS, causal=causal, dtype=torch.float32, kv_heads=kv_heads)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("spec", ["flex", "sliding_window_flex(window_size=50)"])
def test_flex(spec: str, causal: bool) -> None:
    held(attnbench.get(spec), [(200, 200), (1, 150), (1, 77), (30, 90)], causal=causal, dtype=torch.float32)


@dataclass(frozen=True)
class Leaks(SoftmaxAttention):
    """Takes what is packed for one long sequence."""

    name = "leaks"
    supports = Supports(varlen=True)
    whole: bool = True

    def forward_varlen(
        self, q: Tensor, k: Tensor, v: Tensor, packing: Packing, *, causal: bool, scale: float
    ) -> Tensor:
        first, last = bounds(packing, before=None, after=0 if causal else None, device=q.device)
        first = torch.zeros_like(first) if self.whole else first
        j = torch.arange(k.shape[0])
        scores = torch.einsum("ihd,jhd->hij", q * scale, k)
        hidden = (j < first[:, None]) | (j > last[:, None])
        return torch.einsum("hij,jhd->ihd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v)


@pytest.mark.parametrize("causal", [True, False])
def test_a_leak_between_sequences_is_caught(causal: bool) -> None:
    held(Leaks(whole=False), LENGTHS, causal=causal, dtype=torch.float64, kv_heads=4)
    with pytest.raises(AssertionError, match="not close"):
        held(Leaks(), LENGTHS, causal=causal, dtype=torch.float64, kv_heads=4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"q": torch.randn(1, 4, 12, 16)}, r"packed q must be \(tokens, heads, head_dim\)"),
        ({"v": torch.randn(12, 3, 16)}, "same tokens and heads"),
        ({"k": torch.randn(12, 4, 8), "v": torch.randn(12, 4, 8)}, "same head dimension"),
        ({"cu_seqlens_q": torch.tensor([0, 5, 11])}, "cu_seqlens_q must rise from 0 to the 12 tokens"),
        ({"cu_seqlens_k": torch.tensor([0, 5, 5, 12])}, "cu_seqlens_k must rise"),
        ({"cu_seqlens_k": torch.tensor([0.0, 12.0])}, "cu_seqlens_k must rise"),
        ({"cu_seqlens_k": torch.tensor([0, 12])}, "of 2 and 1 sequences"),
        ({"cu_seqlens_k": torch.tensor([0, 4, 12])}, "more queries than keys"),
        ({"scale": -1.0}, "scale must be"),
    ],
)
def test_a_wrong_call_is_one_sentence(change: dict[str, Any], words: str) -> None:
    call = {name: torch.randn(12, 4, 16) for name in "qkv"}
    call |= {name: torch.tensor([0, 5, 12]) for name in ("cu_seqlens_q", "cu_seqlens_k")}
    with pytest.raises(VariantError, match=words):
        Leaks().varlen(**{**call, **change}, causal=True)


def test_a_loop_is_not_claimed() -> None:
    x, sums = torch.randn(12, 4, 16), torch.tensor([0, 5, 12])
    with pytest.raises(VariantError, match="naive has no form for packed sequences"):
        attnbench.get("naive").varlen(x, x, x, cu_seqlens_q=sums, cu_seqlens_k=sums)


def test_who_claims_it_must_have_it() -> None:
    @dataclass(frozen=True)
    class Claims(SoftmaxAttention):
        pass

    with pytest.raises(VariantError, match="varlen needs a `forward_varlen` of its own"):
        register(
            "claims",
            family="full",
            kind="exact",
            supports=Supports(varlen=True),
            complexity=Complexity(2, 2, "O(N²)"),
            paper="none",
            formula="none",
        )(Claims)
