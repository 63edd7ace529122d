"""A process that measures one revision of the variants with this revision's instruments. Run as a script.

Its PYTHONPATH holds two names: `attnbench`, the revision under test, and `attnbench_ours`, the package that compares.
Of the first it relies on the contract alone (`get`, `make_extras`, `reasons_against`, `definition`, `forward`,
`prefill`); inputs, check, time and memory are the second's. It answers requests, a JSON object a line, until its input
ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import math
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

THEIRS, OURS = "attnbench", "attnbench_ours"
PR_SET_PDEATHSIG = 1
STATUS = "/proc/self/status"

Request = dict[str, Any]
Answer = dict[str, Any]


def resolve(state: Request, request: Request) -> Answer:
    """Which of the specs this revision has, `all` being all of its names, and why it lacks the others."""
    api = importlib.import_module(f"{THEIRS}.variants.api")
    found, lacks = [], {}
    for spec in request["specs"]:
        for one in api.names() if spec == "all" else [spec]:
            try:
                api.get(one)
                found.append(one)
            except ValueError as error:
                lacks[one] = str(error)
    return {"found": found, "lacks": lacks, "at": importlib.import_module(THEIRS).__file__}


def set_up(state: Request, request: Request) -> Answer:
    """Draws the inputs, checks the variant against its definition, and warms it up where it is correct."""
    import torch

    importlib.import_module(f"{OURS}.bench.first_calls").make()  # on one thread, before threads can make them
    api = importlib.import_module(f"{THEIRS}.variants.api")
    case_module, cores, inputs, error, memory, timing, untouched = (
        importlib.import_module(f"{OURS}.bench.{name}")
        for name in ("case", "cores", "inputs", "error", "memory", "timing", "untouched")
    )
    case = case_module.Case(**request["case"])
    attn = api.get(request["spec"])
    about = {"family": attn.family, "kind": attn.kind}
    if reasons := attn.reasons_against(SimpleNamespace(**case.identity())):
        return {"status": "unsupported", "reasons": reasons, "fields": about}
    if case.device == "cpu":
        cores.keep_to(request["cores"])
        torch.set_num_threads(case.threads)
        if request["keep"]:
            memory.keep_heap()
    torch.manual_seed(case.seed)
    q, k, v = inputs.draw(case, None)
    extras = api.make_extras(attn, q, k, v, seed=case.seed)
    rows = error.sample_rows(case.n_q, case.n_k, case.batch * case.heads, seed=case.seed)
    verdict, _ = error.check(
        attn, q, k, v, causal=case.causal, train=case.mode == "train", rows=rows, seed=case.seed, extras=extras
    )
    fields = about | error.as_fields(verdict)
    if not verdict.correct:
        why = verdict.problem or f"{verdict.of} is off by {verdict.error:.3g}, {verdict.allowed:.3g} is allowed"
        return {"status": "incorrect", "reasons": [why], "fields": fields}
    call = make_call(attn, case, q, k, v, extras)
    state["untouched"] = untouched.Untouched(lambda: {"q": q, "k": k, "v": v, **extras})
    memory.trim_heap()  # what the check has used is not what a call needs
    gc.collect()
    gc.freeze()  # else each turn's collection would walk through torch's own objects, for ten times the turn
    state["stopwatch"] = timing.Stopwatch(call, case.device, turn_s=request["turn_s"])
    state["stopwatch"].warm_up()
    keeps = attn.supports.decode and case.causal and case.mode == "forward" and case.n_q == case.n_k
    state["prefill"] = functools.partial(attn.prefill, q, k, v, **extras) if keeps else None
    state.update(call=call, case=case, memory=memory)
    return {"status": "ok", "reasons": [], "fields": fields, "size": state["stopwatch"].size}


def make_call(attn: Any, case: Any, q: Any, k: Any, v: Any, extras: dict[str, Any]) -> Callable[[], object]:
    """What is timed: the variant's `forward` alone, or with the backward pass after it."""
    import torch

    scale = attn.default_scale(q, None)
    if case.mode == "forward":

        def forward() -> object:
            with torch.no_grad():
                return attn.forward(q, k, v, causal=case.causal, scale=scale, **extras)

        return forward
    leaves = [tensor.requires_grad_() for tensor in (q, k, v, *extras.values())]
    upstream = torch.randn(q.shape[:3] + v.shape[3:], generator=torch.Generator().manual_seed(case.seed)).to(q)

    def train() -> object:
        out = attn.forward(q, k, v, causal=case.causal, scale=scale, **extras)
        return torch.autograd.grad(out, leaves, upstream, allow_unused=True)

    return train


def resize(state: Request, request: Request) -> Answer:
    """Gives turns the size of another side's."""
    state["stopwatch"].size = state["stopwatch"].size._make(request["size"])
    return {}


def sample(state: Request, request: Request) -> Answer:
    """One turn: seconds a call."""
    return {"seconds": float(state["stopwatch"].sample())}


def weigh(state: Request, request: Request) -> Answer:
    """Most bytes that the allocator held during one call, and what decoding would keep of such a prompt.

    The last that is asked, so here it shows whether a call has written into the inputs.
    """
    import torch

    state["stopwatch"].flush = None
    peak = state["memory"].allocator_peak(state["call"], state["case"].device)
    kept = None
    if state["prefill"] is not None:
        with torch.no_grad():
            kept = state["prefill"]()[1].nbytes
    if problem := state["untouched"].problem():
        return {"failed": "incorrect", "why": problem}
    return {"peak_bytes": peak, "state_bytes": kept}


DO = {"resolve": resolve, "set_up": set_up, "resize": resize, "sample": sample, "weigh": weigh}


def failure(error: BaseException) -> Answer:
    """A request that raised: `oom` where memory ran out, else `crashed`."""
    text = " ".join(str(error).split())[:600]
    out = isinstance(error, MemoryError) or "allocate memory" in text or type(error).__name__ == "OutOfMemoryError"
    trace = "".join(traceback.format_exception(error))[-4000:]
    return {"failed": "oom" if out else "crashed", "why": f"{type(error).__name__}: {text}", "trace": trace}


def limit_memory(free: int) -> None:
    """Lets this process map so much more than it has mapped: beyond, an allocation fails as an exception."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open(STATUS) as status:
        mapped = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize:"))
        resource.setrlimit(resource.RLIMIT_AS, (mapped + free, mapped + free))


def main() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the revision prints is no answer
    if len(sys.argv) > 1:
        limit_memory(math.floor(float(sys.argv[1])))
    state: Request = {}
    with contextlib.suppress(BaseException):  # what fails here fails again in the first request, which answers with it
        importlib.import_module(f"{THEIRS}.variants.api").names()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = DO[request["do"]](state, request)
        except BaseException as error:  # a revision may raise anything, SystemExit too: all of it is an answer
            answer = failure(error)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
