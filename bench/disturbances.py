"""What disturbs measurements on this machine: each sign with what was found, and what to do about it.

Read from /proc and /sys of Linux, whose files are described in the kernel's own documentation (admin-guide: cpufreq,
cgroup-v2, pressure stall information, transparent hugepages). Much of it is absent in containers, virtual machines and
other systems: that is said, and nothing is assumed in its place.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .counters import Used, groups, text

UNREADABLE = "not readable here"
OTHERS_SHARE = 0.02
"""Of one core: other processes that use less leave no trace in a median."""
STOLEN_SHARE = 0.005
PRESSURE_PERCENT = 5.0
LOAD_SHARE = 0.1
"""Of a core: what is runnable on average, beyond which somebody is at work."""
SLOW_CLOCK_SHARE = 0.9
"""Of the highest frequency: a core that is kept below it by more than this is being held back."""
NAMED = 3

Verdict = Literal["fine", "perhaps", "disturbs", "unreadable"]


@dataclass(frozen=True)
class Sign:
    """One thing that may disturb."""

    name: str
    found: str
    verdict: Verdict
    advice: str = ""
    """What to do, where it disturbs or may."""


def signs(idle: Used, trials: Used, threads: int, cores: set[int], root: Path = Path("/")) -> list[Sign]:
    """All signs, in the order in which to read them.

    idle: counters over a while in which nothing of ours ran. trials: counters while the comparisons ran. threads: how
    many a measured process uses. cores: numbers of those that it may run on.
    """
    return [
        _others(idle, trials),
        _load(root, cores),
        _pressure(root),
        _stolen(trials),
        _quota(root, trials, threads),
        _cores(root, threads, cores),
        _siblings(root, cores),
        _governor(root, cores),
        _frequency(root, cores),
        _turbo(root),
        _heat(root, trials),
        _swap(root, trials),
        _huge_pages(root),
        _numa(root),
        _clock(root),
        _virtual(root),
        _power(root),
    ]


def _unreadable(name: str) -> Sign:
    return Sign(name, UNREADABLE, "unreadable")


# -- who else uses the cores ------------------------------------------------------------------------------------


def _others(idle: Used, trials: Used) -> Sign:
    """CPU that was used while we slept, hidden processes included; and by those that can be seen, during the trials."""
    name = "other processes"
    if idle.busy_s is None and not (idle.others or trials.others):
        return _unreadable(name)
    before = (idle.others_s if idle.busy_s is None else idle.busy_s) / idle.wall_s
    during = trials.others_s / trials.wall_s
    used: Counter[str] = Counter()
    for who, seconds in [*idle.others, *trials.others]:
        used[who] += seconds  # type: ignore[assignment]  # a Counter adds up seconds as well
    named = ", ".join(who for who, _ in used.most_common(NAMED))
    found = f"{before:.2f} of a core before, {during:.2f} during the comparisons" + (f": {named}" if named else "")
    if max(before, during) <= OTHERS_SHARE:
        return Sign(name, found, "fine")
    return Sign(name, found, "disturbs", "end them, or measure when they rest: they take cores, caches and bandwidth")


def _load(root: Path, cores: set[int]) -> Sign:
    name = "load average"
    words = (text(root / "proc/loadavg") or "").split()
    if len(words) < 3:
        return _unreadable(name)
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
        return _unreadable(name)
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
        return _unreadable(name)
    share = trials.stolen_s / trials.wall_s
    found = f"{share:.2%} of a core during the comparisons"
    if share <= STOLEN_SHARE:
        return Sign(name, found, "fine")
    return Sign(
        name, found, "disturbs", "other guests of this host run on your cores: take dedicated ones, or measure longer"
    )


def _quota(root: Path, trials: Used, threads: int) -> Sign:
    """A control group that may use only so much CPU time in each period is stopped in the middle of a call."""
    name = "CPU quota of the control group"
    allowed = [cores for group in groups(root, "cpu") if (cores := _allowed(group)) is not None]
    if not allowed and trials.throttled is None:
        return _unreadable(name)
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


# -- cores ------------------------------------------------------------------------------------------------------


def _cores(root: Path, threads: int, cores: set[int]) -> Sign:
    name = "cores"
    online = _numbers(text(root / "sys/devices/system/cpu/online") or "")
    found = f"{threads} thread{'s' * (threads != 1)} on {len(cores)} cores"
    found += f" of {len(online)}" if len(online) > len(cores) else ""
    if threads > len(cores):
        return Sign(name, found, "disturbs", f"give --threads {len(cores)} at most: threads take turns on a core")
    if threads == len(cores):
        advice = f"with --threads {max(1, threads - 1)} a core is left for the system's own work"
        return Sign(
            name, found, "perhaps", advice if threads > 1 else "there is no other core for the system's own work"
        )
    return Sign(name, found, "fine")


def _siblings(root: Path, cores: set[int]) -> Sign:
    """Two hardware threads share one core's units and caches."""
    name = "hyper-threading"
    shared = {}
    for core in sorted(cores):
        siblings = text(root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        if siblings is not None:
            shared[core] = _numbers(siblings)
    if not shared:
        return _unreadable(name)
    twins = {core for core, siblings in shared.items() if len(siblings) > 1}
    if not twins:
        return Sign(name, "no two of these cores share one", "fine")
    first = sorted({min(siblings & cores) for siblings in shared.values()})
    words = ",".join(map(str, first))
    return Sign(
        name,
        f"{len(twins)} of {len(cores)} share a core with another",
        "perhaps",
        f"use one of each: taskset -c {words} attnbench …, with --threads {len(first)} at most",
    )


def _governor(root: Path, cores: set[int]) -> Sign:
    name = "CPU governor"
    found = Counter(said for core in cores if (said := _cpufreq(root, core, "scaling_governor")))
    if not found:
        return _unreadable(name)
    words = ", ".join(found)
    if set(found) == {"performance"}:
        return Sign(name, words, "fine")
    return Sign(name, words, "disturbs", "sudo cpupower frequency-set -g performance: the clock follows the load now")


def _frequency(root: Path, cores: set[int]) -> Sign:
    """The limits of the clock, and what it is."""
    name = "clock"
    rows = [
        [
            int(said)
            for what in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")
            if (said := _cpufreq(root, core, what) or "").isdigit()
        ]
        for core in sorted(cores)
    ]
    rows = [row for row in rows if len(row) == 3]
    if not rows:
        return _unreadable(name)
    now, most, able = (min(row[i] for row in rows) / 1e6 for i in range(3))
    found = f"{now:.2f} GHz of {able:.2f}" + (f", held below {most:.2f}" if most < able else "")
    if most < SLOW_CLOCK_SHARE * able:
        return Sign(name, found, "perhaps", "somebody has lowered the limit (scaling_max_freq): fine if it stays so")
    return Sign(name, found, "fine")


def _turbo(root: Path) -> Sign:
    """A turbo's clock depends on how many cores are busy, and on the heat of the last seconds."""
    name = "turbo"
    never = text(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = text(root / "sys/devices/system/cpu/cpufreq/boost")
    if never is None and boost is None:
        return _unreadable(name)
    if never == "1" or boost == "0":
        return Sign(name, "off", "fine")
    file = "intel_pstate/no_turbo" if never is not None else "cpufreq/boost"
    off = "1" if never is not None else "0"
    how = f"for the narrowest comparisons turn it off: echo {off} | sudo tee /sys/devices/system/cpu/{file}"
    return Sign(name, "on", "perhaps", how)


def _heat(root: Path, trials: Used) -> Sign:
    name = "heat"
    degrees = [
        int(said) / 1000
        for zone in (root / "sys/class/thermal").glob("thermal_zone*/temp")
        if (said := text(zone) or "").lstrip("-").isdigit()
    ]
    if trials.heat is None and not degrees:
        return _unreadable(name)
    found = [f"{max(degrees):.0f} °C"] if degrees else []
    if trials.heat:
        found.append(f"slowed {trials.heat} times during the comparisons")
        return Sign(
            name, ", ".join(found), "disturbs", "cool it, or turn turbo off: it runs faster than it can for long"
        )
    found.append("never slowed for it" if trials.heat is not None else f"whether it was slowed: {UNREADABLE}")
    return Sign(name, ", ".join(found), "fine")


# -- memory -----------------------------------------------------------------------------------------------------


def _swap(root: Path, trials: Used) -> Sign:
    name = "swap"
    lines = (line.split() for line in (text(root / "proc/meminfo") or "").splitlines())
    kib = {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
    if "SwapTotal:" not in kib:
        return _unreadable(name)
    if not kib["SwapTotal:"]:
        return Sign(name, "none", "fine")
    used = (kib["SwapTotal:"] - kib.get("SwapFree:", 0)) / 2**20
    found = f"{used:.1f} GiB used"
    if trials.swapped:
        found += f", {trials.swapped} pages moved during the comparisons"
        return Sign(
            name, found, "disturbs", "free memory, or sudo swapoff -a: a page that must come back costs milliseconds"
        )
    return Sign(name, found, "fine")


def _huge_pages(root: Path) -> Sign:
    """With `always`, whether a buffer gets huge pages is chance, which differs from process to process."""
    name = "transparent huge pages"
    said = text(root / "sys/kernel/mm/transparent_hugepage/enabled")
    if said is None or "[" not in said:
        return _unreadable(name)
    chosen = said.partition("[")[2].partition("]")[0]
    if chosen != "always":
        return Sign(name, chosen, "fine")
    how = "where processes differ: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
    return Sign(name, chosen, "perhaps", how)


def _numa(root: Path) -> Sign:
    name = "memory nodes"
    said = text(root / "sys/devices/system/node/online")
    if said is None:
        return _unreadable(name)
    count = len(_numbers(said))
    if count <= 1:
        return Sign(name, "1", "fine")
    return Sign(
        name, str(count), "perhaps", "keep threads beside their memory: numactl --cpunodebind=0 --membind=0 attnbench …"
    )


# -- the machine ------------------------------------------------------------------------------------------------


def _clock(root: Path) -> Sign:
    name = "clock source"
    said = text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")
    if said is None:
        return _unreadable(name)
    if said in ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"):
        return Sign(name, said, "fine")
    return Sign(
        name, said, "perhaps", "reading it may take microseconds: look why the kernel gave up the processor's counter"
    )


def _virtual(root: Path) -> Sign:
    name = "virtual machine"
    said = text(root / "proc/cpuinfo")
    if said is None:
        return _unreadable(name)
    flags = next((line.split() for line in said.splitlines() if line.startswith(("flags", "Features"))), [])
    if "hypervisor" not in flags:
        return Sign(name, "no", "fine")
    return Sign(
        name, "yes", "perhaps", "clock, heat and neighbours are the host's to see: only the comparisons tell them"
    )


def _power(root: Path) -> Sign:
    name = "power"
    supplies = root / "sys/class/power_supply"
    plugged = [text(supply / "online") for supply in supplies.glob("*") if text(supply / "type") in ("Mains", "USB")]
    batteries = [supply for supply in supplies.glob("*") if text(supply / "type") == "Battery"]
    if not plugged and not batteries:
        return _unreadable(name)
    if "1" in plugged or not batteries:
        return Sign(name, "from the mains", "fine")
    return Sign(name, "from a battery", "disturbs", "plug it in: on battery the clock is lowered")


def _cpufreq(root: Path, core: int, what: str) -> str | None:
    return text(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/{what}")


def _numbers(listed: str) -> set[int]:
    """`0-2,5` as the kernel writes lists of cores."""
    return set(_ranges(listed))


def _ranges(listed: str) -> Iterator[int]:
    for part in listed.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)


def own_cores() -> set[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))
