"""Recall without training: pairs of random keys and values are written, and each key must bring back its value.

A variant sees a sequence of random unit keys and values. Then the last token asks, with one of the keys, and what comes
out is compared with all values that were written and with 1,024 that were not: recalled is the one with the largest
product, which for unit values is the nearest. With `rewritten`, some keys are written a second time with a new value,
after all others, and the newest counts.

Queries and keys are the unit vectors times d^1/2, so that with the default scale a key's own score is d^1/2, and those
of others have a deviation of 1: what layers that normalise queries and keys give. Write strengths and gates are
constants: a probe has no layer that would learn them.

What is asked is the definition, to which implementations are held: so every variant can be asked on any machine, and
none compiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import BenchError

if TYPE_CHECKING:
    from ..variants.api import Variant

LOADS = (32, 64, 128, 256)
"""Pairs that are written."""
REWRITTEN_LOAD = 32
"""Pairs of the load of which half are written again."""
HEAD_DIM = 64
DISTRACTORS = 1024
READS = 32
"""Pairs of a trial that are asked for, at most; the others are there to be confused with them."""
TRIALS = 8
"""Draws of keys and values for a load: 256 answers, whose share has a deviation of 3 points at most."""
BETA, DECAY = 1.0, 0.99
"""The write strength, and what a token leaves of the state, where a variant has such an input."""


@dataclass(frozen=True)
class Recall:
    """How much of one load is recalled."""

    pairs: int
    rewritten: int
    """Pairs that were written a second time, with other values."""
    accuracy: float
    deviation: float
    """Standard error of `accuracy`, from the spread between trials."""
    reads: int

    @property
    def load(self) -> str:
        return f"{self.pairs} {'pair' if self.pairs == 1 else 'pairs'}" + (
            f", {self.rewritten} of them rewritten" if self.rewritten else ""
        )


def probe(
    attn: Variant,
    *,
    loads: Iterable[int] = LOADS,
    rewritten_load: int = REWRITTEN_LOAD,
    head_dim: int = HEAD_DIM,
    beta: float = BETA,
    decay: float = DECAY,
    trials: int = TRIALS,
    seed: int = 0,
) -> list[Recall]:
    """Write-once recall at each load, and at `rewritten_load` with half rewritten (0: not).

    Raises BenchError as `recall` does.
    """
    wanted = [(pairs, 0) for pairs in loads]
    if rewritten_load:
        if rewritten_load < 2:
            raise BenchError(
                f"half of the rewritten load is written again, so it is 0 or at least 2, not {rewritten_load}"
            )
        wanted.append((rewritten_load, rewritten_load // 2))
    return [
        recall(attn, pairs, rewritten, head_dim=head_dim, beta=beta, decay=decay, trials=trials, seed=seed)
        for pairs, rewritten in wanted
    ]


def recall(
    attn: Variant,
    pairs: int,
    rewritten: int = 0,
    *,
    head_dim: int = HEAD_DIM,
    beta: float = BETA,
    decay: float = DECAY,
    trials: int = TRIALS,
    seed: int = 0,
) -> Recall:
    """One load: `pairs` are written, the first `rewritten` of them again. The mean over `trials` draws.

    `beta` is every token's write strength, `decay` what it leaves of the state (0 to 1), where a variant takes such
    inputs. Raises BenchError for counts that make no sense.
    """
    if pairs < 1:
        raise BenchError(f"recall needs at least one pair that is written, not {pairs}")
    if not 0 <= rewritten <= pairs:
        raise BenchError(f"of {pairs} pairs, 0 to {pairs} can be written again, not {rewritten}")
    if trials < 2:
        raise BenchError(f"recall needs at least two trials, whose spread is its error, not {trials}")
    if head_dim < 1:
        raise BenchError(f"recall needs keys of at least one dimension, not {head_dim}")
    generator = torch.Generator().manual_seed(seed)
    shares = []
    with torch.no_grad():
        for _ in range(trials):
            trial = draw_trial(pairs, rewritten, head_dim, generator)
            out = ask(attn, trial, beta=beta, decay=decay, seed=seed)
            shares.append(found(out, trial).double().mean())
    spread = torch.stack(shares)
    return Recall(
        pairs=pairs,
        rewritten=rewritten,
        accuracy=float(spread.mean()),
        deviation=float(spread.std() / math.sqrt(trials)),
        reads=trials * len(trial.asked),
    )


@dataclass(frozen=True)
class Trial:
    """One draw."""

    keys: Tensor
    """(N, d), unit vectors in the order in which they are written."""
    values: Tensor
    """(N, d), unit vectors."""
    distractors: Tensor
    """(DISTRACTORS, d), unit vectors that were never written."""
    asked: Tensor
    """(R,), places of keys that are asked for."""
    due: Tensor
    """(R,), places of the values that are due: the newest under each key."""


def draw_trial(pairs: int, rewritten: int, head_dim: int, generator: torch.Generator) -> Trial:
    """Random pairs, then new values for the first `rewritten` keys; all keys, or READS of them, are asked for."""

    def unit(count: int) -> Tensor:
        return F.normalize(torch.randn(count, head_dim, generator=generator), dim=-1)

    keys = unit(pairs)
    asked = torch.randperm(pairs, generator=generator)[:READS]
    return Trial(
        keys=torch.cat([keys, keys[:rewritten]]),
        values=unit(pairs + rewritten),
        distractors=unit(DISTRACTORS),
        asked=asked,
        due=torch.where(asked < rewritten, asked + pairs, asked),
    )


def ask(attn: Variant, trial: Trial, *, beta: float = BETA, decay: float = DECAY, seed: int = 0) -> Tensor:
    """What the variant reads for each key that is asked for: (R, d).

    A batch entry for each question. The question is the query of the last token that writes, so that nothing is written
    after the pairs; other queries are their own tokens' keys. Causal where the variant has such a form.
    """
    length, dims = trial.keys.shape
    count, norm = len(trial.asked), math.sqrt(dims)
    k = (norm * trial.keys).repeat(count, 1, 1, 1)  # (R, 1, N, d)
    v = trial.values.repeat(count, 1, 1, 1)
    q = k.clone()
    q[:, 0, -1] = norm * trial.keys[trial.asked]
    extras: dict[str, Any] = constant_extras(attn, q, k, v, beta=beta, decay=decay, seed=seed)
    out = attn.definition(
        q, k, v, causal=attn.supports.causal, rows=torch.tensor([length - 1]), dtype=torch.float32, **extras
    )
    return out[:, 0, 0]


def found(out: Tensor, trial: Trial) -> Tensor:
    """Whether each answer (R, d) is nearer to the value that is due than to any other: booleans (R,).

    A tie is not: an output of zeros is as near to every value.
    """
    candidates = torch.cat([trial.values, trial.distractors])
    nearness = out @ candidates.T  # (R, candidates)
    due = nearness.gather(1, trial.due[:, None])
    nearness = nearness.scatter(1, trial.due[:, None], -math.inf)
    return due[:, 0] > nearness.amax(dim=1)


def constant_extras(
    attn: Variant, q: Tensor, k: Tensor, v: Tensor, *, beta: float, decay: float, seed: int = 0
) -> dict[str, Tensor]:
    """Extra inputs of a variant with `beta` for write strengths and `decay` for what a token leaves of the state.

    Branches that are added up count the same: gates are 1/2. Others, such as an indexer's vectors, are drawn as for a
    measurement.
    """
    from ..variants.api import make_extras

    constants: Mapping[str, float] = {
        "beta": beta,
        "log_decay": math.log(decay) if decay > 0 else -math.inf,
        "A": math.log(decay) if decay > 0 else -math.inf,
        "dt": 1.0,
        "gates": 0.5,
        "levels": 1.0,
    }
    drawn = make_extras(attn, q, k, v, seed=seed)
    return {name: torch.full_like(x, constants[name]) if name in constants else x for name, x in drawn.items()}


def as_fields(loads: Iterable[Recall]) -> dict[str, float]:
    """The record's fields: `recall_32` for 32 pairs, `recall_32_rewritten` where half of them are written again."""
    return {f"recall_{one.pairs}{'_rewritten' if one.rewritten else ''}": one.accuracy for one in loads}
