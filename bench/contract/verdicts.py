"""Runs the battery on one variant and says what holds, what fails, by how much, and on which smallest case."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...variants import registry
from ...variants.api import Variant, VariantError, get
from ...variants.registry import parse_spec, variant_class
from .battery import Check, battery
from .shapes import Defect, Shape, Unsupported, prepare
from .sizes import SMALL, lengths, shrunk

HOLDS, FAILS, ABSENT = "holds", "FAILS", "cannot run here"

PAIRS_SHOWN = 4

SMALLER = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48)
"""Lengths at which a failure is looked for again, to show the smallest case of it."""


@dataclass(frozen=True)
class Verdict:
    """What a check gave over all its shapes."""

    variant: str
    check: str
    status: str
    cases: int
    measured: float | None
    """The worst that was measured: an error, a difference, or an exponent."""
    case: str = ""
    """Where it fails: the smallest case that was found to."""
    problem: str = ""
    pairs: str = ""
    """Which keys the definition sees and the fast form does not, or the other way round, where that differs."""
    meaning: str = ""
    """What the check asks, in a sentence."""
    seconds: float = 0.0

    @property
    def figure(self) -> str:
        if self.measured is None:
            return ""
        if "growth" in self.check or self.check == "declared time":
            return f"N^{self.measured:.2f}"
        return f"{self.measured:.1e}" if self.measured else "0"


def small(spec: str) -> Variant:
    """The variant of a spec with small sizes, so that short lengths meet every boundary; what the spec says stays.

    Raises VariantError for what does not exist.
    """
    get(spec)
    name, given = parse_spec(spec)
    return shrunk(variant_class(name), **given)


def untouched_sizes(attn: Variant, spec: str) -> list[str]:
    """Whole-number parameters too large for the battery's lengths to meet, which `small` did not know to make small."""
    if type(attn).__module__.startswith(f"{registry.__package__}."):  # those of this package are known
        return []
    given, longest = parse_spec(spec)[1], lengths(attn)[-1]
    return [
        f"{name} = {value}"
        for name, value in attn.params().items()
        if type(value) is int
        and value > longest
        and not (name in SMALL or name in given or name == "seed" or name.startswith("max_"))
    ]


def judge(attn: Variant, only: str = "") -> Iterator[Verdict]:
    """One verdict for each check of the battery whose name contains `only`, in the order of the battery."""
    groups: dict[str, list[Check]] = {}
    for check in battery(attn):
        if only in check.name:
            groups.setdefault(check.name, []).append(check)
    for name, checks in groups.items():
        yield _judge(name, checks)


def _judge(name: str, checks: list[Check]) -> Verdict:
    start = time.perf_counter()
    worst: float | None = None
    absent = ""
    ran = 0
    meaning = _meaning(checks[0])
    attn = checks[0].attn
    for check in sorted(checks, key=lambda c: c.shape.n_q + c.shape.n_k):
        measured, problem, gone = _attempt(check)
        if problem:
            check, measured, problem = _smallest(check, measured, problem)
            pairs = _pairs(check) if name.startswith("forward") else ""
            seconds = time.perf_counter() - start
            case = f"{attn.spec}, {_case(check.shape)}"
            return Verdict(attn.name, name, FAILS, len(checks), measured, case, problem, pairs, meaning, seconds)
        absent = absent or gone
        if measured is not None:
            ran += 1
            worst = measured if worst is None else max(worst, measured)
    seconds = time.perf_counter() - start
    if not ran:
        return Verdict(attn.name, name, ABSENT, 0, None, "", absent, "", meaning, seconds)
    return Verdict(attn.name, name, HOLDS, ran, worst, "", "", "", meaning, seconds)


def _attempt(check: Check) -> tuple[float | None, str, str]:
    """(what was measured, what is wrong, why it cannot run); what is wrong may have a measure too."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answer
            return check.run(), "", ""
    except Unsupported as reasons:
        return None, "", str(reasons)
    except Defect as defect:
        return defect.measured, str(defect), ""
    except VariantError as error:
        return None, f"refuses a case that it says it supports: {error}", ""
    except (Exception, SystemExit) as error:  # whatever a new variant raises is the finding
        return None, f"raises {type(error).__name__}: {_line(error)}{_place(error)}", ""


def _smallest(check: Check, measured: float | None, problem: str) -> tuple[Check, float | None, str]:
    """The shortest case of one entry and one head that fails too, or the given one."""
    shape = check.shape
    if "growth" in check.name or check.name == "declared time" or shape.n_q != shape.n_k:
        return check, measured, problem
    for n in (n for n in SMALLER if n <= shape.n_q):
        for bare in (replace(shape, n_q=n, n_k=n, batch=1, heads=1, kv_heads=1), replace(shape, n_q=n, n_k=n)):
            size, found, _ = _attempt(check.at(bare))
            if found:
                return check.at(bare), size, found
    return check, measured, problem


def _pairs(check: Check) -> str:
    """Which (query, key) pairs have a weight in the definition alone, or in the fast form alone: the first of them."""
    shape = replace(check.shape, dtype="float64", value_dim=check.shape.n_k)
    try:
        q, k, _, extras = prepare(check.attn, shape)
        unit = torch.eye(shape.n_k, dtype=q.dtype).expand(*k.shape[:2], -1, -1)
        with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
            due = check.attn.definition(q, k, unit, causal=shape.causal, **extras)[0, 0] != 0
            got = check.attn(q, k, unit, causal=shape.causal, **extras)[0, 0] != 0
    except (Exception, SystemExit):  # where weights cannot be had this way, the failure itself has been told
        return ""
    lines = []
    for verb, extra in (("misses", due & ~got), ("sees, and should not,", got & ~due)):
        found = extra.nonzero().tolist()
        if found:
            named = ", ".join(f"query {i} key {j}" for i, j in found[:PAIRS_SHOWN])
            more = f" and {len(found) - PAIRS_SHOWN} more" if len(found) > PAIRS_SHOWN else ""
            lines.append(f"forward {verb} {named}{more}")
    return "; ".join(lines)


def _case(shape: Shape) -> str:
    return f"{shape}, B={shape.batch}, H={shape.heads}, Hkv={shape.kv_heads}, D={shape.head_dim}, Dv={shape.value_dim}"


def _meaning(check: Check) -> str:
    function = getattr(check.function, "func", check.function)
    return " ".join((function.__doc__ or "").split("\n\n")[0].split())


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] if str(error).strip() else "no message"


def _place(error: BaseException) -> str:
    """Where the variant's own code raised: the last frame outside torch and this package's checks."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename]
    frames = [f for f in frames if Path(f.filename).parent != Path(__file__).parent] or frames
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
