"""A run from start to end: plan, claim the folder, measure ceilings and recall, measure the cases, sign it off."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from .. import __version__
from ..results.errors import ResultsError, overheard
from ..results.record import Record
from ..results.run import Ceilings, Run
from ..results.store import Folder, RunFolder
from . import environment, gpu, placement, process, roofline, shared_cache, worker
from .case import Case
from .config import Config, build, from_dict, validated
from .counting import Counting
from .errors import BenchError, ConfigError
from .kept import Kept, KeptGroup, forget
from .patience import Patience
from .placement import Placement
from .plan import Plan, Source, ask, make_plan, planning_s
from .probing import with_recall
from .progress import Quiet, Watching
from .resumed import what_changed
from .scheduler import Scheduler

INPUTS = "inputs"
"""Folder of a run that keeps the input captured for it."""
CEILING_TIMEOUT_S = 120.0
WAKING_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Done:
    """What a run came to."""

    folder: Path
    records: list[Record]
    """One of each case."""
    notes: list[str]


class Interrupted(Exception):
    """Ctrl-C: what was done is kept."""

    def __init__(self, folder: Path, done: int, cases: int, waiting: int) -> None:
        further = f", and {waiting} in the middle of their passes" if waiting else ""
        super().__init__(
            f"stopped: {done} of {cases} cases are kept in {folder}{further}; go on with: attnbench run --resume --out "
            f"{folder}"
        )


def run(
    config: Config | Mapping[str, Any] | str | Path | None = None,
    *,
    preset: str | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Path:
    """Runs a sweep and returns the folder of its results, for `attnbench.load`.

    `config` is the path of a TOML file, or the same as a mapping; `preset` one of quick, standard, long, fidelity;
    `options` override both and are named as in the file (seq_lens=[1024], variants=["sdpa"], …). Raises ValueError with
    one sentence for a request that makes no sense.
    """
    if isinstance(config, Config):
        if options:
            raise ConfigError("options cannot override a finished Config; build it with them")
    elif isinstance(config, Mapping):
        config = from_dict(config, options, "the configuration")
    else:
        config = build(config, preset, options)
    return execute(config, out, command="attnbench.run(…)", watching=Quiet()).folder


def execute(config: Config, out: str | Path | None, *, command: str, watching: Watching) -> Done:
    """Carries out a configuration in a new folder. Raises ValueError for a wrong request, Interrupted at Ctrl-C."""
    began, deadline = time.monotonic(), _deadline(config)
    config = config.model_copy(update={"plugins": [os.path.abspath(plugin) for plugin in config.plugins]})
    path = Path(out) if out is not None else new_folder()
    RunFolder(path).refuse_used()
    with room(), tempfile.TemporaryDirectory(prefix="attnbench-") as scratch, watching.planning():
        # captured into a scratch folder first: a request that fails must leave nothing behind
        plan = make_plan(config, Path(scratch))
        asked = [planned.case for planned in plan.cases]
        cards = ask(worker.cards, asked, config.plugins, timeout_s=planning_s(config))
        machine = environment.machine()
        run = Run(
            attnbench_version=__version__,
            command=command,
            config=config.model_dump(mode="json"),
            git_commit=environment.git_commit(),
            started_at=now(),
            cases=len(plan.cases),
            machine=machine,
            inputs={name: _origin(source) for name, source in plan.sources.items()},
            notes=plan.notes,
        )
        folder = RunFolder.create(path, run)
        with letting_go(folder):
            forget(folder)  # of another run, whose records were removed
            folder.write_cards(cards)
            plan = replace(plan, sources={name: _settle(source, path) for name, source in plan.sources.items()})
    return _measure(config, plan, folder, run, [], began, deadline, watching)


def resume(out: str | Path, *, watching: Watching) -> Done:
    """Goes on with a run that was stopped or killed: measures the cases that have no record yet."""
    began = time.monotonic()
    folder, run = RunFolder.reopen(out)
    with letting_go(folder):
        config = validated(run.config, f"{out}/run.json")
        deadline = _deadline(config)
        # of a torn line, whose case is measured again; of a case that has two records, the last stands
        records, told = overheard(lambda: list({record.case_id: record for record in folder.records()}.values()))
        with room(), watching.planning():
            files = {name: str(origin["file"]) for name, origin in run.inputs.items() if origin.get("file")}
            plan = make_plan(config, Path(out) / INPUTS, files)
        machine = environment.machine()
        notes = what_changed(run, machine, config, plan, records)
        if machine.fingerprint != run.machine.fingerprint:
            run = run.model_copy(update={"ceilings": [], "machine": machine})
        run = run.model_copy(update={"notes": list(dict.fromkeys([*run.notes, *notes])), "finished_at": None})
    done = _measure(config, plan, folder, run, records, began, deadline, watching)
    return replace(done, notes=[*told, *done.notes])


def _measure(
    config: Config,
    plan: Plan,
    folder: RunFolder,
    run: Run,
    finished: list[Record],
    began: float,
    deadline: float,
    watching: Watching,
) -> Done:
    """Ceilings, recall, then every case without a record; run.json is signed off at the end."""
    records = list(finished)
    spent = defaultdict(float, run.spent_s)
    spent["planning"] += time.monotonic() - began

    def save(new: list[Record]) -> None:
        folder.append(new)
        records.extend(new)

    def accounted(end: str | None) -> Run:
        spent["total"] = run.spent_s.get("total", 0.0) + time.monotonic() - began
        return run.model_copy(update={"spent_s": {what: round(s, 3) for what, s in spent.items()}, "finished_at": end})

    def keep(group: KeptGroup) -> None:
        kept.keep(group)
        folder.write_run(accounted(None))  # what is left out of it later is then counted in it

    kept = Kept(folder, f"{run.machine.fingerprint}, {environment.sources(config.plugins)}")
    with watching.measuring(plan, len(records)) as watcher, room(), contextlib.ExitStack() as held:
        try:
            held.enter_context(_alone(plan, folder.path))
            start = time.monotonic()
            table = _ceilings(plan, run.ceilings, watcher.step)
            spent["ceilings"] += time.monotonic() - start
            run = run.model_copy(update={"ceilings": list(table.values())})
            folder.write_run(run)
            start = time.monotonic()
            plan = with_recall(
                plan,
                records,
                plugins=config.plugins,
                timeout_s=config.timeout,
                deadline=deadline,
                step=watcher.step,
            )
            spent["recall"] += time.monotonic() - start
            start = time.monotonic()
            _start_servers(config, plan, records, watcher.step)
            spent["preloading"] += time.monotonic() - start
            scheduler = Scheduler(
                config,
                plan,
                machine=run.machine.fingerprint,
                ceilings=lambda case: table[_setting(case)],
                save=save,
                watcher=watcher,
                counting=_counting(config, deadline, watcher.step),
                kept=kept.groups,
                keep=keep,
                deadline=deadline,
                finished=records,
                spent_s=spent,
            )
            scheduler.run()
            folder.write_run(accounted(now()))
            forget(folder)
        except KeyboardInterrupt:
            with contextlib.suppress(ResultsError):
                folder.write_run(accounted(None))
            waiting = kept.waiting({record.case_id for record in records})
            raise Interrupted(folder.path, len(records), len(plan.cases), waiting) from None
        finally:
            folder.close()
    return Done(folder.path, records, run.notes)


def _counting(config: Config, deadline: float, step: Callable[[str], None]) -> Counting:
    """Which turns count."""
    patience = Patience(config.patience, deadline)

    def gather() -> None:
        step("bringing the cores together")
        with contextlib.suppress(BenchError):  # where the cores lie then is read in any case
            ask(placement.wake, timeout_s=WAKING_TIMEOUT_S)

    moved = config.patience > 0 and placement.matters()
    return Counting(
        patience,
        shared_cache.is_there(),
        Placement(gather, patience, placement.wait) if moved else None,
    )


def _start_servers(config: Config, plan: Plan, records: list[Record], step: Callable[[str], None]) -> None:
    """Starts the fork servers of cases that several processes measure, so that none of these waits for it."""
    finished = {record.case_id for record in records}
    cases = [planned.case for planned in plan.cases if not planned.reasons and planned.case.case_id not in finished]
    if any(case.device == "cpu" and not case.compiled and not case.requests for case in cases):
        step(f"starting {config.servers} fork servers")
        process.start_servers(config.servers)
        for server in range(config.servers):
            ask(process.ready, timeout_s=planning_s(config), server=server)


def _alone(plan: Plan, path: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps other runs off the GPUs that the plan measures on."""
    cases = [planned.case for planned in plan.cases if not planned.reasons]
    devices = list(dict.fromkeys(case.device for case in cases if gpu.is_gpu(case.device)))
    names = ask(gpu.names, devices, timeout_s=CEILING_TIMEOUT_S) if devices else {}
    return gpu.alone(names, f"when it is done, go on with: attnbench run --resume --out {path}")


