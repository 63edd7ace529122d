"""Measures published claims anew, one after the other, and records a verdict and the cost of each.

What a claim has timed or trained, the harness measures before, in a folder below; the claim's own function runs in a
process of its own, so that one that crashes, hangs or eats up the memory takes nothing else down.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from .. import __version__
from ..results.claim_record import UNTESTABLE, ClaimRecord, Quantity, claim_id
from ..results.claims import ClaimFolder
from ..results.errors import ResultsError, overheard
from ..results.record import Record, digest
from ..results.run import Run
from ..results.store import RUN, Folder, RunFolder
from ..results.task_record import TaskRecord
from ..results.tasks import TaskFolder
from . import environment, tasks
from .claims import all_claims, choose
from .claims.claim import Claim, Context, Untestable
from .claims.verdict import overall
from .config import from_dict
from .errors import BenchError, ConfigError
from .plan import ask, capture_default
from .process import Died, OutOfMemory, Raised, TookTooLong, isolated
from .progress import Quiet, Watching
from .sweep import Interrupted as SweepInterrupted
from .sweep import execute, letting_go, now
from .sweep import resume as resume_sweep
from .tasks.progress import Quiet as QuietTasks
from .tasks.progress import Watching as TaskWatching
from .tasks.run import Stopped

RUNS, CAPTURE = "runs", "captured.safetensors"
"""Where below the folder the claims' runs and the packaged model's q, k and v are kept."""
WINDOWS = 2
"""Windows of text that are captured."""
TIMEOUT_S = 600.0

Status = Literal["ok", "untestable", "crashed", "oom", "timeout", "skipped"]


class Interrupted(Exception):
    """Ctrl-C: what was done is kept."""

    def __init__(self, folder: Path, done: int, claims: int) -> None:
        super().__init__(
            f"stopped: {done} of {claims} claims are kept in {folder}; go on with: attnbench reproduce --resume "
            f"--out {folder}"
        )


class Watcher(Protocol):
    """Is told what goes on."""

    def claim(self, name: str, number: int, of: int) -> AbstractContextManager[Any]: ...
    def done(self, record: ClaimRecord) -> None: ...
    def sweeping(self) -> Watching: ...
    def training(self) -> TaskWatching: ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def claim(self, name: str, number: int, of: int) -> Iterator[None]:
        yield

    def done(self, record: ClaimRecord) -> None: ...

    def sweeping(self) -> Watching:
        return Quiet()

    def training(self) -> TaskWatching:
        return QuietTasks()


@dataclass(frozen=True)
class Reproduced:
    """What came of it."""

    folder: Path
    records: list[ClaimRecord]


@dataclass
class _Attempt:
    """What one claim has come to, as it is tried."""

    status: Status = "ok"
    reasons: list[str] = field(default_factory=list)
    quantities: list[Quantity] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    shared_s: float = 0.0


def reproduce(
    names: Sequence[str],
    out: str | Path,
    *,
    files: Sequence[str] = (),
    time_budget: float | None = None,
    timeout: float = TIMEOUT_S,
    command: str = "attnbench.bench.reproduce.reproduce(…)",
    watcher: Watcher | None = None,
) -> Reproduced:
    """Measures the claims of these names, all where none is given, cheapest first, into a new folder.

    `files` are files of claims of users' own. Claims not begun when `time_budget` seconds are over are skipped;
    `timeout` ends a claim's own function. Raises BenchError for a name that does not exist and ResultsError for a
    folder that cannot be written, Interrupted at Ctrl-C.
    """
    files = [os.path.abspath(file) for file in files]
    chosen = choose(names, files)
    asked: dict[str, Any] = {
        "claims": [claim.name for claim in chosen],
        "files": files,
        "time_budget": time_budget,
        "timeout": timeout,
    }
    run = Run(
        attnbench_version=__version__,
        command=command,
        config=asked,
        git_commit=environment.git_commit(),
        started_at=now(),
        cases=len(chosen),
        machine=environment.machine(),
    )
    return _go(ClaimFolder.create(out, run), run, chosen, [], watcher or Silent())


def resume(out: str | Path, *, watcher: Watcher | None = None) -> Reproduced:
    """Goes on with a folder of claims that was stopped: measures those that have no record yet."""
    folder, run = ClaimFolder.reopen(out)
    with letting_go(folder):
        known = all_claims([str(file) for file in _listed(run.config, "files")])
        missing = [name for name in _listed(run.config, "claims") if name not in known]
        if missing:
            raise ConfigError(f"{out}/run.json asks for the claim {missing[0]!r}, which does not exist any more")
        records, _ = overheard(lambda: list(folder.records()))  # of a torn line: its claim is measured again
        chosen = [claim for name, claim in known.items() if name in _listed(run.config, "claims")]
        machine = environment.machine()
        notes = [*run.notes]
        if machine.fingerprint != run.machine.fingerprint and records:
            notes.append("went on on a machine that is not like the one it began on")
        run = run.model_copy(update={"machine": machine, "notes": notes, "finished_at": None})
    return _go(folder, run, chosen, records, watcher or Silent())


def _listed(config: Mapping[str, Any], key: str) -> list[str]:
    value = config.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError(f"run.json is no run of claims: {key} is not a list of names")
    return value


def _go(
    folder: ClaimFolder, run: Run, chosen: Sequence[Claim], records: list[ClaimRecord], watcher: Watcher
) -> Reproduced:
    budget, files = run.config.get("time_budget"), _listed(run.config, "files")
    timeout = run.config.get("timeout")
    deadline = time.monotonic() + budget if isinstance(budget, (int, float)) else float("inf")
    limit = float(timeout) if isinstance(timeout, (int, float)) else TIMEOUT_S
    finished = {record.name for record in records}
    bench = _Bench(folder.path, files, limit, watcher)
    try:
        for number, claim in enumerate(chosen, start=1):
            if claim.name in finished:
                continue
            with watcher.claim(claim.name, number, len(chosen)):
                record = bench.settle(claim, run.machine.fingerprint, begin=time.monotonic() < deadline)
            folder.append([record])
            records.append(record)
            watcher.done(record)
        folder.write_run(run.model_copy(update={"finished_at": now()}))
    except KeyboardInterrupt:
        raise Interrupted(folder.path, len(records), len(chosen)) from None
    finally:
        folder.close()
    return Reproduced(folder.path, records)


class _Bench:
    """Carries out claims; keeps what one has measured for others that ask for the same."""

    def __init__(self, home: Path, files: Sequence[str], timeout_s: float, watcher: Watcher) -> None:
        self.home, self.files, self.timeout_s, self.watcher = home, list(files), timeout_s, watcher

    def settle(self, claim: Claim, machine: str, *, begin: bool) -> ClaimRecord:
        """The record of a claim, whatever becomes of it."""
        start, started_at = time.monotonic(), now()
        attempt = _Attempt()
        if begin:
            self._try(claim, attempt)
        else:
            attempt.status, attempt.reasons = "skipped", ["the time budget was used up before it began"]
        return as_record(claim, attempt, wall_s=time.monotonic() - start, machine=machine, started_at=started_at)

    def _try(self, claim: Claim, attempt: _Attempt) -> None:
        try:
            context = Context(
                capture=str(self._captured()) if claim.captured else None,
                records=tuple(self._swept(claim.sweep, attempt)) if claim.sweep else (),
                trained=tuple(self._trained(claim.tasks, attempt)) if claim.tasks else (),
            )
            answer = isolated(carry_out, claim.name, self.files, context, timeout_s=self.timeout_s)
            attempt.status, attempt.quantities, reasons = answer
        except Untestable as error:
            attempt.status, reasons = "untestable", [str(error)]
        except Raised as error:
            attempt.status, reasons = "crashed", [f"{error}, {_place(error.trace)}"]
        except Died as error:
            attempt.status, reasons = "crashed", [error.why]
        except OutOfMemory as error:
            attempt.status, reasons = "oom", [f"memory ran out: {error}"]
        except TookTooLong:
            attempt.status, reasons = "timeout", [f"not done after {self.timeout_s:g} s; --timeout gives it more"]
        except (BenchError, ResultsError) as error:  # of a run that could not be planned, written or read
            attempt.status, reasons = "crashed", [str(error)]
        attempt.reasons += reasons

    def _captured(self) -> Path:
        """The packaged model's q, k and v. Raises Untestable where it is not installed."""
        target = self.home / CAPTURE
        if not target.exists():
            try:
                ask(capture_default, str(target), WINDOWS, timeout_s=self.timeout_s)
            except BenchError as error:
                raise Untestable(str(error)) from None
        return target

    def _swept(self, sweep: Mapping[str, Any], attempt: _Attempt) -> list[Record]:
        """The records of a sweep."""
        config = from_dict(sweep, {}, "the claim's sweep")
        folder = RunFolder(self._place(config, attempt))
        command, watching = f"attnbench reproduce: {folder.path}", self.watcher.sweeping()
        self._run_once(
            folder,
            attempt,
            lambda: execute(config, folder.path, command=command, watching=watching),
            lambda: resume_sweep(folder.path, watching=watching),
        )
        return list(folder.records())

    def _trained(self, document: Mapping[str, Any], attempt: _Attempt) -> list[TaskRecord]:
        """The records of trained tasks."""
        config = tasks.from_dict(document, where="the claim's tasks")
        folder = TaskFolder(self._place(config, attempt))
        command, watching = f"attnbench reproduce: {folder.path}", self.watcher.training()
        self._run_once(
            folder,
            attempt,
            lambda: tasks.run_tasks(config, folder.path, command=command, watching=watching),
            lambda: tasks.resume_tasks(folder.path, watching=watching),
        )
        return list(folder.records())

    def _place(self, config: BaseModel, attempt: _Attempt) -> Path:
        """Where the run of a configuration is kept: the same place for the same configuration."""
        name = f"{RUNS}/{digest(config.model_dump(mode='json'))}"
        attempt.runs.append(name)
        return self.home / name

    def _run_once(
        self, folder: Folder[Any], attempt: _Attempt, begin: Callable[[], object], go_on: Callable[[], object]
    ) -> None:
        """Carries a run out, goes on with it where it was stopped, or leaves it as an earlier claim has left it."""
        try:
            if not (folder.path / RUN).exists():
                begin()
            elif folder.run().finished_at is None:
                go_on()
            else:
                attempt.shared_s += folder.run().spent_s.get("total", 0.0)
        except (SweepInterrupted, Stopped):
            raise KeyboardInterrupt from None


