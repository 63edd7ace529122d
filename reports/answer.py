"""The three sentences that answer "which should I use", each with the records that it rests on.

Ratios are those that were measured: medians over rounds of paired times, with their intervals. Nothing is divided here
but bytes by bytes of the same group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .settings import MODES, REFERENCE, Entry, Setting, captured, causality
from .words import capital, count, digits, interval, lengths, listed, percent, plural, seconds, seconds_interval, size

SAME_AS_SOFTMAX = 1e-3
"""A fidelity error below this is no difference: float32 rounding stays well under it, and so does bfloat16's nearly."""


@dataclass(frozen=True)
class Sentence:
    """What is claimed, and the records that hold it up."""

    text: str
    evidence: tuple[Entry, ...] = ()


def headline(settings: Sequence[Setting]) -> Setting | None:
    """The setting that the sentences are of: where an exact variant was timed at the greatest length.

    Never a batch of unlike requests, where there is another. Among equals the one with the greatest length of all, then
    forward before train before decode, then causal, then drawn before captured input (which is there for fidelity),
    then the one with the most variants timed.
    """

    def rank(setting: Setting) -> tuple[int, ...]:
        return (
            not setting.mixed,
            setting.longest(lambda entry: entry.timed and entry.exact) or 0,
            setting.longest(lambda entry: entry.timed) or 0,
            -MODES.index(setting.of.mode),
            setting.of.causal,
            not captured(setting.of),
            len({entry.label for entry in setting.entries if entry.timed}),
        )

    timed = [setting for setting in settings if setting.timed_lengths]
    return max(timed, key=rank, default=None)


def answers(settings: Sequence[Setting]) -> list[Sentence]:
    """The three sentences; one, where nothing was timed."""
    setting = headline(settings)
    if setting is None:
        entries = [entry for each in settings for entry in each.entries]
        return [
            Sentence(
                f"Nothing can be recommended: of {plural(len(entries), 'record')} none has a time ({fates(entries)})."
            )
        ]
    return [fastest_exact(setting), beyond_exact(setting, settings), least_memory(setting)]


def fastest_exact(setting: Setting) -> Sentence:
    """Which exact variant to use at the greatest length that one of them ran at."""
    length = setting.longest(lambda entry: entry.timed and entry.exact)
    if length is None:
        tried = [entry for entry in setting.entries if entry.exact]
        why = f"none has a time ({fates(tried)})" if tried else "none was asked for"
        return Sentence(f"{capital(setting.phrase)}: nothing can be said of exact attention, since {why}.")
    exact = setting.at(length, lambda entry: entry.timed and entry.exact)
    ranked = [entry for entry in setting.compared(length) if entry.exact]
    first = setting.baseline(length) or min(exact, key=lambda entry: entry.record.time_s or 0.0)
    record = first.record
    spread = seconds_interval(record.time_s_low, record.time_s_high)
    text = (
        f"{capital(setting.phrase)}: {setting.where(length)}{_reach(setting, length)} the fastest exact variant is "
        f"{first.label}, {seconds(record.time_s)} a call (95 % interval {spread})"
    )
    rest = [entry for entry in ranked if entry is not first]
    named = rest[:1] + [entry for entry in rest[1:] if entry.record.variant == REFERENCE]
    for place, entry in enumerate(named):
        text += ", " if place else "; the next exact one is "
        text += f"{entry.label} with {_against(entry, 'its')}"
    if not rest:
        text += "; no other exact variant was measured beside it" if len(exact) == 1 else "; no ratio was recorded"
    text += _absent(setting, length)
    failed = setting.at(max(setting.lengths), lambda entry: entry.exact)
    if max(setting.lengths) > length and failed:
        text += f"; at {count(max(setting.lengths))} no exact variant has a time ({fates(failed)})"
        text += ", but the run has not come to all of them" if setting.run.missing else ""
    return Sentence(text + ".", (first, *named))


def beyond_exact(setting: Setting, settings: Sequence[Setting]) -> Sentence:
    """Where leaving exact attention starts to pay, and what it costs."""
    others = [entry for entry in setting.entries if not entry.exact]
    length = setting.longest(lambda entry: not entry.exact and entry in setting.compared(entry.length))
    if length is None:
        timed = sorted((e for e in others if e.timed), key=lambda e: (-e.length, e.record.time_s or 0.0))
        if timed:
            best = timed[0]
            return Sentence(
                f"Beyond exact attention, {best.label} is the fastest {setting.where(best.length)}, "
                f"{seconds(best.record.time_s)} a call, but no exact variant was timed beside it.",
                (best,),
            )
        why = f"none has a time ({fates(others)})" if others else "none was asked for"
        return Sentence(f"Beyond exact attention nothing can be said, since {why}.")
    ranked = [entry for entry in setting.compared(length) if not entry.exact]
    best = ranked[0]
    text, evidence = _pays(best, setting, length, settings)
    text = f"Beyond exact attention, in the same setting, the fastest {setting.where(length)} is {text}"
    stand_in = next((entry for entry in ranked if entry.record.kind == "approximate"), None)
    if best.record.kind != "approximate" and stand_in is not None:
        more, more_evidence = _pays(stand_in, setting, length, settings)
        text += f"; the fastest that approximates softmax attention is {more}"
        evidence += more_evidence
    return Sentence(text + ".", tuple(dict.fromkeys(evidence)))


