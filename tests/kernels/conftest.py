"""Kernels of other libraries without a GPU: `make test-kernels`, in a virtual environment of its own.

Triton kernels run in Triton's interpreter, which needs three things: TRITON_INTERPRET before triton is imported;
autotuning cut down to its first configuration, since there is no GPU to time them on; and loop counters that can do
what those of compiled kernels can. It has no bfloat16: matrix products of bfloat16 come out as noise.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterator
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch

from attnbench.variants import flash
from attnbench.variants.external import External


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.kernels)
        item.add_marker(pytest.mark.filterwarnings("ignore"))  # the libraries' own, about where they run


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Adapters let CPU tensors through to their library, and take this for a GPU that every version fits."""
    monkeypatch.setattr(External, "check_device", lambda self, q: None)
    monkeypatch.setattr(External, "reasons_against", lambda self, case: [])
    monkeypatch.setattr(flash, "capability", lambda device: 9)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Counter(int):
    """A loop counter of the interpreter: a whole number that has `to`, as the tensor in a compiled kernel does."""

    def to(self, dtype: Any, **_: Any) -> Counter:
        return self


def _counting(name: str) -> Any:
    plain = getattr(int, name)

    def operation(self: Counter, other: Any) -> Any:
        out = plain(self, other)
        return Counter(out) if type(out) is int else out

    return operation


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "floordiv", "mod"):
    setattr(Counter, f"__{_name}__", _counting(f"__{_name}__"))


def _range(*bounds: Any) -> Iterator[Counter]:
    whole = (int(bound.handle.data.item()) if hasattr(bound, "handle") else int(bound) for bound in bounds)
    return map(Counter, builtins.range(*whole))


@pytest.fixture(scope="session")
def interpreter() -> None:
    """fla's kernels, ready for the interpreter."""
    from triton.runtime import autotuner

    init = autotuner.Autotuner.__init__

    def first_only(self: Any, fn: Any, arg_names: Any, configs: Any, *args: Any, **kwargs: Any) -> None:
        init(self, fn, arg_names, list(configs)[:1], *args, **kwargs)

    autotuner.Autotuner.__init__ = first_only
    import fla.ops.delta_rule
    import fla.ops.gated_delta_rule
    import fla.ops.gla
    import fla.ops.kda
    import fla.ops.linear_attn
    import fla.ops.nsa
    import fla.ops.simple_gla  # noqa: F401

    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops."):
            vars(module)["range"] = _range  # kernels find it before the builtin
