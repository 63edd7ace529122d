"""Everything that is registered keeps the contract: being registered is being tested."""

from __future__ import annotations

import pytest

import attnbench
from attnbench.bench.contract.battery import Check, battery
from attnbench.bench.contract.shapes import Unsupported
from attnbench.bench.contract.sizes import shrunk
from attnbench.variants.registry import variant_class


def _all() -> list:
    found = []
    for name in attnbench.names():
        cls = variant_class(name)
        # a variant that compiles takes seconds for each new head dimension and dtype
        marks = [pytest.mark.slow] if cls.compiles else []
        found += [pytest.param(check, id=f"{name}-{check.label}", marks=marks) for check in battery(shrunk(cls))]
    return found


@pytest.mark.parametrize("check", _all())
def test_keeps_the_contract(check: Check) -> None:
    try:
        check.run()
    except Unsupported as reasons:
        pytest.skip(str(reasons).split(";")[0])
