"""From a configuration to the list of its cases, each with what is known before it is measured.

What needs torch (which variants exist, what they refuse, capturing real input) is asked of an isolated process.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..results.batch_spec import parse, tokens
from . import distributions, inputs
from .captured import CaptureInfo, read_info, reason_against
from .case import Case
from .config import Config, Sweep
from .errors import BenchError
from .process import Died, OutOfMemory, Raised, TookTooLong, isolated

CAPTURE_TIMEOUT_S = 600.0
PLAN_TIMEOUT_S = 60.0
"""For each question before the first case, where a step of a case has less."""
NEXT = "see what ends or stops processes on this machine, and try again"


@dataclass(frozen=True)
class Source:
    """What stands behind captured input: a file, or the reason why there is none."""

    path: str | None
    info: CaptureInfo | None
    why_not: str | None = None
    ours: bool = False
    """It was captured for this run, not named by the user."""


@dataclass(frozen=True)
class Planned:
    """A case, why it cannot be measured ([] where it can), and what its record says of the variant."""

    case: Case
    reasons: list[str]
    fields: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """All cases of a run, each once."""

    cases: list[Planned]
    sources: dict[str, Source] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def capture_path(self, case: Case) -> str | None:
        source = self.sources.get(case.inputs)
        return source.path if source else None


def ask(function: Any, *args: Any, timeout_s: float | None = None, server: int = 0) -> Any:
    """Runs a function in a process of its own; a wrong request, a crash or a time-out becomes a BenchError."""
    try:
        return isolated(function, *args, timeout_s=timeout_s, server=server)
    except Raised as error:
        raise BenchError(error.report) from None
    except Died as error:
        raise BenchError(f"the helper process for {_named(function)} was {error.why}; {NEXT}") from None
    except OutOfMemory as error:
        raise BenchError(f"memory ran out before anything was measured: {error}") from None
    except TookTooLong:
        raise BenchError(
            f"{_named(function)} took longer than {timeout_s:g} s: see what else keeps this machine busy, or stops its "
            "processes, and try again"
        ) from None


def planning_s(config: Config) -> float:
    """For each question before the first case."""
    return max(config.timeout, PLAN_TIMEOUT_S)


def _named(function: Any) -> str:
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


def make_plan(config: Config, capture_folder: Path, files: Mapping[str, str] | None = None) -> Plan:
    """Resolves variants and inputs and lays out the cases. Raises BenchError for what does not exist.

    `files` says where the capture files of a resumed run lie, whose own names may be relative to another folder.
    """
    from . import worker

    plugins = [os.path.abspath(plugin) for plugin in config.plugins]
    specs = list(dict.fromkeys(spec for sweep in config.sweep for spec in sweep.variants))
    resolved, failures = ask(worker.resolve, specs, plugins, timeout_s=planning_s(config))
    notes = [f"{where} could not be loaded: {why}" for where, why in failures.items()]

    sources = {
        name: open_source(name, config, capture_folder, files or {})
        for name in dict.fromkeys(name for sweep in config.sweep for name in sweep.inputs)
        if inputs.is_captured(name)
    }
    sizes = budgeted(config, resolved, plugins)
    notes += _without(sizes)
    found_cases: dict[str, Laid] = {}
    for sweep in config.sweep:
        for laid in expand(sweep, resolved, sources, sizes):
            found_cases.setdefault(laid.case.case_id, laid)
    laid_out = list(found_cases.values())
    described = ask(worker.describe, [laid.case for laid in laid_out], plugins, timeout_s=planning_s(config))
    cases = [
        Planned(laid.case, [*laid.reasons, *about["reasons"]], {**about["fields"], **laid.fields})
        for laid, about in zip(laid_out, described, strict=True)
    ]
    for name, source in sources.items():
        masks = {planned.case.causal for planned in cases if planned.case.inputs == name and not planned.reasons}
        if source.info is not None and (not source.info.causal) in masks:
            own, ours = ("causally", "non-causal") if source.info.causal else ("both ways", "causal")
            notes.append(f"the model behind {name} attends {own}: {ours} cases on its q, k, v are not what it computes")
    return Plan(cases, sources, notes)


@dataclass(frozen=True)
class Laid:
    """A case of the grid, the reasons that its input gives against it, and what its record says of its budget."""

    case: Case
    reasons: list[str]
    fields: dict[str, Any]


Resolved = dict[str, list[tuple[str, dict[str, Any]]]]
Sizes = dict[tuple[str, int, bool, int], tuple[dict[str, Any], str | None] | None]
"""By variant, budget, causal and length: parameters and what is counted, or None."""


def budgeted(config: Config, resolved: Resolved, plugins: list[str]) -> Sizes:
    """The parameters of every variant at every budget that the sweeps ask for."""
    from . import worker

    wanted = list(
        dict.fromkeys(
            (variant, budget, causal, length)
            for sweep in config.sweep
            for spec in sweep.variants
            if "(" not in spec
            for variant, _ in resolved[spec]
            for budget, causal, length in itertools.product(sweep.budgets or [], sweep.causal, sweep.seq_lens)
        )
    )
    found = ask(worker.at_budgets, wanted, plugins, timeout_s=planning_s(config)) if wanted else []
    return dict(zip(wanted, found, strict=True))


def _without(sizes: Sizes) -> list[str]:
    """A note for each budget that some variants cannot have."""
    lacking: dict[int, set[str]] = {}
    for (variant, budget, _, _), found in sizes.items():
        if found is None:
            lacking.setdefault(budget, set()).add(variant)
    return [
        f"no parameters of {', '.join(sorted(names))} come to a budget of {budget} at some or all lengths: no case"
        for budget, names in lacking.items()
    ]


def _at_budgets(
    sweep: Sweep, spec: str, variant: str, params: dict[str, Any], causal: bool, length: int, sizes: Sizes
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Parameters of a variant, with what its record says of them: one for each budget, or those it has."""
    if "(" in spec or not sweep.budgets:
        yield params, {}
        return
    for budget in sweep.budgets:
        found = sizes[variant, budget, causal, length]
        if found is not None:
            sized, unit = found
            yield sized, {} if unit is None else {"budget": budget, "budget_unit": unit}


