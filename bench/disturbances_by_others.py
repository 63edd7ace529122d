"""Who else uses the cores that are measured on: other processes, other guests of the host, a quota.

From what the kernel counted while nothing of ours ran, and while the comparisons did; and from what became of a table
in the shared cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..results.conditions import EVICTION
from .counters import Used, groups, text
from .sign import Sign, Verdict, unreadable

OTHERS_SHARE = 0.02
"""Of one core: other processes that use less leave no trace in a median."""
STOLEN_SHARE = 0.005
PRESSURE_PERCENT = 5.0
LOAD_SHARE = 0.1
"""Of a core: what is runnable on average, beyond which somebody is at work."""
NAMED = 3
SPELL_PERCENT = 90


def signs(
    idle: Used, trials: Used, threads: int, cores: set[int], evictions: Sequence[float], root: Path
) -> list[Sign]:
    """Those of other users, with the arguments of `disturbances.signs`."""
    return [
        _others(idle, trials),
        _load(root, cores),
        _pressure(root),
        _stolen(trials),
        _quota(root, trials, threads),
        _shared_cache(evictions),
    ]


def _others(idle: Used, trials: Used) -> Sign:
    """CPU that was used while we slept, hidden processes included; and by those that can be seen, during the trials."""
    name = "other processes"
    if idle.busy_s is None and not (idle.others or trials.others):
        return unreadable(name)
    before = (idle.others_s if idle.busy_s is None else idle.busy_s) / idle.wall_s
    during = trials.others_s / trials.wall_s
    used: Counter[str] = Counter()
    for who, seconds in [*idle.others, *trials.others]:
        used[who] += seconds  # type: ignore[assignment]  # a Counter adds up seconds as well
    named = ", ".join(who for who, _ in used.most_common(NAMED))
    found = f"{before:.2f} of a core before, {during:.2f} during the comparisons" + (f": {named}" if named else "")
    if max(before, during) <= OTHERS_SHARE:
        return Sign(name, found, "fine")
    advice = (
        "end them, or measure when they rest, threads of the kernel (kworker) with whom they work for: they take "
        "cores, caches and bandwidth"
    )
    return Sign(name, found, "disturbs", advice)


def _load(root: Path, cores: set[int]) -> Sign:
    name = "load average"
    words = (text(root / "proc/loadavg") or "").split()
    if len(words) < 3:
        return unreadable(name)
    found = f"{words[0]} over one minute, {words[2]} over fifteen, on {len(cores)} cores"
    if float(words[2]) <= LOAD_SHARE:
        return Sign(name, found, "fine")
    # the minute holds the comparisons themselves, the fifteen hold who was there before them
    verdict: Verdict = "disturbs" if float(words[2]) >= len(cores) else "perhaps"
    return Sign(name, found, verdict, "wait until it falls: somebody was at work in the last quarter of an hour")


def _pressure(root: Path) -> Sign:
    name = "waiting for cores"
    lines = (text(root / "proc/pressure/cpu") or "").splitlines()
    some = next((line for line in lines if line.startswith("some ")), "")
    values = dict(part.split("=", 1) for part in some.split() if "=" in part)
    if "avg60" not in values:
        return unreadable(name)
    percent = float(values["avg60"])
    found = f"{percent:g} % of the last minute"
    if percent <= PRESSURE_PERCENT:
        return Sign(name, found, "fine")
    return Sign(
        name, found, "disturbs", "more is runnable than there are cores: run less beside, or give fewer --threads"
    )


def _stolen(trials: Used) -> Sign:
    name = "time stolen by the host"
    if trials.stolen_s is None:
        return unreadable(name)
    share = trials.stolen_s / trials.wall_s
    found = f"{share:.2%} of a core during the comparisons"
    if share <= STOLEN_SHARE:
        return Sign(name, found, "fine")
    return Sign(
        name, found, "disturbs", "other guests of this host run on your cores: take dedicated ones, or measure longer"
    )


def _shared_cache(evictions: Sequence[float]) -> Sign:
    """No counter of a guest shows its neighbours, but what it has just read is gone."""
    name = "shared cache"
    if not evictions:
        return unreadable(name)
    usual, spell = float(np.median(evictions)), float(np.percentile(evictions, SPELL_PERCENT))
    found = f"read again 4 ms later in {usual:.2f} times the time of at once, one time of ten in {spell:.2f} or more"
    if spell < EVICTION:
        return Sign(name, found, "fine")
    return Sign(
        name,
        found,
        "disturbs" if usual >= EVICTION else "perhaps",
        "others push out what calls left there: run takes further rounds for that, more of them with more --patience",
    )


def _quota(root: Path, trials: Used, threads: int) -> Sign:
    """A control group that may use only so much CPU time in each period is stopped in the middle of a call."""
    name = "CPU quota of the control group"
    allowed = [cores for group in groups(root, "cpu") if (cores := _allowed(group)) is not None]
    if not allowed and trials.throttled is None:
        return unreadable(name)
    least = min(allowed, default=float("inf"))
    found = "none" if least == float("inf") else f"{least:g} cores"
    if trials.throttled:
        found += f", used up in {trials.throttled} periods"
        return Sign(
            name, found, "disturbs", f"raise the quota, or use fewer than {threads} --threads: calls were stopped"
        )
    if least < threads:
        return Sign(name, found, "perhaps", f"raise it to {threads} cores, or give fewer --threads")
    return Sign(name, found, "fine")


def _allowed(group: Path) -> float | None:
    """Cores that a group may use, inf for no limit; None where it has no such file."""
    words = (text(group / "cpu.max") or "").split()
    if len(words) != 2:
        words = [text(group / f"cpu.cfs_{what}_us") or "" for what in ("quota", "period")]
    if words[0] in ("max", "-1"):
        return float("inf")
    return int(words[0]) / int(words[1]) if all(word.isdigit() for word in words) and int(words[1]) else None
