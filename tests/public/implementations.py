"""Public implementations as variants, so that the harness times them in the same interleaved rounds as ours:

    attnbench run --plugin tests/public/implementations.py --variants performer,performer_pytorch …

Each is held to itself in float64 only: whether it computes what ours computes is what `test_agreement.py` asks. They
run on the shapes that they were written for; what they refuse, and what they print, is theirs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from attnbench.variants.api import CaseLike, Complexity, Supports, Variant, register, repeat_heads
from attnbench.variants.linear.performer import projection
from attnbench.variants.registry import get


class Public(Variant):
    """A public implementation: its own definition, on repeated heads and lengths that its blocks divide."""

    needs: ClassVar[str]
    """The module it comes from."""

    def multiple(self) -> int:
        """What must divide the length."""
        return 1

    def refuses(self, case: CaseLike) -> list[str]:
        if importlib.util.find_spec(self.needs) is None:
            return [f"{self.needs} is not installed: make test-public installs it"]
        if case.n_k % self.multiple():
            return [f"its blocks do not divide the length {case.n_k}"]
        return []

    def definition(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        causal, rows = options.pop("causal", False), options.pop("rows", None)
        dtype, scale = options.pop("dtype", torch.float64), options.pop("scale", None)
        extras = {name: x.to(dtype) for name, x in options.items()}
        out = self.forward(
            q.to(dtype), k.to(dtype), v.to(dtype), causal=causal, scale=self.default_scale(q, scale), **extras
        )
        return out if rows is None else out[:, :, rows]


class InFloat32(Public):
    """One that computes in float32 whatever it is given, so that it cannot be its own definition: ours is."""

    like: ClassVar[str]

    def definition(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        return get(self.like).definition(q, k, v, **options)


def public(name: str, needs: str, like: str, *, causal: bool, noncausal: bool) -> Callable[[type], type]:
    """Registers an implementation beside the variant of ours whose work it does."""
    ours = type(get(like))

    def decorate(cls: type) -> type:
        cls.needs = needs
        return register(
            name,
            family=ours.family,
            kind="own",
            supports=Supports(causal=causal, noncausal=noncausal, cross=False, backward=False),
            complexity=Complexity(ours.complexity.time, ours.complexity.memory, ours.complexity.text),
            paper=f"the public package {needs.split('.')[0]}",
            formula=ours.formula,
            extras=ours.extras,
        )(cls)

    return decorate


def repeated(q: Tensor, *tensors: Tensor) -> list[Tensor]:
    return [repeat_heads(x, q.shape[1]) for x in tensors]


class Given(nn.Module):
    """A projection that gives what it was given: layers that project x themselves get q, k, v through it."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> Tensor:
        return self.value


# -- windows ------------------------------------------------------------------------------------------------------


@public("local_attention", "local_attention", "sliding_window", causal=True, noncausal=True)
@dataclass(frozen=True)
class LocalAttention(Public):
    """local-attention with `exact_windowsize`: its window of w keys and the own position are our w + 1."""

    window_size: int = 512

    def multiple(self) -> int:
        return self.window_size - 1

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        from local_attention import LocalAttention as Theirs

        theirs = Theirs(self.window_size - 1, causal=causal, exact_windowsize=True, autopad=True, scale=scale)
        return theirs(q, *repeated(q, k, v))


@public("local_attention_blocks", "local_attention", "segment", causal=True, noncausal=False)
@dataclass(frozen=True)
class LocalAttentionBlocks(Public):
    """local-attention as it is by default, causal: the own block and the one before it."""

    segment_size: int = 512

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        from local_attention import LocalAttention as Theirs

        return Theirs(self.segment_size, causal=causal, autopad=True, scale=scale)(q, *repeated(q, k, v))


