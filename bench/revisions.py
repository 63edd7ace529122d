"""Two revisions of the variants, measured in turns: each checked out into a worktree, each in a process of its own.

The code that is measured comes from the revisions, the code that measures from here. Every case is measured by several
pairs of processes, one after the other, and pairs are what the test of a change counts.
"""

from __future__ import annotations

import contextlib
import functools
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from ..results.conditions import Side
from ..results.record import Record
from ..variants.registry import parse_spec
from . import cores, environment
from .case import Case
from .config import Config, build
from .errors import BenchError, ConfigError
from .limits import memory_available
from .output import whole_number
from .peers import Peer, PeerFailed
from .plan import expand
from .turns import MIN_ROUNDS, PAIRS, TURN_S, take_turns
from .worktrees import checked_out, commit_of, dirty

CASE_TIME_S = 6.0
"""Of one revision, shared by its processes: their medians spread by 1 to 2 % on a noisy machine."""
MEMORY_SHARE = 0.45
"""Of the memory that is free: two processes live side by side."""
UNLIKE = 2
"""Where one side's turn has more than so many times the other's calls, each keeps its own size."""
NUMBERS = ("seq_lens", "threads", "batch", "heads", "kv_heads", "head_dim")
MODES = ("forward", "train")
LISTS = ("seq_lens", "threads")


@dataclass
class Measured:
    """What came of one case in one revision."""

    status: str = "ok"
    reasons: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    samples: list[float] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    """Of a turn, as its first process chose it (`timing.Size`)."""


def measure(
    base: str, head: str, options: Mapping[str, Any], tell: Callable[[str], None] = lambda text: None
) -> tuple[Side, Side]:
    """Measures two revisions of REPOSITORY; `options` are those of `attnbench run`, as text, and `rounds`.

    Gives a record of each case and revision, their samples in the order of common rounds. Raises BenchError for a
    revision or a variant that does not exist, ConfigError for options that make no sense.
    """
    config, rounds = _settings(options)
    commits = [commit_of(revision) for revision in (base, head)]
    notes = ["what is not committed was not measured"] if dirty() else []
    made: tuple[list[Record], list[Record]] = ([], [])
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attnbench-revisions-")))
        homes = [
            stack.enter_context(checked_out(commit, scratch / side))
            for side, commit in zip(("base", "head"), commits, strict=True)
        ]
        cases = _cases(config, homes)
        machine = environment.machine().fingerprint
        if any(c.device == "cpu" and c.threads < environment.cores() for c, _ in cases) and not cores.may_keep():
            notes.append("the system keeps no process to a core: other work on one side's core may look like a change")
        for number, (case, there) in enumerate(cases, start=1):
            tell(f"{number} of {len(cases)}: {case.variant}, {case.setting}")
            found = _measure_case(case, homes, there, config, rounds)
            for side, one in zip(made, found, strict=True):
                if one is not None:
                    side.append(_record(case, *one, machine))
    names = [f"{name} ({commit[:10]})" for name, commit in zip((base, head), commits, strict=True)]
    return Side(names[0], made[0], notes=notes), Side(names[1], made[1])


# -- what is asked ----------------------------------------------------------------------------------------------


def _settings(options: Mapping[str, Any]) -> tuple[Config, int | None]:
    """The configuration, and the rounds of each case if they are given."""
    typed = dict(options)
    rounds = typed.pop("rounds", None)
    for name in NUMBERS:
        if name in typed:
            values = [whole_number(name, part) for part in str(typed[name]).split(",")]
            if len(values) > 1 and name not in LISTS:
                raise ConfigError(f"{name} takes one number, not {typed[name]!r}")
            typed[name] = values if name in LISTS else values[0]
    if rounds is not None:
        rounds = whole_number("rounds", str(rounds))
        if rounds < PAIRS * MIN_ROUNDS:
            raise ConfigError(
                f"rounds = {rounds}: {PAIRS} pairs of processes take {MIN_ROUNDS} each at least, so give "
                f"{PAIRS * MIN_ROUNDS} or more"
            )
    config = build(options={"case_time": CASE_TIME_S, **typed})
    for sweep in config.sweep:
        if other := [mode for mode in sweep.modes if mode not in MODES]:
            raise ConfigError(f"revisions are compared in {' and '.join(MODES)}, not in {other[0]}")
    return config, rounds


