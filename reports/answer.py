"""The four sentences that answer "which should I use", each with the records that it rests on.

Ratios are those that were measured: medians over rounds of paired times, with their intervals. Nothing is divided here
but bytes by bytes of the same group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .growth import crossings
from .phrases import (
    absent,
    against_base,
    away,
    cost_of,
    distance_of,
    fates,
    onward,
    peak_of,
    roughly,
    weight,
    with_settings,
)
from .settings import MODES, REFERENCE, Entry, Setting, captured, causality
from .words import (
    capital,
    count,
    percent,
    plural,
    seconds,
    seconds_interval,
)

NO_VISIBLE_LOSS = 0.01
"""Up to this distance from softmax attention on a real model's inputs, a variant counts as without visible loss:
rounding each number to bfloat16 moves it by up to 0.4 %, and models are served in that."""


@dataclass(frozen=True)
class Sentence:
    """What is claimed, and the records that hold it up."""

    text: str
    evidence: tuple[Entry, ...] = ()
    question: str = ""
    """What it answers, in a few words."""
    pick: str = ""
    """The answer itself, in as few: a variant, or that there is none."""


def headline(settings: Sequence[Setting]) -> Setting | None:
    """The setting that the sentences are of: where an exact variant was timed at the greatest length.

    A batch of unlike requests, or a step of decoding, answers another question, and comes only where nothing else was
    timed. Among equals the one with the greatest length of all, then forward before train, then causal, then drawn
    before captured input (which is there for fidelity), then the one with the most variants timed.
    """

    def rank(setting: Setting) -> tuple[int, ...]:
        return (
            not setting.mixed,
            setting.of.mode != "decode",
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
    """The four sentences; one, where nothing was timed."""
    setting = headline(settings)
    if setting is None:
        entries = [entry for each in settings for entry in each.entries]
        return [
            Sentence(
                f"Nothing can be recommended: of {plural(len(entries), 'record')} none has a time ({fates(entries)})."
            )
        ]
    found = {
        "Fastest exact": fastest_exact(setting),
        "Fastest at no visible loss": without_loss(setting, settings),
        "Smallest memory": least_memory(setting),
        "Where sub-quadratic pays": pays(setting, settings),
    }
    return [replace(sentence, question=question) for question, sentence in found.items()]


def fastest_exact(setting: Setting) -> Sentence:
    """Which exact variant to use at the greatest length that one of them ran at."""
    length = setting.longest(lambda entry: entry.timed and entry.exact)
    if length is None:
        tried = [entry for entry in setting.entries if entry.exact]
        why = f"none has a time ({fates(tried)})" if tried else "none was asked for"
        return Sentence(f"{capital(setting.phrase)}: nothing can be said of exact attention, since {why}.")
    exact = setting.at(length, lambda entry: entry.timed and entry.exact)
    ranked = [entry for entry in setting.compared(length) if entry.exact]
    first = _fastest(setting, length)
    record = first.record
    spread = seconds_interval(record.time_s_low, record.time_s_high)
    text = (
        f"{capital(setting.phrase)}: {setting.where(length)}{_reach(setting, length)} the fastest exact variant is "
        f"{first.label}, {seconds(record.time_s)} a call (95 % interval {spread})"
    )
    rest = [entry for entry in ranked if entry is not first]
    named = rest[:1] + [entry for entry in rest[1:] if entry.record.variant == REFERENCE]
    for place, entry in enumerate(named):
        text += "; " if place else "; the next exact one is "
        text += f"{entry.label}, {against_base(entry, 'its')}"
    if not rest:
        text += "; no other exact variant was measured beside it" if len(exact) == 1 else "; no ratio was recorded"
    text += absent(setting, length)
    failed = setting.at(max(setting.lengths), lambda entry: entry.exact)
    if max(setting.lengths) > length and failed:
        text += f"; at {count(max(setting.lengths))} no exact variant has a time ({fates(failed)})"
        text += ", but the run has not come to all of them" if setting.run.missing else ""
    return Sentence(text + ".", (first, *named), pick=first.label)


def without_loss(setting: Setting, settings: Sequence[Setting]) -> Sentence:
    """The fastest variant within NO_VISIBLE_LOSS of softmax attention, where time and distance are of one case.

    Only a real model's inputs count, and only at the very length: a window that covers a short text says nothing of a
    long one.
    """
    bound = f"within {percent(NO_VISIBLE_LOSS)} of softmax attention's output on captured input"
    loss = f"At no visible loss (exact, or {bound})"
    longest = setting.longest(lambda entry: entry.timed and entry.exact)
    exact = _fastest(setting, longest) if longest is not None else None
    real = _real(setting, settings)
    if real is None:
        if exact is None:
            nothing = "no exact variant was timed here, nor on captured input beside a distance"
            return Sentence(f"{loss} nothing can be named: {nothing}.")
        known = f"only exact variants can be named: {exact.label} {setting.where(exact.length)}"
        unmeasured = "on captured input no distance was measured beside a time"
        return Sentence(f"{loss} {known}; {unmeasured}.", (exact,), pick=exact.label)
    length = _judged(real)
    base = real.baseline(length or 0)
    if length is None or base is None:
        return Sentence(f"{loss} nothing can be named: on captured input no exact variant was timed beside the others.")
    judged = [entry for entry in real.compared(length) if distance_of(entry) is not None]
    near = [e for e in judged if (distance_of(e) or 0.0) <= NO_VISIBLE_LOSS and _clearly_faster(e)]
    at = (
        f"at {count(length)} tokens ({real.of.mode}, {causality(real.of)}, {real.of.heads} heads of {real.of.head_dim})"
    )
    named = seconds_interval(base.record.time_s_low, base.record.time_s_high)
    alone = f"{base.label}, exact, {seconds(base.record.time_s)} a call (95 % interval {named})"
    evidence = [base]
    if near:
        best = near[0]
        text = f"{at} the fastest is {with_settings(best)}, {against_base(best, base.label)}, {away(best)}"
        evidence.insert(0, best)
    else:
        text = f"{at} the fastest is {alone}"
        faster = [entry for entry in judged if _clearly_faster(entry)]
        rest = min(faster or judged, key=lambda entry: distance_of(entry) or 0.0, default=None)
        if rest is not None:
            lead = (
                "the nearest that is faster is"
                if faster
                else "no approximate variant is clearly faster; the nearest is"
            )
            text += f"; {lead} {with_settings(rest)}, {against_base(rest, base.label)}, {away(rest)}"
            evidence.append(rest)
    if exact is not None and exact.length > length:
        text += f". At {count(exact.length)} tokens nothing was measured on captured input, so only exact variants are "
        text += f"known to lose nothing: {exact.label}"
        evidence.append(exact)
    return Sentence(f"{loss}, {text}.", tuple(dict.fromkeys(evidence)), pick=evidence[0].label)


def pays(setting: Setting, settings: Sequence[Setting]) -> Sentence:
    """From which length on leaving exact attention pays, and what the fastest at the greatest length costs."""
    others = [entry for entry in setting.entries if not entry.exact and _sub_quadratic(entry)]
    length = setting.longest(lambda entry: entry in others and entry in setting.compared(entry.length))
    if length is None:
        timed = sorted((e for e in others if e.timed), key=lambda e: (-e.length, e.record.time_s or 0.0))
        if timed:
            best = timed[0]
            text = (
                f"Where sub-quadratic attention starts to pay cannot be said: {best.label} is the fastest of it "
                f"{setting.where(best.length)}, {seconds(best.record.time_s)} a call, but "
            )
            if not setting.at(best.length, lambda entry: entry.timed and entry.exact):
                return Sentence(f"{text}no exact variant was timed beside it.", (best,))
            exact = _fastest(setting, best.length)
            text += f"no ratio was recorded to the fastest exact variant, {exact.label}, which took "
            return Sentence(f"{text}{seconds(exact.record.time_s)}.", (best, exact))
        why = f"none has a time ({fates(others)})" if others else "none was asked for"
        return Sentence(f"Where sub-quadratic attention starts to pay cannot be said, since {why}.")
    base = setting.baseline(length)
    ranked = [entry for entry in setting.compared(length) if entry in others]
    best = ranked[0]
    known = {entry.label for entry in others}
    whole = [fit for fit in crossings(setting) if fit.what == "crossover" and fit.label in known]
    # first where it surely pays, and among those the earliest
    paying = sorted((f for f in whole if f.value is not None), key=lambda f: (f.high is None, f.value, f.label))
    against = "the fastest exact variant"
    evidence: list[Entry] = []
    if setting.mixed:
        text = "One batch does not say where sub-quadratic attention starts to pay"
    elif not whole:
        text = "Where sub-quadratic attention starts to pay is not known: none was timed beside exact at two lengths"
    elif not paying:
        text = (
            f"Sub-quadratic attention pays at no length timed, up to {count(length)}: none stays faster than {against}"
        )
    else:
        text = f"Sub-quadratic attention starts to pay, against {against}, with {paying[0].label} {onward(paying[0])}"
        if more := paying[1:3]:
            text += "; then " + ", ".join(f"{fit.label} {onward(fit)}" for fit in more)
        rest = len(whole) - len(paying)
        text += f"; {plural(rest, 'other does', 'others do')} not up to {count(length)}" if rest else ""
        evidence += [entry for fit in paying[:3] for entry in fit.mine]
    against = base.label if base else "its baseline"
    text += f". The fastest {setting.where(length)} is {with_settings(best)}, {against_base(best, against)}"
    cost, rests_on = cost_of(best, length, settings)
    text += f"; {cost}"
    evidence += [best, *([base] if base else []), *rests_on]
    stand_in = next((entry for entry in ranked if entry.record.kind == "approximate"), None)
    if best.record.kind != "approximate" and stand_in is not None:
        cost, rests_on = cost_of(stand_in, length, settings)
        text += f". The fastest that stands in for softmax attention is {with_settings(stand_in)}, "
        text += f"{against_base(stand_in, against)}; {cost}"
        evidence += [stand_in, *rests_on]
    pick = f"{paying[0].label} {roughly(paying[0])}" if paying else "nowhere measured" if whole else "not known"
    return Sentence(text + ".", tuple(dict.fromkeys(evidence)), pick=pick)


def least_memory(setting: Setting) -> Sentence:
    """Which variant holds the least memory at the greatest length at which an exact one was weighed."""
    length = setting.longest(lambda e: e.weighed and e.exact) or setting.longest(lambda e: e.weighed)
    if length is None:
        return Sentence("Memory was not measured in this setting.")
    weighed = sorted(setting.at(length, lambda entry: entry.weighed), key=peak_of)
    exact = [entry for entry in weighed if entry.exact]
    reference = next((entry for entry in weighed if entry.record.variant == REFERENCE), None)
    least = weighed[0]
    evidence = [least]
    text = f"Memory that one call takes above its inputs, {setting.where(length)}: "
    if exact:
        text += f"the exact variant with the smallest peak is {exact[0].label}, {weight(exact[0], reference)}; "
        evidence = [exact[0], least]
    if exact and peak_of(least) == peak_of(exact[0]):
        text += "no variant needs less"
    else:
        text += f"of all variants {'it is ' if exact else 'the smallest is '}{least.label}, {weight(least, reference)}"
    if reference is None:
        text += absent(setting, length) or f"; {REFERENCE} was not measured there"
    elif reference not in evidence:
        evidence.append(reference)
    return Sentence(text + ".", tuple(dict.fromkeys(evidence)), pick=least.label)


def _fastest(setting: Setting, length: int) -> Entry:
    """The exact variant that ratios divide by; where none were recorded, the one with the smallest time."""
    exact = setting.at(length, lambda entry: entry.timed and entry.exact)
    return setting.baseline(length) or min(exact, key=lambda entry: entry.record.time_s or 0.0)


def _real(setting: Setting, settings: Sequence[Setting]) -> Setting | None:
    """Where, in the same run, times and distances on captured input stand side by side; the longest, the likest."""
    found = [each for each in settings if each.run is setting.run and captured(each.of) and _judged(each) is not None]

    def likeness(each: Setting) -> tuple[int, ...]:
        same = [getattr(each.of, name) == getattr(setting.of, name) for name in ("mode", "causal", "dtype", "threads")]
        return (*same, _judged(each) or 0)

    return max(found, key=likeness, default=None)


def _judged(setting: Setting) -> int | None:
    """The greatest length at which an approximate variant has both a ratio and a distance."""
    return setting.longest(
        lambda entry: (
            entry.record.kind == "approximate"
            and entry.record.fidelity_error is not None
            and entry in setting.compared(entry.length)
        )
    )


def _clearly_faster(entry: Entry) -> bool:
    return entry.record.ratio_high is not None and entry.record.ratio_high < 1


def _sub_quadratic(entry: Entry) -> bool:
    """Whether it declares less than quadratic time; one that declares nothing is taken at its measured word."""
    return entry.record.declared_time_exponent is None or entry.record.declared_time_exponent < 2


def _reach(setting: Setting, length: int) -> str:
    if setting.mixed:
        return ""
    if setting.lengths == [length]:
        return ", the only length measured,"
    return ", the longest measured," if length == max(setting.timed_lengths) else ""
