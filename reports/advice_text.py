"""An answer of `recommend` as text for people, and as plain data for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .recommend import Advice
from .verdict import Verdict
from .words import digits, interval, percent, seconds, seconds_interval, size


def lines(advice: Advice) -> list[str]:
    """The answer, line by line."""
    found = [f"Asked: {advice.question.words}."]
    found += [f"From {source}" for source in advice.sources]
    if advice.setting is not None:
        found.append(f"Times and memory of: {advice.setting}.")
    found += [f"note: {note}" for note in advice.notes]
    kept = advice.of("kept")
    if kept:
        found += ["", f"Use, fastest first{_ratio_to(advice)}:"]
        for place, verdict in enumerate(kept):
            found += _kept(verdict, advice, tie=place > 0 and kept[place - 1].tier == verdict.tier)
    else:
        found += ["", "Nothing that was measured meets the question."]
    for outcome, title in (("rejected", "Rejected:"), ("unknown", "Not enough evidence:")):
        verdicts = advice.of(outcome)  # type: ignore[arg-type]
        found += ["", title] if verdicts else []
        for verdict in verdicts:
            found.append(f"  {verdict.candidate.spec}: {'; '.join(verdict.reasons)}")
            found += [f"      run this: {verdict.command}"] if verdict.command else []
    if advice.commands:
        found += ["", "All that is missing at once:", *(f"  {command}" for command in advice.commands)]
    return found


def _ratio_to(advice: Advice) -> str:
    return f" (ratios to {advice.baseline}, the fastest exact variant there)" if advice.baseline else ""


def _kept(verdict: Verdict, advice: Advice, *, tie: bool) -> list[str]:
    mark = f"  {verdict.tier}{'=' if tie else '.'} "
    pad = " " * len(mark)
    assert verdict.time is not None
    head = f"{mark}{verdict.candidate.spec} [{verdict.candidate.kind}]"
    if tie:
        head += "  no clear difference from the one that leads its tier"
    time = verdict.time
    parts = [f"{seconds(time.value)} a call ({seconds_interval(time.low, time.high)}, {time.basis})"]
    if verdict.ratio is not None and verdict.candidate.spec != advice.baseline:
        ratio = verdict.ratio
        parts.append(f"ratio {digits(ratio.value)} ({interval(ratio.low, ratio.high)}, {ratio.basis})")
    if verdict.memory is not None:
        parts.append(f"memory {size(verdict.memory.value)} ({verdict.memory.basis})")
    if verdict.recall is not None:
        parts.append(f"recall {percent(verdict.recall.value)} ({verdict.recall.source})")
    if verdict.gain is not None:
        gain = verdict.gain
        parts.append(f"the whole model {digits(gain.value)} times as fast ({interval(gain.low, gain.high)})")
    found = [head, f"{pad}{'; '.join(parts)}", f"{pad}kept: {'; '.join(verdict.reasons)}"]
    return found + [f"{pad}note: {remark}" for remark in verdict.remarks]


def plain(advice: Advice) -> dict[str, Any]:
    """The same as data that JSON can hold."""
    return {
        "question": asdict(advice.question),
        "sources": list(advice.sources),
        "setting": advice.setting,
        "baseline": advice.baseline,
        "notes": list(advice.notes),
        "commands": list(advice.commands),
        "variants": [
            {
                "variant": verdict.candidate.variant,
                "params": dict(verdict.candidate.params),
                "spec": verdict.candidate.spec,
                "family": verdict.candidate.family,
                "kind": verdict.candidate.kind,
                **{key: value for key, value in asdict(verdict).items() if key != "candidate"},
            }
            for verdict in advice.verdicts
        ],
    }
