"""Inside of a process that holds a model: the model as it is, and with its attention replaced.

Each function here runs in a child process (see `process.Child`): it takes the child's state first and plain data after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..variants import registry
from ..variants.api import Variant, get, repeat_heads
from ..variants.errors import VariantError
from ..variants.in_transformers import of_variant, reasons_against, register_function
from .capture import DEFAULT_MAX_LEN
from .capture_text import cut
from .errors import InputsError
from .fidelity_nulls import chooses_keys, keys_kept, looked_at, window_size
from .hf_model import first_line, load, quiet

State = dict[str, Any]

OWN = "eager"
"""transformers' name for the attention that a model's own code writes out."""
EXCHANGED = "attnbench:exchanged"
LARGEST_LOSS = 230.0
"""Of a token, in nats: the perplexity of more is no figure, and a record does not hold it."""
ALLOWED_DIFFERENCE = 1e-4
"""Between a model's own attention and plain softmax in float32, over the largest value."""


@dataclass
class Exchange:
    """What stands in the place of the model's attention now, and what it saw."""

    attend: Callable[..., Tensor] | None = None
    attn: Variant | None = None
    calls: int = 0
    causal: bool = False
    look: bool = False
    kept: list[float] = field(default_factory=list)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None) -> Tensor:
        assert self.attend is not None
        self.calls += 1
        self.causal = causal
        if self.look and self.attn is not None and chooses_keys(self.attn):
            self.kept.append(keys_kept(self.attn, q, k, v, causal=causal, scale=scale))
        return self.attend(q, k, v, causal=causal, scale=scale)


@dataclass
class Original:
    """The model as it is, over all windows."""

    embeddings: Tensor | None = None
    """(W, hidden size), unit vectors in float64."""
    likeliest: Tensor | None = None
    """(W, N - 1), the likeliest next token at each place."""
    perplexity: float | None = None


def prepare(
    state: State, folder: str, name: str, text: str, seq_len: int | None, windows: int, plugins: list[str]
) -> dict[str, Any]:
    """Loads the model, cuts the text, and has the model read it. Returns what every record says of both.

    Raises InputsError for a model or a text that cannot serve.
    """
    for plugin in plugins:
        registry.load_plugin(Path(plugin))
    with quiet("drop-in accuracy"):
        language = _is_language_model(folder)
        network, tokenizer, longest = load(Path(folder), name, OWN, "AutoModelForCausalLM" if language else "AutoModel")
        length = seq_len or min(DEFAULT_MAX_LEN, longest or DEFAULT_MAX_LEN)
        if longest is not None and length > longest:
            raise InputsError(f"{name} reaches at most {longest} tokens, not {length}; choose a shorter --seq-len")
        ids, _, _ = cut(tokenizer, text, length, windows, spread=True)
        exchange = Exchange()
        register_function(EXCHANGED, exchange)
        state.update(network=network, name=name, ids=ids, language=language, exchange=exchange, windows={})
        _refuse_others(state)
        network.set_attn_implementation(OWN)
        original = Original()
        if language:
            loss, original.likeliest = _predict(state)
            original.perplexity = _perplexity(loss)
        else:
            original.embeddings = _embed(state)
        state["original"] = original
    return {
        "model_type": str(network.config.model_type),
        "seq_len": length,
        "windows": windows,
        "causal": exchange.causal,
        "metric": "perplexity" if language else "embedding",
    }


