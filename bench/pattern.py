"""Which key each query attends to: the matrix A of out = A v, of any variant, from its definition.

For fixed q, k and extras, what a variant computes is linear in v. So its definition with v = I gives A, for methods
that write down weights and for recurrences alike. That it is linear is checked, on the values of the same input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..results.pattern import Pattern
from . import inputs
from .captured import CaptureInfo, load_capture, read_info, reason_against
from .case import Case
from .errors import BenchError, InputsError

if TYPE_CHECKING:
    from torch import Tensor

    from ..variants.api import Variant

LONGEST = 2048
"""Tokens: a pattern has their square of cells, and a page or a screen has no more."""
HEADS, HEAD_DIM = 4, 64
"""Of drawn input; those of a sweep by default."""
FEW = 256
"""Tokens up to which one thread is as fast as many."""
LINEAR = 1e-9
"""By how much A v may differ from the definition of v, over the largest value, in float64."""

SIZE_LENGTH = 64
"""The length at which a variant has the small sizes of its contract's tests; longer ones have larger sizes."""
OWN = {"block_size": 4}
"""Smaller than there: a row of BigBird sees 8 blocks, which would be all of 64 tokens."""
TRIES = 5
"""How often sizes are doubled that a variant refuses, before its own are taken."""
NOT_ALONG = frozenset({"num_features"})
"""Sizes that are not counted along the sequence: smaller ones would only add noise."""


@dataclass(frozen=True)
class View:
    """What is asked for: the same for all variants of a sheet."""

    seq_len: int = 64
    inputs: str = "gaussian"
    causal: bool | None = None
    """None: as captured input was computed, causal for drawn input; the other where the variant has only that."""
    head: int = 0
    layer: int | None = None
    """Of captured input, by its number in the model; None is the first there is."""
    seed: int = 0
    as_is: bool = False
    """Sizes keep their defaults, whatever the length."""


@dataclass(frozen=True)
class Source:
    """One sequence: q (1, H, N, D), k and v (1, Hkv, N, D) in float64, and what is known of it."""

    q: Tensor
    k: Tensor
    v: Tensor
    about: str
    causal: bool = True
    """How the model behind it attends; drawn input has none and is looked at causally."""
    captured: bool = False
    words: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sheet:
    """Patterns on one input, and the variants that have none under it, with the reason."""

    patterns: list[Pattern]
    left_out: dict[str, str]


def look(specs: Sequence[str], view: View) -> Sheet:
    """The patterns of variants, each a spec, or `all` for everything registered.

    Raises BenchError or VariantError for what does not exist and for what a variant that was named cannot do; of `all`,
    such variants are left out, with the reason.
    """
    from ..variants import registry
    from ..variants.errors import VariantError

    if not 0 <= view.seed < 1 << 63:
        raise BenchError(f"the seed must be a whole number from 0 to 2^63 - 1, not {view.seed}")
    if not specs:
        raise BenchError("name a variant, several with commas between them, or all")
    named = {registry.parse_spec(spec)[0] for spec in specs if spec != "all"}
    asked: dict[str, bool] = {}
    for spec in specs:
        if spec == "all":
            asked |= dict.fromkeys((name for name in registry.names() if name not in named), False)
        else:
            registry.get(spec)  # what does not exist is said before any input is made
            asked[spec] = True
    source = open_source(view)
    sheet = Sheet([], {})
    with _threads_for(view.seq_len):
        for spec, by_name in asked.items():
            try:
                sheet.patterns.append(pattern(small(spec, view), source, view))
            except (Exception, SystemExit) as error:  # among all variants, one that fails takes no other down
                if by_name:
                    known = isinstance(error, (BenchError, VariantError))
                    raise error if known else BenchError(f"{spec} raises {type(error).__name__}: {error}") from error
                sheet.left_out[spec] = str(error) or type(error).__name__
    if not sheet.patterns:
        raise BenchError(f"no variant has such a pattern: {next(iter(sheet.left_out.values()))}")
    return sheet


@contextlib.contextmanager
def _threads_for(seq_len: int) -> Iterator[None]:
    """One thread for small tensors, which are slower on many."""
    import torch

    before = torch.get_num_threads()
    if seq_len <= FEW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def small(spec: str, view: View) -> Variant:
    """The variant with the sizes that its spec does not name made small enough to show structure at this length.

    The small sizes are those of the contract's tests at 64 tokens, and grow with the length by powers of two, so that
    what divides another still does; numbers of blocks do not grow, since blocks do. None is made larger than its
    default, and parameters that change only speed stay.
    """
    from ..variants.errors import VariantError
    from ..variants.registry import get, parse_spec
    from .contract.sizes import GROWTH_SIZES, SMALL

    attn = get(spec)
    given = parse_spec(spec)[1]
    if view.as_is:
        return attn
    names = [name for name in SMALL if hasattr(attn, name) and name not in {*given, *attn.tuning, *NOT_ALONG}]
    factor = 2.0 ** round(math.log2(view.seq_len / SIZE_LENGTH))
    for _ in range(TRIES):
        sizes = {
            name: int((SMALL | OWN)[name] * (1 if name in GROWTH_SIZES else factor)) or 1  # a number of blocks stays
            for name in names
        }
        try:
            return dataclasses.replace(
                attn,
                **{name: min(size, getattr(attn, name)) for name, size in sizes.items()},  # type: ignore[type-var]
            )
        except VariantError:  # so small a size is refused, or does not go with one that was given
            factor *= 2
    return attn


