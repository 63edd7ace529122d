"""Under which conditions a run was measured, and how two runs differ in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

from .record import IDENTITY, Record, digest
from .run import Run

HANDOVER = 1.2
"""Times: by so much what small work takes may differ between two runs before that is pointed out, and within a run
before a turn does not count."""

EVICTION = 1.15
"""Times: by so much longer than at once it may take to read a table in the shared cache again before a turn does not
count; and so much may differ between two runs before that is pointed out."""


@dataclass(frozen=True)
class Side:
    """One of the two: a finished run, or what was measured of a revision."""

    name: str
    records: list[Record]
    run: Run | None = None
    notes: list[str] = field(default_factory=list)


def unlike_conditions(base: Side, head: Side) -> list[str]:
    """What was not alike when the two were measured: machine, versions, threads, allocator, captured input."""
    found: list[str] = []
    if base.run is not None and head.run is not None:
        found += _unlike_machines(base.run, head.run)
        old, new = (side.run.config.get("allocator") for side in (base, head) if side.run)
        if old != new:
            found.append(f"allocator {old or 'not recorded'} and {new or 'not recorded'}")
        for name in sorted(base.run.inputs.keys() & head.run.inputs.keys()):
            before, after = (
                {k: v for k, v in run.inputs[name].items() if k not in ("file", "lengths")}
                for run in (base.run, head.run)
            )
            changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
            if changed:
                found.append(f"the input {name} differs in {', '.join(changed)}")
    for side in (base, head):
        if len({record.machine for record in side.records}) > 1:
            found.append(f"{side.name} itself was measured on more than one machine")
    threads = [sorted({record.threads for record in side.records}) for side in (base, head)]
    if not set(threads[0]) & set(threads[1]):
        found.append("threads {} and {}".format(*(", ".join(map(str, each)) for each in threads)))
    return found


def unlike_beside(base: Side, head: Side, both: Iterable[tuple[Record, Record]]) -> list[str]:
    """Sentences where instruments beside the turns read otherwise in one of the two: `both` are the records of each
    case."""
    both = list(both)
    return [*_unlike_handovers(base, head, both), *_unlike_caches(base, head, both)]


def _unlike_handovers(base: Side, head: Side, both: list[tuple[Record, Record]]) -> list[str]:
    pairs = [(b.handover_s, h.handover_s) for b, h in both if b.handover_s and h.handover_s]
    factor = median(h / b for b, h in pairs) if pairs else 1.0
    if 1 / HANDOVER < factor < HANDOVER:
        return []
    slower, faster = (head, base) if factor > 1 else (base, head)
    return [
        f"small work of the same threads (`handover_s`) took {max(factor, 1 / factor):.2f} times as long in "
        f"{slower.name} as in {faster.name}: the cores were placed or used otherwise, and calls of many small "
        "operations differ for that alone; measure both again, in turns where that can be (compare --git), or with "
        "more --patience"
    ]


def _unlike_caches(base: Side, head: Side, both: list[tuple[Record, Record]]) -> list[str]:
    pairs = [(b.eviction, h.eviction) for b, h in both if b.eviction and h.eviction]
    worse = [sum(h / b >= EVICTION for b, h in pairs), sum(b / h >= EVICTION for b, h in pairs)]
    if not any(worse):
        return []
    where = " and ".join(f"{count} in {side.name}" for side, count in zip((head, base), worse, strict=True) if count)
    return [
        f"others used the cache that cores share more in one run than in the other (`eviction`): of {len(pairs)} "
        f"cases, beside {where}. Calls that come back to what they wrote differ for that alone; measure these again, "
        "in turns where that can be (compare --git), or with more --patience"
    ]


def _unlike_machines(base: Run, head: Run) -> list[str]:
    """Empty for machines of one fingerprint, which leaves out what changes no figure."""
    old, new = base.machine, head.machine
    if old.fingerprint == new.fingerprint:
        return []
    facts = ("cpu", "cores", "gpus", "driver", "system", "python")
    found = [
        f"{fact} {_text(a)} and {_text(b)}" for fact in facts if (a := getattr(old, fact)) != (b := getattr(new, fact))
    ]
    if (a := round(old.memory_bytes / 2**30)) != (b := round(new.memory_bytes / 2**30)):
        found.append(f"memory {a} GiB and {b} GiB")
    libraries = sorted(old.libraries.keys() | new.libraries.keys())
    found += [
        f"{name} {old.libraries.get(name, 'absent')} and {new.libraries.get(name, 'absent')}"
        for name in libraries
        if old.libraries.get(name) != new.libraries.get(name)
    ]
    return found or [f"machines {old.fingerprint} and {new.fingerprint}"]


def _text(value: object) -> str:
    if isinstance(value, list):
        return " + ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def matching(base: Side, head: Side) -> Callable[[Record], str]:
    """What two records of one case share: its id; where each side has one thread count, and not the same, all else."""
    counts = [{record.threads for record in side.records} for side in (base, head)]
    if len(counts[0]) == len(counts[1]) == 1 and counts[0] != counts[1]:
        fields = [name for name in IDENTITY if name != "threads"]
        return lambda record: digest({name: getattr(record, name) for name in fields})
    return lambda record: record.case_id
