"""A batch of unlike requests, as one variant runs it: prompts, decode steps, and what is in between.

A variant that takes packed sequences gets the whole batch in one call. For any other, requests of like lengths are
stacked, and the stacks are called one after another, as somebody does who has no such kernel: a request with one new
token by the decode step, from a state that was made before (where the variant has none: as one query over all keys); a
request with several new tokens after others as a forward pass with fewer queries than keys.

One measured call is the whole batch, and its outputs are kept until the last of them is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..results.batch_spec import parse
from ..variants.api import Variant, make_extras
from ..variants.varlen import Packing, pack, unpack
from . import calls, error, inputs
from .case import Case
from .decoding import Step
from .error import NotDueError


@dataclass(frozen=True)
class Way:
    """How a variant runs a batch."""

    cases: list[Case]
    """One for the requests of like lengths: a forward pass or a decode step."""
    packed: bool
    reasons: list[str]
    """Why it cannot; [] where it can."""

    @property
    def words(self) -> list[str]:
        """The calls that one measured call is made of."""
        if self.packed:
            return ["varlen"]
        return [f"{case.mode} {_spec(case)}" for case in self.cases]


def way(attn: Variant, case: Case) -> Way:
    """Packed where the variant can, else stacked."""
    packed = attn.supports.varlen and not attn.refuses_varlen(case)
    parts = [_able(attn, part, packed) for part in case.parts()]
    against: dict[str, list[str]] = {}
    for part in parts:
        for reason in [*part.reasons_against(), *attn.reasons_against(part)]:
            against.setdefault(reason, []).append(_spec(part))
    reasons = [
        reason if len(where) == len(parts) else f"{reason} ({', '.join(where)})" for reason, where in against.items()
    ]
    return Way(parts, packed, reasons)


def _able(attn: Variant, part: Case, packed: bool) -> Case:
    """A decode step is one query over all keys where they are packed, or where the variant knows it no other way."""
    one_query = packed or (attn.supports.cross and not attn.supports.decode)
    return replace(part, mode="forward") if part.mode == "decode" and one_query else part


def _spec(part: Case) -> str:
    (requests,) = parse(f"{part.batch}q{part.n_q}s{part.n_k}")
    return requests.spec


@dataclass
class Part:
    """Requests of like lengths, and how they are called."""

    case: Case
    q: Tensor
    k: Tensor
    v: Tensor
    extras: dict[str, Any]
    call: Callable[[], object]

    def given(self) -> dict[str, Tensor]:
        """What a call is given, by name."""
        return (
            self.call.given() if isinstance(self.call, Step) else {"q": self.q, "k": self.k, "v": self.v, **self.extras}
        )

    def state_bytes(self, attn: Variant) -> int | None:
        """What decoding keeps of them; None where the variant cannot decode."""
        if not attn.supports.decode:
            return None
        with torch.no_grad():
            if self.case.mode == "decode":
                return self.call()[1].nbytes  # type: ignore[index, no-any-return]
            return attn.prefill(self.q, self.k, self.v, **self.extras)[1].nbytes


class Batch:
    """The call that is timed, of a batch on drawn input. `check` comes first: it makes the states that steps go on
    from."""

    def __init__(self, attn: Variant, case: Case) -> None:
        self.attn, self.case = attn, case
        self.way = way(attn, case)
        self.parts = [self._draw(drawn, run) for drawn, run in zip(case.parts(), self.way.cases, strict=True)]
        self.first_s, self.compile_s = 0.0, 0.0
        """Time of the first call, and what the prompts of decode steps took to compile."""
        self.packed: Packed | None = None

    def _draw(self, drawn: Case, run: Case) -> Part:
        (q, k, v), _ = inputs.realise(drawn, None)
        if run.mode != drawn.mode:  # drawn with a query for each token, which is what a decode step's prompt needs
            q = q[:, :, -run.n_q :].contiguous()
        extras = make_extras(self.attn, q, k, v, seed=run.seed)
        return Part(run, q, k, v, extras, calls.make_call(self.attn, replace(run, mode="forward"), q, k, v, extras))

    def check(self) -> error.Check:
        """Holds every request to the definition, each part with all of its rows or a sample; the worst of them."""
        verdicts = []
        for part in self.parts:
            case, heads = part.case, part.case.batch * part.case.heads
            if case.mode == "decode":
                rows = torch.tensor([case.n_k - 1])
            else:
                rows = error.sample_rows(case.n_q, case.n_k, heads, seed=case.seed)
            fast = self._rows_of(part, rows) if self.way.packed else None
            qkv = part.q, part.k, part.v
            verdict, _, decoder = calls.check(self.attn, self.attn, case, qkv, part.extras, rows, fast)
            verdicts.append(verdict)
            if not verdict.correct:
                break
            if decoder is not None:
                assert decoder.step is not None, "what was found correct was called"
                part.call = decoder.step
                self.compile_s += decoder.step.compile_s
            if not (self.way.packed and len(verdicts) > 1):  # a packed batch is whole in its first call already
                self.first_s += verdict.first_call_s if decoder is None else decoder.first_call_s
        if self.way.packed:
            self.packed = self._packed([(part.q, part.k, part.v) for part in self.parts])
        return error.worst(verdicts)

    def _rows_of(self, part: Part, rows: Tensor) -> Callable[[Mapping[str, Tensor]], Tensor]:
        """The packed form as `error.check` takes it: one part's inputs in, the rows of its outputs out."""

        def fast(tensors: Mapping[str, Tensor]) -> Tensor:
            mine = tensors["q"], tensors["k"], tensors["v"]
            batches = [
                mine if other is part else tuple(x.to(mine[0].dtype) for x in (other.q, other.k, other.v))
                for other in self.parts
            ]
            call = self._packed(batches)  # type: ignore[arg-type]
            before = [x.clone() for x in call.tensors]
            out = call()
            for name, old, new in zip("qkv", before, call.tensors, strict=True):
                if not torch.equal(old, new):
                    raise NotDueError(f"writes into its packed input {name}")
            due = (*call.tensors[0].shape[:2], call.tensors[2].shape[2])
            if out.shape != due or out.dtype != mine[0].dtype:
                raise NotDueError(f"gave {tuple(out.shape)} {out.dtype} where {due} {mine[0].dtype} is due")
            cases = [each.case for each in self.parts]
            outs = unpack(out, [case.batch for case in cases], [case.n_q for case in cases])
            return outs[self.parts.index(part)][:, :, rows.to(out.device)]

        return fast

    def _packed(self, batches: list[tuple[Tensor, Tensor, Tensor]]) -> Packed:
        cases = [part.case for part in self.parts]
        lengths = [(case.n_q, case.n_k) for case in cases for _ in range(case.batch)]
        q, k, v = (pack(tensors) for tensors in zip(*batches, strict=True))
        packing = Packing.of([n for n, _ in lengths], [n for _, n in lengths], q.device)
        return Packed(self.attn, (q, k, v), packing)

    def __call__(self) -> object:
        if self.packed is not None:
            return self.packed()
        return [part.call() for part in self.parts]

    def given(self) -> dict[str, Tensor]:
        """What a call is given, by name: the packed q, k and v, or those of each part, with its extras or state."""
        if self.packed is not None:
            return dict(zip("qkv", self.packed.tensors, strict=True))
        return {f"{name} of {_spec(part.case)}": x for part in self.parts for name, x in part.given().items()}

    def state_bytes(self) -> int | None:
        """What decoding keeps of all requests together."""
        found = [part.state_bytes(self.attn) for part in self.parts]
        return None if None in found else sum(size for size in found if size is not None)


@dataclass(frozen=True)
class Packed:
    """One call over the packed sequences of a batch."""

    attn: Variant
    tensors: tuple[Tensor, Tensor, Tensor]
    packing: Packing

    def __call__(self) -> Tensor:
        q, k, v = self.tensors
        with torch.no_grad():
            return self.attn.forward_varlen(q, k, v, self.packing, causal=True, scale=self.attn.default_scale(q, None))
