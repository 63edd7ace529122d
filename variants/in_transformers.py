"""Variants in place of softmax attention inside models of the library transformers.

    names = attnbench.register_transformers("sliding_window(window_size=128)")
    model = AutoModel.from_pretrained(folder, attn_implementation="attnbench:sliding_window(window_size=128)")

transformers lets a model's attention be exchanged by name (its AttentionInterface, and AttentionMaskInterface for the
mask that goes with it; https://huggingface.co/docs/transformers/attention_interface). A name must be registered as it
will be asked for, parameters included: the library looks it up in a list.

What a variant cannot do is refused in a sentence where the model asks for it, never approximated: padding, packed texts
and windows of the model's own (anything but plain causal or plain full masks), dropout, position biases, capped scores,
sinks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .api import Variant, get, make_extras, names
from .declarations import Call
from .errors import VariantError

PREFIX = "attnbench:"
UNKNOWN_TO_US = ("position_bias", "softcap", "s_aux", "head_mask", "block_indices")
"""What models hand over beside q, k, v and the mask that would change the scores."""

Attend = Callable[..., Tensor]
"""(q, k, v, *, causal, scale) -> out with q (B, H, Nq, D), k and v (B, Hkv, Nk, ·), out (B, H, Nq, Dv)."""


def register_transformers(*specs: str) -> list[str]:
    """Makes variants known to transformers as `attn_implementation`; returns the names, each `attnbench:` and its spec.

    `specs` are names, with parameters if they differ from the defaults; without any, every variant that can stand in
    for softmax attention is registered with its defaults. May be called again, for more.

    Raises VariantError where transformers is missing, a variant does not exist, or it cannot stand in for softmax.
    """
    if not specs:
        fit = (name for name in names() if not (reasons_against(get(name)) or _name_taken(name)))
        return register_transformers(*fit)
    registered = []
    for spec in specs:
        attn = get(spec)
        if reasons := reasons_against(attn) or _name_taken(attn.name):
            raise VariantError(f"{spec} cannot stand in for softmax attention in a model: {reasons[0]}")
        registered.append(register_function(PREFIX + spec.strip(), of_variant(attn)))
    return registered


def reasons_against(attn: Variant) -> list[str]:
    """Why a variant cannot take softmax attention's place in a model; [] where it can."""
    if attn.kind == "own":
        return ["it is an operator of its own, which a model has to be trained with"]
    if learned := [extra.name for extra in attn.extras if extra.draw is None]:
        return [f"it takes in {', '.join(learned)}, which a model has to learn"]
    return []


def _name_taken(name: str) -> list[str]:
    taken = "transformers takes every name with 'flash' in it for a FlashAttention of its own"
    return [taken] if "flash" in name else []


def register_function(name: str, attend: Attend) -> str:
    """Registers any function of q, k, v under a name, with the refusals of this module; returns the name."""
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
    except ImportError as error:
        raise VariantError(f"transformers is not to be had ({error}); pip install 'attnbench[hf]' brings it") from None
    AttentionInterface.register(name, functools.partial(_serve, name, attend))
    AttentionMaskInterface.register(name, _mask)
    return name


def of_variant(attn: Variant) -> Attend:
    """A variant as a plain function of q, k, v, with its drawn extras. Raises VariantError where it cannot run."""

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None) -> Tensor:
        call = Call(
            mode="train" if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad) else "forward",
            causal=causal,
            batch=q.shape[0],
            heads=q.shape[1],
            kv_heads=k.shape[1],
            n_q=q.shape[2],
            n_k=k.shape[2],
            head_dim=q.shape[3],
            dtype=str(q.dtype).removeprefix("torch."),
            device=str(q.device),
        )
        if reasons := _refusals(attn, call):
            raise VariantError(reasons[0])
        # of what is drawn, the same at each call: as a layer that had learned it would give the same
        return attn(q, k, v, causal=causal, scale=scale, **make_extras(attn, q, k, v))

    return attend


@functools.lru_cache(maxsize=256)
def _refusals(attn: Variant, call: Call) -> list[str]:
    return attn.reasons_against(call)


def _serve(
    name: str,
    attend: Attend,
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What a model calls: q (B, H, Nq, D), k and v (B, Hkv, Nk, ·) -> (B, Nq, H, Dv)."""
    if dropout:
        raise VariantError(f"{name} has no dropout of attention weights; call model.eval(), or set it to 0")
    for other in UNKNOWN_TO_US:
        if others.get(other) is not None:
            raise VariantError(f"{name} cannot serve this model: its attention takes {other} into account")
    if others.get("output_attentions"):
        raise VariantError(f"{name} has no attention weights to give; leave out output_attentions")
    declared = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = _direction(name, attention_mask, query.shape[2], key.shape[2], bool(declared))
    try:
        out = attend(query, key, value, causal=causal, scale=scaling)
    except VariantError as error:
        raise VariantError(f"{name} cannot serve this call: {str(error).removeprefix(f'{name}: ')}") from None
    return out.transpose(1, 2).contiguous(), None


def _direction(name: str, mask: Tensor | None, n_q: int, n_k: int, declared: bool) -> bool:
    """Whether a mask is the causal one. None stands for what the module declares itself to be.

    Raises VariantError for a mask that is neither that nor empty.
    """
    if mask is None:
        return declared
    mask = mask[..., :n_k]
    if mask.dtype == torch.bool:
        visible = mask
    else:
        visible = mask == 0
        if not (visible | (mask <= torch.finfo(mask.dtype).min / 2)).all():
            raise VariantError(f"{name} cannot serve this model: its mask adds to the scores")
    if visible.all():
        return declared if n_q == 1 else False  # one query, the newest, sees all either way
    past = torch.ones(n_q, n_k, dtype=torch.bool, device=mask.device).tril(n_k - n_q)
    if visible.shape[-2:] == past.shape and (visible == past).all():
        return True
    raise VariantError(
        f"{name} sees all tokens or all so far, and this mask hides others: padding, packed texts, free places of a "
        "static cache, or a window of the model's own; give texts of one length without padding, and a cache that grows"
    )


def _mask(*args: Any, **options: Any) -> Tensor | None:
    """transformers' mask for its sdpa, left out only where `is_causal` alone says the same.

    Its sdpa also leaves it out for a prompt before the free places of a static cache, and cuts those off itself.
    """
    from transformers.masking_utils import sdpa_mask

    position = options.get("cache_position")
    n_q = options.get("q_length", None if position is None else len(position))
    if n_q not in (1, options.get("kv_length")):
        options["allow_is_causal_skip"] = False
    mask: Tensor | None = sdpa_mask(*args, **options)
    return mask
