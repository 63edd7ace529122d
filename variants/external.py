"""Variants that run a kernel of another library: what it computes is another variant's definition, how is theirs.

A library is looked for without importing it, and imported, quietly, only where one of its kernels is to run: `list`,
`show` and a refusal stay quick.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from .api import CaseLike, State, Variant, VariantError


class External(Variant):
    """Base of variants that run a kernel of another library. Their refusals name every reason, not the first alone."""

    modules: ClassVar[tuple[str, ...]]
    """Modules of the library, any one of which will do, in the order in which they are looked for."""
    install: ClassVar[str]
    """What installs the library, e.g. "pip install natten"."""

    def reasons_against(self, case: CaseLike) -> list[str]:
        # what the library lacks is said even where `supports` rules the case out already: a user wants the whole list
        reasons = super().reasons_against(case)
        return reasons + [reason for reason in self.refuses(case) if reason not in reasons]

    def refuses(self, case: CaseLike) -> list[str]:
        reasons = self.missing()
        if case.device.startswith("cuda"):
            if not torch.cuda.is_available():
                reasons.append("torch finds no CUDA device here")
            elif not reasons:
                reasons += self.broken()
        return reasons + self.limits(case)

    def missing(self) -> list[str]:
        """Why the library is not here, found without importing it: [] where it is."""
        if any(installed(module) for module in self.modules):
            return []
        return [f"{self.modules[0].split('.')[0]} is not installed: {self.install}"]

    def broken(self) -> list[str]:
        """Why the library that is here cannot be used: it is imported to find out."""
        problem = load(self.home())[1]
        return [problem] if problem else []

    def home(self) -> str:
        """The module that the kernel is taken from."""
        return next(module for module in self.modules if installed(module))

    def limits(self, case: CaseLike) -> list[str]:
        """Sizes of a case that the kernel does not take."""
        return []

    def library(self, q: Tensor) -> Any:
        """The library's module, imported, for a call on these tensors.

        Raises VariantError where it is missing or broken, or for a dtype or a device that its kernel does not take.
        """
        self.check_call(q)
        library, problem = load(self.home())
        if library is None:
            raise VariantError(f"{self.name}: {problem}")
        return library

    def check_call(self, q: Tensor) -> None:
        self.check_device(q)
        self.check_dtype(q)
        for reason in self.missing():
            raise VariantError(f"{self.name}: {reason}")

    def check_device(self, q: Tensor) -> None:
        if q.device.type not in self.supports.devices:
            raise VariantError(f"{self.name}: runs on {', '.join(self.supports.devices)}, not on {q.device.type}")

    def check_dtype(self, q: Tensor) -> None:
        dtype = str(q.dtype).removeprefix("torch.")
        if dtype not in self.supports.dtypes:
            raise VariantError(f"{self.name}: runs in {', '.join(self.supports.dtypes)}, not {dtype}")


class Adapter(External):
    """Base of variants that compute what another one, `method`, defines: definition, counts and kept state are its."""

    @property
    def method(self) -> Variant:
        """The variant that this one computes, with this one's parameters."""
        raise TypeError(f"{type(self).__name__} must define `method`")

    def weights(self, q: Tensor, k: Tensor, *, causal: bool, scale: float, rows: Tensor, **extras: Tensor) -> Tensor:
        return self.method.weights(q, k, causal=causal, scale=scale, rows=rows, **extras)

    def definition(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = False,
        scale: float | None = None,
        rows: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
        **extras: Tensor,
    ) -> Tensor:
        """That of `method`."""
        self.check(q, k, v, causal=causal, extras=extras)
        return self.method.definition(q, k, v, causal=causal, scale=scale, rows=rows, dtype=dtype, **extras)

    def visible_pairs(self, n_q: int, n_k: int, causal: bool) -> int:
        return self.method.visible_pairs(n_q, n_k, causal)

    def flops_needed(self, case: CaseLike) -> int:
        return self.method.flops_needed(case)

    def keep(self, state: State) -> State:
        return self.method.keep(state)


def installed(module: str) -> bool:
    """Whether a module can be found, without importing it or its parents."""
    top, _, rest = module.partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module that is loaded and has no spec
        return False
    if spec is None:
        return False
    if not rest:
        return spec.origin is not None  # a folder without __init__.py, such as one that holds other packages, has none
    path = rest.replace(".", "/")
    places = spec.submodule_search_locations or ()
    return any(Path(place, path + end).is_file() for place in places for end in (".py", "/__init__.py"))


@functools.cache
def load(module: str) -> tuple[Any, str]:
    """(the module, "") or (None, why it cannot be imported), in one line. Nothing is printed."""
    name = module.split(".")[0]
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about devices and optional parts, once for each of its modules
            return importlib.import_module(module), ""
    except Exception as error:  # whatever a broken build raises is the reason
        said = " ".join(str(error).split())
        return None, f"{name} cannot be imported: {type(error).__name__}: {said}"
    finally:
        log.setLevel(level)