def resolve(state: State, specs: list[str], budgets: list[int]) -> list[dict[str, Any]]:
    """The variants to measure, as fields of their records, `reasons` among them where one cannot stand in.

    `all` stands for every variant that is no operator of its own. Named without parameters, a variant that declares a
    budget comes once for each of `budgets`. Raises VariantError for what does not exist.
    """
    length, causal = len(state["ids"][0]), state["exchange"].causal
    found: dict[str, dict[str, Any]] = {}
    for spec in specs:
        every = [name for name in registry.names() if get(name).kind != "own"] if spec == "all" else [spec]
        for one in every:
            attn = get(one)
            reasons = reasons_against(attn) or _no_such_form(attn, causal)
            chosen: list[tuple[Variant, int | None]] = [(attn, None)]
            if attn.budget is not None and "(" not in one and not reasons:
                sizes = {budget: attn.budget.at(budget, causal, length) for budget in budgets}
                chosen = [(get(one, **dict(params)), budget) for budget, params in sizes.items() if params is not None]
                if not chosen:
                    reasons, chosen = [f"has no parameters that come to {budgets} keys"], [(attn, None)]
            for sized, budget in chosen:
                found.setdefault(
                    repr(sized),
                    {
                        "variant": sized.name,
                        "params": sized.params(),
                        "family": sized.family,
                        "kind": sized.kind,
                        "budget": budget,
                        "budget_unit": None if budget is None or attn.budget is None else attn.budget.unit,
                        "reasons": reasons,
                    },
                )
    return list(found.values())


def measure(state: State, variant: str, params: dict[str, Any]) -> dict[str, Any]:
    """The model with a variant in it: fields of its record. Raises VariantError where the variant cannot run in it."""
    attn = get(variant, **params)
    exchange: Exchange = state["exchange"]
    exchange.attn, exchange.kept = attn, []
    figures = _changed(state, of_variant(attn))
    return {**figures, "keys": sum(exchange.kept) / len(exchange.kept) if exchange.kept else None}


def uniform(state: State) -> dict[str, Any]:
    """The null: each query gets the plain mean of the values that it may see."""
    state["exchange"].attn = None
    return _changed(state, _mean_of_values)


def window(state: State, keys: float, counted: bool) -> dict[str, Any]:
    """The null: a sliding window of as many keys, on average where they were counted, else at a budget of as many."""
    length, causal = len(state["ids"][0]), state["exchange"].causal
    budget = get("sliding_window").budget
    assert budget is not None
    sizes = (
        {"window_size": window_size(keys, looked_at(length), length, causal=causal)}
        if counted
        else budget.at(int(keys), causal, length)
    )
    attn = get("sliding_window", **dict(sizes or {}))
    known: dict[Variant, dict[str, Any]] = state["windows"]
    if attn not in known:
        state["exchange"].attn = None
        known[attn] = _changed(state, of_variant(attn))
    return known[attn]


def _is_language_model(folder: str) -> bool:
    """Whether the folder's configuration names a causal language model, head and all."""
    import json

    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        named = set(config.get("architectures") or ())
    except (OSError, ValueError, AttributeError, TypeError):
        return False  # `load` says what is wrong with it
    return bool(named & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))


def _refuse_others(state: State) -> None:
    """Raises InputsError for a model whose attention is more than softmax of q k' by its mask."""
    network, name, exchange = state["network"], state["name"], state["exchange"]
    with torch.inference_mode():
        own = _forward(state, state["ids"][0])
        exchange.attend = of_variant(get("naive"))
        network.set_attn_implementation(EXCHANGED)
        ours = _forward(state, state["ids"][0])
    if not exchange.calls:
        raise InputsError(f"{name} has no attention layer that goes through transformers' AttentionInterface")
    if not (ours - own).abs().max() <= ALLOWED_DIFFERENCE * own.abs().max():
        raise InputsError(
            f"{name} attends in a way of its own: with plain softmax attention its outputs are others; a variant in "
            "its place would change more than softmax, so take another model"
        )


def _changed(state: State, attend: Callable[..., Tensor]) -> dict[str, Any]:
    """The figures of the model with every layer's attention replaced."""
    exchange, original = state["exchange"], state["original"]
    exchange.attend = attend
    state["network"].set_attn_implementation(EXCHANGED)
    if state["language"]:
        loss, likeliest = _predict(state)
        return {
            "perplexity": _finite(_perplexity(loss)),
            "perplexity_original": original.perplexity,
            "next_token_agreement": float((likeliest == original.likeliest).double().mean()),
        }
    return compare(original.embeddings, _embed(state))


