"""What a worker process does for one case: check it, warm it up, take samples in turns, measure memory.

Each function here runs in a child process (see `process.Child`): it takes the child's state first and plain data after.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..results.distributions import Realised
from ..results.work import moved_bytes
from ..variants import registry
from ..variants.api import State as DecodeState
from ..variants.api import Variant, get, make_extras
from ..variants.registry import load_plugin
from . import calls, compiling, error, fidelity, fidelity_nulls, flops, gpu, inputs, memory, mixed, untouched
from .beside import Beside
from .cards import card
from .case import Case
from .decoding import Step
from .handover import Handover
from .timing import AGAIN_S, WARMUP_S, Stopwatch

State = dict[str, Any]


@dataclass(frozen=True)
class How:
    """How the processes of a run measure, whatever the case."""

    plugins: list[str]
    keep: bool
    """Memory that calls free stays with the process."""
    turn_s: float
    """Seconds of timed calls in a turn."""


def set_up(state: State, case: Case, how: How, capture: str | None, known: Realised | None) -> dict[str, Any]:
    """Draws the inputs, checks the variant against its definition and, where it is correct, warms it up.

    `known`: what the inputs are like, where another case of the group had that measured. Returns record fields,
    `correct`, `problem`, `realised`: what is known now, or None of a batch of unlike requests, `held_bytes`: memory
    that it keeps, and on a GPU `free_bytes`: what is left of that one's memory.
    """
    before = memory.resident()
    attn = _begin(state, case, how)
    with compiling.from_scratch() if case.compiled else contextlib.nullcontext():
        answer = _prepare_batch(state, attn, case) if case.requests else _prepare(state, attn, case, capture, known)
    if gpu.is_gpu(case.device):
        held, free = gpu.memory(case.device)
        return {**answer, "held_bytes": held, "free_bytes": free}
    return {**answer, "held_bytes": max(0, memory.resident() - before) if answer["correct"] else 0}


def set_up_again(
    state: State, case: Case, how: How, capture: str | None, known: Realised, call_s: float
) -> dict[str, Any]:
    """Makes another process ready for a case on a CPU that was checked in its first one: it only warms up.

    `call_s`: what a call took so far.
    """
    before = memory.resident()
    attn = _begin(state, case, how)
    (q, k, v), _ = inputs.realise(case, capture, known)
    extras: dict[str, Any] = make_extras(attn, q, k, v, seed=case.seed)
    step = Step(attn, {"q": q, "k": k, "v": v, **extras}) if case.mode == "decode" else None
    fields = _ready(state, attn, attn, case, (q, k, v), extras, step, call_s, again=True)
    return {"calls_per_sample": fields["calls_per_sample"], "held_bytes": max(0, memory.resident() - before)}


def _begin(state: State, case: Case, how: How) -> Variant:
    """The case's variant, in a process that has what it needs."""
    state["how"] = how
    for plugin in how.plugins:
        load_plugin(Path(plugin))
    if case.device == "cpu":
        torch.set_num_threads(case.threads)
        if how.keep:
            memory.keep_heap()
    gpu.use(case.device)
    torch.manual_seed(case.seed)
    return get(case.variant, **case.params)


def _prepare(state: State, attn: Variant, case: Case, capture: str | None, known: Realised | None) -> dict[str, Any]:
    (q, k, v), realised = inputs.realise(case, capture, known)
    extras: dict[str, Any] = make_extras(attn, q, k, v, seed=case.seed)
    form = compiling.compiled(attn, case.mode) if case.compiled else attn
    if case.mode == "decode":
        rows = torch.tensor([case.n_k - 1])
    else:
        rows = error.sample_rows(case.n_q, case.n_k, case.batch * case.heads, seed=case.seed)
    verdict, out, decoder = calls.check(attn, form, case, (q, k, v), extras, rows)
    fields = error.as_fields(verdict) | realised.as_fields()
    if not verdict.correct:
        return {"correct": False, "problem": verdict.problem, "fields": fields, "realised": realised}
    if attn.kind == "approximate":
        found = fidelity.fidelity(out, q, k, v, causal=case.causal, rows=rows.to(q.device))
        fields |= {
            "fidelity_error": found.error,
            "fidelity_cosine": found.cosine,
            "fidelity_error_uniform": found.error_uniform,
        }
    if fidelity_nulls.chooses_keys(attn):
        fields |= fidelity_nulls.as_fields(
            fidelity_nulls.kept(attn, q, k, v, causal=case.causal, rows=rows.to(q.device), extras=extras)
        )
    step = None if decoder is None else decoder.step
    first_s = verdict.first_call_s if decoder is None else decoder.first_call_s
    fields |= _ready(state, attn, form, case, (q, k, v), extras, step, first_s)
    return {"correct": True, "problem": None, "fields": fields, "realised": realised}