def pattern(attn: Variant, source: Source, view: View) -> Pattern:
    """What one head of a variant attends to. Raises BenchError or VariantError for what it cannot do."""
    import torch

    from ..variants.api import make_extras

    if view.causal is None:
        has = {True: attn.supports.causal, False: attn.supports.noncausal}
        causal = source.causal if has[source.causal] else not source.causal
    else:
        causal = view.causal
    if tied := [extra.name for extra in attn.extras if "Dv" in extra.axes]:
        raise BenchError(f"{attn.name} has no one matrix of weights: {tied[0]} makes one for each channel of v")
    q, k, v = source.q, source.k, source.v
    unit = torch.eye(k.shape[2], dtype=k.dtype).expand(*k.shape[:2], -1, -1)
    with torch.no_grad():
        extras: dict[str, Any] = dict(make_extras(attn, q, k, v, seed=view.seed))
        weights = attn.definition(q, k, unit, causal=causal, **extras)  # (1, H, N, N)
        out = attn.definition(q, k, v, causal=causal, **extras)
        again = weights @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    if not float((again - out).abs().max()) <= LINEAR * max(1.0, float(out.abs().max())):
        raise BenchError(f"{attn.name} is not linear in v, so that no matrix of weights says what it attends to")
    notes: tuple[str, ...] = ()
    if source.captured and causal != source.causal:
        own, other = ("causally", "non-causal") if source.causal else ("both ways", "causal")
        notes = (f"The model behind them attends {own}, so that a {other} pattern is not what it computes.",)
    return Pattern(
        spec=attn.spec,
        family=attn.family,
        matrix=weights[0, view.head].numpy(),
        causal=causal,
        inputs=source.about,
        head=view.head,
        heads=q.shape[1],
        words=source.words,
        notes=notes,
    )


def open_source(view: View) -> Source:
    """The sequence that is looked at. Raises BenchError for a length, layer or head that does not exist."""
    inputs.check_name(view.inputs)
    if not 1 <= view.seq_len <= LONGEST:
        raise BenchError(f"a pattern has from 1 to {LONGEST} tokens, not {view.seq_len}")
    if inputs.is_captured(view.inputs):
        source = _captured(view)
    elif view.layer is not None:
        raise BenchError(f"{view.inputs} inputs have no layers; leave --layer to --inputs captured")
    else:
        source = _drawn(view)
    if not 0 <= view.head < source.q.shape[1]:
        raise BenchError(f"there is no head {view.head}: the inputs have {source.q.shape[1]}, counted from 0")
    return source


def _drawn(view: View) -> Source:
    case = Case(
        variant="",  # inputs do not depend on it
        params={},
        mode="forward",
        causal=True,
        batch=1,
        heads=HEADS,
        kv_heads=HEADS,
        n_q=view.seq_len,
        n_k=view.seq_len,
        head_dim=HEAD_DIM,
        dtype="float32",
        device="cpu",
        threads=1,
        inputs=view.inputs,
        seed=view.seed,
    )
    q, k, v = inputs.draw(case, None)
    return Source(q.double(), k.double(), v.double(), f"{view.inputs} inputs, seed {view.seed}")


def _captured(view: View) -> Source:
    path = view.inputs.partition(":")[2]
    if path:
        return _read(Path(path), view)
    from .capture import capture

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "captured.safetensors"
        capture(None, None, file, seq_len=view.seq_len, layers=None if view.layer is None else [view.layer])
        return _read(file, view)


def _read(path: Path, view: View) -> Source:
    info = read_info(path)
    if refusal := reason_against(info, path, view.seq_len):
        raise InputsError(refusal)
    layer = info.layers[0] if view.layer is None else view.layer
    if layer not in info.layers:
        there = ", ".join(map(str, info.layers))
        raise InputsError(f"captured inputs of {path} have no layer {layer}; their layers are {there}")
    place = info.layers.index(layer)
    q, k, v = (x[place : place + 1].double() for x in load_capture(path, seq_len=view.seq_len, windows=1))
    return Source(
        q, k, v, f"{info.model} over {info.text}, layer {layer}", info.causal, True, _words(info, view.seq_len)
    )


def _words(info: CaptureInfo, seq_len: int) -> tuple[str, ...]:
    """Tokens as people write words: without what tokenizers put in the place of a blank or of a line's end."""
    return tuple(
        token.lstrip("Ġ▁").replace("Ċ", "⏎").replace("\n", "⏎").strip() or "·" for token in info.tokens[0][:seq_len]
    )


# -- for a terminal ---------------------------------------------------------------------------------------------

CARD_LENGTH = 24
"""Tokens of the pattern on a card."""
SHADES = "░▒▓█"
LEGEND = "█ the row's largest weight … ░ little; blank: none; --: negative"


def shaded(found: Pattern) -> list[str]:
    """A pattern as lines of text, two characters a key: the square root of its share of the row's largest weight."""
    rows = []
    for seen, shares in zip(found.seen.tolist(), found.shares.tolist(), strict=True):
        cells = (_shade(share) if there else " " for there, share in zip(seen, shares, strict=True))
        rows.append("".join(cell * 2 for cell in cells).rstrip())
    return rows


def _shade(share: float) -> str:
    strength = math.sqrt(abs(share))
    if share < 0 and strength >= 1 / len(SHADES):
        return "-"
    return SHADES[min(len(SHADES) - 1, int(strength * len(SHADES)))]
