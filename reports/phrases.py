"""How a record, or a fit through some, is put into words within a sentence of the report."""

from __future__ import annotations

from collections.abc import Sequence

from .growth import Fit
from .settings import REFERENCE, Entry, Setting, captured, causality
from .words import count, digits, interval, listed, percent, size, tick

SAME_AS_SOFTMAX = 1e-3
"""A fidelity error below this is no difference: float32 rounding stays well under it, and so does bfloat16's nearly."""


def fates(entries: Sequence[Entry]) -> str:
    """What became of them, e.g. `naive oom; sdpa timeout, skipped`."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        found.setdefault(entry.label, []).append(entry.record.status if not entry.timed else "ok")
    words = [f"{label} {', '.join(dict.fromkeys(states))}" for label, states in found.items()]
    return "; ".join(words[:4]) + (f"; {len(words) - 4} more" if len(words) > 4 else "")


def distance_of(entry: Entry) -> float | None:
    """From softmax attention, of an approximate variant."""
    return entry.record.fidelity_error if entry.record.kind == "approximate" else None


def away(entry: Entry) -> str:
    """How far a variant's output is from softmax attention's, beside a null."""
    null = entry.record.fidelity_error_uniform
    scale = "" if null is None else f" (the plain mean of the values: {percent(null)})"
    return f"{percent(distance_of(entry) or 0.0)} away from softmax attention's output{scale}"


def onward(fit: Fit) -> str:
    """E.g. `from 3,100 tokens on (95 % interval 2,600–3,900)`."""
    first, last = fit.shortest, fit.longest
    value = fit.value or 0.0
    if value <= first and fit.high is not None and fit.high <= first:
        return f"at every length timed, {fit.lengths}"
    low = "before" if fit.low is not None and fit.low <= first else count(fit.low or first)
    low = f"{count(first)} or before" if low == "before" else low
    high = f"none up to {count(last)}" if fit.high is None else count(fit.high)
    return f"from {count(value)} tokens on (95 % interval {low} to {high})"


def roughly(fit: Fit) -> str:
    """The same in as few words as a headline has."""
    first = fit.shortest
    return f"from {tick(first)} or before" if (fit.value or 0.0) <= first else f"from {count(fit.value or 0.0)} tokens"


def with_settings(entry: Entry) -> str:
    """Its label, with all of its parameters."""
    return entry.label if not entry.parameters or "(" in entry.label else f"{entry.label} ({entry.parameters})"


def cost_of(entry: Entry, length: int, settings: Sequence[Setting]) -> tuple[str, list[Entry]]:
    """What is known of its closeness to softmax attention. Only a real model's inputs count."""
    if entry.record.kind != "approximate":
        return "it is an operator of its own, so closeness to softmax attention is no measure of it", []
    measured = [
        other
        for each in settings
        if each.run is entry.run
        for other in each.entries
        if other.label == entry.label and other.record.status == "ok" and other.record.fidelity_error is not None
    ]
    real = [other for other in measured if captured(other.record)]
    if not real:
        drawn = sorted({other.record.inputs for other in measured})
        if drawn:
            return f"its fidelity was measured on {listed(drawn)} input only, which no choice should rest on", []
        return "its fidelity to softmax attention was not measured", []
    best = max(real, key=lambda o: (o.record.causal == entry.record.causal, o.length, o.record.mode == "forward"))
    record = best.record
    shape = f"{count(best.length)} tokens, {record.heads} heads of {record.head_dim}"
    where = f"on captured input ({causality(record)}, {shape})"
    shorter = best.length < length and entry.record.requests is None
    if (error := record.fidelity_error or 0.0) < SAME_AS_SOFTMAX:
        return f"{where} it gives what softmax attention gives{', too short to tell' if shorter else ''}", [best]
    null = record.fidelity_error_uniform
    scale = f", where the plain mean of the values is {percent(null)} away" if null is not None else ""
    unknown = f", and not measured at {count(length)} tokens" if shorter else ""
    return f"{where} its output is {percent(error)} away from softmax attention's{scale}{unknown}", [best]


def against_base(entry: Entry, base: str) -> str:
    """A record's measured ratio to its baseline, in words that fit both sides of one. `base` is a label, or `its`."""
    record = entry.record
    low, high = record.ratio_low, record.ratio_high
    if record.ratio is None:
        return "no ratio"
    whose = base if base == "its" else f"{base}'s"
    if low is not None and high is not None and low <= 1 <= high:
        return f"{digits(record.ratio)} times {whose} time, no clear difference (95 % interval {interval(low, high)})"
    if record.ratio >= 1 or not low or not high:
        than = "" if base == "its" else f" as {base}"
        return f"which takes {digits(record.ratio)} times as long{than} (95 % interval {interval(low, high)})"
    than = "it" if base == "its" else base
    return f"{digits(1 / record.ratio)} times as fast as {than} (95 % interval {interval(1 / high, 1 / low)})"


def absent(setting: Setting, length: int) -> str:
    """Why the reference has no figure at a length, where it was asked for."""
    found = setting.at(length, lambda entry: entry.record.variant == REFERENCE and not entry.timed)
    return f"; {REFERENCE} has no figure there ({found[0].record.status})" if found else ""


def peak_of(entry: Entry) -> int:
    """Its peak memory in bytes; 0 where it was not weighed."""
    return entry.record.peak_bytes or 0


def weight(entry: Entry, reference: Entry | None) -> str:
    """Its peak memory, beside that of the reference."""
    text = size(peak_of(entry))
    if reference is None or reference is entry or not peak_of(entry):
        return text
    return (
        f"{text} ({REFERENCE}: {size(peak_of(reference))}, {digits(peak_of(reference) / peak_of(entry))} times as much)"
    )