def carry_out(
    state: dict[str, Any], name: str, files: list[str], context: Context
) -> tuple[Status, list[Quantity], list[str]]:
    """Carried out in a process of its own: measures a claim and judges its figures."""
    from .claims.verdict import quantities

    claim = all_claims(files)[name]
    try:
        measured = claim.measure(context)
    except Untestable as error:
        return "untestable", [], [str(error)]
    return "ok", quantities(claim, measured), list(measured.notes)


def as_record(claim: Claim, attempt: _Attempt, *, wall_s: float, machine: str, started_at: str) -> ClaimRecord:
    """The record of what a claim came to."""
    asked = {name: getattr(claim, name) for name in ("name", "text", "source", "setting", "here")}
    verdict = UNTESTABLE if attempt.status == "untestable" else None
    return ClaimRecord(
        claim_id=claim_id({**asked, "targets": [repr(target) for target in claim.targets]}),
        **asked,
        status=attempt.status,
        verdict=overall(q.verdict for q in attempt.quantities) if attempt.status == "ok" else verdict,
        reasons=attempt.reasons,
        quantities=attempt.quantities,
        runs=attempt.runs,
        wall_s=round(wall_s, 3),
        shared_s=round(attempt.shared_s, 3),
        machine=machine,
        started_at=started_at,
    )


def _place(trace: str) -> str:
    """Where code raised: the last file and line of a traceback."""
    places = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    return places[-1].replace("File ", "", 1) if places else "somewhere"
