"""What a child process does for trained tasks: say what can be trained and how, and train.

Each function takes the child's state first and plain data after: see `process.Child`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...variants import registry
from ...variants.api import Variant, VariantError, get
from ...variants.declarations import Call
from ...variants.layer import MultiHeadAttention
from ...variants.registry import load_plugin, parse_spec
from ..pattern import View, small
from ..worker import no_device
from .config import Setting
from .matching import matched
from .training import Training

State = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A variant in a setting: as it will be trained, or why it cannot be."""

    variant: str
    params: dict[str, Any]
    spec: str
    family: str
    kind: str
    reasons: tuple[str, ...] = ()
    """Why it cannot be trained here; () where it can."""
    notes: tuple[str, ...] = ()
    """What a reader of its values must know."""


def candidates(
    state: State, settings: list[Setting], plugins: list[str]
) -> tuple[list[list[Candidate]], dict[str, str]]:
    """The variants of each setting, and modules that failed to import. Raises VariantError for what does not exist."""
    torch.set_num_threads(1)
    for plugin in plugins:
        load_plugin(Path(plugin))
    return [_of_setting(setting) for setting in settings], registry.failures()


def _of_setting(setting: Setting) -> list[Candidate]:
    named = {parse_spec(spec)[0] for spec in setting.variants if spec != "all"}
    specs: list[str] = []
    for spec in setting.variants:
        specs += [name for name in registry.names() if name not in named] if spec == "all" else [spec]
    return [_candidate(spec, setting) for spec in dict.fromkeys(specs)]


def _candidate(spec: str, setting: Setting) -> Candidate:
    attn = get(spec)
    if reasons := _reasons_against(attn, setting):
        return _described(attn, reasons=reasons)
    if setting.sizes == "scaled":
        attn = small(spec, View(seq_len=setting.seq_len))
    notes: list[str] = []
    if setting.match_state is not None:
        attn, notes = matched(attn, spec, setting, setting.match_state)
    # sizes that became smaller may be what a kernel lacks
    return _described(attn, reasons=_reasons_against(attn, setting), notes=notes)


def _described(attn: Variant, reasons: list[str], notes: list[str] | None = None) -> Candidate:
    return Candidate(attn.name, attn.params(), attn.spec, attn.family, attn.kind, tuple(reasons), tuple(notes or ()))


def _reasons_against(attn: Variant, setting: Setting) -> list[str]:
    """Why no training step of the setting can be done here; or why a layer cannot make what the variant wants."""
    if reasons := no_device(setting.device):
        return reasons
    for length in dict.fromkeys((setting.seq_len, setting.held_out_len)):
        call = Call(
            mode="train",
            causal=True,
            batch=setting.batch,
            heads=setting.heads,
            kv_heads=setting.heads,
            n_q=length,
            n_k=length,
            head_dim=setting.d_model // setting.heads,
            dtype="float32",
            device=setting.device,
        )
        if reasons := attn.reasons_against(call):
            return reasons
    try:
        MultiHeadAttention(attn, setting.d_model, setting.heads, causal=True, device="meta")
    except VariantError as error:
        return [str(error)]
    return []


def train(
    state: State,
    setting: Setting,
    candidate: Candidate,
    lr: float,
    seed: int,
    plugins: list[str],
    path: str,
    save_s: float,
) -> dict[str, Any]:
    """One training, from its checkpoint at `path` where there is one; one is written every `save_s` seconds."""
    for plugin in plugins:
        load_plugin(Path(plugin))
    torch.set_num_threads(setting.threads)
    return Training(get(candidate.variant, **candidate.params), setting, lr, seed).run(Path(path), save_s)
