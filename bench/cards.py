"""What `list` and `show` say of a variant: its card."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..variants import registry
from ..variants.api import get
from .contract.invariants import describe


@dataclass(frozen=True)
class Probe:
    """The plainest case there is, to ask a variant whether it can run here at all."""

    device: str
    mode: str = "forward"
    causal: bool = True
    batch: int = 1
    heads: int = 4
    kv_heads: int = 4
    n_q: int = 1024
    n_k: int = 1024
    head_dim: int = 64
    dtype: str = "float32"


def load(plugins: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """All names, plugins' included, and what failed to load."""
    for plugin in plugins:
        registry.load_plugin(Path(plugin))
    return registry.names(), registry.failures()


def card(spec: str) -> dict[str, Any]:
    """Everything that a variant says of itself, as plain data. Raises VariantError for what does not exist."""
    attn = get(spec)
    s = attn.supports
    modes = {
        "causal": s.causal,
        "non-causal": s.noncausal,
        "cross": s.cross,
        "decode": s.decode,
        "packed sequences": s.varlen,
        "backward": s.backward,
    }
    return {
        "name": attn.name,
        "family": attn.family,
        "kind": attn.kind,
        "about": (type(attn).__doc__ or "").strip(),
        "paper": attn.paper,
        "formula": attn.formula,
        "complexity": dataclasses.asdict(attn.complexity),
        "params": attn.params(),
        "params_about": parameter_docs(type(attn)),
        "extras": [{"name": e.name, "axes": list(e.axes), "about": e.about} for e in attn.extras],
        "supports": {
            "modes": [name for name, able in modes.items() if able],
            "dtypes": list(s.dtypes),
            "devices": list(s.devices),
        },
        "reduces_to": attn.reduces_to,
        "identities": [describe(identity) for identity in attn.identities],
        "reasons_against_cpu": _reasons(attn, "cpu"),
        "compiles": attn.compiles,
    }


def parameter_docs(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass, its base classes' too, as the source has it."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError, ValueError):  # made where there is no source to read
            continue
        for field, below in pairwise(getattr(node, "body", [])):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                value = getattr(below.value, "value", None)
                if isinstance(value, str):
                    docs[field.target.id] = " ".join(value.split())
    return docs


def small_pattern(spec: str) -> dict[str, Any]:
    """Which keys each query attends to, as lines of text, or the reason why that cannot be had."""
    from .pattern import CARD_LENGTH, LEGEND, View, look, shaded

    try:
        (found,) = look([spec], View(seq_len=CARD_LENGTH)).patterns
    except (Exception, SystemExit) as error:  # whatever a variant's definition raises, its card is no less worth having
        return {"reason": str(error) or type(error).__name__}
    side = "causal" if found.causal else "non-causal"
    return {
        "about": f"{found.spec}, {side}, {CARD_LENGTH} queries (down) and keys (across), {found.inputs}",
        "legend": LEGEND,
        "rows": shaded(found),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """A card for a person to read."""
    supports = found["supports"]
    parts = [
        ("", f"{found['name']}: {found['family']}, {found['kind']}"),
        ("", found["about"]),
        ("formula", found["formula"]),
        ("paper", found["paper"]),
        ("complexity", found["complexity"]["text"]),
        *_listed("parameters", [f"{k}={v!r}: {found['params_about'].get(k, '')}" for k, v in found["params"].items()]),
        *_listed("extras", [f"{e['name']} ({', '.join(e['axes'])}): {e['about']}" for e in found["extras"]]),
        (
            "supports",
            f"{', '.join(supports['modes'])}; {', '.join(supports['dtypes'])}; {', '.join(supports['devices'])}",
        ),
        ("reduces to", found["reduces_to"] or "nothing else"),
        *(_listed("tested", found["identities"]) if found["identities"] else ()),
        ("on this CPU", "; ".join(found["reasons_against_cpu"]) or "runs"),
    ]
    text = []
    for label, value in parts:
        lead = f"{label:<12}" if label else ""
        body = " ".join(value.split())
        text += textwrap.wrap(body, 100, initial_indent=lead, subsequent_indent=" " * len(lead)) or [lead]
        if not label:
            text.append("")
    return text + _pattern_lines(found.get("pattern", {}))


def _listed(label: str, items: list[str]) -> list[tuple[str, str]]:
    """One item a line, the label before the first; a blank label stands before the others."""
    return [(label if place == 0 else " ", item) for place, item in enumerate(items or ["none"])]


def _pattern_lines(pattern: dict[str, Any]) -> list[str]:
    if "rows" not in pattern:
        return textwrap.wrap(f"pattern     not drawn: {pattern['reason']}", 100) if pattern else []
    lead, margin = "pattern     ", " " * 12
    about = textwrap.wrap(pattern["about"], 100, initial_indent=lead, subsequent_indent=margin)
    return ["", *about, f"{margin}{pattern['legend']}", "", *(f"{margin}{row}" for row in pattern["rows"])]


def _reasons(attn: Any, device: str) -> list[str]:
    probe = Probe(device, causal=attn.supports.causal)
    return list(attn.reasons_against(probe))
