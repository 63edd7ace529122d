"""What this machine can measure: its ceilings, what it can resolve, and what disturbs it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..results.files import end_line
from ..results.resolution import Resolution, resolution
from ..results.run import Ceilings, Machine
from ..results.trial import SCHEMA_VERSION, Trial, load_trials
from . import counters, environment, roofline, shared_cache
from .disturbances import own_cores, signs
from .errors import BenchError, ConfigError
from .plan import ask
from .sign import Sign
from .trials import Asked, Work, compared, sized, start_own_servers
from .turns import PAIRS

CEILING_DTYPES = ("float32", "bfloat16")
CEILING_TIMEOUT_S = 120.0
IDLE_S = 1.0
"""How long nothing of ours runs, to see who else does."""
CACHE_READINGS, CACHE_PAUSE_S = 40, 0.045
"""Two seconds of them: what others do to the shared cache comes and goes."""
LEAST_PAIR_TIME_S = 0.5
ALIKE = ("dtype", "threads", "seed", "asked_s", "pairs", "machine")
"""What comparisons of one file must have in common to be judged together."""


@dataclass(frozen=True)
class Request:
    """What to examine."""

    pairs: int = 10
    """Comparisons of code with itself, and of each planted share."""
    pair_time_s: float = 5.0
    plants: tuple[float, ...] = (0.03,)
    dtype: str = "float32"
    threads: int = 1
    seed: int = 0
    out: Path | None = None
    """Comparisons are appended to it as they come, and those that it holds already are not made again."""

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ConfigError(f"pairs = {self.pairs}: at least one comparison of code with itself is needed")
        if self.pair_time_s < LEAST_PAIR_TIME_S:
            raise ConfigError(f"pair_time = {self.pair_time_s:g} s: give at least {LEAST_PAIR_TIME_S:g} s")
        if self.threads < 1:
            raise ConfigError(f"threads = {self.threads}: give at least 1")
        if wrong := [share for share in self.plants if not is_whole(share)]:
            raise ConfigError(f"plant = {100 * wrong[0]:g} %: give whole percents from 1 to 100, work is planted so")


def is_whole(share: float) -> bool:
    """Whether a planted share is a whole percent from 1 to 100."""
    return abs(round(100 * share) - 100 * share) < 1e-9 and 1 <= round(100 * share) <= 100


@dataclass(frozen=True)
class Diagnosis:
    """What was found."""

    request: Request
    machine: Machine
    ceilings: list[Ceilings]
    signs: list[Sign]
    trials: list[Trial]
    found: Resolution


class Stopped(Exception):
    """Ctrl-C: what was compared is kept, where there is a file to keep it in."""

    def __init__(self, out: Path | None, done: int, wanted: int) -> None:
        kept = f"are kept in {out}; the same command goes on" if out else "were not kept: give --out FILE next time"
        super().__init__(f"stopped: {done} of {wanted} comparisons {kept}")


def examine(request: Request, tell: Callable[[str], None] = lambda text: None) -> Diagnosis:
    """Examines this machine. Raises BenchError for a request that makes no sense, Stopped at Ctrl-C."""
    machine = environment.machine()
    trials = _kept(request, machine.fingerprint)
    before = len(trials)
    wanted = _wanted(request, trials)
    try:
        with _file(request.out) as file:
            idle = counters.read()
            time.sleep(IDLE_S)
            quiet = counters.between(idle, counters.read())
            evictions = _evictions()
            ceilings = _ceilings(request, tell)
            if wanted:
                tell("starting the servers that processes come from")
                start_own_servers()
            asked = Asked(_work(request, trials), request.pair_time_s, machine.fingerprint)
            start = counters.read()
            for number, share in enumerate(wanted, start=1):
                what = f"with {share:.0%} more work" if share else "with itself"
                tell(f"comparison {number} of {len(wanted)}: code {what}")
                # each comparison has chances of its own, whether it is made now or after a stop
                trials.append(compared(asked, share, random.Random(f"{request.seed} {len(trials)}")))
                if file is not None:
                    file.write(trials[-1].model_dump_json() + "\n")
                    file.flush()
            during = counters.between(start, counters.read())
    except KeyboardInterrupt:
        raise Stopped(request.out, len(trials), before + len(wanted)) from None
    tell(f"judging {len(trials)} comparisons")
    disturbing = signs(quiet, during, request.threads, own_cores(), evictions)
    return Diagnosis(request, machine, ceilings, disturbing, trials, resolution(trials, request.seed))


def _evictions() -> list[float]:
    """What the instrument of the shared cache reads now; empty where none can be told of."""
    if not shared_cache.is_there():
        return []
    cache, found = shared_cache.SharedCache(), []
    for _ in range(CACHE_READINGS):
        time.sleep(CACHE_PAUSE_S)
        found.append(cache.read())
    return found


def _kept(request: Request, machine: str) -> list[Trial]:
    """What its file holds already. Raises BenchError where that was made otherwise than is asked for now."""
    trials = [] if request.out is None else load_trials(request.out)
    if any(trial.schema_version != SCHEMA_VERSION for trial in trials):
        raise BenchError(f"{request.out} holds comparisons of another version of the doctor: choose another --out")
    asked = {"asked_s": request.pair_time_s, "pairs": PAIRS, "machine": machine}
    for name in ALIKE:
        wanted = asked.get(name, getattr(request, name, None))
        if other := [trial for trial in trials if getattr(trial, name) != wanted]:
            held = getattr(other[0], name)
            raise BenchError(
                f"{request.out} holds comparisons with {name} {held}, and {wanted} is asked for: choose another --out"
            )
    return trials


def _wanted(request: Request, kept: Sequence[Trial]) -> list[float]:
    """What is still to be planted, 0 for nothing; in random order, so that no hour falls on one kind alone."""
    there = Counter(trial.planted for trial in kept)
    shares = (0.0, *dict.fromkeys(round(share, 2) for share in request.plants))
    wanted = [share for share in shares for _ in range(request.pairs - there[share])]
    random.Random(f"{request.seed} {len(kept)}").shuffle(wanted)
    return wanted


def _work(request: Request, kept: Sequence[Trial]) -> Work:
    """As much as before, where comparisons are kept: it was sized when the machine may have been slower."""
    if kept:
        return Work(request.dtype, request.threads, request.seed, kept[0].units)
    return sized(request.dtype, request.threads, request.seed)


def _ceilings(request: Request, tell: Callable[[str], None]) -> list[Ceilings]:
    """Of the threads asked for, and of all cores."""
    found = []
    for threads in dict.fromkeys((request.threads, environment.cores())):
        for dtype in dict.fromkeys((*CEILING_DTYPES, request.dtype)):
            tell(f"ceilings: {dtype}, {threads} thread{'s' * (threads != 1)}")
            found.append(ask(roofline.measure, "cpu", dtype, threads, timeout_s=CEILING_TIMEOUT_S))
    return found


@contextmanager
def _file(out: Path | None) -> Iterator[IO[str] | None]:
    """The file to append to, on a line of its own. Raises BenchError where it cannot be written."""
    if out is None:
        yield None
        return
    try:
        end_line(out)
        file = out.open("a", encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    with file:
        yield file