def _ceilings(plan: Plan, known: list[Ceilings], step: Callable[[str], None]) -> dict[tuple[str, str, int], Ceilings]:
    """The ceilings of every device, dtype and thread count that the plan measures."""
    table = {(c.device, c.dtype, c.threads): c for c in known}
    for setting in dict.fromkeys(_setting(planned.case) for planned in plan.cases if not planned.reasons):
        if setting not in table:
            step("measuring the machine's ceilings: {}, {}, {} threads".format(*setting))
            table[setting] = ask(roofline.measure, *setting, timeout_s=CEILING_TIMEOUT_S)
    return table


def _deadline(config: Config) -> float:
    """When the time budget ends, by time.monotonic(). Planning counts; a resumed run has its budget anew."""
    return time.monotonic() + config.time_budget if config.time_budget else float("inf")


def _setting(case: Case) -> tuple[str, str, int]:
    return case.device, case.dtype, case.threads


def _settle(source: Source, path: Path) -> Source:
    """Moves what was captured for this run into its folder."""
    if source.path is None or not source.ours:
        return source
    home = path / INPUTS
    home.mkdir(exist_ok=True)
    target = home / Path(source.path).name
    draft = target.with_name(f".{target.name}.tmp")
    shutil.move(source.path, draft)  # across file systems that is a copy, which a kill can cut
    os.replace(draft, target)
    return replace(source, path=str(target))


def _origin(source: Source) -> dict[str, JsonValue]:
    """What run.json says of an input."""
    if source.info is None:
        return {"why_not": source.why_not}
    fields = {key: value for key, value in asdict(source.info).items() if key != "tokens"}
    origin = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
    return {**origin, "file": None if source.ours else str(Path(source.path or "").resolve())}


@contextlib.contextmanager
def letting_go(folder: Folder[Any]) -> Iterator[None]:
    """Whoever is refused while a folder is claimed may try again."""
    try:
        yield
    except BaseException:
        folder.close()
        raise


def new_folder() -> Path:
    """runs/<date and time>, with a number where that is taken: in the same second, or before a clock fell back."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    names = (stamp, *(f"{stamp}-{number}" for number in range(2, 100)))
    return next((path for name in names if not (path := Path("runs") / name).exists()), Path("runs") / stamp)


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Turns a full disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or tempfile.gettempdir()
        raise BenchError(f"cannot write to {where}: {error.strerror}; make room there and try again") from None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