def _ready(
    state: State,
    attn: Variant,
    form: Variant,
    case: Case,
    qkv: tuple[Tensor, Tensor, Tensor],
    extras: dict[str, Any],
    step: Step | None,
    first_s: float,
    *,
    again: bool = False,
) -> dict[str, Any]:
    """Warms up the call of a uniform case: `form`, which is `attn` itself or compiled, or the decode step."""
    q, k, v = qkv
    keeping: Callable[[], tuple[Tensor, DecodeState]] | None = None
    given: Callable[[], dict[str, Tensor]]
    if step is not None:
        call: Callable[[], object] = step  # it has copies of its own of what it needs
        keeping, given = step, step.given
    else:
        call = calls.make_call(form, case, q, k, v, extras)
        given = functools.partial(dict, q=q, k=k, v=v, **extras)
        if attn.supports.decode and case.causal and case.mode == "forward" and case.n_q == case.n_k:
            keeping = functools.partial(attn.prefill, q, k, v, **extras)
    state["untouched"] = untouched.Untouched(given)
    earlier_s = 0.0 if step is None else step.compile_s
    return _warm_up(state, attn, case, call, functools.partial(_state_bytes, keeping), first_s, earlier_s, again=again)


def _prepare_batch(state: State, attn: Variant, case: Case) -> dict[str, Any]:
    """The same for a batch of unlike requests. What its inputs are like, and fidelity, are measured at one length."""
    batch = mixed.Batch(attn, case)
    verdict = batch.check()
    fields = error.as_fields(verdict) | {"batch_calls": batch.way.words}
    if not verdict.correct:
        return {"correct": False, "problem": verdict.problem, "fields": fields, "realised": None}
    state["untouched"] = untouched.Untouched(batch.given)
    fields |= _warm_up(state, attn, case, batch, batch.state_bytes, batch.first_s, batch.compile_s)
    return {"correct": True, "problem": None, "fields": fields, "realised": None}


def _warm_up(
    state: State,
    attn: Variant,
    case: Case,
    call: Callable[[], object],
    state_bytes: Callable[[], int | None],
    first_s: float,
    earlier_s: float,
    *,
    again: bool = False,
) -> dict[str, Any]:
    """Makes a call ready to be sampled. It was first called in `first_s`, in this process or, `again`, in another;
    `earlier_s` went to compiling before that."""
    memory.trim_heap()  # what the check has used is not what a call needs
    handover = None if gpu.is_gpu(case.device) else Handover(case.threads)
    stopwatch = Stopwatch(call, case.device, state["how"].turn_s, handover)
    # elsewhere the first call was something else too: compiling, a launch that nobody waited for, two steps, packing
    alike = not (case.compiled or attn.compiles or case.requests or case.mode == "decode" or gpu.is_gpu(case.device))
    earlier_call_s = first_s if again or alike else None
    fields: dict[str, Any] = {"warmup_s": stopwatch.warm_up(earlier_call_s, AGAIN_S if again else WARMUP_S)}
    if attn.compiles or case.compiled:
        fields["compile_s"] = earlier_s + max(0.0, first_s - stopwatch.call_s)
    if case.compiled:
        fields["graph_breaks"] = compiling.graph_breaks()
    fields["calls_per_sample"] = stopwatch.calls
    state.update(stopwatch=stopwatch, call=call, case=case, attn=attn, state_bytes=state_bytes)
    return fields


def rest(state: State) -> None:
    """Gives back what is kept but not used: the next call pays for it."""
    memory.trim_heap()
    if gpu.is_gpu(state["case"].device):
        gpu.memory(state["case"].device)


def sample(state: State, cache: bool = False, others: bool = False) -> tuple[float, Beside]:
    """One turn: seconds a call; and what else it tells: of the shared cache where asked, `others` as last read."""
    stopwatch = state["stopwatch"]
    return float(stopwatch.sample(cache, others)), Beside(stopwatch.timed_s, stopwatch.handover_s, stopwatch.eviction)


def handover(state: State) -> float:
    """What a small piece of work takes the threads of a case on a CPU now: seconds."""
    return float(state["stopwatch"].read_handover())


def look_back(state: State) -> dict[str, Any]:
    """`problem`: what some call has written into since the check."""
    return {"problem": state["untouched"].problem()}