def least_memory(setting: Setting) -> Sentence:
    """Which variant holds the least memory at the greatest length at which an exact one was weighed."""
    length = setting.longest(lambda e: e.weighed and e.exact) or setting.longest(lambda e: e.weighed)
    if length is None:
        return Sentence("Memory was not measured in this setting.")
    weighed = sorted(setting.at(length, lambda entry: entry.weighed), key=_bytes)
    exact = [entry for entry in weighed if entry.exact]
    reference = next((entry for entry in weighed if entry.record.variant == REFERENCE), None)
    least = weighed[0]
    evidence = [least]
    text = f"Memory that one call takes above its inputs, {setting.where(length)}: "
    if exact:
        text += f"the exact variant with the smallest peak is {exact[0].label}, {_weight(exact[0], reference)}; "
        evidence = [exact[0], least]
    if exact and _bytes(least) == _bytes(exact[0]):
        text += "no variant needs less"
    else:
        text += f"of all variants {'it is ' if exact else 'the smallest is '}{least.label}, {_weight(least, reference)}"
    if reference is None:
        text += _absent(setting, length) or f"; {REFERENCE} was not measured there"
    elif reference not in evidence:
        evidence.append(reference)
    return Sentence(text + ".", tuple(dict.fromkeys(evidence)))


def fates(entries: Sequence[Entry]) -> str:
    """What became of them, e.g. `naive oom; sdpa timeout, skipped`."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        found.setdefault(entry.label, []).append(entry.record.status if not entry.timed else "ok")
    words = [f"{label} {', '.join(dict.fromkeys(states))}" for label, states in found.items()]
    return "; ".join(words[:4]) + (f"; {len(words) - 4} more" if len(words) > 4 else "")


def faster_from(entry: Entry, setting: Setting) -> int | None:
    """The least measured length from which on the variant's whole interval stays below the baseline's time."""
    start = None
    for length in reversed(setting.timed_lengths):
        for other in setting.compared(length):
            if other.label != entry.label:
                continue
            if other.record.ratio_high is None or other.record.ratio_high >= 1:
                return start
            start = length
    return start


def _pays(entry: Entry, setting: Setting, length: int, settings: Sequence[Setting]) -> tuple[str, list[Entry]]:
    """How an inexact variant stands against the fastest exact one at a length, from where on, and its fidelity."""
    base = setting.baseline(length)
    named = entry.label if not entry.parameters or "(" in entry.label else f"{entry.label} ({entry.parameters})"
    text = f"{named}, {_against(entry, base.label if base else 'its baseline')}"
    compared = {other.length for other in setting.entries if other in setting.compared(other.length)}
    own = sorted({other.length for other in setting.entries if other.label == entry.label and other.timed})
    start = faster_from(entry, setting)
    if setting.mixed:
        pass  # one batch says nothing of other sizes
    elif len(compared) == 1 or len(own) == 1:
        text += ", timed at this length only, so where it starts to pay is not known"
    elif start == own[0]:
        text += f", clearly faster at every length timed, {lengths(own)}"
    elif start == length:
        text += ", at no shorter length clearly faster"
    elif start is not None:
        text += f", clearly faster from {count(start)} tokens on"
    elif (entry.record.ratio or 0.0) >= 1:
        text += ", so at the lengths timed it does not pay"
    evidence = [entry, *([base] if base else [])]
    cost, rests_on = _cost(entry, length, settings)
    return f"{text}; {cost}", evidence + rests_on


def _cost(entry: Entry, length: int, settings: Sequence[Setting]) -> tuple[str, list[Entry]]:
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


def _against(entry: Entry, base: str) -> str:
    """A record's measured ratio to its baseline, in words that fit both sides of one. `base` is a label, or `its`."""
    record = entry.record
    low, high = record.ratio_low, record.ratio_high
    if record.ratio is None:
        return "no ratio"
    whose = base if base == "its" else f"{base}'s"
    if low is not None and high is not None and low <= 1 <= high:
        return f"{digits(record.ratio)} times {whose} time, no clear difference (95 % interval {interval(low, high)})"
    if record.ratio >= 1 or not low or not high:
        return f"{digits(record.ratio)} times {whose} time (95 % interval {interval(low, high)})"
    than = "it" if base == "its" else base
    return f"{digits(1 / record.ratio)} times as fast as {than} (95 % interval {interval(1 / high, 1 / low)})"


def _reach(setting: Setting, length: int) -> str:
    if setting.mixed:
        return ""
    if setting.lengths == [length]:
        return ", the only length measured,"
    return ", the longest measured," if length == max(setting.timed_lengths) else ""


def _absent(setting: Setting, length: int) -> str:
    """Why the reference has no figure at a length, where it was asked for."""
    found = setting.at(length, lambda entry: entry.record.variant == REFERENCE and not entry.timed)
    return f"; {REFERENCE} has no figure there ({found[0].record.status})" if found else ""


def _bytes(entry: Entry) -> int:
    return entry.record.peak_bytes or 0


def _weight(entry: Entry, reference: Entry | None) -> str:
    text = size(_bytes(entry))
    if reference is None or reference is entry or not _bytes(entry):
        return text
    return f"{text} ({REFERENCE}: {size(_bytes(reference))}, {digits(_bytes(reference) / _bytes(entry))} times as much)"
