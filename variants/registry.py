"""Finds variants and makes them by name.

Variants come from the folders of this package, from the entry-point group `attnbench.variants`, and from plugin files.
A module that fails to import is kept in `failures()` and reported; it takes nothing else down with it.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import VariantError, suggest

if TYPE_CHECKING:
    from .api import Variant
    from .declarations import Budget, Complexity, Extra, Identity, Supports

FOLDERS = ("full", "sparse", "linear", "chunked")
ENTRY_POINTS = "attnbench.variants"

_variants: dict[str, type[Variant]] = {}
_failures: dict[str, str] = {}
_discovered = False

T = TypeVar("T", bound="type[Variant]")


def register(
    name: str,
    *,
    family: str,
    kind: str,
    supports: Supports,
    complexity: Complexity,
    paper: str,
    formula: str,
    reduces_to: str = "",
    extras: tuple[Extra, ...] = (),
    tuning: tuple[str, ...] = (),
    position_free: bool = False,
    identities: tuple[Identity, ...] = (),
    compiles: bool = False,
    counts_flops: bool = True,
    budget: Budget | None = None,
) -> Callable[[T], T]:
    """Class decorator that puts a frozen dataclass deriving from Variant on the list.

    Raises VariantError for a name that is taken or not lower_snake_case, an unknown family or kind, or a class that
    is not a frozen dataclass of defaults.
    """
    from .api import Variant
    from .declarations import FAMILIES, KINDS

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise VariantError(f"variant name {name!r} must be lower_snake_case")
    if family not in FAMILIES:
        raise VariantError(f"variant {name}: unknown family {family!r}; {suggest(family, FAMILIES)}")
    if kind not in KINDS:
        raise VariantError(f"variant {name}: unknown kind {kind!r}; {suggest(kind, KINDS)}")

    def decorate(cls: T) -> T:
        if not (issubclass(cls, Variant) and _is_frozen_dataclass(cls)):
            raise VariantError(
                f"variant {name}: {cls.__name__} must derive from Variant and be a @dataclass(frozen=True)"
            )
        fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown := [parameter for parameter in tuning if parameter not in fields]:
            raise VariantError(f"variant {name}: tuning names {unknown[0]!r}, which is no parameter of it")
        if supports.varlen and (cls.forward_varlen is Variant.forward_varlen or extras):
            raise VariantError(f"variant {name}: varlen needs a `forward_varlen` of its own, which takes no extras")
        bare = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]  # type: ignore[arg-type]
        if bare:
            raise VariantError(f"variant {name}: the parameters {', '.join(bare)} need defaults")
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            _check_plain(name, field.name, field.default)
        taken = _variants.get(name)
        if taken is not None and _origin(taken) != _origin(cls):
            raise VariantError(f"variant name {name!r} is taken by {_origin(taken)}; choose another")
        cls.name, cls.family, cls.kind, cls.supports = name, family, kind, supports
        cls.complexity, cls.paper, cls.formula = complexity, paper, formula
        cls.reduces_to, cls.extras, cls.identities = reduces_to, extras, identities
        cls.tuning, cls.position_free = tuning, position_free
        cls.compiles, cls.counts_flops, cls.budget = compiles, counts_flops, budget
        _variants[name] = cls
        return cls

    return decorate


def _is_frozen_dataclass(cls: Any) -> bool:
    return dataclasses.is_dataclass(cls) and bool(getattr(cls, "__dataclass_params__").frozen)  # noqa: B009 - untyped


def _origin(cls: type) -> str:
    module = sys.modules.get(cls.__module__)
    return f"{getattr(module, '__file__', None) or cls.__module__}:{cls.__qualname__}"


def names() -> list[str]:
    """Every registered variant, by family and then by name."""
    discover()
    return sorted(_variants, key=lambda name: (FOLDERS.index(_variants[name].family), name))


def variant_class(name: str) -> type[Variant]:
    """The class behind a name. Raises VariantError that lists what exists, and what failed to import."""
    discover()
    if name not in _variants:
        lost = "".join(f" (Not loaded: {where}: {why}.)" for where, why in _failures.items())
        raise VariantError(f"unknown variant {name!r}; {suggest(name, _variants)}{lost}")
    return _variants[name]


def get(spec: str, /, **params: Any) -> Variant:
    """A variant by name, or by name with parameters as the command line writes it.

    `get("sliding_window", window_size=128)` and `get("sliding_window(window_size=128)")` are the same. Raises
    VariantError for an unknown name or parameter, or a value that the variant refuses.
    """
    name, written = parse_spec(spec)
    cls = variant_class(name)
    params = {**written, **params}
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key, value in params.items():
        if key not in fields:
            raise VariantError(f"{name} has no parameter {key!r}; {suggest(key, fields)}")
        default = fields[key].default
        _check_plain(name, key, value)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            params[key] = float(value)
        elif default is not None and type(value) is not type(default):
            raise VariantError(f"{name}: {key} must be of type {type(default).__name__}, not {value!r}")
    return cls(**params)


def _check_plain(name: str, key: str, value: Any) -> None:
    """A parameter becomes part of every record: it must be plain data that JSON can hold."""
    if not (
        value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
    ):
        raise VariantError(f"{name}: {key} must be a whole or finite number, text, True, False or None, not {value!r}")


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """`name` or `name(parameter=literal, …)` -> the name and its parameters. Nothing is evaluated but literals."""
    form = f"{spec!r} is not a variant: write it as name or name(parameter=value, …)"
    try:
        node = ast.parse(spec.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise VariantError(form) from None
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise VariantError(form)
    params: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise VariantError(form)
        try:
            params[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            raise VariantError(
                f"in {spec!r}, {keyword.arg} must be a plain value such as 128, 0.5, True or 'flash'"
            ) from None
    return node.func.id, params


def split_specs(text: str) -> list[str]:
    """`a,b(x=1,y=2),c` -> ["a", "b(x=1,y=2)", "c"]: splits at the commas outside brackets and quotes."""
    return [part.strip() for part in re.findall(r"(?:[^,(]|\([^)]*\)?)+", text) if part.strip()]


def failures() -> dict[str, str]:
    """Modules that should have brought variants and failed to import: where -> why."""
    discover()
    return dict(_failures)


def discover() -> None:
    """Imports everything that may hold a variant, once."""
    global _discovered
    if _discovered:
        return
    _discovered = True
    for folder in FOLDERS:
        for path in sorted((Path(__file__).parent / folder).glob("[!_]*.py")):
            module = f"{__package__}.{folder}.{path.stem}"
            _attempt(f"variants/{folder}/{path.name}", functools.partial(importlib.import_module, module))
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        _attempt(f"entry point {entry.name} = {entry.value}", entry.load)


def _attempt(where: str, load: Callable[[], Any]) -> None:
    before = set(_variants)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for answers, JSON among them
            load()
    except (Exception, SystemExit) as error:
        # Whatever a foreign module raises must not take the others down: it is kept, and shown by `list` and `run`.
        _failures[where] = f"{type(error).__name__}: {error}"
        for name in set(_variants) - before:
            del _variants[name]


def load_plugin(path: str | Path) -> list[str]:
    """Imports a file that registers variants; returns the names it brought.

    Raises VariantError where the file cannot be read, raises at import, or registers nothing.
    """
    discover()
    try:
        path = Path(path).resolve()
        there = path.is_file()
    except (ValueError, OSError):  # a null byte, a name too long
        there = False
    if not there:
        raise VariantError(f"plugin {path} does not exist or is not a file")
    name = f"attnbench_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sorted(n for n, cls in _variants.items() if cls.__module__ == name)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise VariantError(f"plugin {path} must be a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = set(_variants)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        for added in set(_variants) - before:
            del _variants[added]
        raise VariantError(f"plugin {path} raised {type(error).__name__} at import: {error}") from error
    brought = sorted(set(_variants) - before)
    if not brought:
        del sys.modules[name]
        raise VariantError(f"plugin {path} registers no variant; decorate one with attnbench.register")
    return brought