def weigh(state: State) -> dict[str, Any]:
    """Memory and operations of one call, and what decoding would keep of such a prompt.

    Returns record `fields`, and `problem` as `look_back` does.
    """
    case, call, attn = state["case"], state["call"], state["attn"]
    state["stopwatch"].flush = None
    fields = {
        "peak_bytes": memory.allocator_peak(call, case.device),
        "peak_rss_bytes": memory.resident_peak(call) if case.device == "cpu" else None,
        # a call of its own: seen by the counter, a number may become a tensor of eight bytes
        "flops": flops.count(call) if attn.counts_flops and not case.compiled else None,
        "state_bytes": state["state_bytes"](),
    }
    return {"fields": fields, **look_back(state)}


def _state_bytes(keeping: Callable[[], tuple[Tensor, DecodeState]] | None) -> int | None:
    if keeping is None:
        return None
    with torch.no_grad():
        return keeping()[1].nbytes


def describe(state: State, cases: list[Case], plugins: list[str]) -> list[dict[str, Any]]:
    """For each case: why it cannot run here ([] where it can), and what its record says of the variant."""
    for plugin in plugins:
        load_plugin(Path(plugin))
    described = []
    for case in cases:
        attn = get(case.variant, **case.params)
        if case.requests:
            described.append(_describe_batch(attn, case))
            continue
        reasons = no_device(case.device) or [*case.reasons_against(), *attn.reasons_against(case)]
        if case.compiled and not reasons:
            reasons = compiling.reasons_against(attn, case)
        # of a decode step it is declared how its state grows, and so its memory
        step = case.mode == "decode"
        time = None if step else attn.complexity.time
        space = attn.complexity.state if step else attn.complexity.memory
        described.append(
            {
                "reasons": reasons,
                "fields": {
                    "family": attn.family,
                    "kind": attn.kind,
                    "declared_time_exponent": None if time is None else float(time),
                    "declared_memory_exponent": None if space is None else float(space),
                    "flops_needed": flops.needed(attn, case),
                },
            }
        )
    return described


def cards(state: State, cases: list[Case], plugins: list[str]) -> list[dict[str, Any]]:
    """A card for each variant among some cases, with the parameters of its first case."""
    for plugin in plugins:
        load_plugin(Path(plugin))
    first = {case.variant: case.spec for case in reversed(cases)}
    return [card(spec) for _, spec in sorted(first.items())]


def at_budgets(
    state: State, wanted: list[tuple[str, int, bool, int]], plugins: list[str]
) -> list[tuple[dict[str, Any], str | None] | None]:
    """For each (variant, budget, causal, length): parameters for it and what is counted.

    None: no parameters come to that budget. A variant that declares no budget has its defaults, and nothing is counted.
    """
    for plugin in plugins:
        load_plugin(Path(plugin))
    found: list[tuple[dict[str, Any], str | None] | None] = []
    for name, budget, causal, length in wanted:
        attn = get(name)
        if attn.budget is None:
            found.append((attn.params(), None))
            continue
        params = attn.budget.at(budget, causal, length)
        found.append(None if params is None else (get(name, **dict(params)).params(), attn.budget.unit))
    return found


def _describe_batch(attn: Variant, case: Case) -> dict[str, Any]:
    """The same for a batch of unlike requests: what its parts need together. No exponent is declared of such."""
    way = mixed.way(attn, case)
    needed = [flops.needed(attn, part) for part in way.cases]
    return {
        "reasons": no_device(case.device) or way.reasons,
        "fields": {
            "family": attn.family,
            "kind": attn.kind,
            "flops_needed": sum(needed),
            "bytes_needed": sum(moved_bytes(*each) for each in zip(way.cases, needed, strict=True)),
        },
    }


def no_device(device: str) -> list[str]:
    """Why nothing runs on a device here; [] where it can."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        return ["there is no CUDA GPU on this machine, or torch was installed without CUDA"]
    return []


def resolve(
    state: State, specs: list[str], plugins: list[str]
) -> tuple[dict[str, list[tuple[str, dict[str, Any]]]], dict[str, str]]:
    """What each variant as asked for stands for, by name with all parameters; and modules that failed to import.

    `all` stands for everything registered. Raises VariantError for what does not exist.
    """
    for plugin in plugins:
        load_plugin(Path(plugin))
    found = {}
    for spec in specs:
        variants = [get(name) for name in registry.names()] if spec == "all" else [get(spec)]
        found[spec] = [(attn.name, attn.params()) for attn in variants]
    return found, registry.failures()
