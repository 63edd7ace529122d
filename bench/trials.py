"""Comparisons whose answer is known: code against itself, and against itself with more work planted.

Each is made as `compare --git` makes its own: several pairs of fresh isolated processes, whose sides take turns. What
is timed is attention of a fixed size, called so often that a planted share of work is real work: 103 calls instead of
100 are 3 % more.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..results.trial import Trial
from . import cores, counters
from .case import Case
from .errors import BenchError
from .process import Child, Died, OutOfMemory, Raised, TookTooLong, ready, start_servers
from .turns import PAIRS, TURN_S, take_turns

UNITS = 100
"""What is timed is a multiple of so many calls of the attention: a planted percent is one of them."""
SEQ_LEN, HEADS, HEAD_DIM = 64, 1, 64
"""Small, so that so many calls take milliseconds; inputs and scores stay in the nearest caches."""
VARIANT = "sdpa"
"""One operation, so that UNITS calls are short where starting an operation takes long too."""
SERVERS = 8
"""What processes come from. `compare --git` starts a program for each, which takes too long here; what a program draws
when it starts, each of these has drawn for itself (`fork_servers`)."""
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Work:
    """What is timed on one side, as plain data for its process."""

    dtype: str
    threads: int
    seed: int
    units: int

    @property
    def case(self) -> Case:
        """The attention that a unit calls."""
        return Case(
            variant=VARIANT,
            params={},
            mode="forward",
            causal=True,
            batch=1,
            heads=HEADS,
            kv_heads=HEADS,
            n_q=SEQ_LEN,
            n_k=SEQ_LEN,
            head_dim=HEAD_DIM,
            dtype=self.dtype,
            device="cpu",
            threads=self.threads,
            compiled=False,
            inputs="gaussian",
            seed=self.seed,
        )


# -- in a process of its own ------------------------------------------------------------------------------------


def set_up(state: dict[str, Any], work: Work, on: list[int]) -> float:
    """Draws the inputs and warms up, on some cores or on any; returns the seconds of one unit."""
    import torch

    from ..variants.api import get
    from . import inputs, memory
    from .calls import make_call
    from .timing import AGAIN_S, Size, Stopwatch

    cores.keep_to(on)
    torch.set_num_threads(work.threads)
    memory.keep_heap()
    torch.manual_seed(work.seed)
    unit = make_call(get(VARIANT), work.case, *inputs.draw(work.case, None), {})
    state["stopwatch"] = stopwatch = Stopwatch(unit, "cpu")
    stopwatch.warm_up(least_s=AGAIN_S)
    # one unit warms the caches before each turn: a call of all would take as long as the turn
    stopwatch.size = Size(1, work.units, untimed_first=True)
    return stopwatch.call_s


def sample(state: dict[str, Any]) -> float:
    """One turn: seconds that all units took."""
    return float(state["stopwatch"].sample() * state["stopwatch"].size.calls_per_part)


# -- comparisons ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """How each comparison is made."""

    work: Work
    pair_time_s: float
    machine: str


def start_own_servers() -> None:
    """Starts the servers, and waits until they are there. Raises BenchError where one does not come."""
    start_servers(SERVERS)
    for server in range(SERVERS):
        with closing(_fresh(server)) as child:
            _ask(child, ready)


def sized(dtype: str, threads: int, seed: int) -> Work:
    """The work that lasts about as long as a turn, UNITS calls at least. Raises BenchError where it cannot be done."""
    with closing(_fresh(0)) as child:
        unit_s = _ask(child, set_up, Work(dtype, threads, seed, UNITS), [])
    return Work(dtype, threads, seed, UNITS * max(1, round(TURN_S / (unit_s * UNITS))))


def compared(asked: Asked, planted: float, order: random.Random) -> Trial:
    """One comparison in fresh processes; `planted` is whole percents. Raises BenchError where one of them fails."""
    base = asked.work
    head = replace(base, units=base.units + round(base.units * planted))
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    first, began = counters.read(), time.monotonic()
    rounds: list[tuple[float, ...]] = []
    lasted = []
    for pair, both_on in enumerate(cores.draw(base.threads, PAIRS, order)):
        with ExitStack() as stack:
            children, servers = {}, order.sample(range(SERVERS), 2)
            for side in order.sample((0, 1), 2):  # which of them starts first is chance too, and which is set up first
                children[side] = stack.enter_context(closing(_fresh(servers[side])))
                _ask(children[side], ready)
            for side in order.sample((0, 1), 2):
                _ask(children[side], set_up, (base, head)[side], both_on)
            # what starting took comes out of the time for rounds
            until = began + asked.pair_time_s * (pair + 1) / PAIRS
            turns = [functools.partial(_ask, children[side], sample) for side in (0, 1)]
            taken = take_turns(turns, order, max(0.0, until - time.monotonic()))
        rounds += taken
        lasted.append(len(taken))
    wall_s = time.monotonic() - began
    others = counters.between(first, counters.read())
    return Trial(
        planted=planted,
        base_s=[seconds[0] for seconds in rounds],
        head_s=[seconds[1] for seconds in rounds],
        rounds_per_process=lasted,
        wall_s=wall_s,
        asked_s=asked.pair_time_s,
        others_cores=others.others_s / others.wall_s if others.seen else None,
        dtype=base.dtype,
        threads=base.threads,
        units=base.units,
        seed=base.seed,
        machine=asked.machine,
        started_at=started_at,
    )


def _fresh(server: int) -> Child:
    try:
        return Child(server, TIMEOUT_S)
    except Died as error:
        raise BenchError(f"a process of the doctor's was {error.why}; free memory or cores, and try again") from None


def _ask(child: Child, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return child.call(function, *args, timeout_s=TIMEOUT_S)
    except TookTooLong:
        why = f"took longer than {TIMEOUT_S:g} s"
    except Died as error:
        why = error.why
    except (OutOfMemory, Raised) as error:
        why = str(error)
    raise BenchError(f"the process that the doctor measures failed: {why}; free memory or cores, and try again")