def expand(sweep: Sweep, resolved: Resolved, sources: dict[str, Source], sizes: Sizes | None = None) -> Iterator[Laid]:
    """The cross product of a sweep's lists; each case with the reasons that its input gives against it."""
    named = {resolved[spec][0][0] for spec in sweep.variants if spec != "all"}
    variants = [
        (spec, variant, params)
        for spec in sweep.variants
        for variant, params in resolved[spec]
        if spec != "all" or variant not in named  # named with parameters of its own: not once more with the defaults
    ]
    for name, (requests, asked, length) in itertools.product(sweep.inputs, _lengths(sweep)):
        shape, reasons = shape_of(sweep, name, length, sources)
        grid = (sweep.devices, sweep.dtypes, sweep.threads, sweep.compiled, sweep.causal, sweep.modes)
        for device, dtype, threads, compiled, causal, mode in itertools.product(*grid):
            queries = [1] if mode == "decode" else asked
            chosen = [
                (variant, sized, fields)
                for spec, variant, params in variants
                for sized, fields in _at_budgets(sweep, spec, variant, params, causal, length, sizes or {})
            ]
            for n_q, (variant, sized, fields) in itertools.product(queries, chosen):
                case = Case(
                    variant=variant,
                    params=sized,
                    mode=mode,
                    causal=causal,
                    n_q=n_q,
                    n_k=length,
                    dtype=dtype,
                    device=device,
                    threads=threads,
                    compiled=compiled,
                    inputs=name,
                    seed=sweep.seed,
                    requests=requests,
                    **shape,
                )
                yield Laid(case, reasons, fields)


def _lengths(sweep: Sweep) -> list[tuple[str | None, list[int], int]]:
    """A batch of unlike requests or None, the numbers of queries, and that of keys."""
    if sweep.batch_specs is None:
        return [(None, sweep.query_lens or [length], length) for length in sweep.seq_lens]
    totals = {spec: tokens(parse(spec)) for spec in sweep.batch_specs}
    return [(spec, [n_q], n_k) for spec, (n_q, n_k) in totals.items()]


def shape_of(sweep: Sweep, name: str, length: int, sources: dict[str, Source]) -> tuple[dict[str, int], list[str]]:
    """Batch, heads and head dimension: the sweep's for drawn input, the model's for captured input."""
    shape = {
        "batch": sweep.batch,
        "heads": sweep.heads,
        "kv_heads": sweep.kv_heads or sweep.heads,
        "head_dim": sweep.head_dim,
    }
    source = sources.get(name)
    if source is None:
        why_not = distributions.reason_against(name, sweep.head_dim)
        return shape, [why_not] if why_not else []
    if source.info is None:
        return shape, [source.why_not or "captured input is not to be had"]
    info = source.info
    shape = {
        "batch": len(info.layers) * min(sweep.batch, info.windows),
        "heads": info.heads,
        "kv_heads": info.kv_heads,
        "head_dim": info.head_dim,
    }
    why_not = reason_against(info, info.model, length, sweep.batch)
    return shape, [why_not] if why_not else []


def open_source(name: str, config: Config, folder: Path, files: Mapping[str, str]) -> Source:
    """The file behind a captured input. The packaged model is captured now, into the run's folder.

    A named file that cannot be used raises InputsError. The packaged model may be missing (it comes with an extra):
    then its cases become records with that reason, and the rest of the sweep runs.
    """
    _, _, path = name.partition(":")
    if path:
        path = files.get(name, path)
        return Source(path, read_info(Path(path)))
    windows = max(sweep.batch for sweep in config.sweep if name in sweep.inputs)
    target = folder / "captured.safetensors"
    if not target.exists():
        try:
            ask(capture_default, str(target), windows, timeout_s=CAPTURE_TIMEOUT_S)
        except BenchError as error:
            return Source(None, None, str(error))
    return Source(str(target), read_info(target), ours=True)


def capture_default(state: dict[str, Any], target: str, windows: int) -> None:
    """Carried out in a process of its own: transformers is slow to load, and is not needed again."""
    from .capture import capture_default as capture

    capture(Path(target), windows=windows)