@public("longformer_hf", "transformers", "longformer", causal=False, noncausal=True)
@dataclass(frozen=True)
class LongformerHf(Public):
    """transformers' LongformerSelfAttention; its global projections are set to the local ones."""

    window_size: int = 257
    """Of one side with the own position, as ours: their attention_window is 2 (window_size - 1)."""
    num_globals: int = 16

    def multiple(self) -> int:
        return 2 * (self.window_size - 1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        b, h, n, d = q.shape
        k, v = repeated(q, k, v)
        theirs = _longformer(h, d, 2 * (self.window_size - 1))
        flat = [x.permute(2, 0, 1, 3).reshape(n, b, h * d) for x in (q * (scale * d**0.5), k, v)]
        for name, x in zip(("query", "key", "value"), flat, strict=True):
            # they divide the projected query in place
            setattr(theirs, name, Given(x.clone()))
        g = self.num_globals
        theirs.query_global = Given(flat[0][:g].clone())
        theirs.key_global, theirs.value_global = Given(flat[1]), Given(flat[2])
        seen = torch.zeros(b, n, dtype=q.dtype)
        is_global = torch.zeros(b, n, dtype=torch.bool)
        seen[:, :g], is_global[:, :g] = 10000.0, True
        out = theirs(
            torch.empty(b, n, h * d, dtype=q.dtype),
            attention_mask=seen,
            is_index_masked=torch.zeros(b, n, dtype=torch.bool),
            is_index_global_attn=is_global,
            is_global_attn=g > 0,
        )[0]
        return out.view(b, n, h, d).transpose(1, 2)


def _longformer(heads: int, head_dim: int, attention_window: int) -> Any:
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config = LongformerConfig(
        hidden_size=heads * head_dim,
        num_attention_heads=heads,
        attention_window=[attention_window],
        attention_probs_dropout_prob=0.0,
    )
    return LongformerSelfAttention(config, layer_id=0).eval()


@public("bigbird_hf", "transformers", "bigbird", causal=False, noncausal=True)
@dataclass(frozen=True)
class BigBirdHf(Public):
    """transformers' block-sparse BigBird: windows of 3 blocks, the first and the last global, our random blocks."""

    block_size: int = 64
    num_random_blocks: int = 3
    seed: int = 0

    def multiple(self) -> int:
        return self.block_size

    def refuses(self, case: CaseLike) -> list[str]:
        short = (
            []
            if case.n_k > (5 + 2 * self.num_random_blocks) * self.block_size
            else ["is block-sparse from 11 blocks on"]
        )
        return super().refuses(case) or short

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        b, h, n, d = q.shape
        k, v = repeated(q, k, v)
        theirs = self._theirs(h, d, n)
        c = self.block_size
        ones = torch.ones(b, n, dtype=q.dtype)
        blocks = ones.view(b, n // c, c)
        keys = torch.cat([blocks[:, 1:-3], blocks[:, 2:-2], blocks[:, 3:-1]], dim=2)
        band = torch.einsum("blq,blk->blqk", blocks[:, 2:-2], keys).unsqueeze(1)
        out, _ = theirs.bigbird_block_sparse_attention(
            q * (scale * d**0.5), k, v, band, ones.view(b, 1, n, 1), ones.view(b, 1, 1, n), blocks, blocks,
            h, self.num_random_blocks, d, c, c, b, n, n,
            seed=self.seed, plan_from_length=None, plan_num_rand_blocks=None,
        )  # fmt: skip
        return out.reshape(b, n, h, d).transpose(1, 2)

    def _theirs(self, heads: int, head_dim: int, n: int) -> Any:
        from transformers import BigBirdConfig
        from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

        config = BigBirdConfig(
            hidden_size=heads * head_dim,
            num_attention_heads=heads,
            block_size=self.block_size,
            num_random_blocks=self.num_random_blocks,
            max_position_embeddings=n,
        )
        theirs = BigBirdBlockSparseAttention(config)
        # theirs draws in training only, and not as the paper says
        ours = get("bigbird", block_size=self.block_size, num_random_blocks=self.num_random_blocks, seed=self.seed)
        plan = [blocks[1:-1].numpy() for blocks in ours.random_blocks(n, heads)]
        each = iter(plan)
        theirs._bigbird_block_rand_mask_with_head = lambda **_: plan
        theirs._bigbird_block_rand_mask = lambda *_, **__: next(each)
        return theirs


# -- features, landmarks, hashes ------------------------------------------------------------------------------------


@public("performer_pytorch", "performer_pytorch", "performer", causal=True, noncausal=True)
@dataclass(frozen=True)
class PerformerPytorch(Public):
    """performer-pytorch's FastAttention with our projection: eps 1e-4, and its key maximum is taken over all keys."""

    num_features: int = 256
    seed: int = 0
    without_eps: bool = False

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        theirs = _performer_module()
        k, v = repeated(q, k, v)
        w = projection(self.num_features, q.shape[3], self.seed, q.dtype, q.device)
        factor = scale**0.5 * q.shape[3] ** 0.25  # they multiply by d^-1/4 themselves
        eps = 0.0 if self.without_eps else 1e-4
        kernel = functools.partial(theirs.softmax_kernel, projection_matrix=w, eps=eps)
        fq, fk = kernel(q * factor, is_query=True), kernel(k * factor, is_query=False)
        if not causal:
            return theirs.linear_attention(fq, fk, v)
        # their `chunk_size` is a number of chunks, and each holds a (d, d) matrix a token and feature
        return theirs.causal_linear_attention_noncuda(fq, fk, v, eps=0.0 if self.without_eps else 1e-6)


@functools.cache
def _performer_module() -> types.ModuleType:
    # Their module imports distutils, which Python 3.12 no longer has, and torch.cuda.amp's older names, which warn.
    if importlib.util.find_spec("distutils") is None:
        import setuptools  # noqa: F401 - it brings distutils
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("performer_pytorch.performer_pytorch")


@public("nystrom_attention", "nystrom_attention", "nystrom", causal=False, noncausal=True)
@dataclass(frozen=True)
class NystromAttention(Public):
    """nystrom-attention without its residual: the start of its inverse is shared by all heads and entries."""

    num_landmarks: int = 64
    pinv_steps: int = 6

    def multiple(self) -> int:
        return self.num_landmarks

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        from nystrom_attention import NystromAttention as Theirs

        b, h, n, d = q.shape
        k, v = repeated(q, k, v)
        theirs = Theirs(
            h * d, dim_head=d, heads=h, num_landmarks=self.num_landmarks, pinv_iterations=self.pinv_steps,
            residual=False,
        )  # fmt: skip
        theirs.scale = scale
        flat = [x.transpose(1, 2).reshape(b, n, h * d) for x in (q, k, v)]
        theirs.to_qkv, theirs.to_out = Given(torch.cat(flat, dim=-1)), nn.Identity()
        with _default_dtype(q.dtype):  # their identity matrix takes the default dtype
            return theirs(flat[0]).view(b, n, h, d).transpose(1, 2)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@public("reformer_pytorch", "reformer_pytorch", "reformer", causal=False, noncausal=True)
@dataclass(frozen=True)
class ReformerPytorch(Public):
    """reformer-pytorch's LSHAttention, with our buckets; k is not used."""

    chunk_size: int = 64
    num_rounds: int = 8
    as_the_paper: bool = False
    """Attention within buckets and pairs counted once: not its default."""
    seed: int = 0

    def multiple(self) -> int:
        return 2 * self.chunk_size

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        from reformer_pytorch import LSHAttention

        b, h, n, d = q.shape
        count = n // self.chunk_size
        theirs = LSHAttention(
            bucket_size=self.chunk_size,
            n_hashes=self.num_rounds,
            allow_duplicate_attention=not self.as_the_paper,
            attend_across_buckets=not self.as_the_paper,
        )
        ours = get("reformer", num_buckets=count, num_rounds=self.num_rounds, seed=self.seed)
        offsets = count * torch.arange(self.num_rounds)[:, None]
        theirs.hash_vectors = lambda *_, **__: (ours.buckets(q).flatten(0, 1).long() + offsets).flatten(1)
        (v,) = repeated(q, v)
        out = theirs(q.flatten(0, 1) * (scale * d**0.5), v.flatten(0, 1))[0]
        return out.view(b, h, n, v.shape[3])


# -- recurrences: the plain forms of flash-linear-attention ---------------------------------------------------------


@functools.cache
def fla_plain(operator: str) -> types.ModuleType:
    """The module `fla/ops/<operator>/naive.py` alone: importing the package would need triton."""
    spec = importlib.util.find_spec("fla")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'fla'", name="fla")
    for folder in spec.submodule_search_locations:
        path = Path(folder) / "ops" / operator / "naive.py"
        if path.is_file():
            own = importlib.util.spec_from_file_location(f"fla_plain_{operator}", path)
            assert own is not None
            assert own.loader is not None
            module = importlib.util.module_from_spec(own)
            sys.modules[own.name] = module
            own.loader.exec_module(module)
            return module
    raise ModuleNotFoundError(f"fla has no ops/{operator}/naive.py", name="fla")


def tokens_first(*tensors: Tensor) -> list[Tensor]:
    """(B, H, N, ·) -> (B, N, H, ·), their layout."""
    return [x.transpose(1, 2) for x in tensors]


@public("delta_fla_plain", "fla", "delta", causal=True, noncausal=False)
@dataclass(frozen=True)
class DeltaPlain(Public):
    """`delta_rule_chunkwise`: takes normalised queries and keys, scales q by d^-1/2."""

    chunk_size: int = 32

    def multiple(self) -> int:
        return self.chunk_size

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, beta: Tensor) -> Tensor:
        k, v = repeated(q, nn.functional.normalize(k, dim=-1), v)
        q = nn.functional.normalize(q, dim=-1)
        wide = [x.float() if x.dtype != torch.float64 else x for x in (q * (scale * q.shape[3] ** 0.5), k, v, beta)]
        return fla_plain("delta_rule").delta_rule_chunkwise(*wide, chunk_size=self.chunk_size)[0].to(q.dtype)


@public("gated_delta_fla_plain", "fla", "gated_delta", causal=True, noncausal=False)
@dataclass(frozen=True)
class GatedDeltaPlain(InFloat32):
    """`naive_chunk_gated_delta_rule`; what it returns is float32 whatever it was given."""

    like: ClassVar[str] = "gated_delta"
    chunk_size: int = 64

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, log_decay: Tensor, beta: Tensor
    ) -> Tensor:
        k, v = repeated(q, nn.functional.normalize(k, dim=-1), v)
        q = nn.functional.normalize(q, dim=-1)
        q, k, v, g, b = tokens_first(q, k, v, log_decay, beta)
        naive = fla_plain("gated_delta_rule").naive_chunk_gated_delta_rule
        out = naive(q, k, v, g=g, beta=b, chunk_size=self.chunk_size, scale=scale)[0]
        return out.transpose(1, 2).to(q.dtype)


