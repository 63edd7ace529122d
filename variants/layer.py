"""Any variant inside the usual multi-head layer: projections, heads, gates learned from x, output.

Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, section 3.2.2; fewer key heads as in Ainslie et al.
2023, "GQA", arXiv:2305.13245. Names, shapes and first values of the weights are those of torch.nn.MultiheadAttention
(its documentation and state_dict), so that either can take the other's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .api import State, Variant, VariantError, get
from .declarations import Call
from .learned import LearnedExtras

__all__ = ["MultiHeadAttention"]


class MultiHeadAttention(nn.Module):
    """Multi-head attention with a variant in the place of softmax attention.

        layer = MultiHeadAttention("gla", embed_dim=512, num_heads=8, causal=True)
        out = layer(x)                              # self-attention, (B, N, embed_dim)
        out = layer(x, memory)                      # encoder-decoder attention: queries of x, keys and values of memory
        out, state = layer.prefill(prompt)          # then, token by token:
        out, state = layer.decode(token, state)     # token (B, 1, embed_dim)

    A variant's extra inputs (gates, write strengths, …) are learned from x, or are parameters: see LearnedExtras. With
    one seed, layers of all variants start with the same projections, which are torch's own.

    Weights, under the names of torch.nn.MultiheadAttention, where E is embed_dim and Ekv = num_kv_heads · head_dim:

        in_proj_weight   (E + 2 Ekv, E); or, where kdim or vdim is not E,
                         q_proj_weight (E, E), k_proj_weight (Ekv, kdim) and v_proj_weight (Ekv, vdim)
        in_proj_bias     (E + 2 Ekv)
        out_proj         Linear E -> E
        extras           LearnedExtras, empty for most variants

    There is no dropout of attention weights, since fast forms have none to drop, and no padding mask.

    Args:
        variant: a Variant, or its spec as the command line writes it, e.g. "sliding_window(window_size=256)".
        embed_dim: E, features of the query input and of the output; num_heads divides it.
        num_heads: H, query heads.
        num_kv_heads: Hkv, key and value heads, which divide H; H by default.
        kdim: features of the key input; E by default.
        vdim: features of the value input; E by default.
        bias: whether the four projections have biases.
        causal: whether a position sees nothing after it; with Nq != Nk, aligned bottom-right.

    Raises VariantError, one sentence, for a variant without the causal or non-causal form that is asked for, for sizes
    that do not divide, and for an extra that cannot be made from x.
    """

    in_proj_weight: nn.Parameter | None
    q_proj_weight: nn.Parameter | None
    k_proj_weight: nn.Parameter | None
    v_proj_weight: nn.Parameter | None
    in_proj_bias: nn.Parameter | None

    def __init__(
        self,
        variant: str | Variant,
        embed_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        causal: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.variant = get(variant) if isinstance(variant, str) else variant
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.causal = causal
        self._check_sizes()
        self.head_dim = embed_dim // num_heads
        self._allowed: Call | None = None

        options: dict[str, Any] = {"device": device, "dtype": dtype}
        e, ekv = embed_dim, self.head_dim * self.num_kv_heads
        shapes: dict[str, tuple[int, ...] | None] = {
            "in_proj_weight": (e + 2 * ekv, e) if self._fused else None,
            "q_proj_weight": None if self._fused else (e, e),
            "k_proj_weight": None if self._fused else (ekv, self.kdim),
            "v_proj_weight": None if self._fused else (ekv, self.vdim),
            "in_proj_bias": (e + 2 * ekv,) if bias else None,
        }
        for name, shape in shapes.items():
            parameter = None if shape is None else nn.Parameter(torch.empty(shape, **options))
            self.register_parameter(name, parameter)
        self.out_proj = nn.Linear(e, e, bias=bias, **options)
        self._start()
        # after the projections, so that these start alike with and without extras
        self.extras = LearnedExtras(
            self.variant,
            {"H": num_heads, "Hkv": self.num_kv_heads, "D": self.head_dim, "Dv": self.head_dim},
            query_dim=embed_dim,
            key_dim=self.kdim,
            **options,
        )

    # -- calls --------------------------------------------------------------------------------------------------

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        """(B, Nq, E), (B, Nk, kdim), (B, Nk, vdim) -> (B, Nq, E). `key` is the query by default, `value` the key.

        Raises VariantError for shapes that do not fit and for what the variant says it cannot do here.
        """
        key = query if key is None else key
        value = key if value is None else value
        q, k, v = self._project(query, key, value)
        extras = self.extras(query, key)
        self._check_call(q, k, v, extras, "forward")
        return self._join(self.variant(q, k, v, causal=self.causal, **extras))

    def prefill(self, x: Tensor) -> tuple[Tensor, State]:
        """Causal self-attention over a prompt (B, N, E): its output (B, N, E), and the state for `decode`.

        Raises VariantError for a layer that is not causal and for a variant that has no decode form.
        """
        self._check_decode()
        q, k, v = self._project(x, x, x)
        extras = self.extras(x, x)
        self._check_call(q, k, v, extras, "forward")
        # copies: a state that keeps views would keep the queries too, which lie beside the keys in memory
        out, state = self.variant.prefill(q, k.contiguous(), v.contiguous(), **extras)
        return self._join(out), state

    def decode(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token more, (B, 1, E): its output (B, 1, E) and the new state. The state given stays as it was."""
        self._check_decode()
        if x.dim() == 3 and x.shape[1] != 1:
            raise VariantError(f"decode takes one token a call, (batch, 1, {self.embed_dim}), not {tuple(x.shape)}")
        q, k, v = self._project(x, x, x)
        extras = self.extras(x, x)
        self._check_call(q, k, v, extras, "decode", seen=state.seen)
        out, state = self.variant.decode(q, k, v, state, **extras)
        return self._join(out), state

    # -- weights of torch's layer ---------------------------------------------------------------------------------

    @classmethod
    def from_torch(
        cls, variant: str | Variant, mha: nn.MultiheadAttention, *, causal: bool = False
    ) -> MultiHeadAttention:
        """A layer with this variant and a copy of the weights of a torch.nn.MultiheadAttention.

        This layer is always batch first. Raises VariantError as the constructor and `load_torch` do.
        """
        _check_torch(mha)
        layer = cls(
            variant,
            mha.embed_dim,
            mha.num_heads,
            kdim=mha.kdim,
            vdim=mha.vdim,
            bias=mha.in_proj_bias is not None,
            causal=causal,
            device=mha.out_proj.weight.device,
            dtype=mha.out_proj.weight.dtype,
        )
        layer.load_torch(mha)
        return layer.train(mha.training)

    def load_torch(self, mha: nn.MultiheadAttention) -> None:
        """Copies the projections of a torch.nn.MultiheadAttention into this layer; what makes extras stays as it is.

        Raises VariantError where the sizes differ, and for what has no place here: bias_k and bias_v, add_zero_attn,
        dropout.
        """
        _check_torch(mha)
        ours, theirs = (
            (x.embed_dim, x.num_heads, kv_heads, x.kdim, x.vdim, x.in_proj_bias is not None)
            for x, kv_heads in ((self, self.num_kv_heads), (mha, mha.num_heads))
        )
        if ours != theirs:
            words = "(embed_dim, num_heads, num_kv_heads, kdim, vdim, bias)"
            raise VariantError(f"the weights do not fit: {words} is {theirs} there and {ours} here")
        # the names are the same, so only what makes extras is missing
        self.load_state_dict(mha.state_dict(), strict=False)

    def to_torch(self) -> nn.MultiheadAttention:
        """A torch.nn.MultiheadAttention, batch first, with a copy of these projections.

        It computes softmax attention whatever the variant here, and has no extras. Where key heads are fewer than query
        heads, each is repeated for the queries that share it: the same function, with more weights.
        """
        mha = nn.MultiheadAttention(
            self.embed_dim,
            self.num_heads,
            bias=self.in_proj_bias is not None,
            kdim=self.kdim,
            vdim=self.vdim,
            batch_first=True,
            device=self.out_proj.weight.device,
            dtype=self.out_proj.weight.dtype,
        )
        state = {f"out_proj.{name}": x for name, x in self.out_proj.state_dict().items()}
        weights = [self._full_heads(x) if i else x for i, x in enumerate(self._weights())]
        if self._fused:
            state["in_proj_weight"] = torch.cat(weights)
        else:
            state |= {f"{name}_proj_weight": x for name, x in zip("qkv", weights, strict=True)}
        if self.in_proj_bias is not None:
            biases = enumerate(self._split(self.in_proj_bias))
            state["in_proj_bias"] = torch.cat([self._full_heads(x) if i else x for i, x in biases])
        mha.load_state_dict(state)
        return mha.train(self.training)

    def extra_repr(self) -> str:
        kv = "" if self.num_kv_heads == self.num_heads else f", num_kv_heads={self.num_kv_heads}"
        dims = "" if self._fused else f", kdim={self.kdim}, vdim={self.vdim}"
        sizes = f"embed_dim={self.embed_dim}, num_heads={self.num_heads}{kv}{dims}"
        return f"{self.variant.spec}, {sizes}, bias={self.in_proj_bias is not None}, causal={self.causal}"

    # -- projections ----------------------------------------------------------------------------------------------

    @property
    def _fused(self) -> bool:
        """One weight for q, k and v, as torch has it where all inputs have E features."""
        return self.kdim == self.vdim == self.embed_dim

    def _split(self, x: Tensor, dim: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """What belongs to q, k and v."""
        ekv = self.head_dim * self.num_kv_heads
        q, k, v = torch.split(x, [self.embed_dim, ekv, ekv], dim)
        return q, k, v

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        if self.in_proj_weight is not None:
            return self._split(self.in_proj_weight)
        assert self.q_proj_weight is not None
        assert self.k_proj_weight is not None
        assert self.v_proj_weight is not None
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, H, Nq, D), k and v (B, Hkv, Nk, D)."""
        for label, x, features in (
            ("query", query, self.embed_dim),
            ("key", key, self.kdim),
            ("value", value, self.vdim),
        ):
            if x.dim() != 3 or x.shape[2] != features:
                raise VariantError(f"{label} must be (batch, seq_len, {features}), not {tuple(x.shape)}")
        if self.in_proj_weight is not None and query is key is value:
            parts = list(self._split(F.linear(query, self.in_proj_weight, self.in_proj_bias), dim=-1))
        else:
            biases = (None, None, None) if self.in_proj_bias is None else self._split(self.in_proj_bias)
            inputs = zip((query, key, value), self._weights(), biases, strict=True)
            parts = [F.linear(x, weight, bias) for x, weight, bias in inputs]
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for x in parts)
        return q, k, v

    def _join(self, out: Tensor) -> Tensor:
        """(B, H, N, D) -> (B, N, E)."""
        joined: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return joined

    def _full_heads(self, x: Tensor) -> Tensor:
        """Rows of Hkv heads -> rows of H heads, each repeated for the queries that share it."""
        heads = x.reshape(self.num_kv_heads, self.head_dim, *x.shape[1:])
        return torch.repeat_interleave(heads, self.num_heads // self.num_kv_heads, dim=0).flatten(0, 1)

    def _start(self) -> None:
        """First values of the projections, as torch.nn.MultiheadAttention draws them."""
        for weight in self._weights() if self.in_proj_weight is None else (self.in_proj_weight,):
            nn.init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    # -- checks -----------------------------------------------------------------------------------------------------

    def _check_sizes(self) -> None:
        sizes = ("embed_dim", "num_heads", "num_kv_heads", "kdim", "vdim")
        for name in sizes:
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise VariantError(f"{name} must be a whole number of at least 1, not {size!r}")
        if self.embed_dim % self.num_heads:
            raise VariantError(
                f"num_heads must divide embed_dim, but {self.num_heads} does not divide {self.embed_dim}"
            )
        if self.num_heads % self.num_kv_heads:
            raise VariantError(
                f"num_kv_heads must divide num_heads, but {self.num_kv_heads} does not divide {self.num_heads}"
            )
        if self.causal and not self.variant.supports.causal:
            raise VariantError(f"{self.variant.name} has no causal form; make the layer with causal=False")
        if not self.causal and not self.variant.supports.noncausal:
            raise VariantError(f"{self.variant.name} has a causal form only; make the layer with causal=True")

    def _check_decode(self) -> None:
        self.variant.check_decode()
        if not self.causal:
            raise VariantError("decoding is causal; make the layer with causal=True")

    def _check_call(self, q: Tensor, k: Tensor, v: Tensor, extras: dict[str, Tensor], mode: str, seen: int = 0) -> None:
        """Raises VariantError with what the variant has against this call; a call like the last one was asked about."""
        wants_grad = any(x.requires_grad for x in (q, k, v, *extras.values()))
        call = Call(
            mode="train" if wants_grad and mode == "forward" else mode,
            causal=self.causal,
            batch=q.shape[0],
            heads=q.shape[1],
            kv_heads=k.shape[1],
            n_q=q.shape[2],
            n_k=seen + k.shape[2],
            head_dim=q.shape[3],
            dtype=str(q.dtype).removeprefix("torch."),
            device=str(q.device),
        )
        if call != self._allowed:
            reasons = self.variant.reasons_against(call)
            if reasons:
                forward_only = call.mode == "train" and not self.variant.reasons_against(replace(call, mode="forward"))
                advice = "; call the layer under torch.no_grad()" if forward_only else ""
                raise VariantError(f"{self.variant.name} cannot do this: {'; '.join(reasons)}{advice}")
            self._allowed = call


def _check_torch(mha: nn.MultiheadAttention) -> None:
    """Raises VariantError for a layer of torch's with parts that have no place here."""
    if not isinstance(mha, nn.MultiheadAttention):
        raise VariantError(f"weights are taken from a torch.nn.MultiheadAttention, not from a {type(mha).__name__}")
    if mha.bias_k is not None or mha.bias_v is not None:
        raise VariantError("a layer with bias_k and bias_v (add_bias_kv=True) attends to a key that no variant has")
    if mha.add_zero_attn:
        raise VariantError("a layer with add_zero_attn=True attends to a key of zeros that no variant has")
    if mha.dropout:
        raise VariantError(
            f"a layer that drops attention weights (dropout={mha.dropout:g}) has no like here; set its dropout to 0"
        )