def compare(original: Tensor, changed: Tensor) -> dict[str, Any]:
    """How embeddings (W, E) of windows, unit vectors, agree: in direction, and in how they rank each other."""
    from scipy.stats import kendalltau

    if not changed.isfinite().all():
        raise ArithmeticError("the model's embeddings are no finite numbers with it")
    cosines = (original * changed).sum(dim=1)
    figures: dict[str, Any] = {
        "embedding_cosine": cosines.mean().item(),
        "embedding_cosine_low": cosines.min().item(),
    }
    count = len(original)
    if count < 3:  # two others are the fewest that can be ranked
        return figures
    others = ~torch.eye(count, dtype=torch.bool)
    before, after = ((e @ e.T)[others].view(count, count - 1) for e in (original, changed))
    taus = [float(kendalltau(x, y).statistic) for x, y in zip(before.numpy(), after.numpy(), strict=True)]
    # where the changed model finds all windows alike, tau is not defined: no agreement
    figures["ranking_agreement"] = sum(0.0 if math.isnan(tau) else tau for tau in taus) / count
    figures["top1_agreement"] = float((before.argmax(dim=1) == after.argmax(dim=1)).double().mean())
    if count > 21:
        tops = [set(row.topk(10).indices.tolist()) for row in before], [set(r.topk(10).indices.tolist()) for r in after]
        figures["top10_overlap"] = sum(len(x & y) for x, y in zip(*tops, strict=True)) / (10 * count)
    return figures


def _embed(state: State) -> Tensor:
    """(W, hidden size): the mean over a window's last hidden states, as a unit vector in float64."""
    rows = []
    with torch.inference_mode():
        for place, ids in enumerate(state["ids"]):
            state["exchange"].look = place == 0
            rows.append(_forward(state, ids)[0].double().mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1).clone()


def _predict(state: State) -> tuple[float, Tensor]:
    """The mean loss of the next token over all windows, and the likeliest at each place (W, N - 1)."""
    losses, likeliest = [], []
    with torch.inference_mode():
        for place, ids in enumerate(state["ids"]):
            state["exchange"].look = place == 0
            logits = _forward(state, ids)[0, :-1].double()
            losses.append(F.cross_entropy(logits, torch.tensor(ids[1:])).item())
            likeliest.append(logits.argmax(dim=-1))
    return sum(losses) / len(losses), torch.stack(likeliest).clone()


def _forward(state: State, ids: list[int]) -> Tensor:
    """The last hidden states (1, N, hidden size), or the logits (1, N, words) of a language model."""
    try:
        out: Tensor = state["network"](input_ids=torch.tensor([ids]))[0]
    except (VariantError, InputsError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if state["network"].config._attn_implementation != OWN:
            raise  # a variant's fault, or memory
        raise InputsError(
            f"{state['name']} cannot run on {len(ids)} tokens of plain text: {first_line(error)}"
        ) from None
    return out


def _mean_of_values(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None) -> Tensor:
    v = repeat_heads(v, q.shape[1])
    if not causal:
        return v.mean(dim=2, keepdim=True).expand(*q.shape[:3], v.shape[3])
    seen = torch.arange(1, v.shape[2] + 1, device=v.device, dtype=v.dtype)[:, None]
    return (v.cumsum(dim=2) / seen)[:, :, -q.shape[2] :]


def _no_such_form(attn: Variant, causal: bool) -> list[str]:
    if causal and not attn.supports.causal:
        return ["has no causal form, and the model is causal"]
    if not causal and not attn.supports.noncausal:
        return ["has a causal form only, and the model attends both ways"]
    return []


def _perplexity(loss: float) -> float:
    return math.exp(loss) if loss < LARGEST_LOSS else math.inf


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ArithmeticError("the model's loss is no finite number with it")
    return value
