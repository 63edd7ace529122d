"""The recall probe as part of a run: asked once of each variant with its parameters, before anything is timed.

It takes a tenth of a second for most variants and a few for recurrences, whose definitions go token by token. With a
time budget it may use some of that alone; whoever was not asked by then has no figures, and the record says so.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..results.record import RECALL, Record
from .plan import Plan
from .process import Child, Died, OutOfMemory, Raised, TookTooLong

BUDGET_SHARE = 0.2
"""Of the time that is left of a budget, at most this goes into the probe (and the one that is under way then)."""


def with_recall(
    plan: Plan,
    finished: Iterable[Record],
    *,
    plugins: list[str],
    timeout_s: float,
    deadline: float = math.inf,
    step: Callable[[str], None] = lambda text: None,
) -> Plan:
    """The plan, with the fields of the probe among those that each case's record says of its variant.

    Asked are variants of which something will be measured. What `finished` records say of a variant stays, so that all
    records of a run say the same of it. `deadline` is by time.monotonic().
    """
    known = {_key(record.variant, record.params): _of(record) for record in finished}
    left = deadline - time.monotonic()
    end = time.monotonic() + BUDGET_SHARE * left
    child: Child | None = None
    try:
        for planned in plan.cases:
            case = planned.case
            key = _key(case.variant, case.params)
            if planned.reasons or key in known:
                continue
            if time.monotonic() > end:
                known[key] = {"recall_why_not": "the time budget left no time to ask"}
                continue
            step(f"recall of {case.variant}")
            try:
                child = child or Child(timeout_s=timeout_s)
            except Died as error:
                known[key] = {"recall_why_not": f"the probe was {error.why}"}
                continue
            fields, survived = _ask(child, case.variant, dict(case.params), plugins, timeout_s)
            known[key] = fields
            if not survived:
                child.close()
                child = None
    finally:
        if child is not None:
            child.close()
    return replace(
        plan,
        cases=[
            replace(
                planned, fields={**planned.fields, **known.get(_key(planned.case.variant, planned.case.params), {})}
            )
            for planned in plan.cases
        ],
    )


def _ask(
    child: Child, variant: str, params: dict[str, Any], plugins: list[str], timeout_s: float
) -> tuple[dict[str, Any], bool]:
    """The fields of one variant, and whether the child can be asked again."""
    try:
        return child.call(fields_of, variant, params, plugins, timeout_s=timeout_s), True
    except (Raised, OutOfMemory) as error:
        return {"recall_why_not": f"the probe ended as {error}"}, True
    except Died as error:
        return {"recall_why_not": f"the probe was {error.why}"}, False
    except TookTooLong:
        return {"recall_why_not": f"the probe took longer than {timeout_s:g} s"}, False


def fields_of(state: dict[str, Any], variant: str, params: dict[str, Any], plugins: list[str]) -> dict[str, float]:
    """Carried out in a child: the probe of one variant, as fields of a record."""
    import torch

    from ..variants.api import get
    from ..variants.registry import load_plugin
    from .recall import as_fields, probe

    for plugin in plugins:
        load_plugin(Path(plugin))
    torch.set_num_threads(1)  # small tensors are slower on many
    return as_fields(probe(get(variant, **params)))


def _key(variant: str, params: Mapping[str, Any]) -> tuple[str, str]:
    return variant, json.dumps(dict(params), sort_keys=True)


def _of(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in RECALL}
