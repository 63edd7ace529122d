"""What a reader of a resumed run must know: that its records were not all measured under the same conditions."""

from __future__ import annotations

from .. import __version__
from ..results.record import Record
from ..results.run import Machine, Run
from . import environment
from .config import Config
from .plan import Plan

FACTS = ("cpu", "cores", "gpus", "driver", "system", "python")


def what_changed(run: Run, machine: Machine, config: Config, plan: Plan, records: list[Record]) -> list[str]:
    """How `machine`, the code and the plan of now differ from those that `run` began with, in sentences; often []."""
    changed = []
    before, now = run.machine.model_dump(), machine.model_dump()
    for fact in FACTS:
        if before[fact] != now[fact]:
            changed.append(f"{fact} {_text(before[fact])} became {_text(now[fact])}")
    old, new = (round(each.memory_bytes / 2**30) for each in (run.machine, machine))
    if old != new:
        changed.append(f"memory {old} GiB became {new} GiB")
    for name in dict.fromkeys([*run.machine.libraries, *machine.libraries]):
        was, now_is = (each.libraries.get(name, "absent") for each in (run.machine, machine))
        if was != now_is:
            changed.append(f"{name} {was} became {now_is}")
    for what, was, now_is in (
        ("attnbench", run.attnbench_version, __version__),
        ("its commit", run.git_commit or "unknown", environment.git_commit() or "unknown"),
    ):
        if was != now_is:
            changed.append(f"{what} {was} became {now_is}")
    notes = []
    if changed:
        notes.append(f"resumed under other conditions than it began, so its figures are mixed: {'; '.join(changed)}")
    threads = max(count for sweep in config.sweep for count in sweep.threads)
    if threads > machine.cores != run.machine.cores:
        notes.append(f"resumed with {threads} threads, as it began, on {machine.cores} cores")
    asked = {planned.case.case_id for planned in plan.cases}
    foreign = sum(record.case_id not in asked for record in records)
    if foreign:
        notes.append(
            f"resumed when {foreign} of its records were of cases that its configuration no longer stands for: a "
            "variant, or its default parameters, have changed since"
        )
    elif len(asked) != run.cases:
        notes.append(f"resumed when its configuration stood for {len(asked)} cases; it was {run.cases} when it began")
    return notes


def _text(value: object) -> str:
    if isinstance(value, list):
        return " + ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