@public("kda_fla_plain", "fla", "kda", causal=True, noncausal=False)
@dataclass(frozen=True)
class KdaPlain(Public):
    chunk_size: int = 64

    def multiple(self) -> int:
        return self.chunk_size

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, log_decay: Tensor, beta: Tensor
    ) -> Tensor:
        k, v = repeated(q, nn.functional.normalize(k, dim=-1), v)
        q = nn.functional.normalize(q, dim=-1)
        q, k, v, g, b = tokens_first(q, k, v, log_decay, beta)
        naive = fla_plain("kda").naive_chunk_kda
        return naive(q, k, v, g, b, scale=scale, chunk_size=self.chunk_size)[0].transpose(1, 2)


@public("gla_fla_plain", "fla", "gla", causal=True, noncausal=False)
@dataclass(frozen=True)
class GlaPlain(Public):
    """`naive_recurrent_gla`, a loop over tokens: the only plain form that there is."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, log_decay: Tensor) -> Tensor:
        q, k, v, g = tokens_first(q * (scale * q.shape[3] ** 0.5), *repeated(q, k, v), log_decay)
        return fla_plain("gla").naive_recurrent_gla(q, k, v, g)[0].transpose(1, 2)


@public("retention_fla_plain", "fla", "retention", causal=True, noncausal=False)
@dataclass(frozen=True)
class RetentionPlain(InFloat32):
    """`naive_retention`: every pair of tokens."""

    like: ClassVar[str] = "retention"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        factor = scale * q.shape[3] ** 0.5
        return fla_plain("retention").naive_retention(q * factor, *repeated(q, k, v))


@public("linear_elu_fla_plain", "fla", "linear_elu", causal=True, noncausal=False)
@dataclass(frozen=True)
class LinearEluPlain(Public):
    """`naive_chunk_linear_attn` with its normaliser, after the caller's elu + 1."""

    def multiple(self) -> int:
        return 64

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        fq, fk = (nn.functional.elu(x) + 1 for x in (q, k))
        fq, fk, v = tokens_first(fq, *repeated(q, fk, v))
        naive = fla_plain("linear_attn").naive_chunk_linear_attn
        return naive(fq, fk, v, scale=1.0, normalize=True).transpose(1, 2)


@public("based_fla_plain", "fla", "based", causal=True, noncausal=False)
@dataclass(frozen=True)
class BasedPlain(Public):
    """`naive_parallel_based`: every pair of tokens."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return fla_plain("based").naive_parallel_based(q, *repeated(q, k, v), scale=scale)