def _cases(config: Config, homes: list[Path]) -> list[tuple[Case, list[bool]]]:
    """Every case asked for, and which revision has its variant. Raises BenchError where none has it."""
    (sweep,) = config.sweep
    resolved = []
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(contextlib.closing(_peer(home, config))) for home in homes]
        for home, peer in zip(homes, peers, strict=True):
            try:
                resolved.append(peer.ask("resolve", specs=sweep.variants))
            except PeerFailed as failed:
                raise BenchError(f"the revision of {home.name.upper()} cannot be imported: {failed.why}") from None
    for home, answer in zip(homes, resolved, strict=True):
        if Path(answer["at"]).resolve().parent != (home / "attnbench").resolve():
            raise BenchError(f"{answer['at']} would be measured in place of a revision; unset what imports it first")
    specs = list(dict.fromkeys(spec for answer in resolved for spec in (*answer["found"], *answer["lacks"])))
    for spec in specs:
        if not any(spec in answer["found"] for answer in resolved):
            raise BenchError(resolved[1]["lacks"][spec])
    # params are those that were asked for, since defaults may differ from revision to revision
    asked = {spec: parse_spec(spec) for spec in specs}
    there = {repr(asked[spec]): [spec in answer["found"] for answer in resolved] for spec in specs}
    named = sweep.model_copy(update={"variants": specs})
    return [
        (laid.case, there[repr((laid.case.variant, dict(laid.case.params)))])
        for laid in expand(named, {spec: [one] for spec, one in asked.items()}, {})
    ]


# -- one case ---------------------------------------------------------------------------------------------------


def _measure_case(
    case: Case, homes: list[Path], there: list[bool], config: Config, rounds: int | None
) -> list[tuple[Measured, list[int]] | None]:
    """Both revisions' figures, None for one without the variant, with the rounds of each pair of processes."""
    if not all(there):
        alone = Measured("skipped", ["the other revision has no such variant, so there is nothing to compare it with"])
        return [(alone, []) if has else None for has in there]
    found = [Measured() for _ in homes]
    lasted: list[int] = []
    order = random.Random(case.case_id)
    for pair, both_on in enumerate(cores.draw(case.threads, PAIRS, order)):
        with contextlib.ExitStack() as stack:
            started = {  # which of them starts first is chance too, and which is set up first
                side: stack.enter_context(contextlib.closing(_peer(homes[side], config)))
                for side in order.sample((0, 1), 2)
            }
            peers = [started[side] for side in (0, 1)]
            for side in order.sample((0, 1), 2):
                _set_up(peers[side], found[side], case, config, both_on)
            if all(one.status == "ok" for one in found):
                for peer, one, size in zip(peers, found, _alike([one.size for one in found]), strict=True):
                    _ask(peer, one, "resize", size=size)
            if all(one.status == "ok" for one in found):
                wanted = None if rounds is None else -(-rounds // PAIRS)
                lasted.append(_rounds(peers, found, order, 2 * config.case_time / PAIRS, wanted))
            for peer, one in zip(peers, found, strict=True):
                if pair == 0 and one.status == "ok":
                    _ask(peer, one, "weigh")
        if any(one.status != "ok" for one in found):
            break
    return [(one, lasted) for one in found]


def _alike(sizes: list[list[int]]) -> list[list[int]]:
    """The sizes of turns to take: the smaller one on both sides, unless calls are so unlike that each needs its own."""
    fewer, more = sorted(sizes, key=lambda size: size[0] * size[1])
    if more[0] * more[1] > UNLIKE * fewer[0] * fewer[1]:
        return sizes
    return [[*fewer[:2], any(size[2] for size in sizes)]] * 2


def _set_up(peer: Peer, found: Measured, case: Case, config: Config, on: list[int]) -> None:
    keep = config.allocator == "keep"
    answer = _ask(peer, found, "set_up", spec=case.spec, case=case.identity(), keep=keep, cores=on, turn_s=TURN_S)
    if answer is not None:
        found.status, found.reasons = answer["status"], answer["reasons"]
        found.fields |= answer["fields"]
        found.size = found.size or answer.get("size", [])


def _rounds(peers: list[Peer], found: list[Measured], order: random.Random, time_s: float, wanted: int | None) -> int:
    """Lets both take turns; returns how many rounds both came through."""

    def turn(side: int) -> float | None:
        answer = _ask(peers[side], found[side], "sample")
        return None if answer is None else float(answer["seconds"])

    rounds = take_turns([functools.partial(turn, side) for side in (0, 1)], order, time_s, wanted)
    for side, one in enumerate(found):
        one.samples += [seconds[side] for seconds in rounds]
    return len(rounds)


def _ask(peer: Peer, found: Measured, what: str, **arguments: Any) -> dict[str, Any] | None:
    """A peer's answer; None where there is none, which becomes the case's status."""
    try:
        answer = peer.ask(what, **arguments)
    except PeerFailed as failed:
        found.status, found.reasons = failed.status, [failed.why]
        return None
    if what == "weigh":
        found.fields |= answer
    return answer


def _record(case: Case, found: Measured, lasted: list[int], machine: str) -> Record:
    figures: dict[str, Any] = {}
    if found.status == "ok" and found.samples:
        figures = {"samples_s": found.samples, "time_s": median(found.samples), "rounds_per_process": lasted}
    return Record(
        case_id=case.case_id,
        group_id=case.group_id,
        machine=machine,
        started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        status=found.status,  # type: ignore[arg-type]
        reasons=found.reasons,
        **case.identity(),
        **found.fields,
        **figures,
    )


def _peer(home: Path, config: Config) -> Peer:
    free = memory_available()
    return Peer(home, config.timeout, None if free is None else int(free * MEMORY_SHARE))
