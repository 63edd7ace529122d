"""torch.compile of a variant, so that the compiled form can be checked, timed and weighed like any other.

What is compiled is the call that is timed: `forward`, or `decode` for a decode step, with torch's default settings and
for the shapes of the case alone. Where torch cannot follow the code it breaks the graph there and goes on in plain
Python: how often is recorded. A form of which nothing was compiled is no compiled form, and ends as a failure.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from ..variants.compilers import first_line, lacks_of_cpu
from .errors import BenchError

if TYPE_CHECKING:
    from ..variants.api import Variant
    from .case import Case

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def compiled(attn: Variant, mode: str) -> Variant:
    """The same variant with its timed method compiled. That happens at its first call, and at none after."""
    name = "decode" if mode == "decode" else "forward"
    form = copy.copy(attn)
    object.__setattr__(form, name, torch.compile(getattr(attn, name)))  # variants are frozen
    return form


def reasons_against(attn: Variant, case: Case) -> list[str]:
    """Why a variant cannot be compiled here; [] where it can be tried."""
    if attn.compiles:
        return ["compiles its kernel by itself: measure it eager"]
    return list(_lacks(case.device.split(":")[0]))


@contextlib.contextmanager
def from_scratch() -> Iterator[None]:
    """Compiles as if for the first time, whatever torch has kept of earlier runs. Raises BenchError where it fails.

    What is loaded stays usable when its files are gone.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._dynamo.utils import counters
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    before = {name: os.environ.get(name) for name in CACHES}
    home = cache_dir()
    os.makedirs(home, exist_ok=True)
    counters.clear()
    with tempfile.TemporaryDirectory(prefix="attnbench-", dir=home, ignore_cleanup_errors=True) as scratch:
        for name in CACHES:
            os.environ[name] = os.path.join(scratch, name)
        try:
            yield
        except (TorchDynamoException, CppCompileError, InvalidCxxCompiler) as error:
            raise BenchError(f"torch.compile failed: {_first_words(error)}") from error
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def graph_breaks() -> int:
    """How many reasons torch found to leave a graph, since `from_scratch` began.

    Raises BenchError where it compiled nothing: every call ran eager.
    """
    from torch._dynamo.utils import counters

    breaks = counters["graph_break"]
    if not counters["stats"]["unique_graphs"]:
        why = next(iter(breaks), "it found nothing to compile")
        raise BenchError(f"torch.compile compiled nothing of it: {first_line(str(why))}")
    return sum(breaks.values())


def _first_words(error: BaseException) -> str:
    """Of the innermost cause: what torch wraps around it says where it was, not what it was."""
    cause: Any = error
    while (inner := getattr(cause, "inner_exception", None)) is not None:
        cause = inner
    line = first_line(str(cause))
    return line if cause is error and line else f"{type(cause).__name__}: {line}"


@functools.cache
def _lacks(device: str) -> tuple[str, ...]:
    """What compiling needs and this machine does not have."""
    if device != "cpu":
        from torch.utils._triton import has_triton

        return () if has_triton() else ("torch.compile needs Triton, and torch finds none that works here",)
    return tuple(f"torch.compile needs {what}: {why}" for what, why in lacks_of_cpu())
