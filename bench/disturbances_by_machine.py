"""How this machine is made and set up, as far as it disturbs: its cores and their clock, its memory, its power."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .cores import may_keep
from .counters import Used, text
from .environment import is_virtual
from .sign import UNREADABLE, Sign, numbers, unreadable

SLOW_CLOCK_SHARE = 0.9
"""Of the highest frequency: a core that is kept below it by more than this is being held back."""


def signs(trials: Used, threads: int, cores: set[int], root: Path) -> list[Sign]:
    """Those of the machine itself, with the arguments of `disturbances.signs`."""
    return [
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


# -- cores ------------------------------------------------------------------------------------------------------


def _cores(root: Path, threads: int, cores: set[int]) -> Sign:
    name = "cores"
    online = numbers(text(root / "sys/devices/system/cpu/online") or "")
    found = f"{threads} thread{'s' * (threads != 1)} on {len(cores)} cores"
    found += f" of {len(online)}" if len(online) > len(cores) else ""
    if threads > len(cores):
        return Sign(name, found, "disturbs", f"give --threads {len(cores)} at most: threads take turns on a core")
    if threads == len(cores):
        advice = f"with --threads {max(1, threads - 1)} a core is left for the system's own work"
        return Sign(
            name, found, "perhaps", advice if threads > 1 else "there is no other core for the system's own work"
        )
    if not may_keep():
        found += ", and the system keeps no process to one"
        return Sign(
            name,
            found,
            "perhaps",
            "both sides of a comparison cannot share a core; allow sched_setaffinity where a sandbox forbids it",
        )
    return Sign(name, found, "fine")


def _siblings(root: Path, cores: set[int]) -> Sign:
    """Two hardware threads share one core's units and caches."""
    name = "hyper-threading"
    shared = {}
    for core in sorted(cores):
        siblings = text(root / f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        if siblings is not None:
            shared[core] = numbers(siblings)
    if not shared:
        return unreadable(name)
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
        return unreadable(name)
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
        return unreadable(name)
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
        return unreadable(name)
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
        return unreadable(name)
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
        return unreadable(name)
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
        return unreadable(name)
    chosen = said.partition("[")[2].partition("]")[0]
    if chosen != "always":
        return Sign(name, chosen, "fine")
    how = "where processes differ: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
    return Sign(name, chosen, "perhaps", how)


def _numa(root: Path) -> Sign:
    name = "memory nodes"
    said = text(root / "sys/devices/system/node/online")
    if said is None:
        return unreadable(name)
    count = len(numbers(said))
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
        return unreadable(name)
    if said in ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"):
        return Sign(name, said, "fine")
    return Sign(
        name, said, "perhaps", "reading it may take microseconds: look why the kernel gave up the processor's counter"
    )


def _virtual(root: Path) -> Sign:
    name = "virtual machine"
    virtual = is_virtual(root)
    if virtual is None:
        return unreadable(name)
    if not virtual:
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
        return unreadable(name)
    if "1" in plugged or not batteries:
        return Sign(name, "from the mains", "fine")
    return Sign(name, "from a battery", "disturbs", "plug it in: on battery the clock is lowered")


def _cpufreq(root: Path, core: int, what: str) -> str | None:
    return text(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/{what}")
